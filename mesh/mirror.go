package mesh

// Mirror is a place that gets copies of a route's requests and whose replies
// nobody reads (Istio: mirror, HTTPMirrorPolicy).
type Mirror struct {
	Destination
	Share Fraction // of the requests; 0 turns it off
	Field string   // where the destination is written: "http[0].mirror"
}
