package accesslog

import (
	"bytes"
	"strings"
	"testing"
)

// TestCopyPlain: wherever a byte stands that has to be looked at, among words and
// behind them, it is found, and what stands before it is copied.
func TestCopyPlain(t *testing.T) {
	for c := range 256 {
		want := c >= ' ' && c != '"' && c != '\\' && c < 0x7f
		for length := range 20 {
			for at := range length {
				b := []byte(strings.Repeat("~", length))
				b[at] = byte(c)
				dst := make([]byte, length)
				if got := copyPlain(dst, b); want && got != length || !want && got != at || !bytes.Equal(dst[:got], b[:got]) {
					t.Fatalf("%q: %d, %q", b, got, dst)
				}
			}
		}
	}
}
