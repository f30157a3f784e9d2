package gossip

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Whoever is started again while nobody else can be reached shall know what it
// knew before: the records of the others are kept on disk. Their owners are taken
// for dead from then on, until one of them is heard; traffic and probes find out
// which endpoints still answer, as of others that die.

const (
	keptFile = "records.json"

	// keepEvery is how often it is looked whether there is something new to keep.
	keepEvery = 10 * time.Second

	// maxKept bounds the file, in bytes: maxOwners records of a few endpoints each.
	maxKept = 64 << 20
)

// keptRecord is a record on disk.
type keptRecord struct {
	*record
	Gone int64 `json:"gone,omitempty"` // Unix milliseconds: since when its owner is; 0: it lived when the file's time was set last
}

// restore takes in what an earlier life has kept, or the process before has handed on. Start
// calls it before anybody else can say something. An error is for the log: nothing depends
// on it.
func (g *Gossip) restore() error {
	file := g.options.Records
	if file != nil {
		// Nothing is in it if the process before had no gossip, or was killed.
		if info, err := file.Stat(); err == nil && info.Size() == 0 {
			file = nil
		}
	}
	handed := file != nil
	if !handed {
		if g.options.Dir == "" {
			return nil
		}
		var err error
		if file, err = os.Open(filepath.Join(g.options.Dir, keptFile)); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		defer file.Close()
	} else if _, err := file.Seek(0, io.SeekStart); err != nil { // whoever has written it shares the place
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	list := json.NewDecoder(io.LimitReader(file, maxKept+maxHanded))
	if begin, err := list.Token(); err != nil || begin != json.Delim('[') {
		return fmt.Errorf("%s: no list: %w", file.Name(), cmp.Or(err, errRecord))
	}
	now, restored := time.Now(), 0
	var wrong error
	for list.More() {
		var raw json.RawMessage
		if err := list.Decode(&raw); err != nil {
			wrong = err
			break
		}
		var kept struct {
			Gone int64 `json:"gone"`
		}
		r, err := decode(raw)
		if err == nil {
			err = json.Unmarshal(raw, &kept)
		}
		if err != nil {
			wrong = err // the others are none the worse
			continue
		}
		since := info.ModTime()
		if kept.Gone != 0 {
			since = time.UnixMilli(kept.Gone)
		}
		if r.Owner != g.name && g.merge(r, max(now.Sub(since), 0)) { // the clock may have been put back
			restored++
		}
	}
	if handed {
		g.takeOver(list)
	}
	if restored > 0 {
		g.log.Info("gossip: what others announced is known from the disk", "records", restored, "age", now.Sub(info.ModTime()).Round(time.Second))
	}
	if wrong != nil {
		return fmt.Errorf("%s: %w", file.Name(), wrong)
	}
	return nil
}

// keep keeps the records of the others on disk. Start starts it; it ends with ctx,
// after a last look.
func (g *Gossip) keep(ctx context.Context) {
	every := keepEvery
	if g.options.Fast {
		every = 50 * time.Millisecond
	}
	t := time.NewTicker(every)
	defer t.Stop()
	written, failing := uint64(0), false
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case <-t.C:
		}
		list, sum := g.toKeep()
		path, at := filepath.Join(g.options.Dir, keptFile), time.Now()
		var err error
		switch {
		case len(list) == 0:
			continue // nothing to lose
		case sum == written:
			err = os.Chtimes(path, at, at)
		default:
			err = writeKept(path, list)
		}
		if err != nil {
			sum = 0
			if !failing {
				g.log.Warn("gossip: what others announce cannot be kept in stateDir; a restart without them would know nothing of it", "error", err)
			}
		}
		written, failing = sum, err != nil
	}
}

// WriteRecords writes what others announce, and who of them lives, for [Options].Records of
// the process that takes this one's place.
func (g *Gossip) WriteRecords(w io.Writer) error {
	list, _ := g.toKeep()
	if err := encodeKept(w, list, maxKept); err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(g.toHandOn())
}

// toKeep returns the records of the others, and a sum that changes with them.
func (g *Gossip) toKeep() (list []keptRecord, sum uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	for owner, r := range g.records {
		gone := g.goneFor(owner, now)
		if owner == g.name || gone >= forgetAfter {
			continue
		}
		k := keptRecord{record: r}
		if gone > 0 {
			k.Gone = now.Add(-gone).UnixMilli()
		}
		list = append(list, k)
		sum += maphash.Comparable(keptSeed, struct {
			owner   string
			version uint64
			gone    int64 // in minutes: clocks are put right by less
		}{owner, r.Version, k.Gone / time.Minute.Milliseconds()})
	}
	return list, max(sum, 1)
}

var keptSeed = maphash.MakeSeed()

// writeKept writes the file, without those for which there is no room. A reader sees
// the one before or the one after.
func writeKept(path string, list []keptRecord) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// One name, so that what a crash leaves behind is written over by the next one.
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = encodeKept(file, list, maxKept)
	if err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		os.Remove(file.Name())
	}
	return err
}

// encodeKept writes one record after the other, in so many bytes at most: all of them at
// once would take as much memory as a large mesh's proxies need for everything else.
func encodeKept(file io.Writer, list []keptRecord, most int) error {
	w, size := bufio.NewWriter(file), 0
	separator := "["
	for _, k := range list {
		b, err := json.Marshal(k)
		if err != nil {
			return err
		}
		if size += len(b) + 2; size > most-2 {
			size -= len(b) + 2
			continue
		}
		w.WriteString(separator) // Flush tells of errors
		w.Write(b)
		separator = ",\n"
	}
	if separator == "[" {
		w.WriteString(separator)
	}
	w.WriteString("]")
	return w.Flush()
}
