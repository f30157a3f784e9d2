package config

// removedAnnotation takes a resource of a lower layer away and puts none in its
// place.
const removedAnnotation = "isthmus.io/removed"

// layersOf returns the highest layer of each resource that files above the
// lowest declare, by kind, namespace and name.
func layersOf(layers [][]File) map[string]int {
	scan := &reader{layers: map[string]int{}, scanning: true}
	for i, files := range layers {
		if scan.layer = i; i > 0 {
			for _, f := range files {
				scan.readFile(f)
			}
		}
	}
	return scan.layers
}
