package config

import (
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestRead_Refuses reads every set of testdata/bad.txtar and checks that it is
// refused for its fault, with the line.
func TestRead_Refuses(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/bad.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range archive.Files {
		t.Run(f.Name, func(t *testing.T) {
			want := map[int]string{}
			for i, line := range strings.Split(string(f.Data), "\n") {
				if _, text, ok := strings.Cut(line, "# want: "); ok {
					want[i+1] = text
				}
			}
			if len(want) == 0 {
				t.Fatal("the file says not what is wanted")
			}
			r := Read([]File{{Name: f.Name, Data: f.Data}}, nil)
			for _, got := range r.Findings {
				if got.Severity != Error {
					continue
				}
				if text, ok := want[got.Line]; ok && strings.Contains(got.String(), text) {
					delete(want, got.Line)
					continue
				}
				t.Errorf("unexpected: %s", got)
			}
			for line, text := range want {
				t.Errorf("line %d: no error with %q", line, text)
			}
		})
	}
}

// FuzzRead: whatever the text, reading ends, and findings name the file.
func FuzzRead(f *testing.F) {
	for _, name := range []string{"testdata/bad.txtar", "testdata/good.txtar"} {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			f.Add(file.Data)
		}
	}
	f.Add([]byte(mergedRoutes))
	for _, text := range bombs {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := Read([]File{{Name: "fuzz.yaml", Data: data}}, nil)
		for _, finding := range r.Findings {
			if finding.File != "fuzz.yaml" || finding.Message == "" {
				t.Errorf("finding without a place or a message: %+v", finding)
			}
		}
		if again := Read([]File{{Name: "fuzz.yaml", Data: data}}, nil); len(again.Findings) != len(r.Findings) || again.Config.Hash != r.Config.Hash {
			t.Errorf("read twice, %d and %d findings", len(r.Findings), len(again.Findings))
		}
	})
}
