package tracing

import (
	"encoding/hex"
	"math/rand/v2"
	"testing"
)

// TestPutHex: it writes what encoding/hex does, whatever the digits stand beside.
func TestPutHex(t *testing.T) {
	for i := range 1 << 16 {
		src := TraceID{byte(i), byte(i >> 8), byte(i >> 4), 3: byte(i), 15: byte(i >> 8)}
		src[rand.IntN(len(src))] = byte(rand.Uint32())
		var got [2 * len(src)]byte
		putHex(got[:], src[:])
		if want := hex.EncodeToString(src[:]); string(got[:]) != want {
			t.Fatalf("%s, want %s", got, want)
		}
	}
}

func BenchmarkFields(b *testing.B) {
	c := Context{Trace: NewTraceID()}
	out := make([]byte, 0, 512)
	for b.Loop() {
		out = inLine.Append(out[:0], &c, W3C|B3Multi, own, SpanID{})
	}
}
