package config

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

var variable = regexp.MustCompile(`\$?\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// expand puts variables into a value.
func (l *bootstrapLoader) expand(n *yaml.Node, path string) (err error) {
	before := n.Value
	n.Value = variable.ReplaceAllStringFunc(n.Value, func(m string) string {
		if strings.HasPrefix(m, "$$") {
			return m[1:]
		}
		name := m[2 : len(m)-1]
		v, ok := l.env[name]
		if !ok && err == nil {
			l.lines[path] = n.Line
			err = l.fail(path, "the environment has no variable %s", name)
		}
		if !utf8.ValidString(v) && err == nil {
			l.lines[path] = n.Line
			err = l.fail(path, "the environment's variable %s: %s", name, notUTF8(v))
		}
		return v
	})
	if n.Value != before {
		n.Tag, n.Style = "", 0 // what came from a variable may be a number, quoted or not
	}
	return err
}

// override takes scalars from the environment.
func (l *bootstrapLoader) override(b *Bootstrap) error {
	known := map[string]bool{"ISTHMUS_LOG_LEVEL": true} // false: of a field that is no scalar
	err := l.overrideIn(reflect.ValueOf(b).Elem(), "ISTHMUS", "", known)
	for _, k := range slices.Sorted(maps.Keys(l.env)) {
		scalar, ok := known[k]
		switch {
		case !strings.HasPrefix(k, "ISTHMUS_") || scalar || !ok && l.serviceLink(k):
		case ok:
			l.warnings = append(l.warnings, fmt.Sprintf("environment variable %s has no effect: the field has more than one value, so it has to stand in the bootstrap file", k))
		default:
			l.warnings = append(l.warnings, fmt.Sprintf("environment variable %s names no field of the bootstrap file%s", k, suggest(k, slices.Sorted(maps.Keys(known)))))
		}
	}
	return err
}

// serviceLink reports whether a variable is one of those by which the kubelet tells each
// container of the Services of its namespace: of isthmus-gateway,
// ISTHMUS_GATEWAY_SERVICE_HOST, ISTHMUS_GATEWAY_PORT_80_TCP_ADDR and others. Nobody meant them.
func (l *bootstrapLoader) serviceLink(name string) bool {
	for _, of := range []string{"_SERVICE_HOST", "_SERVICE_PORT", "_PORT"} {
		for i, from := -1, 0; ; from += i + 1 { // the Service's name may hold such words, too
			if i = strings.Index(name[from:], of); i < 0 {
				break
			}
			service, rest := name[:from+i], name[from+i+len(of):]
			if _, ok := l.env[service+"_SERVICE_HOST"]; ok && (rest == "" || rest[0] == '_') {
				return true
			}
		}
	}
	return false
}

func (l *bootstrapLoader) overrideIn(v reflect.Value, prefix, path string, known map[string]bool) error {
	for i := range v.NumField() {
		f := v.Field(i)
		tag := v.Type().Field(i).Tag.Get("yaml")
		name, at := prefix+"_"+upperSnake(tag), join(path, tag)
		if f.Kind() == reflect.Struct {
			if err := l.overrideIn(f, name, at, known); err != nil {
				return err
			}
			continue
		}
		text, set := l.env[name]
		known[name] = f.Kind() != reflect.Slice && f.Kind() != reflect.Map
		if !set || !known[name] {
			continue
		}
		l.variables[at] = name
		if wrong := put(f, text); wrong != "" {
			return l.fail(at, "%s", wrong)
		}
	}
	return nil
}

// put sets a field to a text, read as the file's would be, and says what is wrong with it.
func put(f reflect.Value, text string) (wrong string) {
	switch f.Kind() {
	case reflect.String:
		if !utf8.ValidString(text) {
			return notUTF8(text)
		}
		f.SetString(text)
		return ""
	case reflect.Bool: // also 1 and 0, as shells have it
		if b, err := strconv.ParseBool(text); err == nil {
			f.SetBool(b)
			return ""
		}
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Value: text}
	n.Tag = n.ShortTag()
	if text == "" {
		return "is empty: give it a value, or unset it"
	}
	giveUnit(n, f.Type())
	if wrong := mismatch(n, f.Type()); wrong != "" {
		return wrong
	}
	if err := n.Decode(f.Addr().Interface()); err != nil {
		return err.Error()
	}
	return ""
}

// notUTF8 says that a text is none: a file cannot hold such, and neither can metrics,
// where names come to.
func notUTF8(s string) string { return fmt.Sprintf("%q is not UTF-8", s) }

func upperSnake(s string) string {
	var b strings.Builder
	for i, c := range s {
		if unicode.IsUpper(c) && i > 0 && !unicode.IsUpper(rune(s[i-1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(c))
	}
	return b.String()
}
