package config

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// decode fills a message of Istio's schema with the document's spec. Whatever
// does not fit the schema is an error with its line; fields that are valid but
// have no effect here are warnings (effect.go). It reports whether the message
// may be used.
//
// protojson would not do: it knows no lines, and refuses durations such as
// "30ms" that Istio accepts.
func (d *document) decode(m proto.Message) bool {
	if spec := child(d.root, "spec"); spec != nil {
		d.places["spec"] = spec.Line
		d.message(spec, m.ProtoReflect(), "")
	}
	d.otherKeys(m.ProtoReflect().Descriptor(), "spec", "status")
	d.otherMetadata()
	return !d.failed()
}

// otherKeys refuses top-level keys that no resource of the kind has.
func (d *document) otherKeys(spec protoreflect.MessageDescriptor, known ...string) {
	known = append(known, "apiVersion", "kind", "metadata")
	for i := 0; i < len(d.root.Content); i += 2 {
		if k := d.root.Content[i]; !slices.Contains(known, k.Value) {
			hint := suggest(k.Value, known)
			if fieldNamed(spec, k.Value) != nil {
				hint = ": it belongs under spec, further to the right"
			}
			d.errorAt(k.Line, k.Value, "unknown field"+hint)
		}
	}
}

// otherMetadata names keys of the metadata that Kubernetes does not know.
func (d *document) otherMetadata() {
	fields := map[string]reflect.Type{}
	jsonFields(reflect.TypeFor[meta.ObjectMeta](), fields)
	m := child(d.root, "metadata")
	for i := 0; i+1 < len(m.Content); i += 2 {
		if k := m.Content[i]; fields[k.Value] == nil {
			d.mark(Warning, "", k.Line, join("metadata", k.Value), "unknown field, which has no effect"+suggest(k.Value, slices.Sorted(maps.Keys(fields))))
		}
	}
}

func join(path, field string) string {
	if path == "" {
		return field
	}
	return path + "." + field
}

func (d *document) message(n *yaml.Node, m protoreflect.Message, path string) {
	n = resolve(n)
	if n.Tag == "!!null" {
		return
	}
	if d.wellKnown(n, m, path) {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.errorAt(n.Line, cmp.Or(path, "spec"), "must be a mapping, not "+describe(n)+asMapping(n, m.Descriptor()))
		return
	}
	fields := m.Descriptor().Fields()
	around := len(d.around)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolve(n.Content[i+1])
		fd := fields.ByJSONName(key.Value)
		if fd == nil {
			fd = fields.ByName(protoreflect.Name(key.Value)) // snake_case, as protobuf has it
		}
		at := join(path, key.Value)
		if fd == nil {
			d.errorAt(key.Line, at, "unknown field"+d.unknown(n, m.Descriptor(), key.Value, value))
			continue
		}
		at = join(path, fd.JSONName())
		if key.Value != fd.JSONName() && child(n, fd.JSONName()) != nil {
			d.errorAt(key.Line, at, fmt.Sprintf("is given twice, as %s and as %s: leave one out", fd.JSONName(), key.Value))
			continue
		}
		d.places[at] = key.Line
		if value.Tag == "!!null" {
			continue
		}
		if oneof := fd.ContainingOneof(); oneof != nil && !oneof.IsSynthetic() && m.WhichOneof(oneof) != nil {
			d.errorAt(key.Line, at, fmt.Sprintf("cannot stand beside %q: only one of them", m.WhichOneof(oneof).JSONName()))
			continue
		}
		d.noteEffect(m.Descriptor(), fd, value, at, key.Line)
		d.around = append(d.around[:around], m.Descriptor())
		d.field(value, m, fd, at)
		d.around = d.around[:around]
	}
}

func jsonNames(fields protoreflect.FieldDescriptors) []string {
	names := make([]string, fields.Len())
	for i := range names {
		names[i] = fields.Get(i).JSONName()
	}
	return names
}

func (d *document) field(n *yaml.Node, m protoreflect.Message, fd protoreflect.FieldDescriptor, path string) {
	switch {
	case fd.IsMap():
		d.mapField(n, m.Mutable(fd).Map(), fd, path)
	case fd.IsList():
		if n.Kind != yaml.SequenceNode {
			d.errorAt(n.Line, path, "must be a list, not "+describe(n)+asList(n))
			return
		}
		list := m.Mutable(fd).List()
		for i, item := range n.Content {
			item = resolve(item)
			at := fmt.Sprintf("%s[%d]", path, i)
			d.places[at] = item.Line
			if fd.Message() != nil {
				if item.Tag == "!!null" {
					d.errorAt(item.Line, at, `is nothing, which Kubernetes refuses: write what is meant, or leave the "- " out`)
					continue // it would be an element that asks for nothing
				}
				element := list.NewElement()
				d.message(item, element.Message(), at)
				list.Append(element)
			} else if v, ok := d.scalarValue(item, fd, at); ok {
				list.Append(v)
			}
		}
	case fd.Message() != nil:
		value := m.NewField(fd)
		d.message(n, value.Message(), path)
		m.Set(fd, value)
	default:
		if v, ok := d.scalarValue(n, fd, path); ok {
			m.Set(fd, v)
		}
	}
}

func (d *document) mapField(n *yaml.Node, m protoreflect.Map, fd protoreflect.FieldDescriptor, path string) {
	if n.Kind != yaml.MappingNode {
		d.errorAt(n.Line, path, "must be a mapping, not "+describe(n)+asMapping(n, nil))
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolve(n.Content[i+1])
		at := join(path, key.Value)
		d.places[at] = key.Line
		k, ok := d.scalarValue(key, fd.MapKey(), at)
		if !ok {
			continue
		}
		if fd.MapValue().Message() != nil {
			v := m.NewValue()
			d.message(value, v.Message(), at)
			m.Set(k.MapKey(), v)
		} else if v, ok := d.scalarValue(value, fd.MapValue(), at); ok {
			m.Set(k.MapKey(), v)
		}
	}
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	if n.Tag == "!!null" {
		return "nothing"
	}
	if n.Tag != "!!str" {
		return n.Value
	}
	return strconv.Quote(n.Value)
}

// scalarValue reads a scalar of the field's type.
func (d *document) scalarValue(n *yaml.Node, fd protoreflect.FieldDescriptor, path string) (protoreflect.Value, bool) {
	none := protoreflect.Value{}
	if n.Kind != yaml.ScalarNode {
		d.errorAt(n.Line, path, "must be a single value, not "+describe(n))
		return none, false
	}
	bad := func(want string) (protoreflect.Value, bool) {
		hint := ""
		if number, ok := strings.CutSuffix(n.Value, "%"); ok && strings.Contains(want, "number") {
			hint = ": write " + strings.TrimSpace(number)
		}
		d.errorAt(n.Line, path, fmt.Sprintf("must be %s, not %s%s", want, describe(n), hint))
		return none, false
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		if n.Tag != "!!str" && !isMapKey(fd) {
			return bad(fmt.Sprintf("a string (write %q)", n.Value))
		}
		return protoreflect.ValueOfString(n.Value), true
	case protoreflect.BoolKind:
		switch n.Value {
		case "true", "false":
			if n.Tag == "!!bool" {
				return protoreflect.ValueOfBool(n.Value == "true"), true
			}
		}
		return bad("true or false")
	case protoreflect.BytesKind:
		b, err := base64.StdEncoding.DecodeString(n.Value)
		if err != nil {
			return bad("base64")
		}
		return protoreflect.ValueOfBytes(b), true
	case protoreflect.EnumKind:
		values := fd.Enum().Values()
		if v := values.ByName(protoreflect.Name(n.Value)); v != nil {
			return protoreflect.ValueOfEnum(v.Number()), true
		}
		names := make([]string, values.Len())
		for i := range names {
			names[i] = string(values.Get(i).Name())
		}
		d.errorAt(n.Line, path, fmt.Sprintf("%q is none of %s%s", n.Value, strings.Join(names, ", "), suggest(n.Value, names)))
		return none, false
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		f, err := strconv.ParseFloat(n.Value, 64)
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return bad("a number")
		}
		if fd.Kind() == protoreflect.FloatKind {
			return protoreflect.ValueOfFloat32(float32(f)), true
		}
		return protoreflect.ValueOfFloat64(f), true
	}
	return d.integer(n, fd, path, bad)
}

func isMapKey(fd protoreflect.FieldDescriptor) bool {
	return fd.ContainingMessage() != nil && fd.ContainingMessage().IsMapEntry() && fd.Number() == 1
}

func (d *document) integer(n *yaml.Node, fd protoreflect.FieldDescriptor, path string, bad func(string) (protoreflect.Value, bool)) (protoreflect.Value, bool) {
	if n.Tag == "!!str" && !isMapKey(fd) && d.kind != "ConfigMap" {
		if _, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
			d.say(Info, n.Line, path, fmt.Sprintf("is a number in quotes, which Kubernetes refuses: write %s", n.Value))
		}
	}
	switch fd.Kind() {
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		v, err := strconv.ParseUint(n.Value, 10, 32)
		if err != nil {
			return bad("a whole number from 0 to 4294967295")
		}
		return protoreflect.ValueOfUint32(uint32(v)), true
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		v, err := strconv.ParseUint(n.Value, 10, 64)
		if err != nil {
			return bad("a whole number of 0 or more")
		}
		return protoreflect.ValueOfUint64(v), true
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		v, err := strconv.ParseInt(n.Value, 10, 32)
		if err != nil {
			return bad("a whole number")
		}
		return protoreflect.ValueOfInt32(int32(v)), true
	}
	v, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil {
		return bad("a whole number")
	}
	return protoreflect.ValueOfInt64(v), true
}

// wellKnown reads the messages that JSON writes in a form of their own.
func (d *document) wellKnown(n *yaml.Node, m protoreflect.Message, path string) bool {
	switch m.Descriptor().FullName() {
	case "google.protobuf.Duration":
		if v, ok := d.duration(n, path); ok {
			proto.Merge(m.Interface(), durationpb.New(v))
		}
	case "google.protobuf.BoolValue", "google.protobuf.UInt32Value", "google.protobuf.Int32Value", "google.protobuf.UInt64Value",
		"google.protobuf.Int64Value", "google.protobuf.DoubleValue", "google.protobuf.FloatValue", "google.protobuf.StringValue", "google.protobuf.BytesValue":
		fd := m.Descriptor().Fields().ByName("value")
		if v, ok := d.scalarValue(n, fd, path); ok {
			m.Set(fd, v)
		}
	case "google.protobuf.Struct", "google.protobuf.Value":
		d.placeAll(n, path)
		var v any
		if err := n.Decode(&v); err != nil {
			d.errorAt(n.Line, path, err.Error())
			return true
		}
		pv, err := structpb.NewValue(plain(v))
		switch {
		case err != nil:
			d.errorAt(n.Line, path, err.Error())
		case m.Descriptor().Name() == "Value":
			proto.Merge(m.Interface(), pv)
		case pv.GetStructValue() == nil:
			d.errorAt(n.Line, path, "must be a mapping, not "+describe(n)+asMapping(n, nil))
		default:
			proto.Merge(m.Interface(), pv.GetStructValue())
		}
	case "google.protobuf.Any", "google.protobuf.Timestamp", "google.protobuf.Empty":
	default:
		return false
	}
	return true
}

// placeAll notes where the parts of a value stand of which Istio's schema says
// nothing.
func (d *document) placeAll(n *yaml.Node, path string) {
	switch n = resolve(n); n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			at := join(path, n.Content[i].Value)
			d.places[at] = n.Content[i].Line
			d.placeAll(n.Content[i+1], at)
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			d.places[at] = item.Line
			d.placeAll(item, at)
		}
	}
}

// plain makes what YAML decodes to fit for structpb.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = plain(e)
		}
		return v
	case map[any]any:
		out := map[string]any{}
		for k, e := range v {
			out[fmt.Sprint(k)] = plain(e)
		}
		return out
	case []any:
		for i, e := range v {
			v[i] = plain(e)
		}
		return v
	case time.Time:
		return v.Format(time.RFC3339Nano)
	}
	return v
}

// duration reads "5s", "1h", "30ms" and protobuf's "1.5s".
func (d *document) duration(n *yaml.Node, path string) (time.Duration, bool) {
	v, err := time.ParseDuration(n.Value)
	switch {
	case n.Kind != yaml.ScalarNode || err != nil:
		d.errorAt(n.Line, path, fmt.Sprintf("must be a duration such as 5s, 30ms or 1h, not %s%s", describe(n), asDuration(n)))
		return 0, false
	case v < 0:
		d.errorAt(n.Line, path, "must not be negative")
		return 0, false
	case v > 0 && v < time.Millisecond:
		d.errorAt(n.Line, path, "must be at least 1ms")
		return 0, false
	}
	return v, true
}
