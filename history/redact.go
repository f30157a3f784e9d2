package history

import (
	"bytes"
	"regexp"
)

var (
	separator = regexp.MustCompile(`(?m)^---`)
	secret    = regexp.MustCompile(`(?m)["']?kind["']?[ \t]*:[ \t]*["']?Secret(List)?["']?[ \t\r]*($|[,}#])`)
	anyKind   = regexp.MustCompile(`(?m)(^|[{,-])[ \t]*["']?kind["']?[ \t]*:`)
)

// Redact returns the files without documents of kind Secret, which Isthmus does
// not read: in their place are as many empty lines, so that the others keep
// theirs. n is how many documents these are. ok is false if a Secret stands in one
// document with other resources, in a List: then the files are not to be kept.
func Redact(files []File) (_ []File, n int, ok bool) {
	out := make([]File, len(files))
	for i, f := range files {
		out[i] = f
		if !secret.Match(f.Data) {
			continue
		}
		var data []byte
		for _, doc := range documents(f.Data) {
			if secret.Match(doc) {
				if len(anyKind.FindAll(doc, 2)) > 1 {
					return nil, 0, false
				}
				doc = blank(doc)
				n++
			}
			data = append(data, doc...)
		}
		out[i].Data = data
	}
	return out, n, true
}

// documents cuts a text before each line that begins a document.
func documents(data []byte) [][]byte {
	var out [][]byte
	from := 0
	for _, at := range separator.FindAllIndex(data, -1) {
		if at[0] > from {
			out = append(out, data[from:at[0]])
			from = at[0]
		}
	}
	return append(out, data[from:])
}

// blank keeps of a document its separator and its line ends.
func blank(doc []byte) []byte {
	var out []byte
	if bytes.HasPrefix(doc, []byte("---")) {
		out = append(out, "---"...)
	}
	return append(out, bytes.Repeat([]byte("\n"), bytes.Count(doc, []byte("\n")))...)
}
