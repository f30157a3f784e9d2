package config

import (
	"fmt"

	"isthmus/mesh"
)

// A resource may stand in several of the paths that are given, each a layer: the
// last of them holds, as a whole, and the others are overridden. So an environment
// is a folder of what differs in it, given after the one that all have, and a
// candidate is one that lies over all others.

// candidateLayer is the first of a candidate: above more paths than anybody gives.
const candidateLayer = 1 << 16

// removedAnnotation takes a resource of a lower layer away and puts none in its
// place.
const removedAnnotation = "isthmus.io/removed"

// holder is where the resource stands that holds.
type holder struct {
	layer  int
	source mesh.Source
}

// holders finds the last layer that has a resource, for each of the layers above
// the first. It reads their files once more.
func holders(files []File) map[string]holder {
	scan := newReader()
	scan.scanned = map[string]holder{}
	for _, f := range files {
		if f.Layer > 0 {
			scan.layer = f.Layer
			scan.readFile(f)
		}
	}
	return scan.scanned
}

// key is what tells resources apart. Kinds of others may have the names of those that
// are read: Knative's Service, the Gateway API's Gateway.
func (d *document) key() string {
	kind := d.kind
	if _, ok := d.kindOf(); !ok {
		group, _ := d.groupVersion()
		kind = group + "/" + kind
	}
	return kind + " " + d.namespace + "/" + d.name
}

// overridden reports whether another layer's resource, or none, stands in the place
// of this one, and says so unless it is a candidate's. It says as well of one that is
// to take another away whether there is any.
func (d *document) overridden() bool {
	r := d.reader
	if r.scanned != nil {
		if h, ok := r.scanned[d.key()]; !ok || h.layer < r.layer {
			r.scanned[d.key()] = holder{r.layer, d.source("")}
		}
		return true
	}
	h, ok := r.holders[d.key()]
	if !ok || h.layer <= r.layer {
		if d.annotations[removedAnnotation] != "true" {
			return false
		}
		if !r.below[d.key()] {
			d.warning(join("metadata.annotations", removedAnnotation), fmt.Sprintf("takes nothing away: no path given before has a %s %s/%s", d.kind, d.namespace, d.name))
		}
		return true
	}
	r.below[d.key()] = true
	if h.layer >= candidateLayer {
		return true
	}
	d.find(Info, ISM0008, "metadata.name", fmt.Sprintf("does not hold: %s in a path given later stands in its place", h.source))
	return true
}
