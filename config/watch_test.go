package config

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

// TestWatch_Links: below a folder that a link leads to, changes are noticed at once,
// and so they are when it leads elsewhere.
func TestWatch_Links(t *testing.T) {
	dir := t.TempDir()
	for _, release := range []string{"1", "2"} {
		if err := os.MkdirAll(filepath.Join(dir, "releases", release, "below"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	current := filepath.Join(dir, "current")
	lead := func(to string) {
		t.Helper()
		if err := os.Symlink(filepath.Join("releases", to), current+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(current+".new", current); err != nil {
			t.Fatal(err)
		}
	}
	write := func(release, name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "releases", release, name), []byte(time.Now().String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lead("1")
	write("1", "a.yaml")
	paths, changed := []string{current}, make(chan struct{}, 10)
	Watch(t.Context(), paths, See(paths), func() { changed <- struct{}{} })
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"a file is written", func() { write("1", "a.yaml") }},
		{"one comes below", func() { write("1", "below/b.yaml") }},
		{"the link leads elsewhere", func() { lead("2") }},
		{"a file is written there", func() { write("2", "below/c.yaml") }},
	} {
		step.do()
		select {
		case <-changed:
		case <-time.After(pollChanges - 2*time.Second):
			t.Fatalf("%s: nobody notices until it is looked for", step.what)
		}
	}
}

// TestWatch_NoWatcher: where there is none to be had, changes are looked for.
func TestWatch_NoWatcher(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.yaml")
	must(os.WriteFile(file, []byte("1"), 0o644))
	synctest.Test(t, func(t *testing.T) {
		paths, changed := []string{file}, 0
		watch(t.Context(), nil, paths, See(paths), func() { changed++ })
		synctest.Wait() // for its first look, which may see a file half written
		for n := range 3 {
			must(os.WriteFile(file, fmt.Append(nil, "more ", n), 0o644))
			time.Sleep(pollChanges)
			synctest.Wait()
			if changed != n+1 {
				t.Fatalf("%d changes are told of, want %d", changed, n+1)
			}
		}
	})
}

// TestWatch_Beside: to write to another file of a folder that is watched is no news, since
// that may be a log; one that comes there is, with all that is written to it first, and so
// is a file that a link leads to.
func TestWatch_Beside(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.yaml", "target", "access.log"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("target", filepath.Join(dir, "link.yaml")); err != nil {
		t.Fatal(err)
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	names := watchAll(w, []string{dir})
	for _, tt := range []struct {
		name string
		op   fsnotify.Op
		want bool
	}{
		{"access.log", fsnotify.Write, false},
		{"access.log", fsnotify.Rename, true}, // it may be a link that a file was reached by
		{"b.yaml", fsnotify.Create, true},
		{"b.yaml", fsnotify.Write, true}, // it is not there whole yet
		{"a.yaml", fsnotify.Write, true},
		{"target", fsnotify.Write, true},
		{"below", fsnotify.Create, true},
		{"below", fsnotify.Chmod, true},
		{"..data", fsnotify.Create, true},
	} {
		if got := names.concern(fsnotify.Event{Name: filepath.Join(dir, tt.name), Op: tt.op}); got != tt.want {
			t.Errorf("%v of %s is news: %v", tt.op, tt.name, got)
		}
	}
}
