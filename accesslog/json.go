package accesslog

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// appendEscaped writes bytes as the inside of a JSON string. What is no UTF-8 is
// shown as U+FFFD.
func appendEscaped(dst, s []byte) []byte {
	for len(s) > 0 {
		c := s[0]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20 || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			r, n := utf8.DecodeRune(s)
			dst = utf8.AppendRune(dst, r)
			s = s[n:]
			continue
		}
		s = s[1:]
	}
	return dst
}

// appendString writes a text as JSON.
func appendString(dst, s []byte) []byte {
	dst = append(dst, '"')
	from := len(dst)
	return append(escapeFrom(append(dst, s...), from), '"')
}

// escapeFrom makes what dst holds from a place on the inside of a JSON string.
// As a rule there is nothing to do.
func escapeFrom(dst []byte, from int) []byte {
	i := from + plain(dst[from:])
	if i == len(dst) {
		return dst
	}
	rest := bytes.Clone(dst[i:])
	return appendEscaped(dst[:i], rest)
}

// plain is how many bytes at the beginning of a text are ASCII that JSON and a
// line take as it is. It looks at eight of them at a time.
func plain(b []byte) int {
	const (
		ones  = 0x0101010101010101
		highs = 0x80 * ones
	)
	// below has the high bit of each byte set that is smaller than n, if no byte in
	// front of it had: of words where any is set, the bytes are looked at one by one.
	below := func(w, n uint64) uint64 { return (w - n*ones) &^ w }
	i := 0
	for i < len(b) && len(b) >= 8 {
		at := min(i, len(b)-8) // the last word may overlap the one before
		w := binary.LittleEndian.Uint64(b[at:])
		if (w|(w+ones)|below(w, ' ')|below(w^'"'*ones, 1)|below(w^'\\'*ones, 1))&highs != 0 {
			break
		}
		i = at + 8
	}
	for ; i < len(b); i++ {
		if c := b[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			break
		}
	}
	return i
}
