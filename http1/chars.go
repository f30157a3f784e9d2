package http1

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// Character classes.
const (
	tokenChar  = 1 << iota // tchar (RFC 9110 5.6.2)
	valueChar              // VCHAR, obs-text, SP, HTAB: what a field value may hold (RFC 9110 5.5)
	targetChar             // what a request target may hold, but for its query; see below
	queryChar              // what its query may hold
	hostChar               // reg-name (RFC 3986 3.2.2) without "%" and sub-delims, which no host name needs
	hexChar
)

var classes = func() (t [256]uint8) {
	const tokens = "!#$%&'*+-.^_`|~"
	for c := range 256 {
		b := byte(c)
		if 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' {
			t[c] |= tokenChar | hostChar
		}
		if b == '-' || b == '.' || b == '_' || b == '~' {
			t[c] |= hostChar
		}
		if b >= 0x20 && b != 0x7f || b == '\t' {
			t[c] |= valueChar
		}
		// RFC 3986 allows less, but browsers send \ ^ ` { | } in queries as they
		// are (WHATWG URL 1.3), and some clients in paths. Refused are controls
		// and SP; obs-text, which no grammar of a target has; "#", behind which
		// nothing is sent; and, in paths, quotes and angle brackets, which break out
		// of logs and pages. In queries people type them: ?query=up{job="x"}.
		if b > 0x20 && b < 0x7f && b != '#' {
			t[c] |= queryChar
			if b != '"' && b != '<' && b != '>' {
				t[c] |= targetChar
			}
		}
		if HexDigit(b) >= 0 {
			t[c] |= hexChar
		}
	}
	for _, c := range []byte(tokens) {
		t[c] |= tokenChar
	}
	return t
}()

func all(b []byte, class uint8) bool { return span(b, class) == len(b) }

// span returns how many bytes at the start of b are of the class.
func span(b []byte, class uint8) int {
	for i, c := range b {
		if classes[c]&class == 0 {
			return i
		}
	}
	return len(b)
}

// spanTarget returns how many bytes at the start of b a request target may hold.
func spanTarget(b []byte) int {
	n := span(b, targetChar)
	if n < len(b) && classes[b[n]]&queryChar != 0 && bytes.IndexByte(b[:n], '?') >= 0 {
		n += span(b[n:], queryChar)
	}
	return n
}

func isToken(b []byte) bool { return len(b) > 0 && all(b, tokenChar) }

// indexControl returns the index of the first control character in b other
// than HTAB, -1 if there is none. In a field line that is its end, or what it
// is refused for, so a value is looked through once, eight bytes at a time.
func indexControl(b []byte) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	i := 0
	for i+8 <= len(b) {
		w := binary.LittleEndian.Uint64(b[i:])
		// A subtraction borrows from the next byte only where its own is found,
		// so the lowest bit set is right, whatever stands above it.
		del := w ^ 0x7f*ones
		found := ((w-0x20*ones)&^w | (del-ones)&^del) & tops
		if found == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(found) / 8
		if b[i] != '\t' {
			return i
		}
		i++
	}
	for ; i < len(b); i++ {
		if classes[b[i]]&valueChar == 0 {
			return i
		}
	}
	return -1
}

// trimOWS removes optional white space, SP and HTAB alone (RFC 9110 5.6.3).
func trimOWS(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// equalFold compares b with a text in lower case, ignoring the case of ASCII
// letters alone.
func equalFold[T string | []byte](b []byte, lower T) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range b {
		if toLower(b[i]) != lower[i] {
			return false
		}
	}
	return true
}

func toLower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c |= 0x20
	}
	return c
}

// HexDigit returns the value of a hexadecimal digit, -1 for another byte.
func HexDigit(b byte) int {
	switch {
	case '0' <= b && b <= '9':
		return int(b - '0')
	case 'a' <= b && b <= 'f':
		return int(b-'a') + 10
	case 'A' <= b && b <= 'F':
		return int(b-'A') + 10
	}
	return -1
}

// next cuts the first element off a comma-separated list (RFC 9110 5.6.1).
func next(list []byte) (element, rest []byte, more bool) {
	for i, c := range list {
		if c == ',' {
			return trimOWS(list[:i]), list[i+1:], true
		}
	}
	return trimOWS(list), nil, false
}
