package config

import (
	"context"
	"crypto/sha256"
	"io"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// How changes are gathered: editors and kubectl write several files, or one in
// several steps.
const (
	quiet       = 100 * time.Millisecond // without a further event
	longest     = time.Second            // from the first event
	pollChanges = 5 * time.Second        // for file systems that send no events
)

// Seen is what files were at one moment.
type Seen [sha256.Size]byte

// See looks at the files that [Load] would read from paths: before they are read, so
// that [Watch] knows what has been.
func See(paths []string) Seen { return fingerprint(paths) }

// Watch calls changed whenever the content that [Load] would read from paths
// has changed, since it was seen first, until ctx is done. Files that are replaced,
// links that are swapped as in a ConfigMap's mount, and folders that come later are
// noticed, within seconds also where nothing tells of them: file systems without events,
// and users whose processes have no watchers left (Linux gives each 128). It returns
// when it watches; a goroutine goes on, which ctx ends.
func Watch(ctx context.Context, paths []string, since Seen, changed func()) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		w = nil
	}
	watch(ctx, w, paths, since, changed)
}

// watch does so by a watcher, which it closes in the end; nil: there is none.
func watch(ctx context.Context, w *fsnotify.Watcher, paths []string, since Seen, changed func()) {
	last := since
	names := watchAll(w, paths)
	var events <-chan fsnotify.Event
	var errs <-chan error
	if w != nil {
		events, errs = w.Events, w.Errors
	}
	go func() {
		if w != nil {
			defer w.Close()
		}
		poll := time.NewTicker(pollChanges)
		defer poll.Stop()
		var settle <-chan time.Time
		var first time.Time
		look := func() {
			settle, first = nil, time.Time{}
			names = watchAll(w, paths)
			if f := fingerprint(paths); f != last {
				last = f
				changed()
			}
		}
		look() // there may be news that came before anybody watched
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-events:
				if !names.concern(e) {
					continue
				}
				if first.IsZero() {
					first = time.Now()
				}
				settle = time.After(min(quiet, max(0, longest-time.Since(first))))
			case <-errs: // an overflow, say: the poll will see
			case <-settle:
				look()
			case <-poll.C:
				look()
			}
		}
	}()
}

// onlyWriter hides what else a writer can do, so that copying uses the buffer.
type onlyWriter struct{ io.Writer }

// watchAll watches every folder in which a change could matter: those given,
// those below them, by links too, and the parents of all, since a path may be
// replaced. Watching a folder twice does nothing, and watching what a link leads to
// now takes the place of what it led to. It returns the names of the files to read; none
// without a watcher.
func watchAll(w *fsnotify.Watcher, paths []string) fileNames {
	if w == nil {
		return nil
	}
	for _, p := range paths {
		w.Add(filepath.Dir(filepath.Clean(p)))
	}
	files, folders, _ := find(paths)
	for _, f := range folders {
		w.Add(f)
	}
	names := fileNames{}
	for _, f := range files {
		names[filepath.Base(f.path)] = true
		if real, err := filepath.EvalSymlinks(f.path); err == nil {
			names[filepath.Base(real)] = true
		}
	}
	return names
}

// fileNames are the names of files in folders that are watched, and of what they lead to.
type fileNames map[string]bool

// concern reports whether an event may be news. To write to a file that nobody reads is
// none: an access log may lie beside the configuration. Whatever comes or goes may be a
// folder, or a link; a file that comes may be one to read, and is waited for until it is
// written, as others are.
func (n fileNames) concern(e fsnotify.Event) bool {
	if e.Has(fsnotify.Create) {
		n[filepath.Base(e.Name)] = true // until the names are looked up
	}
	return e.Op != fsnotify.Write || n[filepath.Base(e.Name)]
}

// fingerprint hashes all content, and what cannot be read, without holding it.
func fingerprint(paths []string) Seen {
	h := sha256.New()
	buffer := make([]byte, 32<<10)
	findings := eachFile(paths, func(path string, _ int, r io.Reader) error {
		h.Write([]byte(path + "\x00"))
		_, err := io.CopyBuffer(onlyWriter{h}, r, buffer)
		h.Write([]byte{0})
		return err
	})
	for _, f := range findings {
		h.Write([]byte(f.String() + "\x00"))
	}
	return Seen(h.Sum(nil))
}
