package config

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"isthmus/mesh"
)

// monitor is what counts of a ServiceMonitor: which Services the Prometheus
// operator scrapes for it.
type monitor struct {
	doc        *document
	selector   map[string]string
	namespaces []string // none: its own
}

// readMonitor keeps a ServiceMonitor for a look at the whole set. Whether it is
// right otherwise is for the operator to say.
func (d *document) readMonitor() {
	spec := child(d.root, "spec")
	m := monitor{doc: d, selector: map[string]string{}}
	if labels := child(child(spec, "selector"), "matchLabels"); labels != nil && labels.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(labels.Content); i += 2 {
			m.selector[labels.Content[i].Value] = labels.Content[i+1].Value
			d.places["spec.selector.matchLabels"] = labels.Line
		}
	}
	names := child(spec, "namespaceSelector")
	if scalar(child(names, "any")) == "true" {
		m.namespaces = []string{"*"}
	}
	if list := child(names, "matchNames"); list != nil && list.Kind == yaml.SequenceNode {
		for _, n := range list.Content {
			m.namespaces = append(m.namespaces, n.Value)
		}
	}
	if len(m.namespaces) == 0 {
		m.namespaces = []string{d.namespace}
	}
	d.reader.monitors = append(d.reader.monitors, m)
}

// lintMonitors names ServiceMonitors that select no Service of the set.
func (c *checker) lintMonitors() {
	for _, m := range c.monitors {
		selects := slices.ContainsFunc(c.config.Services, func(s *mesh.Service) bool {
			return !s.IsEntry() && (m.namespaces[0] == "*" || slices.Contains(m.namespaces, s.Namespace)) && mesh.MatchLabels(m.selector, s.Labels)
		})
		if len(m.selector) == 0 || selects {
			continue
		}
		hint := ""
		if m.selector["istio"] == "mixer" {
			hint = " (Mixer is gone since Istio 1.8)"
		}
		m.doc.find(Warning, ISM0057, "spec.selector.matchLabels", fmt.Sprintf("no Service of namespace %s in these files bears %s%s: nothing of this mesh is scraped for it; Isthmus serves /metrics at the port of listeners.metrics (15020)", strings.Join(m.namespaces, ", "), mesh.LabelText(m.selector), hint))
	}
}
