package http2

import (
	"bytes"
	"testing"

	"golang.org/x/net/http2/hpack"

	"isthmus/http1"
)

// usual is what an application's client sends: four pseudo-header fields and
// eight others.
var usual = []hpack.HeaderField{
	{Name: ":method", Value: "GET"},
	{Name: ":scheme", Value: "https"},
	{Name: ":authority", Value: "user-service.production.svc.cluster.local"},
	{Name: ":path", Value: "/api/v1/users/42?fields=name,mail"},
	{Name: "user-agent", Value: "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36"},
	{Name: "accept", Value: "application/json, text/plain, */*"},
	{Name: "accept-encoding", Value: "gzip, deflate, br"},
	{Name: "accept-language", Value: "en-GB,en;q=0.9"},
	{Name: "x-request-id", Value: "2f6c1f0e-6a0e-4f7e-9d4f-3f3f6a3b1c55"},
	{Name: "x-geo-location", Value: "us-west"},
	{Name: "cookie", Value: "session=0123456789abcdef0123456789abcdef"},
	{Name: "cookie", Value: "theme=dark"},
}

// usualBlocks are the first and the second request on a connection: all is
// spelled out, then nearly all is in the table.
func usualBlocks() (first, second []byte) {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, block := range []*[]byte{&first, &second} {
		for _, f := range usual {
			enc.WriteField(f)
		}
		*block = bytes.Clone(b.Bytes())
		b.Reset()
	}
	return first, second
}

func BenchmarkDecode(b *testing.B) {
	first, second := usualBlocks()
	run := func(b *testing.B, block []byte) {
		d := NewDecoder(0)
		arena, fields, err := d.Decode(first, nil, nil, noLimit)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if arena, fields, err = d.Decode(block, arena[:0], fields[:0], noLimit); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("Huffman", func(b *testing.B) { run(b, first) })
	b.Run("indexed", func(b *testing.B) { run(b, second) })
	b.Run("Huffman-xnet", func(b *testing.B) {
		d := hpack.NewDecoder(4096, func(hpack.HeaderField) {})
		b.ReportAllocs()
		for b.Loop() {
			if _, err := d.Write(first); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	fields := make([]http1.Field, 0, len(usual))
	for _, f := range usual[4:] {
		fields = append(fields, http1.Field{Name: []byte(f.Name), Value: []byte(f.Value)})
	}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendStatus(BeginHeaders(dst[:0]), 200)
		for i := range fields {
			dst = AppendField(dst, fields[i].Name, fields[i].Value)
		}
		dst = EndHeaders(dst, 0, 1, false, minMaxFrame)
	}
}

func BenchmarkReadRequest(b *testing.B) {
	first, second := usualBlocks()
	d := NewDecoder(0)
	var r http1.Request
	arena, _, err := d.Decode(first, nil, nil, noLimit)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r.Reset()
		if arena, r.Fields, err = d.Decode(second, arena[:0], r.Fields, noLimit); err != nil {
			b.Fatal(err)
		}
		if arena, err = ReadRequest(&r, r.Fields, arena, true); err != nil {
			b.Fatal(err)
		}
	}
}
