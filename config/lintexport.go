package config

import (
	"fmt"
	"maps"
	"slices"
)

// export is a namespace that a resource is exported to by name.
type export struct {
	doc             *document
	path, namespace string
}

// lintExports names namespaces that something is exported to and nothing else is
// in: it may be a slip, or one whose proxies call and have nothing of their own.
func (c *checker) lintExports(own, root string) {
	for _, e := range c.exports {
		if c.namespaces[e.namespace] || e.namespace == own || e.namespace == root {
			continue
		}
		hint := ""
		if c.suggested++; c.suggested <= suggestions && len(c.namespaces) <= suggestedHosts {
			hint = suggest(e.namespace, slices.Sorted(maps.Keys(c.namespaces)))
		}
		e.doc.find(Info, ISM0073, e.path, fmt.Sprintf("no resource of these files is in namespace %q%s: unless proxies are, nobody sees this there", e.namespace, hint))
	}
}
