// Package jsonstring writes texts as strings of JSON (RFC 8259 7), as the access log
// and spans need them: fast where a text has nothing that must be escaped, which is
// nearly always.
package jsonstring

import (
	"encoding/binary"
	"slices"
	"unicode/utf8"
)

// Text is what strings are made of.
type Text interface{ ~string | ~[]byte }

// Append appends a text as a string, in its quotes. What is no UTF-8 is shown as
// U+FFFD.
func Append[T Text](dst []byte, t T) []byte {
	return append(AppendInside(append(dst, '"'), t), '"')
}

// AppendInside appends what stands between the quotes.
func AppendInside[T Text](dst []byte, t T) []byte {
	from := len(dst)
	dst = slices.Grow(dst, len(t))
	n := CopyPlain(dst[from:from+len(t)], t)
	if dst = dst[:from+n]; n == len(t) {
		return dst
	}
	return appendEscaped(dst, []byte(t[n:]))
}

const hexDigits = "0123456789abcdef"

// appendEscaped does so byte by byte.
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

// CopyPlain copies what a text begins with to dst, which is as long, as far as that
// is ASCII that JSON and a line take as it is, and returns how far. It does so by
// words: to look at a text first and to copy it then takes twice as long.
func CopyPlain[T Text](dst []byte, t T) (n int) {
	const (
		ones  = 0x0101010101010101
		highs = 0x80 * ones
	)
	// odd has the high bit of each byte set that is not such, if no byte in front of it
	// was: of a word where any is set, the bytes are looked at one by one. Where a
	// byte's high bit is set, nothing else counts; where it is not, adding cannot carry
	// into the next one.
	odd := func(w uint64) bool {
		return (w|(w+ones)|(w-' '*ones)|((w^'"'*ones)-ones)|((w^'\\'*ones)-ones))&highs != 0
	}
	for ; len(t)-n >= 8; n += 8 {
		w := word(t, n)
		if odd(w) {
			break
		}
		binary.LittleEndian.PutUint64(dst[n:], w)
	}
	if rest := len(t) - 8; n > rest && rest >= 0 {
		// The last word overlaps the one before.
		if w := word(t, rest); !odd(w) {
			binary.LittleEndian.PutUint64(dst[rest:], w)
			return len(t)
		}
	}
	for ; n < len(t); n++ {
		c := t[n]
		if c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			break
		}
		dst[n] = c
	}
	return n
}

// word is eight bytes of a text from a place on; the compiler makes one load of it.
func word[T Text](b T, i int) uint64 {
	_ = b[i+7]
	return uint64(b[i]) | uint64(b[i+1])<<8 | uint64(b[i+2])<<16 | uint64(b[i+3])<<24 |
		uint64(b[i+4])<<32 | uint64(b[i+5])<<40 | uint64(b[i+6])<<48 | uint64(b[i+7])<<56
}
