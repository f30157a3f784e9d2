package proxy

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"isthmus/http1"
	"isthmus/mesh"
)

// TestRouteIndex_FindsWhatALookThroughFinds compares the index with looking
// through the routes one by one.
func TestRouteIndex_FindsWhatALookThroughFinds(t *testing.T) {
	segment := rapid.SampledFrom([]string{"/a", "/b", "/A", "/ab", "/"})
	path := rapid.Custom(func(t *rapid.T) string {
		p := ""
		for range rapid.IntRange(1, 4).Draw(t, "segments") {
			p += segment.Draw(t, "segment")
		}
		return p
	})
	match := rapid.Custom(func(t *rapid.T) requestMatch {
		m := requestMatch{foldURI: rapid.IntRange(0, 5).Draw(t, "fold") == 0}
		if kind := rapid.IntRange(0, 4).Draw(t, "kind"); kind < 4 {
			m.uri = &mesh.StringMatch{Kind: mesh.MatchExact, Value: path.Draw(t, "path")}
			if kind > 1 {
				m.uri.Kind = mesh.MatchPrefix
			}
		}
		if rapid.Bool().Draw(t, "method") {
			m.method = &mesh.StringMatch{Kind: mesh.MatchExact, Value: "GET"}
		}
		return m
	})
	rapid.Check(t, func(t *rapid.T) {
		routes := make([]*route, rapid.IntRange(indexFrom+1, 60).Draw(t, "routes"))
		for i := range routes {
			routes[i] = &route{matches: rapid.SliceOfN(match, 0, 3).Draw(t, "matches")}
			if len(routes[i].matches) == 0 && i%7 != 0 {
				routes[i].matches = []requestMatch{match.Draw(t, "match")} // few routes take everything
			}
		}
		index := newRouteIndex(routes)
		x := &exchange{conn: &conn{client: &client{}}, req: http1.Request{Path: []byte(path.Draw(t, "request")), Method: []byte(rapid.SampledFrom([]string{"GET", "PUT"}).Draw(t, "verb"))}}
		want := (&virtualHost{routes: routes}).find(x)
		wantMatch := x.matched
		if got := index.find(routes, x); got != want || got != nil && x.matched != wantMatch {
			t.Fatalf("%s %s: found route %p, want %p", x.req.Method, x.req.Path, got, want)
		}
	})
}

// BenchmarkRouteMatch10000 finds the last of ten thousand routes of one host.
func BenchmarkRouteMatch10000(b *testing.B) {
	routes := make([]*route, 10000)
	for i := range routes {
		routes[i] = &route{matches: []requestMatch{{uri: &mesh.StringMatch{Kind: mesh.MatchPrefix, Value: fmt.Sprintf("/route-%d/", i)}}}}
	}
	routes[len(routes)-1] = &route{}
	vh := newVirtualHost("s.test", 80, routes)
	x := &exchange{conn: &conn{client: &client{}}, req: http1.Request{Path: []byte("/1k"), Method: []byte("GET")}}
	b.ReportAllocs()
	for b.Loop() {
		if vh.find(x) == nil {
			b.Fatal("no route")
		}
	}
}
