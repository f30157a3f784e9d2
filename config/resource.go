package config

import (
	"hash"
	"hash/fnv"
	"slices"

	"go.yaml.in/yaml/v3"

	"isthmus/history"
)

// note lists the document among the resources of the set.
func (d *document) note() {
	h := fnv.New64a()
	hashNode(h, d.root, "")
	d.reader.resources = append(d.reader.resources, history.Resource{
		Kind: d.kind, Namespace: d.namespace, Name: d.name, File: d.file, Line: d.line, Hash: h.Sum64(),
	})
}

// unsaid are the fields that a cluster adds to what an author has written.
var unsaid = []string{
	"status", "metadata.resourceVersion", "metadata.generation", "metadata.uid", "metadata.creationTimestamp", "metadata.managedFields",
}

// hashNode hashes what the node at a path of the document says: neither comments
// nor the order of keys, nor how a value is quoted.
func hashNode(h hash.Hash, n *yaml.Node, path string) {
	n = resolve(n)
	switch n.Kind {
	case yaml.MappingNode:
		h.Write([]byte{'{'})
		keys := make([]int, 0, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			keys = append(keys, i)
		}
		slices.SortFunc(keys, func(a, b int) int {
			if n.Content[a].Value < n.Content[b].Value {
				return -1
			}
			return 1
		})
		for _, i := range keys {
			at := join(path, n.Content[i].Value)
			if slices.Contains(unsaid, at) {
				continue
			}
			h.Write([]byte(n.Content[i].Value))
			h.Write([]byte{0})
			hashNode(h, n.Content[i+1], at)
		}
		h.Write([]byte{'}'})
	case yaml.SequenceNode:
		h.Write([]byte{'['})
		for _, c := range n.Content {
			hashNode(h, c, path+"[]")
		}
		h.Write([]byte{']'})
	default:
		h.Write([]byte(n.Tag))
		h.Write([]byte{0})
		h.Write([]byte(n.Value))
		h.Write([]byte{0})
	}
}
