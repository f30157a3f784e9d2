// Package config turns text into checked mesh values.
//
// [Load] reads files and folders of Kubernetes and Istio resources; [Read] does
// the same with bytes. Both give a mesh.Config, ready for use, and findings:
// everything that is wrong, everything that will not do what its author may
// expect, each with file, line and field. A set with an error is not used as a
// whole or in part.
//
// A document passes three stations: yaml.go takes it apart with the line of
// every value; decode.go fills the message of Istio's own schema (istio.io/api)
// with it, so that every field is known and no other is accepted; the file of
// its kind makes the mesh value. At last check.go looks at the set as a whole.
//
// [LoadBootstrap] reads the file that says what this one proxy is, and [Watch]
// tells when files have changed.
package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"isthmus/history"
	"isthmus/mesh"
)

// Result is what was read.
type Result struct {
	Config   *mesh.Config
	Findings []Finding // sorted by place

	Files     []File             // that were read
	Resources []history.Resource // that they declare, as far as Isthmus reads them
	Secrets   int                // of kind Secret, which it does not read
}

// HasErrors reports whether the set must not be used.
func (r *Result) HasErrors() bool { return r.Count(Error) > 0 }

// Add adds findings of somebody who has looked at more than texts.
func (r *Result) Add(f ...Finding) { r.Findings = sortFindings(append(r.Findings, f...)) }

// Count returns how many findings are of a severity.
func (r *Result) Count(s Severity) int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// File is a named text.
type File struct {
	Name  string
	Data  []byte
	Layer int // which of the paths it is of, from 0: a resource of a later one stands in the place of an earlier one
}

// Load reads files, and folders with everything below them. node says whose
// configuration it is; nil if what depends on one proxy is not to be judged.
// What cannot be read is a finding, an error.
func Load(paths []string, node *mesh.Node) *Result {
	files, findings := collect(paths)
	r := Read(files, node)
	r.Findings = sortFindings(append(findings, r.Findings...))
	return r
}

// LoadCandidate reads what [Load] would read from paths, with the resources of the
// candidate in a layer above: nothing is said of what they take the place of. A
// path of the candidate that is not there is an empty one; without any resource in
// them the result is nil.
func LoadCandidate(paths, candidate []string, node *mesh.Node) *Result {
	var there []string
	for _, p := range candidate {
		if _, err := os.Stat(p); !errors.Is(err, fs.ErrNotExist) {
			there = append(there, p)
		}
	}
	if len(there) == 0 {
		return nil
	}
	over, unread := collect(there)
	if len(over) == 0 && !slices.ContainsFunc(unread, func(f Finding) bool { return f.Severity == Error }) {
		return nil
	}
	files, findings := collect(paths)
	for i := range over {
		over[i].Layer += candidateLayer
	}
	r := Read(append(files, over...), node)
	r.Findings = sortFindings(slices.Concat(findings, unread, r.Findings))
	return r
}

// Read reads texts; see [Load].
func Read(files []File, node *mesh.Node) *Result {
	rd := newReader()
	rd.node = node
	hash := sha256.New()
	rd.holders = holders(files)
	for _, f := range files {
		rd.layer = f.Layer
		fmt.Fprintf(hash, "%s %d\n", f.Name, len(f.Data))
		hash.Write(f.Data)
		rd.readFile(f)
	}
	rd.preferSlices()
	rd.applyDefaults()
	rd.config.Hash = hex.EncodeToString(hash.Sum(nil))[:12]
	rd.check(node)
	if node != nil {
		rd.config = rd.config.Within(mesh.ScopeOf(node, rd.config))
	}
	return &Result{Config: rd.config, Findings: sortFindings(rd.findings), Files: files, Resources: rd.resources, Secrets: rd.secrets}
}

// reader gathers what the documents of all files say.
type reader struct {
	node     *mesh.Node // whose configuration it is; nil: what depends on one proxy is not judged
	config   *mesh.Config
	findings []Finding
	seen     map[string]mesh.Source // kind namespace/name -> where it stands

	resources []history.Resource
	secrets   int

	layer   int               // of the file that is being read
	holders map[string]holder // where resources of the layers above the first hold, by key
	scanned map[string]holder // what holders is made of; nil: the resources are read, not looked for
	below   map[string]bool   // the keys of resources of lower layers that do not hold

	issues       bool // certificates are what is read for
	certificates []*mesh.Certificate

	virtualServices  []located[*mesh.VirtualService]
	destinationRules []located[*mesh.DestinationRule]
	peers            []located[*mesh.PeerAuthentication]
	authorization    []located[*mesh.AuthorizationPolicy]
	sidecars         []located[*mesh.Sidecar]
	monitors         []monitor
	meshConfigOf     *document // the first mesh configuration
	defaults         meshDefaults
	otherProviders   map[string]string // that are not served: the kind of each, by its name
	vacant           []vacant

	namespaces map[string]bool // that a resource is in, whoever reads it
	exports    []export
}

func newReader() *reader {
	return &reader{config: &mesh.Config{}, seen: map[string]mesh.Source{}, namespaces: map[string]bool{}, below: map[string]bool{}, otherProviders: map[string]string{}}
}

// located keeps a mesh value with its document, so that checks of the whole
// set can say where something stands.
type located[T any] struct {
	value T
	doc   *document
}
