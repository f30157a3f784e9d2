package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	ownAnnotations    = "isthmus.io/"
	standbyAnnotation = "isthmus.io/standby"
)

// annotationsOf are Isthmus's own annotations by the kind that each is for; "": any.
var annotationsOf = map[string]string{
	removedAnnotation:   "",
	algorithmAnnotation: "DestinationRule",
	adaptiveAnnotation:  "DestinationRule",
	inboundAnnotation:   "DestinationRule",
	standbyAnnotation:   "VirtualService",
	priorityAnnotation:  "VirtualService",
}

// findAnnotations says of annotations of Isthmus's own that nobody reads: misspelt,
// or of another kind.
func (d *document) findAnnotations() {
	for _, a := range slices.Sorted(maps.Keys(d.annotations)) {
		kind, ok := annotationsOf[a]
		switch {
		case !strings.HasPrefix(a, ownAnnotations):
		case !ok:
			d.warning(join("metadata.annotations", a), "has no effect: there is no such annotation"+suggest(a, slices.Sorted(maps.Keys(annotationsOf))))
		case kind != "" && kind != d.kind:
			d.warning(join("metadata.annotations", a), fmt.Sprintf("has no effect on a %s: it is for a %s", d.kind, kind))
		}
	}
}
