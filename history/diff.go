package history

import (
	"bytes"
	"fmt"
	"strings"
)

// Difference is how two revisions differ.
type Difference struct {
	From    uint64       `json:"from"`
	To      uint64       `json:"to"`
	Changes Changes      `json:"changes"`
	Lines   []TextChange `json:"lines"` // of the resources in Changes
}

// TextChange is how the text of one resource differs.
type TextChange struct {
	Resource string   `json:"resource"` // "VirtualService default/reviews"
	Source   string   `json:"source"`   // file:line in the later revision, or the earlier for one that is gone
	Lines    []string `json:"lines"`    // each begins with " ", "-" or "+"
}

// Diff compares two revisions, by resources and by the lines of each.
func (s *Store) Diff(from, to uint64) (*Difference, error) {
	_, oldFiles, before, err := s.Content(from)
	if err != nil {
		return nil, err
	}
	_, newFiles, after, err := s.Content(to)
	if err != nil {
		return nil, err
	}
	d := &Difference{From: from, To: to, Changes: Compare(before, after).bounded(), Lines: []TextChange{}}
	add := func(r Resource, old, new []string) {
		d.Lines = append(d.Lines, TextChange{r.String(), r.Source(), diffLines(old, new)})
	}
	old := map[string]Resource{}
	for _, r := range before {
		old[r.String()] = r
	}
	for _, r := range d.Changes.Changed {
		add(r, textOf(oldFiles, old[r.String()]), textOf(newFiles, r))
	}
	for _, r := range d.Changes.Added {
		add(r, nil, textOf(newFiles, r))
	}
	for _, r := range d.Changes.Removed {
		add(r, textOf(oldFiles, r), nil)
	}
	return d, nil
}

// textOf returns the lines of the document in which a resource stands.
func textOf(files []File, r Resource) []string {
	for _, f := range files {
		if f.Name != r.File {
			continue
		}
		line := 1
		for _, doc := range documents(f.Data) {
			n := bytes.Count(doc, []byte("\n"))
			if r.Line < line+n || r.Line == line+n && !bytes.HasSuffix(doc, []byte("\n")) {
				text := strings.TrimPrefix(string(doc), "---")
				return strings.Split(strings.Trim(text, "\r\n"), "\n")
			}
			line += n
		}
	}
	return nil
}

const (
	contextLines = 3       // around a change
	maxCells     = 4 << 20 // of the table by which lines are compared; beyond, all are shown
	maxLines     = 400     // of one resource that are shown
)

// diffLines compares by the longest common subsequence, and leaves out what is
// far from any change.
func diffLines(a, b []string) []string {
	start := 0
	for start < len(a) && start < len(b) && a[start] == b[start] {
		start++
	}
	end := 0
	for end < len(a)-start && end < len(b)-start && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	var all []string
	for _, l := range a[:start] {
		all = append(all, " "+l)
	}
	all = append(all, diffMiddle(a[start:len(a)-end], b[start:len(b)-end])...)
	for _, l := range a[len(a)-end:] {
		all = append(all, " "+l)
	}
	return abridge(all)
}

func diffMiddle(a, b []string) (out []string) {
	if len(a)*len(b) > maxCells {
		for _, l := range a {
			out = append(out, "-"+l)
		}
		for _, l := range b {
			out = append(out, "+"+l)
		}
		return out
	}
	// common[i][j] is the length of the longest common subsequence of a[i:] and
	// b[j:].
	width := len(b) + 1
	common := make([]int32, (len(a)+1)*width)
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i*width+j] = common[(i+1)*width+j+1] + 1
			} else {
				common[i*width+j] = max(common[(i+1)*width+j], common[i*width+j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, " "+a[i])
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[(i+1)*width+j] >= common[i*width+j+1]:
			out = append(out, "-"+a[i])
			i++
		default:
			out = append(out, "+"+b[j])
			j++
		}
	}
	return out
}

// abridge keeps changes and the lines around them.
func abridge(all []string) []string {
	near := make([]bool, len(all))
	for i, l := range all {
		if l[0] != ' ' {
			for j := max(0, i-contextLines); j < min(len(all), i+contextLines+1); j++ {
				near[j] = true
			}
		}
	}
	out := []string{}
	for i, l := range all {
		switch {
		case len(out) == maxLines:
			return append(out, fmt.Sprintf(" ... and %d lines more", len(all)-i))
		case near[i]:
			out = append(out, l)
		case i > 0 && near[i-1]:
			out = append(out, " ...")
		}
	}
	return out
}
