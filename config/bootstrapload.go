package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// LoadBootstrap reads a bootstrap file, or only defaults and environment for a
// path of "". Environment variables win: ISTHMUS_ and the path of a field in
// upper snake case, ISTHMUS_NODE_SERVICE_ACCOUNT. ${VAR} within a value is
// taken from the environment, $${ stands for ${. environ is as os.Environ
// gives it. warnings name what has no effect.
func LoadBootstrap(path string, environ []string) (b *Bootstrap, warnings []string, err error) {
	env := map[string]string{}
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	b = defaults()
	l := &bootstrapLoader{path: path, env: env, lines: map[string]int{}, variables: map[string]string{}}
	if path != "" {
		if err := l.read(b); err != nil {
			return nil, nil, err
		}
	}
	if err := l.override(b); err != nil {
		return nil, nil, err
	}
	if err := l.complete(b); err != nil {
		return nil, nil, err
	}
	return b, l.warnings, nil
}

type bootstrapLoader struct {
	path     string
	env      map[string]string
	lines    map[string]int // field path -> line
	warnings []string

	variables map[string]string // field path -> the environment variable that has set it
}

// fail makes an error that names the place of a field: the variable that it comes from,
// or its line.
func (l *bootstrapLoader) fail(field, format string, args ...any) error {
	message := fmt.Sprintf(format, args...)
	if name := l.variables[field]; name != "" {
		return fmt.Errorf("environment variable %s: %s", name, message)
	}
	if field != "" {
		message = field + ": " + message
	}
	switch line := l.lines[field]; {
	case line > 0:
		return fmt.Errorf("%s:%d: %s", l.path, line, message)
	case l.path != "":
		return fmt.Errorf("%s: %s", l.path, message)
	}
	return fmt.Errorf("%s", message)
}

func (l *bootstrapLoader) read(b *Bootstrap) error {
	data, err := os.ReadFile(l.path)
	if err != nil {
		return fmt.Errorf("bootstrap file %s: %s", l.path, readError(err))
	}
	root, err := l.only(data)
	if root == nil || err != nil {
		return err
	}
	if _, line, err := expand(root); err != nil {
		l.lines[""] = line
		return l.fail("", "%s", err)
	}
	if err := l.walk(root, reflect.TypeFor[Bootstrap](), ""); err != nil {
		return err
	}
	if g := child(root, "gossip"); g != nil && child(g, "bind") == nil {
		b.Gossip.Bind = "0.0.0.0:7946"
	}
	if err := root.Decode(b); err != nil {
		line, message := yamlError(err, nil)
		l.lines[""] = line
		return l.fail("", "%s", strings.TrimPrefix(message, "not YAML: "))
	}
	return nil
}

// only returns the document of the file; nil if there is none.
func (l *bootstrapLoader) only(data []byte) (root *yaml.Node, err error) {
	data = fromJSON(data)
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var doc yaml.Node
		err := decodeSafely(dec, &doc)
		switch {
		case errors.Is(err, io.EOF):
			return root, nil
		case err != nil:
			line, message := yamlError(err, data)
			l.lines[""] = line
			return nil, l.fail("", "%s", message)
		case len(doc.Content) == 0 || doc.Content[0].Tag == "!!null":
			continue
		case root != nil:
			l.lines[""] = doc.Content[0].Line
			return nil, l.fail("", "a second document begins here: a bootstrap file is one")
		}
		root = doc.Content[0]
	}
}

// walk refuses unknown fields, notes the places of the others and puts
// variables in.
func (l *bootstrapLoader) walk(n *yaml.Node, t reflect.Type, path string) error {
	n = resolve(n)
	if n.Kind == yaml.ScalarNode {
		if err := l.expand(n, path); err != nil {
			return err
		}
		giveUnit(n, t)
	}
	if wrong := mismatch(n, t); wrong != "" {
		l.lines[path] = n.Line
		return l.fail(path, "%s", wrong)
	}
	if n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice {
		for i, item := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			l.lines[at] = item.Line
			if err := l.walk(item, t.Elem(), at); err != nil {
				return err
			}
		}
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		at := join(path, key.Value)
		l.lines[at] = key.Line
		elem := t
		switch t.Kind() {
		case reflect.Map:
			if t.Key().Kind() != reflect.String {
				key.Tag, key.Style = "", 0 // keys may be quoted, as in JSON they are
				key.Tag = key.ShortTag()
			}
			if wrong := mismatch(key, t.Key()); wrong != "" {
				return l.fail(at, "%s", wrong)
			}
			elem = t.Elem()
		case reflect.Struct:
			f, names := fieldByTag(t, key.Value)
			if f == nil {
				return l.fail(at, "unknown field%s", suggest(key.Value, names))
			}
			elem = f.Type
		}
		if err := l.walk(n.Content[i+1], elem, at); err != nil {
			return err
		}
	}
	return nil
}

// giveUnit gives 0 its unit where a duration is wanted: the only number that needs none.
func giveUnit(n *yaml.Node, t reflect.Type) {
	if t == reflect.TypeFor[time.Duration]() && n.Value == "0" {
		n.Value, n.Tag = "0s", "!!str"
	}
}

// mismatch says what a value must be that the bootstrap file cannot have in a field
// of a type; "" if it can.
func mismatch(n *yaml.Node, t reflect.Type) string {
	if n.Tag == "!!null" {
		return ""
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Struct, reflect.Map:
		return wrongType(n, t)
	}
	if n.Kind != yaml.ScalarNode {
		if t.Kind() == reflect.Interface {
			return ""
		}
		return "must be a single value, not " + describe(n)
	}
	if n.Decode(reflect.New(t).Interface()) == nil {
		return ""
	}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "must be a duration such as 5s, 30ms or 1h, not " + describe(n) + asDuration(n)
	case t.Kind() == reflect.Bool:
		return "must be true or false, not " + describe(n)
	case t.Kind() == reflect.Float64:
		return "must be a number, not " + describe(n)
	case t.Kind() == reflect.String:
		return "must be a string, not " + describe(n)
	}
	return "must be a whole number, not " + describe(n)
}

func fieldByTag(t reflect.Type, name string) (*reflect.StructField, []string) {
	var names []string
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("yaml")
		if tag == name {
			return &f, nil
		}
		names = append(names, tag)
	}
	return nil, names
}
