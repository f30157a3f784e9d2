package proxy

import (
	"bytes"
	"testing"

	"isthmus/mesh"
)

// TestNormalizePath: Istio's pathNormalization BASE, and what it leaves open.
func TestNormalizePath(t *testing.T) {
	for _, tt := range []struct {
		name, path, want string // want "": refused
	}{
		{"plain", "/admin/users", "/admin/users"},
		{"a dot", "/a/./b", "/a/b"},
		{"two dots", "/a/../b", "/b"},
		{"dots above the root", "/../../b", "/b"},
		{"dots at the end", "/a/b/..", "/a/"},
		{"a dot at the end", "/a/.", "/a/"},
		{"three dots are a name", "/a/.../b", "/a/.../b"},
		{"a hidden file", "/a/.b", "/a/.b"},
		{"backslashes", `/a\..\b`, "/b"},
		{"an escaped letter", "/%61dmin", "/admin"},
		{"an escaped letter, in capitals", "/%41", "/A"},
		{"escaped twice", "/%2561dmin", "/%2561dmin"},
		{"an escaped slash", "/a%2Fb", "/a%2Fb"},
		{"an escaped space", "/a%20b", "/a%20b"},
		{"two slashes", "//admin", "//admin"},
		{"a broken escape", "/a%zzb%2", "/a%zzb%2"},
		{"an escape within a broken one", "/%2%65%2%65/b", "/%2%65%2%65/b"},
		{"an escaped dot in a name", "/a%2eb", "/a.b"},
		{"escaped dots", "/a/%2e%2e/b", ""},
		{"one escaped dot of two", "/a/.%2E/b", ""},
		{"escaped slashes that make dot segments", "/a/..%2fb", ""},
		{"escaped backslashes that make dot segments", `/a/..%5cb`, ""},
		{"an escaped NUL", "/a%00b", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := normalizePath([]byte(tt.path))
			if (err != nil) != (tt.want == "") || string(got) != tt.want {
				t.Errorf("%s became %q, %v; want %q", tt.path, got, err, tt.want)
			}
		})
	}
}

// TestMergeSlashes: Istio's MERGE_SLASHES and DECODE_AND_MERGE_SLASHES.
func TestMergeSlashes(t *testing.T) {
	for _, tt := range []struct{ path, merged, decoded string }{
		{"/a", "/a", "/a"},
		{"//a///b", "/a/b", "/a/b"},
		{"/a%2Fb", "/a%2Fb", "/a/b"},
		{"/a%2f%5cb", "/a%2f%5cb", "/a/b"},
		{"/a%252fb", "/a%252fb", "/a%252fb"},
		{"/", "/", "/"},
	} {
		if got := string(mergeSlashes([]byte(tt.path), mesh.PathsMerged)); got != tt.merged {
			t.Errorf("merged, %s is %s, want %s", tt.path, got, tt.merged)
		}
		if got := string(mergeSlashes([]byte(tt.path), mesh.PathsDecodedOnce)); got != tt.decoded {
			t.Errorf("decoded and merged, %s is %s, want %s", tt.path, got, tt.decoded)
		}
	}
}

// FuzzNormalizePath: what is judged is what is sent on, whoever normalises it
// once more, or decodes it.
func FuzzNormalizePath(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/%61/%2e%2e", `/a\..\b`, "/%2e", "/..%2f", "/%25%32%65"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, path []byte) {
		if len(path) == 0 || path[0] != '/' || bytes.IndexByte(path, 0) >= 0 { // no parser lets a NUL in
			return
		}
		once, err := normalizePath(bytes.Clone(path))
		if err != nil {
			return
		}
		if once[0] != '/' || countDotSegments(once) != 0 || bytes.IndexByte(once, '\\') >= 0 {
			t.Errorf("%q became %q", path, once)
		}
		if decoded := bytes.ReplaceAll(unescape(once), []byte(`\`), []byte("/")); countDotSegments(decoded) != 0 || bytes.IndexByte(decoded, 0) >= 0 {
			t.Errorf("%q became %q, which decodes to %q", path, once, decoded)
		}
		twice, err := normalizePath(bytes.Clone(once))
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("%q became %q, and then %q, %v", path, once, twice, err)
		}
	})
}
