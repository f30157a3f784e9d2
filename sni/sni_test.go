package sni

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// hello returns the first bytes of a real client.
func hello(t testing.TB, c *tls.Config) []byte {
	t.Helper()
	var b recording
	tls.Client(&b, c).Handshake() // fails: nobody answers
	if b.Len() == 0 {
		t.Fatal("the client has said nothing")
	}
	return b.Bytes()
}

// recording is a connection on which nothing comes.
type recording struct{ bytes.Buffer }

func (r *recording) Read([]byte) (int, error)         { return 0, io.EOF }
func (r *recording) Close() error                     { return nil }
func (r *recording) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (r *recording) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (r *recording) SetDeadline(time.Time) error      { return nil }
func (r *recording) SetReadDeadline(time.Time) error  { return nil }
func (r *recording) SetWriteDeadline(time.Time) error { return nil }

// clients are hellos of several kinds.
func clients(t testing.TB) map[string][]byte {
	return map[string][]byte{
		"plain":       hello(t, &tls.Config{ServerName: "a.test"}),
		"TLS 1.2":     hello(t, &tls.Config{ServerName: "a.test", MaxVersion: tls.VersionTLS12}),
		"upper case":  hello(t, &tls.Config{ServerName: "A.Test."}),
		"protocols":   hello(t, &tls.Config{ServerName: "a.test", NextProtos: []string{"h2", "http/1.1"}}),
		"no name":     hello(t, &tls.Config{InsecureSkipVerify: true}),
		"an address":  hello(t, &tls.Config{ServerName: "192.0.2.1"}),
		"many":        hello(t, &tls.Config{ServerName: "a.test", NextProtos: slices.Repeat([]string{strings.Repeat("p", 250)}, 40)}),
		"small curve": hello(t, &tls.Config{ServerName: "a.test", CurvePreferences: []tls.CurveID{tls.X25519}}),
	}
}

// seenBy is what crypto/tls's server reads of a hello.
func seenBy(b []byte) (h Hello, ok bool) {
	errDone := errors.New("done")
	server := tls.Server(&answering{r: bytes.NewReader(b)}, &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
		h, ok = Hello{strings.ToLower(i.ServerName), i.SupportedProtos}, true
		return nil, errDone
	}})
	server.Handshake()
	return h, ok
}

// answering is a connection on which some bytes come, and that takes what is
// written.
type answering struct {
	recording
	r *bytes.Reader
}

func (a *answering) Read(p []byte) (int, error) { return a.r.Read(p) }

// TestParse_Clients reads what crypto/tls reads, however the bytes come.
func TestParse_Clients(t *testing.T) {
	for name, b := range clients(t) {
		t.Run(name, func(t *testing.T) {
			want, ok := seenBy(b)
			if !ok {
				t.Fatal("crypto/tls does not take it")
			}
			for _, size := range []int{len(b), 1, 7, 100} {
				again := fragment(b, size)
				for n := range len(again) {
					if _, err := Parse(again[:n]); !errors.Is(err, ErrShort) {
						t.Fatalf("records of %d bytes, %d of %d have come: %v", size, n, len(again), err)
					}
				}
				for _, more := range []string{"", "\x17\x03\x03\x00\x01x"} {
					got, err := Parse(append(slices.Clone(again), more...))
					if err != nil || got.ServerName != want.ServerName || !slices.Equal(got.Protocols, want.Protocols) {
						t.Errorf("records of %d bytes: %+v, %v, want %+v", size, got, err, want)
					}
				}
			}
		})
	}
}

// fragment spreads a hello over records of some bytes each.
func fragment(b []byte, size int) (out []byte) {
	for part := range slices.Chunk(b[5:], size) {
		out = append(out, 22, 3, 1)
		out = binary.BigEndian.AppendUint16(out, uint16(len(part)))
		out = append(out, part...)
	}
	return out
}

// TestParse_AllocatesLate: a ClientHello of which some is missing costs no memory,
// in however many records it comes.
func TestParse_AllocatesLate(t *testing.T) {
	b := clients(t)["many"]
	for _, size := range []int{len(b), 100, 1} {
		part := fragment(b, size)
		part = part[:len(part)-1]
		if n := testing.AllocsPerRun(100, func() { Parse(part) }); n != 0 {
			t.Errorf("records of %d bytes: %v allocations", size, n)
		}
	}
}

func TestParse_Refuses(t *testing.T) {
	good := hello(t, &tls.Config{ServerName: "a.test", MaxVersion: tls.VersionTLS12})
	change := func(do func(b []byte) []byte) []byte { return do(slices.Clone(good)) }
	name := bytes.Index(good, []byte("a.test"))
	for _, tt := range []struct {
		what string
		b    []byte
		want error
	}{
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), ErrNotTLS},
		{"one byte of HTTP", []byte("G"), ErrNotTLS},
		{"SSL 2", []byte{0x80, 0x2e, 1}, ErrNotTLS},
		{"another handshake message", change(func(b []byte) []byte { b[5] = 2; return b }), ErrNotTLS},
		{"an alert", []byte{21, 3, 3, 0, 2, 2, 80}, ErrNotTLS},
		{"version 4", []byte{22, 4, 0, 0, 1, 1}, ErrNotTLS},
		{"an empty record", []byte{22, 3, 1, 0, 0}, ErrMalformed},
		{"a huge record", []byte{22, 3, 1, 0xff, 0xff}, ErrMalformed},
		{"a huge hello", []byte{22, 3, 1, 0x40, 0, 1, 0, 0x40, 0}, ErrLong},
		{"another record inside", append(slices.Clone(good[:20]), 23, 3, 1), ErrShort},
		{"a NUL in the name", change(func(b []byte) []byte { b[name+1] = 0; return b }), ErrMalformed},
		{"a space in the name", change(func(b []byte) []byte { b[name+1] = ' '; return b }), ErrMalformed},
		{"a name too long for its list", change(func(b []byte) []byte { b[name-1]++; return b }), ErrMalformed},
		{"a name too short for its list", change(func(b []byte) []byte { b[name-1]--; return b }), ErrMalformed},
		{"an unknown type of name", change(func(b []byte) []byte { b[name-3] = 1; return b }), ErrMalformed},
		{"a session too long", change(func(b []byte) []byte { b[5+4+34] = 255; return b }), ErrMalformed},
	} {
		if _, err := Parse(tt.b); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.what, err, tt.want)
		}
	}
	twice := change(func(b []byte) []byte {
		// The extension once more: every length that contains it grows.
		ext := slices.Clone(b[name-9 : name+6])
		b = slices.Insert(b, name+6, ext...)
		for _, at := range []int{3, 7} {
			binary.BigEndian.PutUint16(b[at:], binary.BigEndian.Uint16(b[at:])+uint16(len(ext)))
		}
		at := extensionsAt(b)
		binary.BigEndian.PutUint16(b[at:], binary.BigEndian.Uint16(b[at:])+uint16(len(ext)))
		return b
	})
	if h, err := Parse(twice); !errors.Is(err, ErrMalformed) {
		t.Errorf("two names: %+v, %v", h, err)
	}
}

// u16 puts a length of two bytes before something.
func u16(b string) string { return string(binary.BigEndian.AppendUint16(nil, uint16(len(b)))) + b }

// u8 puts one of one byte before it.
func u8(b string) string { return string([]byte{byte(len(b))}) + b }

// helloOf is a ClientHello with what stands where its extensions are.
func helloOf(extensions string) []byte {
	body := "\x03\x03" + strings.Repeat("r", 32) + u8("") + u16("\x13\x01") + u8("\x00") + extensions
	return []byte("\x16\x03\x01" + u16("\x01\x00"+u16(body)))
}

// TestParse_Extensions: names and protocols that are written as they are to be are read,
// and no others.
func TestParse_Extensions(t *testing.T) {
	named := func(list string) string { return "\x00\x00" + u16(list) }
	host := func(name string) string { return named(u16("\x00" + u16(name))) }
	alpn := func(list string) string { return "\x00\x10" + u16(list) }
	long := strings.Repeat("a", 255)
	for _, tt := range []struct {
		what, extensions string
		name, protocols  string
		bad              bool
	}{
		{"none at all", "", "", "", false},
		{"none", u16(""), "", "", false},
		{"a name", u16(host("A.test.")), "a.test", "", false},
		{"a name of one letter", u16(host("a")), "a", "", false},
		{"the longest name", u16(host(long)), long, "", false},
		{"all bytes of names", u16(host("!~")), "!~", "", false},
		{"protocols", u16(alpn(u16(u8("h2") + u8("x")))), "", "h2 x", false},
		{"both, and one unknown", u16("\xff\x01" + u16("\x00") + alpn(u16(u8("h2"))) + host("a.test")), "a.test", "h2", false},
		{"something behind them", u16(host("a.test")) + "x", "", "", true},
		{"less than they say", "\x00\x09" + host("a")[:5], "", "", true},
		{"half of one", u16(host("a.test") + "\xff\x01\x00\x05x"), "", "", true},
		{"half of a type", u16(host("a.test") + "\xff"), "", "", true},
		{"one of a type twice", u16("\xff\x01" + u16("") + "\xff\x01" + u16("")), "", "", true},
		{"a name of no letters", u16(host("")), "", "", true},
		{"a name that is too long", u16(host(long + "a")), "", "", true},
		{"a name with DEL", u16(host("a\x7f")), "", "", true},
		{"a name beyond ASCII", u16(host("\u00e9")), "", "", true},
		{"no names", u16(named(u16(""))), "", "", true},
		{"no list of names", u16(named("")), "", "", true},
		{"half a list of names", u16(named("\x00")), "", "", true},
		{"a list of names that is longer", u16(named("\x00\x05\x00\x00\x01a")), "", "", true},
		{"something behind the names", u16(named(u16("\x00"+u16("a")) + "x")), "", "", true},
		{"two names", u16(named(u16("\x00" + u16("a") + "\x00" + u16("b")))), "", "", true},
		{"half a name", u16(named(u16("\x00\x00\x02a"))), "", "", true},
		{"no protocols", u16(alpn(u16(""))), "", "", true},
		{"no list of protocols", u16(alpn("")), "", "", true},
		{"a list of protocols that is longer", u16(alpn("\x00\x04\x02h2")), "", "", true},
		{"something behind the protocols", u16(alpn(u16(u8("h2")) + "x")), "", "", true},
		{"a protocol of no letters", u16(alpn(u16(u8("h2") + u8("")))), "", "", true},
		{"half a protocol", u16(alpn(u16("\x03h2"))), "", "", true},
	} {
		h, err := Parse(helloOf(tt.extensions))
		if tt.bad {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: %+v, %v, want %v", tt.what, h, err, ErrMalformed)
			}
			continue
		}
		if err != nil || h.ServerName != tt.name || strings.Join(h.Protocols, " ") != tt.protocols {
			t.Errorf("%s: %+v, %v, want %q and %q", tt.what, h, err, tt.name, tt.protocols)
		}
	}
}

// TestParse_Longest: a ClientHello that is as long as may be is read, in however many
// records, and one that is longer is not waited for.
func TestParse_Longest(t *testing.T) {
	hello := helloOf(u16("\xff\x01" + u16(strings.Repeat("x", MaxHello-51))))
	if size := len(hello) - 5; size != MaxHello {
		t.Fatalf("it has %d bytes, want %d", size, MaxHello)
	}
	for _, size := range []int{MaxHello, MaxHello - 1, 4000} {
		if _, err := Parse(fragment(hello, size)); err != nil {
			t.Errorf("in records of %d bytes: %v", size, err)
		}
	}
	longer := fragment(helloOf(u16("\xff\x01"+u16(strings.Repeat("x", MaxHello-50)))), 4000)
	if _, err := Parse(longer[:9]); !errors.Is(err, ErrLong) {
		t.Errorf("a longer one: %v", err)
	}
}

// extensionsAt is where the length of the extensions stands.
func extensionsAt(b []byte) int {
	at := 5 + 4 + 34
	at += 1 + int(b[at])
	at += 2 + int(binary.BigEndian.Uint16(b[at:]))
	return at + 1 + int(b[at])
}

// FuzzParse: what both take, crypto/tls and we read alike, in whatever records
// it comes; and nothing is read from the beginning that the rest takes back.
func FuzzParse(f *testing.F) {
	for _, b := range clients(f) {
		f.Add(b)
		f.Add(fragment(b, 50))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Parse(b)
		if err != nil {
			return
		}
		if again, err := Parse(append(slices.Clone(b), b...)); err != nil || again.ServerName != got.ServerName || !slices.Equal(again.Protocols, got.Protocols) {
			t.Fatalf("with more behind it: %+v, %v, and without %+v", again, err, got)
		}
		want, ok := seenBy(b)
		// crypto/tls refuses a name with a dot at its end, and takes others that we
		// do not; where both take one it is the same.
		if ok && got.ServerName != strings.TrimSuffix(want.ServerName, ".") {
			t.Fatalf("%q, crypto/tls reads %q", got.ServerName, want.ServerName)
		}
		if ok && !slices.Equal(got.Protocols, want.Protocols) {
			t.Fatalf("%q, crypto/tls reads %q", got.Protocols, want.Protocols)
		}
	})
}
