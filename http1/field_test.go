package http1

import (
	"strings"
	"testing"
)

func TestLookupField_AnyCase(t *testing.T) {
	for i, name := range fieldNames {
		if name == "" {
			continue
		}
		id := FieldID(i)
		if id.String() != name {
			t.Errorf("FieldID(%d).String() = %q, want %q", id, id, name)
		}
		for _, n := range []string{name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:]} {
			if got := LookupField([]byte(n)); got != id {
				t.Errorf("LookupField(%q) = %d, want %d", n, got, id)
			}
		}
	}
}

func TestLookupField_NearMisses(t *testing.T) {
	for _, name := range fieldNames {
		for i := range name {
			for c := range 256 {
				b := []byte(name)
				b[i] = byte(c)
				if !isToken(b) || strings.EqualFold(string(b), name) {
					continue
				}
				if got := LookupField(b); got != Unknown && !strings.EqualFold(got.String(), string(b)) {
					t.Errorf("LookupField(%q) = %v, want none", b, got)
				}
			}
		}
	}
	for _, name := range []string{"", "x", "content_length", strings.Repeat("x", 31), strings.Repeat("x", 32), strings.Repeat("x", 1000)} {
		if got := LookupField([]byte(name)); got != Unknown {
			t.Errorf("LookupField(%q) = %v, want none", name, got)
		}
	}
	if got := FieldID(255).String(); got != "" {
		t.Errorf("FieldID(255).String() = %q, want none", got)
	}
}

// fieldsOf makes a header of "name: value" lines.
func fieldsOf(t *testing.T, lines ...string) *Header {
	t.Helper()
	r, _, err := parseRequest(head(append([]string{"GET / HTTP/1.1", "Host: a"}, lines...)...))
	if err != nil {
		t.Fatal(err)
	}
	return &r.Header
}

func TestHeader_Accessors(t *testing.T) {
	start := []string{"X-A: 1", "Cookie: c", "x-b: 2", "X-a: 3", "Cookie: d"}
	for _, tt := range []struct {
		name string
		do   func(*Header)
		want string
	}{
		{"add", func(h *Header) { h.Add([]byte("via"), []byte("v")) }, "Host: a\nX-A: 1\nCookie: c\nx-b: 2\nX-a: 3\nCookie: d\nvia: v\n"},
		{"set", func(h *Header) { h.Set([]byte("x-a"), []byte("v")) }, "Host: a\nX-A: v\nCookie: c\nx-b: 2\nCookie: d\n"},
		{"set what is not there", func(h *Header) { h.Set([]byte("x-c"), []byte("v")) }, "Host: a\nX-A: 1\nCookie: c\nx-b: 2\nX-a: 3\nCookie: d\nx-c: v\n"},
		{"del", func(h *Header) { h.Del(Cookie) }, "Host: a\nX-A: 1\nx-b: 2\nX-a: 3\n"},
		{"del what is not there", func(h *Header) { h.Del(Via) }, "Host: a\nX-A: 1\nCookie: c\nx-b: 2\nX-a: 3\nCookie: d\n"},
		{"del by name", func(h *Header) { h.DelName([]byte("x-a")) }, "Host: a\nCookie: c\nx-b: 2\nCookie: d\n"},
	} {
		h := fieldsOf(t, start...)
		tt.do(h)
		if got := describeFields(h.Fields); got != tt.want {
			t.Errorf("%s: got\n%swant\n%s", tt.name, got, tt.want)
		}
	}

	h := fieldsOf(t, start...)
	h.Add([]byte("via"), []byte("v"))
	if v, ok := h.Get(Via); !ok || string(v) != "v" {
		t.Errorf("Get(Via) = %q, %v, want the field added", v, ok)
	}
	if v, ok := h.Get(Cookie); !ok || string(v) != "c" {
		t.Errorf("Get(Cookie) = %q, %v, want the first", v, ok)
	}
	if v, ok := h.Lookup([]byte("x-a")); !ok || string(v) != "1" {
		t.Errorf("Lookup(x-a) = %q, %v, want the first", v, ok)
	}
	if _, ok := h.Get(Server); ok {
		t.Error("Get(Server) finds what is not there")
	}
	if _, ok := h.Lookup([]byte("x")); ok {
		t.Error("Lookup(x) finds what is not there")
	}
}

func TestHeader_StripListed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"nothing to strip", []string{"X: 1"}, "Host: a\nX: 1\n"},
		{"named, in any case", []string{"x-one: 1", "Connection: X-One,\tx-TWO ,", "X-Two: 2", "X-Three: 3"}, "Host: a\nConnection: X-One,\tx-TWO ,\nX-Three: 3\n"},
		{"named in several lines", []string{"A: 1", "B: 1", "C: 1", "D: 1", "E: 1", "F: 1", "Connection: a", "Connection: b", "Connection: c", "Connection: d",
			"Connection: e"}, "Host: a\nF: 1\nConnection: a\nConnection: b\nConnection: c\nConnection: d\nConnection: e\n"},
		{"forwarding fields", []string{"Connection: X-Forwarded-For, x-isthmus-destination", "X-Forwarded-For: 1", "x-isthmus-destination: b"},
			"Host: a\nConnection: X-Forwarded-For, x-isthmus-destination\n"},
		{"what is about the connection stays", []string{"Connection: connection, keep-alive, proxy-connection, transfer-encoding, te, upgrade, trailer", "Keep-Alive: 5", "Proxy-Connection: close",
			"Transfer-Encoding: chunked", "TE: trailers", "Upgrade: h2c", "Trailer: X"}, "Host: a\nConnection: connection, keep-alive, proxy-connection, transfer-encoding, te, upgrade, trailer\n" +
			"Keep-Alive: 5\nProxy-Connection: close\nTransfer-Encoding: chunked\nTE: trailers\nUpgrade: h2c\n"},
		{"host and length stay", []string{"Connection: host, content-length", "Content-Length: 5"}, "Host: a\nConnection: host, content-length\nContent-Length: 5\n"},
		{"part of a name", []string{"Connection: x", "X-Y: 1"}, "Host: a\nConnection: x\nX-Y: 1\n"},
	} {
		h := fieldsOf(t, tt.lines...)
		h.StripListed()
		if got := describeFields(h.Fields); got != tt.want || h.Hop {
			t.Errorf("%s: %q, Hop %v: got\n%swant\n%s", tt.name, tt.lines, h.Hop, got, tt.want)
		}
	}
}

func TestHeader_Listed(t *testing.T) {
	h := fieldsOf(t, "Connection: keep-alive, X-One", "Connection: x-two")
	for name, want := range map[string]bool{"x-one": true, "X-TWO": true, "x": false, "keep": false, "": false} {
		if got := h.Listed([]byte(name)); got != want {
			t.Errorf("Listed(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestValidNameAndValue(t *testing.T) {
	for name, want := range map[string]bool{"": false, "x-y": true, "a b": false, "a:": false, "a\r\nb": false, "é": false} {
		if got := ValidName([]byte(name)); got != want {
			t.Errorf("ValidName(%q) = %v, want %v", name, got, want)
		}
	}
	for value, want := range map[string]bool{"": true, "a b\tc": true, "é": true, " a": false, "a\t": false, "a\r\nb": false, "a\x00": false, "\x7f": false} {
		if got := ValidValue([]byte(value)); got != want {
			t.Errorf("ValidValue(%q) = %v, want %v", value, got, want)
		}
	}
}

func TestIndexControl(t *testing.T) {
	for length := range 20 {
		for at := range length {
			for c := range 256 {
				for _, filler := range []byte{'a', '\t', ' ', 0x7e, 0x80, 0xff} {
					b := []byte(strings.Repeat(string([]byte{filler}), length))
					b[at] = byte(c)
					b = append(b, '\r')
					want := length
					if c < 0x20 && c != '\t' || c == 0x7f {
						want = at
					}
					if got := indexControl(b); got != want {
						t.Fatalf("indexControl(%q) = %d, want %d", b, got, want)
					}
					if got := indexControl(b[:length]); want == length && got != -1 {
						t.Fatalf("indexControl(%q) = %d, want -1", b[:length], got)
					}
				}
			}
		}
	}
}
