package accesslog

import (
	"strings"
	"testing"
)

// TestPlain: wherever a byte stands that has to be looked at, among words and
// behind them, it is found.
func TestPlain(t *testing.T) {
	for c := range 256 {
		want := c >= ' ' && c != '"' && c != '\\' && c < 0x7f
		for length := range 20 {
			for at := range length {
				b := []byte(strings.Repeat("~", length))
				b[at] = byte(c)
				if got := plain(b); want && got != length || !want && got != at {
					t.Fatalf("%q: %d", b, got)
				}
			}
		}
	}
}
