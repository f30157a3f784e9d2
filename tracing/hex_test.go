package tracing

import (
	"encoding/hex"
	"math/rand/v2"
	"testing"
)

// TestDigits: they are what encoding/hex writes, whatever they stand beside.
func TestDigits(t *testing.T) {
	for i := range 1 << 16 {
		src := TraceID{byte(i), byte(i >> 8), byte(i >> 4), 3: byte(i), 15: byte(i >> 8)}
		src[rand.IntN(len(src))] = byte(rand.Uint32())
		var got [2 * len(src)]byte
		first, rest := digitsOf(src[:8]), digitsOf(src[8:])
		first.put(got[:])
		rest.put(got[16:])
		if want := hex.EncodeToString(src[:]); string(got[:]) != want {
			t.Fatalf("%s, want %s", got, want)
		}
	}
}

func BenchmarkFields(b *testing.B) {
	var c Context
	c.Trace.Draw()
	out := make([]byte, 0, 512)
	for b.Loop() {
		out = inLine.Append(out[:0], &c, W3C|B3Multi, own, SpanID{})
	}
}
