package config

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const services = 20 // of a set

// numbered is a file of services whose ports all say the number of the set.
func numbered(n int) string {
	var b strings.Builder
	for i := range services {
		fmt.Fprintf(&b, "apiVersion: v1\nkind: Service\nmetadata: {name: s%d}\nspec: {ports: [{name: http, port: %d}]}\n---\n", i, n)
	}
	return b.String()
}

// writer writes a file anew in one of the ways that programs do, with pauses that
// are drawn. Its methods panic where the file system fails.
type writer struct {
	*rand.Rand
	file   string
	leases bool // the file system tells who has the file open
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// brief is a pause in which the file is closed or gone, long one in which it is
// open or empty.
func (w *writer) brief() { time.Sleep(time.Duration(w.Int64N(int64(still)))) }
func (w *writer) long()  { time.Sleep(time.Duration(w.Int64N(int64(unfinished)))) }

// pieces writes three of them into an open file.
func (w *writer) pieces(f *os.File, text string) {
	for i := range 3 {
		n := len(text)
		if i < 2 {
			n = w.IntN(n + 1)
		}
		_, err := f.WriteString(text[:n])
		must(err)
		if text = text[n:]; i < 2 && w.leases {
			w.long()
		} else if i < 2 {
			w.brief()
		}
	}
	must(f.Close())
}

var ways = []func(w *writer, text string){
	func(w *writer, text string) { // cut off, and filled
		f, err := os.Create(w.file)
		must(err)
		w.long()
		w.pieces(f, text)
	},
	func(w *writer, text string) { // cut off, and opened for each piece
		must(os.Truncate(w.file, 0))
		w.long()
		for i, part := range strings.SplitAfter(text, "---\n") {
			if i > 0 && i%5 == 0 {
				w.brief()
			}
			f, err := os.OpenFile(w.file, os.O_APPEND|os.O_WRONLY, 0)
			must(err)
			_, err = f.WriteString(part)
			must(err)
			must(f.Close())
		}
	},
	func(w *writer, text string) { // removed first
		must(os.Remove(w.file))
		w.brief()
		f, err := os.Create(w.file)
		must(err)
		w.pieces(f, text)
	},
	func(w *writer, text string) { // kept aside, as editors do
		must(os.Rename(w.file, w.file+"~"))
		w.brief()
		must(os.WriteFile(w.file, []byte(text), 0o644))
	},
	func(w *writer, text string) { // renamed when it is whole
		must(os.WriteFile(w.file+".new", []byte(text), 0o644))
		w.brief()
		must(os.Rename(w.file+".new", w.file))
	},
}

// TestLoad_WrittenInPlace: whatever way files are written in, what is read is one
// of the sets that somebody has left, never a part of one, and the last in the end.
func TestLoad_WrittenInPlace(t *testing.T) {
	const sets = 4
	open, err := os.Create(filepath.Join(t.TempDir(), "open"))
	must(err)
	defer open.Close()
	leases := beingWritten(open.Name())
	for seed := range uint64(20) {
		folder := t.TempDir()
		w := &writer{rand.New(rand.NewPCG(seed, 0)), filepath.Join(folder, "mesh.yaml"), leases}
		must(os.WriteFile(w.file, []byte(numbered(1)), 0o644))
		synctest.Test(t, func(t *testing.T) {
			done := make(chan struct{})
			go func() { // ends when it has written all
				defer close(done)
				for n := 2; n <= sets; n++ {
					ways[w.IntN(len(ways))](w, numbered(n))
					time.Sleep(2 * still)
				}
			}()
			last := uint32(1)
			for writing := true; writing; {
				select {
				case <-done:
					writing = false
				default:
					time.Sleep(7 * time.Millisecond)
				}
				r := Load([]string{folder}, nil)
				if len(r.Config.Services) != services || r.Count(Info) != len(r.Findings) {
					t.Fatalf("seed %d: %d services and %d errors after set %d", seed, len(r.Config.Services), r.Count(Error), last)
				}
				first := r.Config.Services[0].Ports[0].Number
				for _, s := range r.Config.Services {
					if p := s.Ports[0].Number; p != first || p < last {
						t.Fatalf("seed %d: a service of set %d after one of set %d; before, %d was read", seed, p, first, last)
					}
				}
				last = first
			}
			if last != sets {
				t.Fatalf("seed %d: set %d in the end, want %d", seed, last, sets)
			}
		})
	}
}

// TestCollect_ReadAgain: what somebody changes while it is being read is read anew,
// so that no set is of two times. [TestLoad_WrittenInPlace] cannot tell: in its
// bubble nobody writes while files are read.
func TestCollect_ReadAgain(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(folder string) // when the first of two files has been read
		want   string
	}{
		{"written over", func(folder string) {
			must(os.WriteFile(filepath.Join(folder, "a.yaml"), []byte("after"), 0o644))
			must(os.WriteFile(filepath.Join(folder, "b.yaml"), []byte("after"), 0o644))
		}, "a.yaml after, b.yaml after"},
		{"renamed over", func(folder string) {
			for _, name := range []string{"a.yaml", "b.yaml"} { // no longer than before
				must(os.WriteFile(filepath.Join(folder, "new"), []byte("behind"), 0o644))
				must(os.Rename(filepath.Join(folder, "new"), filepath.Join(folder, name)))
			}
		}, "a.yaml behind, b.yaml behind"},
		{"one more", func(folder string) {
			must(os.WriteFile(filepath.Join(folder, "c.yaml"), []byte("after"), 0o644))
		}, "a.yaml before, b.yaml before, c.yaml after"},
		{"one less", func(folder string) { must(os.Remove(filepath.Join(folder, "a.yaml"))) }, "b.yaml before"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			folder := t.TempDir()
			for _, name := range []string{"a.yaml", "b.yaml"} {
				must(os.WriteFile(filepath.Join(folder, name), []byte("before"), 0o644))
			}
			synctest.Test(t, func(t *testing.T) {
				reads := 0
				each := func(paths []string, read func(path string, layer int, r io.Reader) error) []Finding {
					return eachFile(paths, func(path string, layer int, r io.Reader) error {
						if err := read(path, layer, r); err != nil {
							return err
						}
						if reads++; reads == 1 {
							tt.change(folder)
						}
						return nil
					})
				}
				files, findings := collectBy(each, []string{folder})
				var got []string
				for _, f := range files {
					got = append(got, filepath.Base(f.Name)+" "+string(f.Data))
				}
				if strings.Join(got, ", ") != tt.want || len(findings) > 0 {
					t.Errorf("got %q and %v, want %s", got, findings, tt.want)
				}
			})
		})
	}
}

// TestLoad_Settles: what is believed in the end, and after what time.
func TestLoad_Settles(t *testing.T) {
	for _, tt := range []struct {
		name  string
		write func(file string) // and goes on until the file is gone
		want  string            // in the findings
		after time.Duration     // at most
	}{
		{"an empty file", func(string) {}, "", unfinished + 2*still},
		{"no file", func(file string) { os.Remove(file) }, "no such file", 2 * still},
		{"a file that is left open", func(file string) {
			f, _ := os.OpenFile(file, os.O_WRONLY, 0)
			f.WriteString(numbered(1))
			time.Sleep(time.Hour)
			f.Close()
		}, "", unfinished + 2*still},
		{"a writer that never stops", func(file string) {
			for {
				f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
				if err != nil {
					return
				}
				f.WriteString("# more\n")
				f.Close()
				time.Sleep(still / 2)
			}
		}, "has been written for more than 10s without a pause", patience + 2*still},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "mesh.yaml")
			if err := os.WriteFile(file, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				done := make(chan struct{})
				go func() { // ends with the file, or after a while
					defer close(done)
					tt.write(file)
				}()
				synctest.Wait()
				begin := time.Now()
				r := Load([]string{file}, nil)
				if took := time.Since(begin); took > tt.after {
					t.Errorf("after %v, want %v at most", took, tt.after)
				}
				if got := fmt.Sprint(r.Findings); tt.want == "" && r.Count(Error) > 0 || !strings.Contains(got, tt.want) {
					t.Errorf("%s, want %q", got, tt.want)
				}
				os.Remove(file)
				<-done
			})
		})
	}
}

// TestSettling_OldFiles: nobody waits for files that were not touched of late.
func TestSettling_OldFiles(t *testing.T) {
	if again, late := NewSettling("testdata").Wait(); again != 0 || late != nil {
		t.Errorf("wait %v, %v", again, late)
	}
}

// TestSettling_NewFile: a file that looks whole is left alone for a moment after its
// last change, however long ago that was when somebody first looks.
func TestSettling_NewFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mesh.yaml")
	must(os.WriteFile(file, []byte(numbered(1)), 0o644))
	info, err := os.Stat(file)
	must(err)
	_, _, changed := stat(info)
	synctest.Test(t, func(t *testing.T) { // which begins in the year 2000, before the file
		for _, tt := range []struct{ age, want time.Duration }{
			{0, still}, {still / 2, still / 2}, {still, 0}, {time.Hour, 0},
		} {
			time.Sleep(time.Until(time.Unix(0, changed).Add(tt.age)))
			if again, late := NewSettling(file).Wait(); again != tt.want || late != nil {
				t.Errorf("after %v: wait %v, %v, want %v", tt.age, again, late, tt.want)
			}
		}
	})
}

// TestSettling_ChangedWhileRead: what does not fit together and was read while files
// changed is read again, and then waited for, however long reading took.
func TestSettling_ChangedWhileRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mesh.yaml")
	writeAt := func(n int) time.Time {
		must(os.WriteFile(file, []byte(numbered(n)), 0o644))
		info, err := os.Stat(file)
		must(err)
		_, _, changed := stat(info)
		return time.Unix(0, changed)
	}
	synctest.Test(t, func(t *testing.T) {
		s := NewSettling(file)
		wait := func(when string, min, max time.Duration) {
			t.Helper()
			if again, late := s.Wait(); again < min || again > max || late != nil {
				t.Errorf("%s: wait %v, %v, want %v to %v", when, again, late, min, max)
			}
		}
		time.Sleep(time.Until(writeAt(1).Add(time.Second)))
		wait("an old file", 0, 0)
		time.Sleep(time.Until(writeAt(2).Add(2 * still))) // somebody reads it meanwhile
		s.Doubt()
		wait("of a file that has changed since", still, still)
		time.Sleep(still)
		wait("a moment later", 0, 0)
		s.Doubt()
		wait("it does not fit together as it is", 1, still)
		time.Sleep(unfinished)
		wait("nothing more has come", 0, 0)
	})
}
