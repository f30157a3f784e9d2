package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:unmarshal errors:\s*)?line (\d+): `)

// yamlError says where a text stops being YAML, and what is wrong there. line is 0
// where that is hard to tell.
func yamlError(err error, data []byte) (line int, message string) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	if at := failingLine(data); at > 0 {
		line = at
	}
	return line, "not YAML: " + text + yamlHint(text, lineAt(data, line))
}

// yamlHints say what a message of the library may mean, the likeliest first.
var yamlHints = []struct{ in, hint string }{
	{"cannot start any token", "a text that begins with it belongs in quotes"},
	{"expected alphabetic or numeric", "* and & begin names of anchors: a text that begins with one belongs in quotes"},
	{"mapping values are not allowed", `either the line stands further to the right than it should, or a text with ": " belongs in quotes`},
	{"did not find expected key", "what belongs together begins in one column: this line begins in another than those above"},
	{"did not find expected '-' indicator", "what belongs together begins in one column: this line begins in another than those above"},
	{"expected ',' or", "a { or [ is not closed, or a text with one of ,[]{} belongs in quotes"},
	{"unexpected end of stream", "a quotation mark is not closed"},
	{"unexpected document indicator", "a quotation mark is not closed"},
	{"could not find expected ':'", `behind a key there is ": "`},
	{"unknown anchor", "an alias names an anchor before it, in the same document"},
}

// yamlHint says what to do about a line that the library has refused.
func yamlHint(text, line string) string {
	indentation := line[:len(line)-len(strings.TrimLeft(line, " \t-"))]
	if strings.Contains(indentation, "\t") {
		return `: the line begins with a tab, and YAML is indented by spaces alone`
	}
	for _, h := range yamlHints {
		if strings.Contains(text, h.in) {
			return ": " + h.hint
		}
	}
	return ""
}

// lineAt returns a line of a text, counted from 1; "" if there is none.
func lineAt(data []byte, n int) string {
	for ; n > 1; n-- {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			return ""
		}
		data = data[i+1:]
	}
	if n < 1 {
		return ""
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return string(line)
}

const (
	failingLines = 64       // that are tried
	failingBytes = 64 << 10 // of a document in which they are looked for
)

// failingLine finds the line at which a text stops being YAML: the one behind the
// longest part of its document that is some. The library names the line at which
// the mapping or list began. It is 0 where there is none, or it is far from where
// the library gave up.
func failingLine(data []byte) int {
	r := &lineReader{rest: data}
	if parses(r) {
		return 0
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	end := min(r.given, len(lines))
	// The document begins at its marker. That the library has just read one says
	// that what is before it has no end.
	first := end - 2
	for ; first > 0; first-- {
		if bytes.HasPrefix(lines[first], []byte("---")) {
			break
		}
	}
	first = max(first, 0)
	part := bytes.Join(lines[first:end], nil)
	if len(part) > failingBytes {
		return 0
	}
	for n := end; n > first && n > end-failingLines; n-- {
		part = part[:len(part)-len(lines[n-1])]
		if parses(bytes.NewReader(part)) {
			return n
		}
	}
	return 0
}

// parses reports whether a text is YAML up to its end.
func parses(r io.Reader) bool {
	dec := yaml.NewDecoder(r)
	for {
		var n yaml.Node
		if err := decodeSafely(dec, &n); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}

// lineReader gives a text line by line, so that how far its reader has come can be
// told.
type lineReader struct {
	rest  []byte
	given int // lines
}

// Read implements io.Reader.
func (r *lineReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := bytes.IndexByte(r.rest, '\n') + 1
	if n == 0 {
		n = len(r.rest)
	}
	whole := n <= len(p)
	n = copy(p, r.rest[:n])
	r.rest = r.rest[n:]
	if whole {
		r.given++
	}
	return n, nil
}
