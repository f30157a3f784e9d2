package config

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// decodeKubernetes fills a Kubernetes type, refusing fields that it has not.
func (d *document) decodeKubernetes(into any) bool {
	d.knownFields(d.root, reflect.TypeOf(into).Elem(), "")
	if d.failed() {
		return false
	}
	var v any
	if err := d.root.Decode(&v); err != nil {
		d.error("", err.Error())
		return false
	}
	data, err := json.Marshal(plain(v))
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		path := ""
		var wrong *json.UnmarshalTypeError
		if ok := asTypeError(err, &wrong); ok {
			path = wrong.Field
			err = fmt.Errorf("must be a %s, not a %s", wrong.Type, wrong.Value)
		}
		d.error(path, err.Error())
	}
	return !d.failed()
}

func asTypeError(err error, target **json.UnmarshalTypeError) bool {
	t, ok := err.(*json.UnmarshalTypeError)
	*target = t
	return ok
}

// knownFields reports keys that a Go type has no field for, by its json tags, and
// values of another type than it has there; it notes the places of the others.
func (d *document) knownFields(n *yaml.Node, t reflect.Type, path string) {
	n = resolve(n)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if n.Tag == "!!null" {
		return
	}
	if t == reflect.TypeFor[intstr.IntOrString]() && n.Tag != "!!int" && n.Tag != "!!str" {
		d.errorAt(n.Line, path, "must be a number or a name, not "+describe(n))
	} else if t == reflect.TypeFor[intstr.IntOrString]() && n.Tag == "!!int" && !holds(reflect.TypeFor[int32](), n) {
		d.errorAt(n.Line, path, "must be a whole number of 32 bits, not "+describe(n))
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return // it reads itself: quantities, times, ports by number or name
	}
	if wrong := wrongType(n, t); wrong != "" {
		d.errorAt(n.Line, path, wrong)
		return
	}
	switch {
	case t.Kind() == reflect.Map && n.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			at := join(path, n.Content[i].Value)
			d.places[at] = n.Content[i].Line
			d.knownFields(n.Content[i+1], t.Elem(), at)
		}
	case t.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		for i, item := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			d.places[at] = item.Line
			d.knownFields(item, t.Elem(), at)
		}
	case t.Kind() == reflect.Struct && n.Kind == yaml.MappingNode:
		fields := map[string]reflect.Type{}
		jsonFields(t, fields)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			at := join(path, key.Value)
			ft, ok := fields[key.Value]
			if !ok {
				names := make([]string, 0, len(fields))
				for name := range fields {
					names = append(names, name)
				}
				slices.Sort(names)
				d.errorAt(key.Line, at, "unknown field"+suggest(key.Value, names))
				continue
			}
			d.places[at] = key.Line
			d.knownFields(n.Content[i+1], ft, at)
		}
	}
}

// wrongType says what a value must be that does not fit a Go type, and what to
// write; "" if it fits.
func wrongType(n *yaml.Node, t reflect.Type) string {
	switch t.Kind() {
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode && t.Elem().Kind() != reflect.Uint8 {
			return "must be a list, not " + describe(n) + asList(n)
		}
	case reflect.Struct, reflect.Map:
		if n.Kind != yaml.MappingNode {
			return "must be a mapping, not " + describe(n) + asMapping(n, nil)
		}
	case reflect.String:
		if n.Kind != yaml.ScalarNode {
			return "must be a single value, not " + describe(n)
		}
		if n.Tag == "!!int" || n.Tag == "!!bool" || n.Tag == "!!float" {
			return fmt.Sprintf("must be a string (write %q), not %s", n.Value, describe(n))
		}
	case reflect.Int, reflect.Int32, reflect.Int64:
		if n.Tag == "!!str" {
			if _, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
				return fmt.Sprintf("must be a whole number, not %s: write %s", describe(n), n.Value)
			}
		}
		if n.Tag != "!!int" && n.Tag != "!!float" {
			return "must be a whole number, not " + describe(n)
		}
		if !holds(t, n) {
			return fmt.Sprintf("must be a whole number of %d bits, not %s", t.Bits(), describe(n))
		}
	case reflect.Bool:
		if n.Tag != "!!bool" {
			return "must be true or false, not " + describe(n)
		}
	}
	return ""
}

// holds reports whether an integer type can hold a number as it is.
func holds(t reflect.Type, n *yaml.Node) bool {
	var v float64
	limit := math.Ldexp(1, t.Bits()-1)
	return n.Decode(&v) == nil && v == math.Trunc(v) && -limit <= v && v < limit
}

func jsonFields(t reflect.Type, into map[string]reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			jsonFields(f.Type, into)
		case name != "" && name != "-":
			into[name] = f.Type
		}
	}
}
