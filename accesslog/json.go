package accesslog

import "unicode/utf8"

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
