package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// fromJSON writes a JSON text so that it is YAML of the same meaning, with the same
// lines; any other text stays as it is. YAML's strings in double quotes are those of
// JSON but for a few characters: the library knows no \/ and no halves of a pair of
// UTF-16, refuses some characters as they are, and takes others for ends of lines.
func fromJSON(data []byte) []byte {
	text := bytes.TrimLeft(data, " \t\r\n")
	if len(text) == 0 || text[0] != '{' && text[0] != '[' || !utf8.Valid(text) || !json.Valid(text) {
		return data
	}
	out := make([]byte, 0, len(data))
	inString := false
	for i := 0; i < len(data); {
		c := data[i]
		switch {
		case c == '"':
			inString = !inString
		case inString && c == '\\' && data[i+1] == '/':
			i++
			c = '/'
		case inString && c == '\\' && data[i+1] == 'u':
			r, n := escaped(data[i:])
			out = appendRune(out, r)
			i += n
			continue
		case inString && c == '\\':
			out = append(out, c)
			i++
			c = data[i]
		case c >= 0x7f:
			r, n := utf8.DecodeRune(data[i:])
			out = appendRune(out, r)
			i += n
			continue
		}
		out = append(out, c)
		i++
	}
	return out
}

// escaped reads \uXXXX, or the two of them that are one character beyond 16 bits, and says
// how long that is.
func escaped(s []byte) (r rune, n int) {
	unit := func(s []byte) rune {
		if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
			return -1
		}
		var v rune
		if _, err := fmt.Sscanf(string(s[2:6]), "%x", &v); err != nil {
			return -1
		}
		return v
	}
	r = unit(s)
	if !utf16.IsSurrogate(r) {
		return r, 6
	}
	if r = utf16.DecodeRune(r, unit(s[6:])); r == utf8.RuneError {
		return r, 6 // a half of a pair, as encoding/json reads it
	}
	return r, 12
}

// appendRune adds a character to a string in double quotes.
func appendRune(out []byte, r rune) []byte {
	switch {
	case r == '"' || r == '\\':
		return append(out, '\\', byte(r))
	case r < ' ' || !unicode.IsGraphic(r) && r <= 0xffff:
		return fmt.Appendf(out, `\u%04x`, r)
	case !unicode.IsGraphic(r):
		return fmt.Appendf(out, `\U%08x`, r)
	}
	return utf8.AppendRune(out, r)
}
