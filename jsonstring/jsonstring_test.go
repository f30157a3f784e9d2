package jsonstring

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// FuzzAppend: whatever a text is, JSON has it back, with U+FFFD for what is no UTF-8,
// on one line.
func FuzzAppend(f *testing.F) {
	for _, s := range []string{"", "plain", `a "b" \\c`, "line\nfeed\x00\x7f", "Grüße, 世界", "\xff\xc3(", "a long one that has an end: \"", "\u2028\ufffd"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		line := Append(nil, s)
		var got string
		if err := json.Unmarshal(line, &got); err != nil || got != string([]rune(s)) {
			t.Errorf("%q becomes %s, which is %q, %v", s, line, got, err)
		}
		if other := Append([]byte{}, []byte(s)); !bytes.Equal(line, other) || bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("%q becomes %q and %q", s, line, other)
		}
	})
}

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
				if got := CopyPlain(dst, b); want && got != length || !want && got != at || !bytes.Equal(dst[:got], b[:got]) {
					t.Fatalf("%q: %d, %q", b, got, dst)
				}
			}
		}
	}
}
