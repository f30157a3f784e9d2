package config

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

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
		return v
	})
	if n.Value != before {
		n.Tag, n.Style = "", 0 // what came from a variable may be a number, quoted or not
	}
	return err
}

// override takes scalars from the environment.
func (l *bootstrapLoader) override(b *Bootstrap) error {
	known := map[string]bool{"ISTHMUS_LOG_LEVEL": true}
	err := l.overrideIn(reflect.ValueOf(b).Elem(), "ISTHMUS", known)
	for _, k := range slices.Sorted(maps.Keys(l.env)) {
		if strings.HasPrefix(k, "ISTHMUS_") && !known[k] {
			l.warnings = append(l.warnings, fmt.Sprintf("environment variable %s names no field of the bootstrap file%s", k, suggest(k, slices.Sorted(maps.Keys(known)))))
		}
	}
	return err
}

func (l *bootstrapLoader) overrideIn(v reflect.Value, prefix string, known map[string]bool) error {
	for i := range v.NumField() {
		f := v.Field(i)
		name := prefix + "_" + upperSnake(v.Type().Field(i).Tag.Get("yaml"))
		if f.Kind() == reflect.Struct {
			if err := l.overrideIn(f, name, known); err != nil {
				return err
			}
			continue
		}
		text, set := l.env[name]
		var err error
		switch f.Kind() {
		case reflect.String:
			known[name] = true
			if set {
				f.SetString(text)
			}
		case reflect.Bool:
			known[name] = true
			var x bool
			if set {
				if x, err = strconv.ParseBool(text); err == nil {
					f.SetBool(x)
				}
			}
		case reflect.Int:
			known[name] = true
			var x int
			if set {
				if x, err = strconv.Atoi(text); err == nil {
					f.SetInt(int64(x))
				}
			}
		case reflect.Float64:
			known[name] = true
			var x float64
			if set {
				if x, err = strconv.ParseFloat(text, 64); err == nil {
					f.SetFloat(x)
				}
			}
		case reflect.Int64: // a duration
			known[name] = true
			var x time.Duration
			if set {
				if x, err = time.ParseDuration(text); err == nil {
					f.SetInt(int64(x))
				}
			}
		}
		if err != nil {
			return fmt.Errorf("environment variable %s: %q is no %s", name, text, f.Type())
		}
	}
	return nil
}

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
