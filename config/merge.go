package config

import (
	"errors"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// mergeKey is the key whose value's keys stand in its mapping as well: <<: *name
// (YAML's merge key, https://yaml.org/type/merge.html).
const mergeKey = "!!merge"

// timestamp is what the YAML library takes a text for that looks like a date.
const timestamp = "!!timestamp"

// expand makes a document ready to be read: it refuses what the YAML library lets
// pass (see [sound]), puts what merge keys name in their place, and leaves dates texts. Who reads the
// document sees neither; the keys bear the line where they are written. It returns
// the line of what is wrong, and the places where kubectl reads something else.
func expand(root *yaml.Node) (told []notice, line int, err error) {
	budget := maxNodes
	if line, err := sound(root, &budget, nil); err != nil {
		return nil, line, err
	}
	m := merger{from: root.Line, done: map[*yaml.Node]bool{}}
	m.expand(root)
	return m.told, 0, nil
}

// notice is something that kubectl would read otherwise.
type notice struct {
	line int
	key  string // that it is about; "": none
	text string
}

type merger struct {
	from int                 // line of the document
	done map[*yaml.Node]bool // mappings may be there several times, by aliases
	told []notice
}

// expand replaces the merge keys of a node and of all below it. What it makes is no
// larger than what sound has counted, since that has followed the same aliases.
func (m *merger) expand(n *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		if n.Alias.Line < m.from {
			m.told = append(m.told, notice{line: n.Line, text: fmt.Sprintf("*%s names what another document has in line %d; kubectl, for which names hold within a document, refuses it", n.Value, n.Alias.Line)})
		}
		n = n.Alias
	}
	if m.done[n] {
		return
	}
	m.done[n] = true
	if n.Kind == yaml.ScalarNode && n.Tag == timestamp && n.Style&yaml.TaggedStyle == 0 {
		n.Tag = "!!str" // as kubectl reads a date that is a label's value
	}
	for _, c := range n.Content {
		m.expand(c)
	}
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].Tag == mergeKey {
			m.merge(n, i)
			return // there is only one
		}
	}
}

// merge puts the mappings that the merge key at a place names in its place: a
// mapping's own keys win, then those of the earlier one.
func (m *merger) merge(n *yaml.Node, at int) {
	own := map[string]int{} // key -> its place; -1: it is merged
	for i := 0; i < len(n.Content); i += 2 {
		own[n.Content[i].Value] = i
	}
	var merged []*yaml.Node
	for _, from := range partsOf(n.Content[at+1]) {
		from = resolve(from)
		for i := 0; i < len(from.Content); i += 2 {
			k := from.Content[i]
			place, ok := own[k.Value]
			if !ok {
				own[k.Value] = -1
				merged = append(merged, k, from.Content[i+1])
			} else if place >= 0 && place < at {
				// The specification has it so; for kubectl's library the later wins.
				m.told = append(m.told, notice{n.Content[place].Line, k.Value, fmt.Sprintf("stands before << and wins over what that brings from line %d; kubectl would take the latter: write << first", k.Line)})
			}
		}
	}
	content := make([]*yaml.Node, 0, len(n.Content)-2+len(merged))
	content = append(content, n.Content[:at]...)
	content = append(content, merged...)
	n.Content = append(content, n.Content[at+2:]...)
}

// partsOf returns what the value of a merge key names: itself, or of a list each.
func partsOf(value *yaml.Node) []*yaml.Node {
	if value.Kind == yaml.SequenceNode {
		return value.Content
	}
	return []*yaml.Node{value}
}

// mergeable refuses a merge key's value that is no mapping and no list of them.
func mergeable(value *yaml.Node) (line int, err error) {
	for _, v := range partsOf(value) {
		if to := resolve(v); to.Kind != yaml.MappingNode {
			return v.Line, fmt.Errorf("<< takes a mapping or a list of mappings, not %s: write <<: *NAME, with &NAME at a mapping", describe(to))
		}
	}
	return 0, nil
}

// errSecondMerge is what two merge keys in one mapping are told.
var errSecondMerge = errors.New("<< is given twice: write a list, <<: [*ONE, *OTHER], of which the first wins")
