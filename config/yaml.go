package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// document is one resource of a file with the places of its fields.
type document struct {
	reader     *reader
	file       string
	line       int
	apiVersion string
	kind       string
	namespace  string
	name       string

	labels, annotations map[string]string

	root   *yaml.Node
	places map[string]int                   // field path -> line
	around []protoreflect.MessageDescriptor // what the field that is being read stands in
	before int                              // findings that there were before this document's
}

// maxNodes bounds what aliases may expand a document to.
const maxNodes = 2_000_000

// byteOrderMark is what some editors put before a text in UTF-8.
const byteOrderMark = "\ufeff"

// readFile takes a file apart into its documents.
func (r *reader) readFile(f File) {
	fail := func(line int, message string) {
		r.findings = append(r.findings, Finding{File: f.Name, Line: line, Severity: Error, Message: message})
	}
	// A byte order mark may stand before each document, as where files were put
	// one behind the other.
	data := bytes.ReplaceAll(bytes.TrimPrefix(f.Data, []byte(byteOrderMark)), []byte("\n"+byteOrderMark), []byte("\n"))
	data = fromJSON(data)
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var n yaml.Node
		err := decodeSafely(dec, &n)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			line, message := yamlError(err, data)
			fail(line, message+templateHint(f.Data))
			return
		}
		if len(n.Content) == 0 || n.Content[0].Kind == yaml.ScalarNode && n.Content[0].Tag == "!!null" {
			continue
		}
		told, line, err := expand(n.Content[0])
		if err != nil {
			fail(line, err.Error()+templateHint(f.Data))
			continue
		}
		for _, o := range told {
			r.findings = append(r.findings, Finding{File: f.Name, Line: o.line, Severity: Info, Field: o.key, Message: o.text})
		}
		r.readNode(f.Name, n.Content[0], "", "")
	}
}

// decodeSafely turns a panic of the YAML library into an error: input must not
// end the process.
func decodeSafely(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("not YAML: %v", p)
		}
	}()
	return dec.Decode(n)
}

// sound checks what the YAML library lets pass: keys given twice, aliases that
// contain themselves or blow the document up, keys that are no strings.
func sound(n *yaml.Node, budget *int, within []*yaml.Node) (line int, err error) {
	if *budget--; *budget < 0 {
		return n.Line, errors.New("the document's aliases expand to too much")
	}
	if len(within) > 200 {
		return n.Line, errors.New("nested too deeply")
	}
	switch n.Kind {
	case yaml.AliasNode:
		for _, outer := range within {
			if outer == n.Alias {
				return n.Line, errors.New("an alias contains itself")
			}
		}
		return sound(n.Alias, budget, within)
	case yaml.MappingNode:
		seen := map[string]int{}
		for i := 0; i < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind != yaml.ScalarNode {
				return k.Line, errors.New("a key must be a string")
			}
			before, twice := seen[k.Value]
			switch {
			case twice && k.Tag == mergeKey:
				return k.Line, errSecondMerge
			case twice:
				hint := ""
				if len(within) == 0 && (k.Value == "apiVersion" || k.Value == "kind") {
					hint = "; a line --- parts resources"
				}
				return k.Line, fmt.Errorf("key %q is given twice, first in line %d%s", k.Value, before, hint)
			case k.Tag == mergeKey:
				if line, err := mergeable(n.Content[i+1]); err != nil {
					return line, err
				}
			}
			seen[k.Value] = k.Line
		}
	}
	within = append(within, n)
	for _, c := range n.Content {
		if line, err := sound(c, budget, within); err != nil {
			return line, err
		}
	}
	return 0, nil
}

// readNode reads one resource, or each of a List. apiVersion and kind are those of a
// resource that says neither.
func (r *reader) readNode(file string, n *yaml.Node, apiVersion, kind string) {
	d := &document{reader: r, file: file, line: n.Line, root: n, places: map[string]int{}, before: len(r.findings)}
	if n.Kind != yaml.MappingNode {
		if n.Kind == yaml.SequenceNode && !slices.ContainsFunc(n.Content, func(item *yaml.Node) bool { return !foreign(resolve(item)) }) {
			d.find(Warning, ISM0006, "", notOurs)
			return
		}
		d.error("", "a resource must be a mapping with apiVersion, kind and metadata")
		return
	}
	if d.apiVersion, d.kind = d.text("apiVersion"), d.text("kind"); d.apiVersion == "" && d.kind == "" {
		d.apiVersion, d.kind = apiVersion, kind
	}
	if items := child(n, "items"); d.kind == "List" || strings.HasSuffix(d.kind, "List") && items != nil {
		d.readList(items)
		return
	}
	if d.apiVersion == "" || d.kind == "" {
		d.untold()
		return
	}
	m := child(n, "metadata")
	if m != nil && m.Kind != yaml.MappingNode && m.Tag != "!!null" {
		d.errorAt(m.Line, "metadata", "must be a mapping, not "+describe(m)+asMapping(m, nil))
		return
	}
	if m != nil {
		d.namespace = scalar(child(m, "namespace"))
		d.name = scalar(child(m, "name"))
	}
	if d.namespace == "" {
		d.namespace = "default"
	}
	if m != nil {
		d.labels = d.stringMap(child(m, "labels"), "metadata.labels")
		d.annotations = d.stringMap(child(m, "annotations"), "metadata.annotations")
	}
	if d.kind == "Secret" {
		d.reader.secrets++
	}
	if d.name == "" {
		if _, ok := d.kindOf(); ok {
			d.error("metadata.name", "is missing")
		} else {
			d.read() // it is said who reads it, if anybody: a Kustomization needs no name
		}
		return
	}
	if d.overridden() {
		return
	}
	if d.reader.namespaces[d.namespace] = true; d.kind == "Namespace" {
		d.reader.namespaces[d.name] = true
	}
	d.read()
}

// readList reads the resources of a List. Those of a list of one kind, as the API server
// sends it, do not say again which that is.
func (d *document) readList(items *yaml.Node) {
	apiVersion, kind := d.apiVersion, strings.TrimSuffix(d.kind, "List")
	if kind == "" {
		apiVersion = ""
	}
	switch {
	case items == nil:
		d.error("items", "is missing: a List holds resources")
	case items.Kind != yaml.SequenceNode && items.Tag != "!!null":
		d.errorAt(items.Line, "items", "must be a list, not "+describe(items)+asList(items))
	default:
		for _, item := range items.Content {
			d.reader.readNode(d.file, resolve(item), apiVersion, kind)
		}
	}
}

// untold says which of the keys is missing that say what a resource is, and whether
// another one was meant to be it.
func (d *document) untold() {
	if foreign(d.root) {
		d.find(Warning, ISM0006, "", notOurs)
		return
	}
	for _, key := range []string{"apiVersion", "kind"} {
		if d.text(key) != "" {
			continue
		}
		hint := ""
		for i := 0; i+1 < len(d.root.Content); i += 2 {
			if k := d.root.Content[i]; k.Value != key && almost(k.Value, key) {
				hint = fmt.Sprintf(": write it for %q in line %d", k.Value, k.Line)
			}
		}
		if hint == "" && key == "kind" && child(d.root, "items") != nil {
			hint = ": write List, if items are resources"
		}
		d.error(key, "is missing, so nobody can tell what this is"+hint)
	}
}

const notOurs = "is no resource of Kubernetes, without apiVersion, kind, metadata and spec: it is left out"

// foreign reports whether a mapping has nothing that resources have: a chart's values, a
// dashboard or one step of a patch that lies beside them, and none of which half is missing,
// nor around resources, as a List is that does not say so: one of them may be a policy.
func foreign(n *yaml.Node) bool {
	if n.Kind != yaml.MappingNode {
		return false
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		for _, key := range []string{"apiVersion", "kind", "metadata", "spec"} {
			if almost(n.Content[i].Value, key) {
				return false
			}
		}
		if value := resolve(n.Content[i+1]); isResource(value) || value.Kind == yaml.SequenceNode && slices.ContainsFunc(value.Content, isResource) {
			return false
		}
	}
	return true
}

// isResource reports whether a node says of which kind of resource it is.
func isResource(n *yaml.Node) bool { return child(n, "apiVersion") != nil && child(n, "kind") != nil }

// almost reports whether a key was meant to be another: a slip for each four letters.
func almost(word, key string) bool {
	return distance(strings.ToLower(word), strings.ToLower(key)) <= len(key)/4
}

// child returns the value of a key of a mapping, nil if there is none.
func child(n *yaml.Node, key string) *yaml.Node {
	if n = resolve(n); n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return resolve(n.Content[i+1])
		}
	}
	return nil
}

func resolve(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func scalar(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return ""
	}
	return n.Value
}

func (d *document) text(key string) string { return scalar(child(d.root, key)) }

// stringMap reads labels and annotations, whose values must be strings.
func (d *document) stringMap(n *yaml.Node, path string) map[string]string {
	if n == nil || n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		d.errorAt(n.Line, path, "must be a mapping")
		return nil
	}
	out := map[string]string{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		v := resolve(n.Content[i+1])
		d.places[path+"."+n.Content[i].Value] = v.Line
		if v.Kind != yaml.ScalarNode || v.Tag != "!!str" {
			d.errorAt(v.Line, path+"."+n.Content[i].Value, fmt.Sprintf("must be a string (write %q), not %s", v.Value, describe(v)))
			continue
		}
		out[n.Content[i].Value] = v.Value
	}
	return out
}

// lineOf returns where a field stands, or the nearest field around it that the
// file has.
func (d *document) lineOf(path string) int {
	for path != "" {
		if l, ok := d.places[path]; ok {
			return l
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			break
		}
		path = path[:i]
	}
	return d.line
}

// failed reports whether the document has an error so far.
func (d *document) failed() bool {
	return slices.ContainsFunc(d.reader.findings[d.before:], func(f Finding) bool { return f.Severity == Error })
}

func (d *document) error(path, message string)   { d.say(Error, d.lineOf(path), path, message) }
func (d *document) warning(path, message string) { d.say(Warning, d.lineOf(path), path, message) }
func (d *document) info(path, message string)    { d.say(Info, d.lineOf(path), path, message) }

func (d *document) errorAt(line int, path, message string) { d.say(Error, line, path, message) }

func (d *document) say(s Severity, line int, path, message string) {
	d.mark(s, "", line, path, message)
}

// find notes a finding with a code of its own.
func (d *document) find(s Severity, c Code, path, message string) {
	d.mark(s, c, d.lineOf(path), path, message)
}

func (d *document) mark(s Severity, c Code, line int, path, message string) {
	d.reader.findings = append(d.reader.findings, Finding{
		File: d.file, Line: line, Severity: s, Kind: d.kind, Namespace: d.namespace, Name: d.name,
		Field: path, Message: message, Code: c,
	})
}

// has reports whether the file says something of a field.
func (d *document) has(path string) bool {
	_, ok := d.places[path]
	return ok
}
