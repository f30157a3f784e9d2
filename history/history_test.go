package history

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var quiet = slog.New(slog.DiscardHandler)

func resource(name string, hash uint64) Resource {
	return Resource{Kind: "Service", Namespace: "default", Name: name, File: "f.yaml", Line: 1, Hash: hash}
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func add(s *Store, hash, text string, refused bool, list ...Resource) Revision {
	r := Revision{Hash: hash, Origin: FromFiles}
	if refused {
		r.Error = "bad"
	}
	return s.Add(r, []File{{Name: "f.yaml", Data: []byte(text)}}, list)
}

// TestStore_Keeps: what was added is there, with what changed against what was in
// force, also after a restart where there is a folder.
func TestStore_Keeps(t *testing.T) {
	for name, dir := range map[string]string{"in memory": "", "on disk": filepath.Join(t.TempDir(), "state", "history")} {
		t.Run(name, func(t *testing.T) {
			s := open(t, dir)
			if s.Current().Number != 0 || len(s.List()) != 0 {
				t.Error("it is not empty")
			}
			add(s, "aaa", "one", false, resource("a", 1), resource("b", 1))
			add(s, "bad", "two", true, resource("a", 2))
			r := add(s, "bbb", "three", false, resource("c", 1), resource("a", 3))
			if got := fmt.Sprint(r.Changes.Added, r.Changes.Removed, r.Changes.Changed); got != "[Service default/c] [Service default/b] [Service default/a]" {
				t.Errorf("changes %s", got)
			}
			s.SetHold(Hold{Revision: 1, Origin: FromRollback, Against: "bbb"})
			if dir != "" {
				if err := os.WriteFile(filepath.Join(dir, "00000009.revision"), []byte("torn"), 0o600); err != nil {
					t.Fatal(err)
				}
				s = open(t, dir)
			}
			list := s.List()
			if len(list) != 3 || list[0].Number != 3 || !list[0].InForce || list[1].InForce || !list[1].Refused() || !list[2].Kept || s.Current().Hash != "bbb" {
				t.Fatalf("list %+v", list)
			}
			if h := s.Hold(); h.Revision != 1 || h.Against != "bbb" {
				t.Errorf("hold %+v", h)
			}
			_, files, resources, err := s.Content(2)
			if err != nil || len(files) != 1 || string(files[0].Data) != "two" || len(resources) != 1 {
				t.Errorf("content %v %v %v", files, resources, err)
			}
			if _, _, _, err := s.Content(7); !errors.Is(err, ErrUnknown) {
				t.Errorf("an unknown revision: %v", err)
			}
			if r := add(s, "ccc", "four", false); r.Number != 4 {
				t.Errorf("number %d, want 4", r.Number)
			}
		})
	}
}

// TestStore_Bounds: the oldest texts go first, what is in force never; mistakes
// push out only mistakes.
func TestStore_Bounds(t *testing.T) {
	for name, dir := range map[string]string{"in memory": "", "on disk": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			s := open(t, dir)
			const revisions, refused = 20, 8
			s.most = bounds{revisions, refused, 16 << 10}
			noise := func(n int) string {
				b := make([]byte, n)
				for i := range b {
					b[i] = byte(rand.N(256))
				}
				return string(b)
			}
			add(s, "good", noise(1<<10), false)
			for i := range refused + 5 {
				add(s, fmt.Sprint(i), noise(3<<10), true)
			}
			list := s.List()
			if n := len(list); n != refused+1 || list[n-1].Hash != "good" || !list[n-1].InForce || !list[n-1].Kept || list[n-2].Kept || !list[0].Kept {
				t.Errorf("%d kept, the last %+v, then %+v", n, list[n-1], list[n-2])
			}
			add(s, "huge", noise(15<<10), false)
			if r := s.List()[0]; r.Kept || !r.InForce {
				t.Errorf("a huge one: %+v", r)
			}
			for i := range revisions + 5 {
				add(s, fmt.Sprint("next", i), noise(100), false)
			}
			if n := len(s.List()); n != revisions {
				t.Errorf("%d revisions, want %d", n, revisions)
			}
			if dir != "" {
				names, _ := os.ReadDir(dir)
				size := int64(0)
				for _, n := range names {
					info, _ := n.Info()
					size += info.Size()
				}
				if len(names) != revisions || size > 2*int64(s.most.bytes) {
					t.Errorf("%d files of %d bytes", len(names), size)
				}
				if again := open(t, dir).List(); !slices.EqualFunc(again, s.List(), func(a, b Revision) bool { return a.Number == b.Number && a.Kept == b.Kept }) {
					t.Error("it reads otherwise than it was written")
				}
			}
		})
	}
}

func TestRedact(t *testing.T) {
	const service = "kind: Service\nmetadata: {name: a}\n"
	for _, tt := range []struct {
		name, text, want string
		n                int
		ok               bool
	}{
		{"none", service, service, 0, true},
		{"between others", service + "---\napiVersion: v1\nkind: Secret\ndata: {a: b}\n---\n" + service, service + "---\n\n\n\n---\n" + service, 1, true},
		{"at first, with a comment", "kind: Secret # mine\nstringData:\n  key: value\n---\n" + service, "\n\n\n---\n" + service, 1, true},
		{"quoted", "\"kind\": \"Secret\"\ndata: {}", "\n", 1, true},
		{"JSON", `{"apiVersion": "v1", "kind": "Secret", "data": {"a": "b"}}` + "\n", "\n", 1, true},
		{"in a List", "kind: List\nitems:\n- kind: Secret\n  data: {}\n", "", 0, false},
		{"other kinds that begin so", "kind: SecretProviderClass\n", "kind: SecretProviderClass\n", 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, n, ok := Redact([]File{{Name: "f", Data: []byte(tt.text)}})
			if ok != tt.ok || n != tt.n {
				t.Fatalf("%d, %v; want %d, %v", n, ok, tt.n, tt.ok)
			}
			if ok && string(got[0].Data) != tt.want {
				t.Errorf("got %q, want %q", got[0].Data, tt.want)
			}
		})
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("kind: Service\n---\nkind: Secret\ndata: {a: b}\n---\nkind: X\n")
	f.Add(`{"kind": "Secret"}`)
	f.Fuzz(func(t *testing.T, text string) {
		got, _, ok := Redact([]File{{Name: "f", Data: []byte(text)}})
		if !ok {
			return
		}
		if a, b := strings.Count(text, "\n"), strings.Count(string(got[0].Data), "\n"); a != b {
			t.Errorf("%d lines became %d", a, b)
		}
		if secret.Match(got[0].Data) {
			t.Errorf("a Secret is left in %q", got[0].Data)
		}
	})
}

// TestStore_Diff: by resources, and within each by lines.
func TestStore_Diff(t *testing.T) {
	s := open(t, "")
	at := func(name string, line int, hash uint64) Resource {
		r := resource(name, hash)
		r.Line = line
		return r
	}
	add(s, "a", "kind: A\nx: 1\n---\nkind: B\ny: 1\nz: 2\n---\nkind: C\n", false, at("a", 1, 1), at("b", 4, 1), at("c", 8, 1))
	add(s, "b", "kind: D\n---\nkind: A\nx: 1\n---\nkind: B\ny: 2\nz: 2\n", false, at("d", 1, 1), at("a", 3, 1), at("b", 6, 2))
	d, err := s.Diff(1, 2)
	if err != nil {
		t.Fatal(err)
	}
	want := []TextChange{
		{"Service default/b", "f.yaml:6", []string{" kind: B", "-y: 1", "+y: 2", " z: 2"}},
		{"Service default/d", "f.yaml:1", []string{"+kind: D"}},
		{"Service default/c", "f.yaml:8", []string{"-kind: C"}},
	}
	if !slices.EqualFunc(d.Lines, want, func(a, b TextChange) bool {
		return a.Resource == b.Resource && a.Source == b.Source && slices.Equal(a.Lines, b.Lines)
	}) {
		t.Errorf("got  %q\nwant %q", d.Lines, want)
	}
	if _, err := s.Diff(1, 9); !errors.Is(err, ErrUnknown) {
		t.Errorf("an unknown revision: %v", err)
	}
}

// TestDiffLines holds that both texts can be read out of a difference.
func TestDiffLines(t *testing.T) {
	for range 200 {
		side := func() (out []string) {
			for range rand.N(12) {
				out = append(out, string(rune('a'+rand.N(4))))
			}
			return out
		}
		a, b := side(), side()
		var left, right []string
		for _, l := range diffMiddle(a, b) {
			if l[0] != '+' {
				left = append(left, l[1:])
			}
			if l[0] != '-' {
				right = append(right, l[1:])
			}
		}
		if !slices.Equal(left, a) || !slices.Equal(right, b) {
			t.Fatalf("%q and %q: %q", a, b, diffMiddle(a, b))
		}
	}
	long := strings.Split(strings.Repeat("x\n", 100)+"y", "\n")
	got := diffLines(long, append(slices.Clone(long[:100]), "z"))
	if want := []string{" x", " x", " x", "-y", "+z"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestStore_Size: what a set of ten thousand resources takes.
func TestStore_Size(t *testing.T) {
	s := open(t, "")
	var text strings.Builder
	var list []Resource
	for i := range 10_000 {
		fmt.Fprintf(&text, "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: service-%d, namespace: team-%d}\nspec:\n  hosts: [service-%d.team-%d.svc.cluster.local]\n  http: [{route: [{destination: {host: service-%d}}], timeout: 5s}]\n---\n", i, i%50, i, i%50, i)
		r := resource(fmt.Sprint("service-", i), rand.Uint64())
		r.Line = 7 * i
		list = append(list, r)
	}
	add(s, "a", text.String(), false, list...)
	t.Logf("%d KiB for %d KiB of text", s.list[0].size>>10, text.Len()>>10)
	if n := s.list[0].size; n > 400<<10 {
		t.Errorf("%d KiB for %d KiB of text", n>>10, text.Len()>>10)
	}
	if _, files, resources, err := s.Content(1); err != nil || string(files[0].Data) != text.String() || !slices.Equal(resources, list) {
		t.Errorf("read otherwise: %v", err)
	}
}

// FuzzUnfold: whatever a file holds is content or an error.
func FuzzUnfold(f *testing.F) {
	s, err := Open("", quiet)
	if err != nil {
		f.Fatal(err)
	}
	add(s, "a", "kind: A\n", false, resource("a", 1))
	good := s.list[0].data
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte("kind: A"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := unfold(data); (c == nil) == (err == nil) {
			t.Errorf("%v, %v", c, err)
		}
	})
}

// TestStore_DiskFull: what a disk does not take is kept as long as it is in force, so that
// what is changed is told of the next one; of those before nothing is.
func TestStore_DiskFull(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "history")
	s := open(t, dir)
	add(s, "aaa", "one", false, resource("a", 1))
	if err := os.RemoveAll(dir); err != nil { // as good as full
		t.Fatal(err)
	}
	add(s, "bbb", "two", false, resource("a", 2))
	if _, files, _, err := s.Content(2); err != nil || string(files[0].Data) != "two" {
		t.Errorf("what is in force: %v, %v", files, err)
	}
	add(s, "bad", "three", true, resource("a", 3))
	r := add(s, "ccc", "four", false, resource("a", 2), resource("b", 1))
	if got := fmt.Sprint(r.Changes.Added, r.Changes.Removed, r.Changes.Changed, r.Changes.More); got != "[Service default/b] [] [] 0" {
		t.Errorf("changes %s", got)
	}
	var kept []uint64
	for _, r := range s.List() {
		if r.Kept && r.Number > 1 {
			kept = append(kept, r.Number)
		}
	}
	if !slices.Equal(kept, []uint64{4}) {
		t.Errorf("kept: %v, want what is in force", kept)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil { // there is room again
		t.Fatal(err)
	}
	add(s, "ddd", "five", false, resource("b", 1))
	s = open(t, dir)
	if _, files, _, err := s.Content(5); err != nil || string(files[0].Data) != "five" {
		t.Errorf("after that: %v, %v", files, err)
	}
}

// TestStore_HoldOver: that nothing holds any longer can be kept where nothing can be written.
func TestStore_HoldOver(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	s.SetHold(Hold{Revision: 1, Origin: FromRollback, Against: "aaa"})
	if err := os.MkdirAll(filepath.Join(dir, holdFile+".new", "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.SetHold(Hold{})
	if h := open(t, dir).Hold(); h != (Hold{}) {
		t.Errorf("started again: %+v holds", h)
	}
	s.SetHold(Hold{}) // as it is
}

// TestStore_NotWritten: of a revision that could not be written no part stays on the disk.
func TestStore_NotWritten(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if err := os.MkdirAll(filepath.Join(s.path(1), "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	add(s, "aaa", "one", false, resource("a", 1))
	if left, _ := filepath.Glob(filepath.Join(dir, "*.new")); len(left) > 0 {
		t.Errorf("there is %v", left)
	}
}

// TestOpen_Torn: what is no revision is left out.
func TestOpen_Torn(t *testing.T) {
	dir := t.TempDir()
	add(open(t, dir), "a", "kind: A\n", false)
	for name, text := range map[string]string{
		"00000002.revision": "", "00000003.revision": "{", "00000004.revision": "{\"number\": 9}\n", "00000005.revision": "{\"number\": 5}\ntorn",
		"00000006.revision.new": "{}", "hold.json": "{",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, dir)
	if list := s.List(); len(list) != 2 || list[0].Number != 5 || list[1].Number != 1 {
		t.Errorf("%+v", list)
	}
	if _, _, _, err := s.Content(5); err == nil {
		t.Error("torn texts are none")
	}
	if r := add(s, "b", "kind: B\n", false, resource("b", 1)); r.Number != 6 || r.Changes.More != 1 {
		t.Errorf("%+v", r)
	}
}
