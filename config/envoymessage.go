package config

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"isthmus/mesh"
)

// envoyMessage reads a message of Envoy's out of an EnvoyFilter, in which it is
// JSON without a schema: field by field, by names in snake_case or
// lowerCamelCase. Envoy's own types would be some MiB in every proxy.
//
// What was read is noted, so that done can name what was not. The methods of a
// nil message return what a field that is absent means.
type envoyMessage struct {
	doc    *document
	path   string
	fields map[string]*structpb.Value
	read   map[string]bool
}

// newEnvoyMessage returns nil where v is no message.
func (d *document) newEnvoyMessage(v *structpb.Value, path string) *envoyMessage {
	switch {
	case v == nil || isNull(v):
		return nil
	case v.GetStructValue() == nil:
		d.error(path, "must be a mapping")
		return nil
	}
	return &envoyMessage{d, path, v.GetStructValue().GetFields(), map[string]bool{"@type": true}}
}

func isNull(v *structpb.Value) bool { _, ok := v.GetKind().(*structpb.Value_NullValue); return ok }

// get returns a field and its path; nil if it is absent.
func (m *envoyMessage) get(name string) (v *structpb.Value, path string) {
	if m == nil {
		return nil, ""
	}
	for _, n := range []string{name, camel(name)} {
		m.read[n] = true
	}
	for _, n := range []string{name, camel(name)} {
		if v, ok := m.fields[n]; ok {
			if isNull(v) {
				return nil, ""
			}
			return v, join(m.path, n)
		}
	}
	return nil, join(m.path, name)
}

// camel makes lowerCamelCase of snake_case.
func camel(name string) string {
	parts := strings.Split(name, "_")
	for i := 1; i < len(parts); i++ {
		if parts[i] != "" {
			parts[i] = strings.ToUpper(parts[i][:1]) + parts[i][1:]
		}
	}
	return strings.Join(parts, "")
}

// has reports whether a field is there.
func (m *envoyMessage) has(name string) bool {
	v, _ := m.get(name)
	return v != nil
}

// message returns a field that is a message; nil if it is absent.
func (m *envoyMessage) message(name string) *envoyMessage {
	v, path := m.get(name)
	if v == nil {
		return nil
	}
	return m.doc.newEnvoyMessage(v, path)
}

// list returns a field that is a list of messages.
func (m *envoyMessage) list(name string) (out []*envoyMessage) {
	v, path := m.get(name)
	if v == nil {
		return nil
	}
	if v.GetListValue() == nil {
		m.doc.error(path, "must be a list")
		return nil
	}
	for i, item := range v.GetListValue().GetValues() {
		if e := m.doc.newEnvoyMessage(item, fmt.Sprintf("%s[%d]", path, i)); e != nil {
			out = append(out, e)
		}
	}
	return out
}

// byName returns a field that is a map of messages, in the order of its keys.
func (m *envoyMessage) byName(name string, each func(key string, value *envoyMessage)) {
	inner := m.message(name)
	if inner == nil {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(inner.fields)) {
		if e := m.doc.newEnvoyMessage(inner.fields[key], join(inner.path, key)); e != nil {
			each(key, e)
		}
	}
}

// text returns a field that is a string.
func (m *envoyMessage) text(name string) string {
	v, path := m.get(name)
	if v == nil {
		return ""
	}
	s, ok := v.GetKind().(*structpb.Value_StringValue)
	if !ok {
		m.doc.error(path, "must be a string")
		return ""
	}
	return s.StringValue
}

// needText is text, where the field must be there.
func (m *envoyMessage) needText(name string) string {
	s := m.text(name)
	if m != nil && s == "" {
		m.doc.error(join(m.path, name), "is missing")
	}
	return s
}

// plainText is needText of what newer versions of Envoy may have as a format.
func (m *envoyMessage) plainText(name string) string {
	s := m.needText(name)
	m.formatted(s, join(m.path, name))
	return s
}

// formatted warns of a text that looks like a format and is not read as one.
func (m *envoyMessage) formatted(text, path string) {
	if strings.Contains(text, "%") {
		m.doc.warning(path, "is taken as it stands: what stands between % signs is not replaced")
	}
}

// flag returns a field that is true or false.
func (m *envoyMessage) flag(name string, otherwise bool) bool {
	v, path := m.get(name)
	if v == nil {
		return otherwise
	}
	b, ok := v.GetKind().(*structpb.Value_BoolValue)
	if !ok {
		m.doc.error(path, "must be true or false")
		return otherwise
	}
	return b.BoolValue
}

// number returns a field that is a whole number between two bounds.
func (m *envoyMessage) number(name string, otherwise, least, most int64) int64 {
	v, path := m.get(name)
	if v == nil {
		return otherwise
	}
	n := v.GetNumberValue()
	if s, ok := v.GetKind().(*structpb.Value_StringValue); ok { // as protobuf writes 64 bits
		if i, err := strconv.ParseInt(s.StringValue, 10, 64); err == nil {
			n = float64(i)
		} else {
			n = math.NaN()
		}
	}
	if n != math.Trunc(n) || n < float64(least) || n > float64(most) {
		m.doc.error(path, fmt.Sprintf("must be a whole number from %d to %d", least, most))
		return otherwise
	}
	return int64(n)
}

// duration returns a field that is a duration.
func (m *envoyMessage) duration(name string, otherwise time.Duration) time.Duration {
	v, path := m.get(name)
	if v == nil {
		return otherwise
	}
	t, err := time.ParseDuration(v.GetStringValue())
	if err != nil || t < 0 {
		m.doc.error(path, "must be a duration such as 1s or 50ms")
		return otherwise
	}
	return t
}

// word returns which of some words a field is, the first if it is absent.
func (m *envoyMessage) word(name string, words ...string) int {
	v, path := m.get(name)
	if v == nil {
		return 0
	}
	if i := slices.Index(words, v.GetStringValue()); i >= 0 {
		return i
	}
	m.doc.error(path, fmt.Sprintf("%q is none of %s%s", v.GetStringValue(), strings.Join(words, ", "), suggest(v.GetStringValue(), words)))
	return 0
}

// fraction reads a RuntimeFractionalPercent: its default, since there is no
// runtime here.
func (m *envoyMessage) fraction(name string, otherwise mesh.Fraction) mesh.Fraction {
	f := m.message(name)
	if f == nil {
		return otherwise
	}
	f.text("runtime_key")
	p := f.message("default_value")
	of := [...]int64{100, 10_000, 1_000_000}[p.word("denominator", "HUNDRED", "TEN_THOUSAND", "MILLION")]
	n := p.number("numerator", 0, 0, 1<<32-1)
	p.done()
	f.done()
	return mesh.Fraction(min(n, of) * (int64(mesh.AllRequests) / of))
}

// headers reads a list of HeaderValueOption: fields to add.
func (m *envoyMessage) headers(name string) (out []mesh.NameValue) {
	for _, o := range m.list(name) {
		h := o.message("header")
		nv := mesh.NameValue{Name: strings.ToLower(h.text("key")), Value: h.text("value")}
		switch {
		case !validHeaderName(nv.Name):
			m.doc.error(o.path+".header.key", "must be the name of a field")
			continue
		case strings.ContainsAny(nv.Value, "\r\n\x00"):
			m.doc.error(o.path+".header.value", "a header value cannot hold line ends")
			continue
		}
		m.formatted(nv.Value, o.path+".header.value")
		h.done()
		o.get("append")
		o.get("append_action")
		o.get("keep_empty_value")
		o.done()
		out = append(out, nv)
	}
	return out
}

// ignore takes fields as read that change nothing here.
func (m *envoyMessage) ignore(names ...string) {
	for _, n := range names {
		m.get(n)
	}
}

// noEffect says of fields that they are understood and do nothing.
func (m *envoyMessage) noEffect(why string, names ...string) {
	for _, n := range names {
		if v, path := m.get(n); v != nil {
			m.doc.warning(path, "has no effect: "+why)
		}
	}
}

// unread returns the fields that nobody has asked for, sorted.
func (m *envoyMessage) unread() (names []string) {
	if m == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(m.fields)) {
		if !m.read[name] {
			names = append(names, name)
		}
	}
	return names
}

// done names the fields that nobody has read: they are of another message, of
// another version of Envoy, or misspelt.
func (m *envoyMessage) done() {
	for _, name := range m.unread() {
		m.doc.warning(join(m.path, name), "is not known here and has no effect"+suggest(name, slices.Sorted(maps.Keys(m.read))))
	}
}
