package config

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// blank finds what a template leaves for others to fill in: Helm's {{ }}, and the
// ${NAME} of envsubst.
var blank = regexp.MustCompile(`\{\{.*?\}\}|\$\{[A-Za-z_][A-Za-z0-9_]*\}`)

// templateHint says of a file that is no YAML that it may be a template.
func templateHint(data []byte) string {
	if bytes.Contains(data, []byte("{{")) && bytes.Contains(data, []byte("}}")) {
		return "; it looks like a template: fill it in first (helm template)"
	}
	return ""
}

// mayHoldBlanks are kinds whose texts are somebody else's templates.
var mayHoldBlanks = []string{"ConfigMap", "Secret", "EnvoyFilter", "Telemetry"}

// findBlanks names the first place of a resource that nobody has filled in: the
// text would be taken as it stands.
func (d *document) findBlanks() {
	if slices.Contains(mayHoldBlanks, d.kind) {
		return
	}
	for _, part := range []string{"metadata", "spec"} {
		if path, n := firstBlank(child(d.root, part), part); n != nil {
			d.mark(Warning, ISM0071, n.Line, path, fmt.Sprintf("has %s, which nobody has filled in: it is taken as it stands; only the bootstrap file takes values from the environment", blank.FindString(n.Value)))
			return
		}
	}
}

func firstBlank(n *yaml.Node, path string) (string, *yaml.Node) {
	if n == nil {
		return "", nil
	}
	switch n.Kind {
	case yaml.ScalarNode:
		if strings.Contains(n.Value, "{") && blank.MatchString(n.Value) {
			return path, n
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i].Value
			if path == "metadata" && key == "annotations" {
				continue // the templates of other tools
			}
			if at, hit := firstBlank(n.Content[i+1], join(path, key)); hit != nil {
				return strings.TrimPrefix(at, "spec."), hit
			}
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			if at, hit := firstBlank(c, index(path, i)); hit != nil {
				return at, hit
			}
		}
	}
	return "", nil
}
