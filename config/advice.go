package config

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	"isthmus/mesh"
)

// What a message says to write instead of what stands there.

// noSpace fits a text that was meant to be a key and a value.
var noSpace = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]*:[^\s/]`)

// asMapping says how a mapping is written that has a value in its place: by the
// field for which that was meant.
func asMapping(n *yaml.Node, of protoreflect.MessageDescriptor) string {
	key, value, _ := strings.Cut(n.Value, ":")
	switch {
	case n.Kind == yaml.ScalarNode && noSpace.MatchString(n.Value) && (of == nil || fieldNamed(of, key) != nil):
		return fmt.Sprintf(": write a space behind the colon, %s: %s", key, value)
	case n.Kind == yaml.SequenceNode:
		return `: leave the "- ", or the [ ], out`
	case n.Kind != yaml.ScalarNode || of == nil:
		return ""
	}
	var fits protoreflect.FieldDescriptor
	better := 0
	for i := range of.Fields().Len() {
		if f := of.Fields().Get(i); f.Cardinality() != protoreflect.Repeated {
			if how := suits(n, f); how > better {
				fits, better = f, how
			}
		}
	}
	if fits == nil {
		return ""
	}
	value = written(n)
	if fits.Kind() == protoreflect.EnumKind {
		value = strings.ToUpper(n.Value)
	}
	return fmt.Sprintf(": write {%s: %s}", fits.JSONName(), value)
}

// suits says how well a value fits a field: 3 for an enumeration's, 2 for a
// number's, 1 for a text's, 0 not at all.
func suits(n *yaml.Node, f protoreflect.FieldDescriptor) int {
	switch f.Kind() {
	case protoreflect.EnumKind:
		if f.Enum().Values().ByName(protoreflect.Name(strings.ToUpper(n.Value))) != nil {
			return 3
		}
	case protoreflect.Int32Kind, protoreflect.Uint32Kind, protoreflect.Int64Kind, protoreflect.Uint64Kind, protoreflect.DoubleKind:
		if n.Tag == "!!int" {
			return 2
		}
	case protoreflect.StringKind:
		if n.Tag == "!!str" {
			return 1
		}
	}
	return 0
}

// written is a value as it may stand in a mapping.
func written(n *yaml.Node) string {
	if n.Tag == "!!str" && strings.ContainsAny(n.Value, `*&!|>%@,[]{}#:"' `) {
		return fmt.Sprintf("%q", n.Value)
	}
	return n.Value
}

// asList says how a list is written that has something else in its place.
func asList(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return `: write "- " before each of its elements`
	case yaml.ScalarNode:
		return fmt.Sprintf(": write [%s]", written(n))
	}
	return ""
}

// asDuration says how a duration is written that has no unit, or spaces.
func asDuration(n *yaml.Node) string {
	text := strings.ReplaceAll(n.Value, " ", "")
	if _, err := time.ParseDuration(text + "s"); err == nil {
		return fmt.Sprintf(": write %ss, if seconds are meant", text)
	}
	if _, err := time.ParseDuration(text); err == nil {
		return ": write " + text
	}
	return ""
}

// unknown says what an unknown field may have been meant to be: another name, or
// one that belongs deeper, or less deep, than it stands.
func (d *document) unknown(n *yaml.Node, of protoreflect.MessageDescriptor, key string, value *yaml.Node) string {
	names := jsonNames(of.Fields())
	for _, name := range names {
		if strings.EqualFold(name, key) {
			return suggest(key, names)
		}
	}
	if under := fieldsWith(n, of, key, value); len(under) == 1 {
		return fmt.Sprintf(": it belongs under %s, further to the right", under[0])
	}
	for i := len(d.around) - 1; i >= 0; i-- {
		if fieldNamed(d.around[i], key) != nil {
			return ": it belongs further to the left, beside what it stands under"
		}
	}
	if hint := suggest(key, names); hint != "" || len(names) > fewNames {
		return hint
	}
	return ": there is " + strings.Join(names, ", ")
}

// fewNames is how many fields are named where none is like what was written.
const fewNames = 6

// fieldsWith are the fields of a message that have a field of a name, or take any:
// of several, those that stand there without a value.
func fieldsWith(n *yaml.Node, of protoreflect.MessageDescriptor, key string, value *yaml.Node) (under []string) {
	for i := range of.Fields().Len() {
		f := of.Fields().Get(i)
		labels := f.IsMap() && of.Fields().Len() == 1 && value.Kind == yaml.ScalarNode
		if labels || !f.IsMap() && f.Message() != nil && fieldNamed(f.Message(), key) != nil {
			under = append(under, f.JSONName())
		}
	}
	if len(under) < 2 {
		return under
	}
	return slices.DeleteFunc(under, func(name string) bool {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == name {
				return n.Content[i+1].Tag != "!!null"
			}
		}
		return true
	})
}

func fieldNamed(of protoreflect.MessageDescriptor, key string) protoreflect.FieldDescriptor {
	if f := of.Fields().ByJSONName(key); f != nil {
		return f
	}
	return of.Fields().ByName(protoreflect.Name(key))
}

// compilePattern compiles an expression that has to match a whole text.
func compilePattern(text string) (*mesh.Pattern, error) {
	p, err := mesh.NewPattern(text)
	return p, regexError(err)
}

// compileRegex compiles an expression that is searched for.
func compileRegex(text string) (*regexp.Regexp, error) {
	re, err := regexp.Compile(text)
	return re, regexError(err)
}

// regexError says what is wrong with an expression, and what to write.
func regexError(err error) error {
	if err == nil {
		return nil
	}
	hint := ""
	var bad *syntax.Error
	if errors.As(err, &bad) {
		switch bad.Code {
		case syntax.ErrInvalidPerlOp:
			hint = "; there is no look-ahead and no look-behind in RE2: write a rule before this one for what it is to leave out"
		case syntax.ErrMissingRepeatArgument:
			hint = "; write .* for anything"
		case syntax.ErrInvalidEscape:
			hint = `; RE2 knows no back-references, and no escapes beside those of https://github.com/google/re2/wiki/Syntax`
		}
	}
	return errors.New("is no RE2 expression: " + strings.TrimPrefix(err.Error(), "error parsing regexp: ") + hint)
}

// asHost says what of a text that is no host name may be one.
func asHost(text string) string {
	host := text
	if _, err := netip.ParseAddr(text); err == nil {
		return ""
	}
	if _, rest, ok := strings.Cut(host, "://"); ok {
		host = rest
	}
	host, _, _ = strings.Cut(host, "/")
	host, port, hasPort := strings.Cut(host, ":")
	if host == text {
		return ""
	}
	for label := range strings.SplitSeq(strings.TrimPrefix(host, "*."), ".") {
		if !validLabel(label) {
			return ""
		}
	}
	if hasPort && port != "" {
		return fmt.Sprintf(": write %s, and the port %s where ports are", host, port)
	}
	return ": write " + host
}
