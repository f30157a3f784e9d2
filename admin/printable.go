package admin

import (
	"bytes"
	"io"
)

// WritePrintable writes a text for people, of which what would steer their terminal
// is replaced: names, paths, ids and reasons come from clients and from other machines.
func WritePrintable(w io.Writer, text func(io.Writer)) error {
	var b bytes.Buffer
	text(&b)
	_, err := w.Write(bytes.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || Printable(r) {
			return r
		}
		return '?'
	}, b.Bytes()))
	return err
}

// Printable reports whether a terminal takes a character for text: it is not of its
// controls (C0, C1), and does not turn the direction of what is around it.
func Printable(r rune) bool {
	return r >= ' ' && (r < 0x7f || r >= 0xa0) && r != 0x2028 && r != 0x2029 && (r < 0x202a || r > 0x202e) && (r < 0x2066 || r > 0x2069)
}
