package http2

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"isthmus/http1"
)

// list writes fields one a line.
func list(fields []http1.Field) string {
	var b strings.Builder
	for _, f := range fields {
		fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Value)
	}
	return b.String()
}

func peerList(fields []hpack.HeaderField) string {
	var b strings.Builder
	for _, f := range fields {
		fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Value)
	}
	return b.String()
}

// contents lists the dynamic table, the newest first.
func contents(t *dynamicTable) string {
	var fields []http1.Field
	for i := range uint32(t.count) {
		e, _ := t.get(i)
		b := t.append(nil, e.at, e.name+e.value)
		fields = append(fields, http1.Field{Name: b[:e.name], Value: b[e.name:], ID: e.id})
	}
	return list(fields)
}

const noLimit = 1 << 30

// TestDecoder_RFC decodes the examples of RFC 7541 Appendix C. Each is a list
// of blocks that come one after the other.
func TestDecoder_RFC(t *testing.T) {
	type block struct {
		in    string
		want  string // fields, and after an empty line the dynamic table
		table int    // its size
	}
	const (
		requests1  = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n\n:authority: www.example.com\n"
		requests2  = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\ncache-control: no-cache\n\ncache-control: no-cache\n:authority: www.example.com\n"
		requests3  = ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value\n\ncustom-key: custom-value\ncache-control: no-cache\n:authority: www.example.com\n"
		responses1 = ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com\n\nlocation: https://www.example.com\ndate: Mon, 21 Oct 2013 20:13:21 GMT\ncache-control: private\n:status: 302\n"
		responses2 = ":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com\n\n:status: 307\nlocation: https://www.example.com\ndate: Mon, 21 Oct 2013 20:13:21 GMT\ncache-control: private\n"
		responses3 = ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\nlocation: https://www.example.com\ncontent-encoding: gzip\nset-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n\nset-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\ncontent-encoding: gzip\ndate: Mon, 21 Oct 2013 20:13:22 GMT\n"
	)
	for _, tt := range []struct {
		name   string
		max    uint32
		blocks []block
	}{
		{"C.2.1", 4096, []block{{"400a637573746f6d2d6b65790d637573746f6d2d686561646572", "custom-key: custom-header\n\ncustom-key: custom-header\n", 55}}},
		{"C.2.2", 4096, []block{{"040c2f73616d706c652f70617468", ":path: /sample/path\n\n", 0}}},
		{"C.2.3", 4096, []block{{"100870617373776f726406736563726574", "password: secret\n\n", 0}}},
		{"C.2.4", 4096, []block{{"82", ":method: GET\n\n", 0}}},
		{"C.3", 4096, []block{
			{"828684410f7777772e6578616d706c652e636f6d", requests1, 57},
			{"828684be58086e6f2d6361636865", requests2, 110},
			{"828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565", requests3, 164},
		}},
		{"C.4", 4096, []block{
			{"828684418cf1e3c2e5f23a6ba0ab90f4ff", requests1, 57},
			{"828684be5886a8eb10649cbf", requests2, 110},
			{"828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", requests3, 164},
		}},
		{"C.5", 256, []block{
			{"4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d", responses1, 222},
			{"4803333037c1c0bf", responses2, 222},
			{"88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31", responses3, 215},
		}},
		{"C.6", 256, []block{
			{"488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3", responses1, 222},
			{"4883640effc1c0bf", responses2, 222},
			{"88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007", responses3, 215},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := NewDecoder(0)
			d.table.setMax(tt.max)
			for i, b := range tt.blocks {
				in, err := hex.DecodeString(b.in)
				if err != nil {
					t.Fatal(err)
				}
				_, fields, err := d.Decode(in, nil, nil, noLimit)
				if got := list(fields) + "\n" + contents(&d.table); err != nil || got != b.want || int(d.table.size) != b.table {
					t.Errorf("block %d: %v, table of %d\n%s\nwant a table of %d\n%s", i, err, d.table.size, got, b.table, b.want)
				}
			}
		})
	}
}

func TestDecoder_Refuses(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     error
	}{
		{"index 0", "\x80", errBlockIndex},
		{"index behind the table", "\xbe", errBlockIndex},
		{"name behind the table", "\x7e\x01a", errBlockIndex},
		{"integer cut short", "\xff", errBlockShort},
		{"integer cut short later", "\xff\x80", errBlockShort},
		{"integer too long", "\xff\x80\x80\x80\x80\x00", errBlockInteger},
		{"huge integer", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", errBlockInteger},
		{"no name", "\x40", errBlockShort},
		{"name cut short", "\x40\x05abc", errBlockShort},
		{"no value", "\x40\x01a", errBlockShort},
		{"value cut short", "\x40\x01a\x03bc", errBlockShort},
		{"huge length", "\x00\x7f\xff\xff\xff\x7f", errBlockShort},
		{"table larger than announced", "\x3f\xe2\x1f", errBlockSize},
		{"table size behind a field", "\x82\x20", errBlockSizeLate},
		{"padding of 8 bits", "\x00\x81\xff\x00", errHuffman},
		{"padding of 10 bits", "\x00\x82\x1f\xff\x00", errHuffman},
		{"padding with a 0", "\x00\x81\x1e\x00", errHuffman},
		{"end of string", "\x00\x85\xff\xff\xff\xff\xfc\x00", errHuffman},
		{"code cut short", "\x00\x81\xfe\x00", errHuffman},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, fields, err := NewDecoder(0).Decode([]byte(tt.in), nil, nil, noLimit)
			if err != tt.want {
				t.Errorf("%x: %v with\n%s\nwant %v", tt.in, err, list(fields), tt.want)
			}
		})
	}
}

// TestDecoder_TableSize: the table shrinks and grows as the peer says, as often
// as it says, but not beyond what it was told.
func TestDecoder_TableSize(t *testing.T) {
	d := NewDecoder(8192)
	decode := func(in string) {
		t.Helper()
		if _, _, err := d.Decode([]byte(in), nil, nil, noLimit); err != nil {
			t.Fatalf("%x: %v", in, err)
		}
	}
	decode("\x40\x01a\x01b\x40\x01c\x01d")
	decode("\x3f\x03\x82") // 34
	if got := contents(&d.table); got != "c: d\n" {
		t.Errorf("34 bytes hold\n%s", got)
	}
	decode("\x20\x3f\xe1\x3f") // 0, then 8192
	if got := contents(&d.table); got != "" || d.table.max != 8192 {
		t.Errorf("emptied, it holds %d bytes at most, and\n%s", d.table.max, got)
	}
	decode("\x40\x01a\x01b")
	decode("\x40\x01a\x7f\xe1\x3f" + strings.Repeat("x", 8288)) // larger than the table
	if got := contents(&d.table); got != "" {
		t.Errorf("a field too large for it leaves\n%s", got)
	}
}

// TestDecoder_Bomb: beyond the limit nothing is kept, but the table is right
// for the blocks that follow.
func TestDecoder_Bomb(t *testing.T) {
	var in []byte
	in = append(in, "\x40\x01a\x7f\x81\x17"...)
	in = append(in, bytes.Repeat([]byte{'x'}, 3072)...)
	in = append(in, bytes.Repeat([]byte{0xbe}, 16<<10)...) // 48 MiB
	in = append(in, "\x40\x01c\x01d"...)
	d := NewDecoder(0)
	arena, fields, err := d.Decode(in, nil, nil, 60<<10)
	if err != errHeaderListTooLarge || len(fields) != (60<<10)/(3073+32) || len(arena) > 60<<10 {
		t.Errorf("%v, %d fields, %d bytes", err, len(fields), len(arena))
	}
	_, fields, err = d.Decode([]byte{0xbe}, nil, nil, 60<<10)
	if got := list(fields); got != "c: d\n" || err != nil {
		t.Errorf("the next block: %v\n%s", err, got)
	}
	_, fields, err = d.Decode(bytes.Repeat([]byte{0x82}, 1000), nil, nil, 60<<10)
	if want := http1.DefaultLimits.Fields + maxPseudo; err != errHeaderListTooLarge || len(fields) != want {
		t.Errorf("1000 fields: %v, %d of them, want %d", err, len(fields), want)
	}
}

// TestHuffman_All holds the machine to x/net's encoder, for each symbol at each
// place that it may begin at.
func TestHuffman_All(t *testing.T) {
	for c := range 256 {
		for _, before := range []string{"", "a", "aa", "aaa", "X", "XX", "&"} {
			want := before + string([]byte{byte(c)}) + "z"
			got, err := appendHuffman(nil, hpack.AppendHuffmanString(nil, want))
			if err != nil || string(got) != want {
				t.Fatalf("%q is decoded as %q, %v", want, got, err)
			}
		}
	}
}

// TestHuffman_Room decodes the shortest codes, of which there are most in a
// byte, into what has no room left.
func TestHuffman_Room(t *testing.T) {
	for n := range 100 {
		want := strings.Repeat("a", n)
		got, err := appendHuffman(make([]byte, 0), hpack.AppendHuffmanString(nil, want))
		if err != nil || string(got) != want {
			t.Fatalf("%d: %q, %v", n, got, err)
		}
	}
}

// TestDecoder_Peer decodes what x/net's encoder makes of a thousand random
// messages, whose fields come and go in its table.
func TestDecoder_Peer(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []uint32{0, 100, 4096, 16384} {
		var b bytes.Buffer
		enc := hpack.NewEncoder(&b)
		enc.SetMaxDynamicTableSizeLimit(16384)
		enc.SetMaxDynamicTableSize(size)
		d := NewDecoder(16384)
		var arena []byte
		var fields []http1.Field
		for i := range 1000 {
			var want []hpack.HeaderField
			for range rng.IntN(12) {
				f := hpack.HeaderField{Name: fmt.Sprintf("x-%d", rng.IntN(30)), Value: strings.Repeat("v", rng.IntN(200)), Sensitive: rng.IntN(9) == 0}
				if rng.IntN(3) == 0 {
					f.Name = staticPairs[rng.IntN(len(staticPairs))][0]
				}
				want = append(want, f)
			}
			if rng.IntN(50) == 0 {
				enc.SetMaxDynamicTableSize(uint32(rng.IntN(int(size) + 1)))
			}
			b.Reset()
			for _, f := range want {
				enc.WriteField(f)
			}
			var err error
			arena, fields, err = d.Decode(b.Bytes(), arena[:0], fields[:0], noLimit)
			if got := list(fields); err != nil || got != peerList(want) {
				t.Fatalf("table of %d, message %d: %v\n%s\nwant\n%s", size, i, err, got, peerList(want))
			}
			for _, f := range fields {
				if f.ID != http1.LookupField(f.Name) {
					t.Fatalf("%s has ID %d", f.Name, f.ID)
				}
			}
		}
	}
}

// TestAppendField has x/net's decoder read what the encoder writes.
func TestAppendField(t *testing.T) {
	long := strings.Repeat("x", 20000)
	for _, tt := range []struct {
		name      string
		got       []byte
		want      string
		bytes     int
		sensitive bool
	}{
		{"status 200", AppendStatus(nil, 200), ":status: 200", 1, false},
		{"status 204", AppendStatus(nil, 204), ":status: 204", 1, false},
		{"status 206", AppendStatus(nil, 206), ":status: 206", 1, false},
		{"status 304", AppendStatus(nil, 304), ":status: 304", 1, false},
		{"status 400", AppendStatus(nil, 400), ":status: 400", 1, false},
		{"status 404", AppendStatus(nil, 404), ":status: 404", 1, false},
		{"status 500", AppendStatus(nil, 500), ":status: 500", 1, false},
		{"status 503", AppendStatus(nil, 503), ":status: 503", 5, false},
		{"method GET", AppendMethod(nil, []byte("GET")), ":method: GET", 1, false},
		{"method POST", AppendMethod(nil, []byte("POST")), ":method: POST", 1, false},
		{"method PATCH", AppendMethod(nil, []byte("PATCH")), ":method: PATCH", 7, false},
		{"scheme http", AppendScheme(nil, []byte("http")), ":scheme: http", 1, false},
		{"scheme https", AppendScheme(nil, []byte("https")), ":scheme: https", 1, false},
		{"scheme other", AppendScheme(nil, []byte("ws")), ":scheme: ws", 4, false},
		{"path /", AppendPath(nil, []byte("/"), nil, false), ":path: /", 1, false},
		{"path", AppendPath(nil, []byte("/a"), []byte("b"), true), ":path: /a?b", 6, false},
		{"authority", AppendAuthority(nil, []byte("a.b")), ":authority: a.b", 5, false},
		{"protocol", AppendProtocol(nil, []byte("websocket")), ":protocol: websocket", 21, false},
		{"accept-encoding as all send it", AppendField(nil, []byte("Accept-Encoding"), []byte("gzip, deflate")), "accept-encoding: gzip, deflate", 1, false},
		{"accept-encoding", AppendField(nil, []byte("accept-encoding"), []byte("br")), "accept-encoding: br", 5, false},
		{"name with a low index", AppendField(nil, []byte("x"), []byte("y")), "x: y", 5, false},
		{"upper case", AppendField(nil, []byte("X-Trace_ID"), []byte("Aa")), "x-trace_id: Aa", 15, false},
		{"empty value", AppendField(nil, []byte("Via"), nil), "via: ", 3, false},
		{"long value", AppendField(nil, []byte("x"), []byte(long)), "x: " + long, 20007, false},
		{"long name", AppendField(nil, []byte(long), []byte("x")), long + ": x", 20007, false},
		{"authorization", AppendField(nil, []byte("Authorization"), []byte("x")), "authorization: x", 4, true},
		{"cookie", AppendField(nil, []byte("cookie"), []byte("x")), "cookie: x", 4, true},
		{"set-cookie", AppendField(nil, []byte("set-cookie"), []byte("x")), "set-cookie: x", 4, true},
		{"proxy-authorization", AppendField(nil, []byte("proxy-authorization"), []byte("x")), "proxy-authorization: x", 4, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fields, err := hpack.NewDecoder(4096, nil).DecodeFull(tt.got)
			if err != nil || len(fields) != 1 || fields[0].Name+": "+fields[0].Value != tt.want || len(tt.got) != tt.bytes || fields[0].Sensitive != tt.sensitive {
				t.Errorf("%d bytes: %v, %v; want %.100s in %d bytes, sensitive: %v", len(tt.got), fields, err, tt.want, tt.bytes, tt.sensitive)
			}
		})
	}
}

// TestStaticIndex finds all names of the static table, in any case, and those
// alone.
func TestStaticIndex(t *testing.T) {
	for i, pair := range staticPairs {
		want := 1 + slices.IndexFunc(staticPairs[:], func(p [2]string) bool { return p[0] == pair[0] })
		if pair[0][0] == ':' {
			want = 0
		}
		for _, name := range []string{pair[0], strings.ToUpper(pair[0])} {
			if got := staticIndex([]byte(name)); got != want {
				t.Errorf("%s (%d) has index %d, want %d", name, i+1, got, want)
			}
		}
		for _, name := range []string{pair[0] + "s", "x" + pair[0], pair[0][1:], "x" + pair[0][1:]} {
			if got := staticIndex([]byte(name)); got != 0 && staticPairs[got-1][0] != name {
				t.Errorf("%s has index %d", name, got)
			}
		}
	}
	if got := staticIndex(nil); got != 0 {
		t.Errorf("no name has index %d", got)
	}
}

// FuzzDecode holds the decoder to x/net's, block after block: the same is
// decoded, the same refused, and with a limit the table is the same as without.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("\x14\x82\x86\x84\x41\x0fwww.example.com\x0e\x82\x86\x84\xbe\x58\x08no-cache"))
	f.Add([]byte("\x36\x48\x82\x64\x02\x58\x85\xae\xc3\x77\x1a\x4b\x61\x96\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff\x6e\x91\x9d\x29\xad\x17\x18\x63\xc7\x8f\x0b\x97\xc8\xe9\xae\x82\xae\x43\xd3\x04\x82\xc1\xc0\xbf"))
	f.Add([]byte("\x08\x20\x3f\xe1\x1f\x40\x01a\x01b\x02\xbe\xbe"))
	f.Fuzz(func(t *testing.T, in []byte) {
		d, limited := NewDecoder(0), NewDecoder(0)
		other := hpack.NewDecoder(4096, nil)
		for len(in) > 0 {
			n := min(int(in[0]), len(in)-1)
			block := in[1 : 1+n]
			in = in[1+n:]

			_, fields, err := d.Decode(block, nil, nil, noLimit)
			_, some, limitErr := limited.Decode(block, nil, nil, 100)
			theirs, theirErr := other.DecodeFull(block)
			// Sizes may follow each other (RFC 7541 4.2), which x/net refuses; it takes
			// longer integers, and forgives a late size while its table is empty.
			sizes := len(block) > 0 && block[0]&0xe0 == 0x20
			switch {
			case err == errHeaderListTooLarge:
				fields = nil
				if theirErr != nil {
					return
				}
			case err == nil && theirErr != nil && sizes:
				return
			case err != nil && theirErr == nil && (err == errBlockSizeLate || err == errBlockInteger):
				return
			case (err == nil) != (theirErr == nil):
				t.Fatalf("%x: %v; x/net says %v", block, err, theirErr)
			case err != nil:
				if limitErr != err {
					t.Fatalf("%x: %v, with a limit %v", block, err, limitErr)
				}
				return
			case list(fields) != peerList(theirs):
				t.Fatalf("%x:\n%s\nx/net says\n%s", block, list(fields), peerList(theirs))
			}
			if limitErr != nil && limitErr != errHeaderListTooLarge {
				t.Fatalf("%x: with a limit %v", block, limitErr)
			}
			if limitErr == nil && list(some) != list(fields) || len(some) > 3 {
				t.Fatalf("%x: with a limit\n%s\nwithout\n%s", block, list(some), list(fields))
			}
			if got, want := contents(&limited.table), contents(&d.table); got != want {
				t.Fatalf("%x: the table with a limit\n%s\nwithout\n%s", block, got, want)
			}
			for _, f := range fields {
				back, err := hpack.NewDecoder(0, nil).DecodeFull(AppendField(nil, f.Name, f.Value))
				if err != nil || len(back) != 1 || back[0].Value != string(f.Value) || len(back[0].Name) != len(f.Name) {
					t.Fatalf("%q: %q is encoded as %v, %v", f.Name, f.Value, back, err)
				}
			}
		}
	})
}
