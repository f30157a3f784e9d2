package gossip

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestKept: who starts again alone knows what it knew before, and how long the
// owners have been gone; it believes them again when they come.
func TestKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gossip")
	keeping := func(o *Options) { o.Dir = dir }
	a, x := start(t, "a", nil), start(t, "x", nil)
	a.Announce(endpoints(2, "a.ns"))
	b := start(t, "b", func(o *Options) { keeping(o); joining(a, x)(o) })
	b.Announce(endpoints(1, "b.ns"))
	x.Announce(endpoints(1, "x.ns"))
	eventually(t, "b knows both", func() bool { return len(of(b, a)) == 2 && len(of(b, x)) == 1 })
	x.Close()
	eventually(t, "x has died", func() bool { return state(b, x) == stateDead })
	b.mu.Lock()
	b.members[x.name].since = time.Now().Add(-3 * time.Hour)
	b.mu.Unlock()
	b.Close()
	address := a.Address()
	a.Close()

	again := start(t, "b", keeping)
	for _, want := range []struct {
		owner *Gossip
		n     int
		gone  time.Duration
	}{{a, 2, 0}, {x, 1, 3 * time.Hour}} {
		got := of(again, want.owner)
		if len(got) != want.n || !got[0].OwnerDead || got[0].OwnerGone < want.gone || got[0].OwnerGone > want.gone+10*time.Minute {
			t.Errorf("of %s: %+v, want %d endpoints of an owner that has been gone for %v", want.owner.name, got, want.n, want.gone)
		}
	}
	if got := of(again, again); len(got) > 0 {
		t.Errorf("it announces %+v, which nobody has asked for", got)
	}
	back := start(t, "a", func(o *Options) { o.Bind = address; joining(again)(o) })
	back.Announce(endpoints(3, "a.ns"))
	eventually(t, "a is back", func() bool { got := of(again, back); return len(got) == 3 && !got[0].OwnerDead })
}

// TestKept_NothingHandedOn: a process before that had no gossip, or was killed, has handed on
// nothing, and what is on the disk holds.
func TestKept_NothingHandedOn(t *testing.T) {
	dir := t.TempDir()
	if err := writeKept(filepath.Join(dir, keptFile), []keptRecord{{record: &record{Owner: "x", Version: 1, Cluster: "c", Endpoints: toRecord(endpoints(1, "x.ns"))}}}); err != nil {
		t.Fatal(err)
	}
	records, err := os.Create(filepath.Join(t.TempDir(), "records"))
	if err != nil {
		t.Fatal(err)
	}
	defer records.Close()
	a := start(t, "a", func(o *Options) { o.Dir, o.Records = dir, records })
	if got := a.Endpoints(); len(got) != 1 || got[0].Owner != "x" {
		t.Errorf("%+v, want x' endpoint", got)
	}
}

// TestKept_LongAlive: a file that has not changed for long is as new as the proxy was
// when it was there last.
func TestKept_LongAlive(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, keptFile)
	a := start(t, "a", func(o *Options) { o.Dir = dir })
	a.merge(&record{Owner: "x", Version: 1, Cluster: "c", Endpoints: toRecord(endpoints(1, "x.ns"))}, 0)
	written := func() time.Time {
		info, err := os.Stat(path)
		if err != nil {
			return time.Time{}
		}
		return info.ModTime()
	}
	eventually(t, "it is written", func() bool { return !written().IsZero() })
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the time is set", func() bool { return written().After(old.Add(time.Minute)) })
}

// TestKept_HalfWritten: what a process leaves behind that is killed while it writes takes
// room once, however often that happens.
func TestKept_HalfWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, keptFile)
	if err := os.WriteFile(path+".new", []byte(strings.Repeat("x", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeKept(path, []keptRecord{{record: &record{Owner: "x", Version: 1}}}); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || len(files) != 1 || len(data) > 100 {
		t.Errorf("%d bytes, %v; of %v", len(data), err, files)
	}
}

// TestKept_Broken: a file that cannot be used, or be written, keeps nobody from
// starting.
func TestKept_Broken(t *testing.T) {
	for name, content := range map[string]string{
		"half":     `[{"owner":"x","version":1`,
		"no list":  `{"owner":"x"}`,
		"no owner": `[{"version":1}]`,
		"too new":  `[{"owner":"x","version":18446744073709551615}]`,
		"nothing":  "",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, keptFile), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			a := start(t, "a", func(o *Options) { o.Dir = dir })
			if knows(a, "x") {
				t.Error("it is believed")
			}
			a.merge(&record{Owner: "y", Version: 1}, 0)
			eventually(t, "it is replaced", func() bool {
				data, _ := os.ReadFile(filepath.Join(dir, keptFile))
				return strings.Contains(string(data), `"owner":"y"`)
			})
		})
	}
	t.Run("one of several", func(t *testing.T) {
		dir := t.TempDir()
		content := `[{"owner":"w","version":1}, {"owner":"x","version":18446744073709551615}, {"owner":"y","version":1}, {"owner":`
		if err := os.WriteFile(filepath.Join(dir, keptFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if a := start(t, "a", func(o *Options) { o.Dir = dir }); !knows(a, "w") || !knows(a, "y") || knows(a, "x") {
			t.Error("what can be used is not, or what cannot is")
		}
	})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a := start(t, "a", func(o *Options) { o.Dir = filepath.Join(file, "gossip") })
	a.merge(&record{Owner: "y", Version: 1}, 0)
	b := start(t, "b", joining(a))
	b.Announce(endpoints(1, "b.ns"))
	eventually(t, "it works without", func() bool { return len(of(a, b)) == 1 })
}

// TestKept_TooMuch: of more than is read at the start, as much is written as will be.
func TestKept_TooMuch(t *testing.T) {
	var list []keptRecord
	for _, owner := range []string{"a", strings.Repeat("b", 500), "c", strings.Repeat("d", 500), "e"} {
		list = append(list, keptRecord{record: &record{Owner: owner, Version: 1}})
	}
	for most, want := range map[int]string{400: "ace", 1 << 20: "abcde", 3: ""} {
		var file bytes.Buffer
		if err := encodeKept(&file, list, most); err != nil {
			t.Fatal(err)
		}
		var read []record
		if err := json.Unmarshal(file.Bytes(), &read); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, r := range read {
			got += r.Owner[:1]
		}
		if got != want || file.Len() > most {
			t.Errorf("%d bytes for %q, want at most %d for %q", file.Len(), got, most, want)
		}
	}
}
