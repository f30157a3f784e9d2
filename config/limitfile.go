package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"isthmus/mesh"
)

// LoadLimits reads limits in the format of envoyproxy/ratelimit: a document for
// each domain. Errors, one for each line, name the place; warnings say what is
// understood and has no effect.
func LoadLimits(path string) (domains []*mesh.LimitDomain, warnings []string, err error) {
	if _, err := os.Stat(path); err != nil {
		return nil, nil, fmt.Errorf("rateLimits.config: %w", err)
	}
	files, findings := collect([]string{path})
	if len(findings) > 0 {
		return nil, nil, fmt.Errorf("rateLimits.config %s: %s", path, findings[0].Message)
	}
	return readLimits(path, files[0].Data)
}

func readLimits(path string, data []byte) ([]*mesh.LimitDomain, []string, error) {
	r := &limitReader{file: path}
	data = fromJSON(data)
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		if err := decodeSafely(dec, &doc); err == io.EOF {
			break
		} else if err != nil {
			line, message := yamlError(err, data)
			r.errorf(line, "", "%s", message)
			break
		}
		if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
			continue
		}
		if _, line, err := expand(doc.Content[0]); err != nil {
			r.errorf(line, "", "%s", err)
			continue
		}
		r.domain(doc.Content[0])
	}
	if len(r.errors) > 0 {
		return nil, r.warnings, errors.Join(r.errors...)
	}
	return r.domains, r.warnings, nil
}

// maxLimitDepth is how many entries deep limits may be told apart; the rate
// limit service has no bound, and nobody uses five.
const maxLimitDepth = 16

type limitReader struct {
	file     string
	domains  []*mesh.LimitDomain
	errors   []error
	warnings []string
}

func (r *limitReader) errorf(line int, field, format string, args ...any) {
	r.errors = append(r.errors, errors.New(r.text(line, field, fmt.Sprintf(format, args...))))
}

func (r *limitReader) text(line int, field, message string) string {
	if field != "" {
		message = field + ": " + message
	}
	return fmt.Sprintf("%s:%d: %s", r.file, line, message)
}

// each calls fn for the fields of a mapping, all of which must be known.
func (r *limitReader) each(n *yaml.Node, path string, known []string, fn func(name string, v *yaml.Node, at string)) {
	if n = resolve(n); n.Kind != yaml.MappingNode {
		r.errorf(n.Line, path, "must be a mapping, not %s", describe(n))
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, v := n.Content[i], resolve(n.Content[i+1])
		at := join(path, key.Value)
		if !slices.Contains(known, key.Value) {
			r.errorf(key.Line, at, "unknown field%s", suggest(key.Value, known))
			continue
		}
		fn(key.Value, v, at)
	}
}

func (r *limitReader) domain(n *yaml.Node) {
	d := &mesh.LimitDomain{}
	if child(n, "apiVersion") != nil && child(n, "kind") != nil {
		r.errorf(n.Line, "", "is a resource of Kubernetes: name a file that has what stands in the data of a ConfigMap, from domain on")
		return
	}
	r.each(n, "", []string{"domain", "descriptors"}, func(name string, v *yaml.Node, at string) {
		switch name {
		case "domain":
			d.Domain = scalar(v)
		case "descriptors":
			d.Descriptors = r.rules(v, at, 1)
		}
	})
	if d.Domain == "" {
		r.errorf(n.Line, "domain", "is missing: write the domain that the filter names")
		return
	}
	if slices.ContainsFunc(r.domains, func(o *mesh.LimitDomain) bool { return o.Domain == d.Domain }) {
		r.errorf(n.Line, "domain", "%q is there twice", d.Domain)
		return
	}
	r.domains = append(r.domains, d)
}

var ruleFields = []string{"key", "value", "rate_limit", "shadow_mode", "descriptors", "detailed_metric", "quota_mode", "value_to_metric", "share_threshold"}

func (r *limitReader) rules(n *yaml.Node, path string, depth int) (out []*mesh.LimitRule) {
	if n.Kind != yaml.SequenceNode {
		r.errorf(n.Line, path, "must be a list, not %s", describe(n))
		return nil
	}
	if depth > maxLimitDepth {
		r.errorf(n.Line, path, "is nested more than %d deep", maxLimitDepth)
		return nil
	}
	type descriptor struct{ key, value string }
	seen := make(map[descriptor]bool, len(n.Content))
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		rule := &mesh.LimitRule{Source: mesh.Source{File: r.file, Line: item.Line}}
		r.each(item, at, ruleFields, func(name string, v *yaml.Node, at string) {
			switch name {
			case "key":
				rule.Key = scalar(v)
			case "value":
				rule.Value = scalar(v)
			case "shadow_mode":
				rule.Shadow = r.flag(v, at)
			case "rate_limit":
				rule.Limit = r.limit(v, at)
			case "descriptors":
				rule.Children = r.rules(v, at, depth+1)
			case "quota_mode", "share_threshold":
				if scalar(v) != "false" {
					r.warnings = append(r.warnings, r.text(v.Line, at, "has no effect: every value is counted by itself, and a limit refuses"))
				}
			}
		})
		if rule.Key == "" {
			r.errorf(item.Line, at+".key", "is missing")
			continue
		}
		d := descriptor{rule.Key, rule.Value}
		if seen[d] {
			r.errorf(item.Line, at, "the descriptor %s=%s is there twice", d.key, d.value)
			continue
		}
		seen[d] = true
		out = append(out, rule)
	}
	return out
}

func (r *limitReader) flag(v *yaml.Node, at string) bool {
	if v.Tag != "!!bool" {
		r.errorf(v.Line, at, "must be true or false, not %s", describe(v))
	}
	return v.Value == "true"
}

func (r *limitReader) limit(n *yaml.Node, path string) *mesh.ServiceLimit {
	l := &mesh.ServiceLimit{}
	counted, named := false, false
	r.each(n, path, []string{"unit", "requests_per_unit", "unlimited", "name", "replaces", "unit_multiplier"}, func(name string, v *yaml.Node, at string) {
		switch name {
		case "unit":
			u, ok := mesh.LimitUnitOf(strings.ToLower(scalar(v)))
			if !ok {
				r.errorf(v.Line, at, "%q is none of second, minute, hour, day, week, month, year", scalar(v))
			}
			l.Unit, named = u, true
		case "requests_per_unit":
			count, err := strconv.ParseUint(scalar(v), 10, 32)
			if err != nil {
				r.errorf(v.Line, at, "must be a whole number, not %s", describe(v))
			}
			l.Requests, counted = uint32(count), true
		case "unlimited":
			l.Unlimited = r.flag(v, at)
		case "name":
			l.Name = scalar(v)
		case "replaces":
			r.warnings = append(r.warnings, r.text(v.Line, at, "has no effect: every limit that fits counts"))
		case "unit_multiplier":
			if scalar(v) != "1" {
				r.errorf(v.Line, at, "is not supported: choose another unit")
			}
		}
	})
	switch {
	case l.Unlimited && counted:
		r.errorf(n.Line, path, "unlimited cannot stand beside requests_per_unit")
	case !l.Unlimited && !named:
		r.errorf(n.Line, path+".unit", "is missing: write second, minute, hour, day, week, month or year")
	case !l.Unlimited && !counted:
		r.errorf(n.Line, path+".requests_per_unit", "is missing")
	}
	return l
}
