package history

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A revision is a file: a line of JSON, the Revision, and then the content by
// gzip, in gob. It is written beside its place and moved there, so that there is
// never half of one.

// suffix is that of a revision's file.
const suffix = ".revision"

// maxContent bounds what a file may unfold to.
const maxContent = 1 << 30

// holdFile keeps the Hold.
const holdFile = "hold.json"

func (s *Store) path(number uint64) string {
	return filepath.Join(s.dir, fmt.Sprintf("%08d%s", number, suffix))
}

// write keeps an entry, with its content, compressed, if that is to be kept.
func (s *Store) write(e *entry, c *content, keep bool) error {
	if !keep {
		if s.dir == "" {
			return nil
		}
		return s.writeFile(e, nil)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if err := gob.NewEncoder(z).Encode(c); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	if b.Len() > s.most.bytes/4 {
		s.write(e, nil, false)
		return fmt.Errorf("it takes %d bytes, compressed; at most %d are kept", b.Len(), s.most.bytes/4)
	}
	e.Kept, e.size, e.data = true, b.Len(), bytes.Clone(b.Bytes()) // a buffer has room for more
	if s.dir == "" {
		return nil
	}
	err := s.writeFile(e, b.Bytes())
	if err == nil {
		e.data = nil
	}
	return err
}

// forgetUnwritten gives up what is in memory alone since the disk does not take it, but
// for what is in force: the next revision is compared with that.
func (s *Store) forgetUnwritten() {
	current := s.inForce()
	for _, e := range s.list {
		if s.dir != "" && e.data != nil && e != current {
			e.Kept, e.size, e.data = false, 0, nil
		}
	}
}

func (s *Store) writeFile(e *entry, body []byte) error {
	head, err := json.Marshal(e.Revision)
	if err != nil {
		return err
	}
	return replace(s.path(e.Number), slices.Concat(head, []byte("\n"), body))
}

// replace puts a file in the place of another as a whole.
func replace(path string, data []byte) error {
	err := os.WriteFile(path+".new", data, 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		os.Remove(path + ".new") // half of one takes room, too, and nobody would ever look for it
	}
	return err
}

// content reads the content of an entry.
func (s *Store) content(e *entry) (*content, error) {
	if !e.Kept {
		return nil, fmt.Errorf("revision %d: its texts are not kept any longer, or hold a Secret among other things", e.Number)
	}
	body := e.data
	if body == nil {
		data, err := os.ReadFile(s.path(e.Number))
		if err != nil {
			return nil, err
		}
		_, body, _ = bytes.Cut(data, []byte("\n"))
	}
	c, err := unfold(body)
	if err != nil {
		return nil, fmt.Errorf("revision %d: %w", e.Number, err)
	}
	return c, nil
}

// unfold reads a content.
func unfold(body []byte) (*content, error) {
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	var c content
	if err := gob.NewDecoder(io.LimitReader(z, maxContent)).Decode(&c); err != nil {
		return nil, err
	}
	return &c, nil
}

// drop gives the texts of an entry up; that there was one stays known.
func (s *Store) drop(e *entry) {
	if !e.Kept {
		return
	}
	e.Kept, e.size, e.data = false, 0, nil
	if s.dir != "" {
		if err := s.writeFile(e, nil); err != nil {
			s.log.Error("texts of an old revision are not given up", "revision", e.Number, "error", err)
		}
	}
}

// remove forgets an entry.
func (s *Store) remove(e *entry) {
	if s.dir == "" {
		return
	}
	if err := os.Remove(s.path(e.Number)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Error("an old revision is not removed", "revision", e.Number, "error", err)
	}
}

// load reads what there is in the folder.
func (s *Store) load() error {
	names, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, n := range names { // sorted, so by number
		if !strings.HasSuffix(n.Name(), suffix) {
			continue
		}
		e, err := readHead(filepath.Join(s.dir, n.Name()))
		if err != nil || s.path(e.Number) != filepath.Join(s.dir, n.Name()) {
			s.log.Warn("not a revision of the configuration", "file", n.Name(), "error", err)
			continue
		}
		s.list = append(s.list, e)
		s.next = e.Number + 1
	}
	data, err := os.ReadFile(filepath.Join(s.dir, holdFile))
	if err == nil {
		err = json.Unmarshal(data, &s.hold)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("what was rolled back to cannot be read", "error", err)
		s.hold = Hold{}
	}
	return nil
}

// readHead reads the first line of a revision's file.
func readHead(path string) (*entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(io.LimitReader(f, 1<<20)).ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	e := &entry{}
	if err := json.Unmarshal(line, &e.Revision); err != nil {
		return nil, err
	}
	e.size = int(info.Size()) - len(line)
	e.Kept = e.size > 0
	return e, nil
}

func (s *Store) writeHold() error {
	if s.dir == "" {
		return nil
	}
	file := filepath.Join(s.dir, holdFile)
	if s.hold == (Hold{}) { // a full disk takes that, too
		if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	data, err := json.Marshal(s.hold)
	if err != nil {
		return err
	}
	return replace(file, data)
}
