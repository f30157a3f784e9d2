package proxy

import (
	"slices"

	"isthmus/mesh"
)

// routeIndex finds among many routes those whose condition on the path may
// hold, so that a host of ten thousand routes costs what one of ten does.
// Which of them comes first decides, as ever.
type routeIndex struct {
	exact    map[string][]int32 // path -> places of routes, ascending
	prefixes []prefixIndex      // by length
	rest     []int32            // routes that say nothing about the path, or something else
}

// prefixIndex holds the routes whose prefix is length bytes long.
type prefixIndex struct {
	length int
	routes map[string][]int32
}

const (
	// indexFrom is how many routes are looked through one by one; up to some
	// such number that is cheaper than an index.
	indexFrom = 16

	// maxPrefixLengths bounds how many lengths of prefixes are looked up; the
	// rarest lengths beyond them are looked through one by one.
	maxPrefixLengths = 32
)

// newRouteIndex returns nil for routes too few to need an index.
func newRouteIndex(routes []*route) *routeIndex {
	if len(routes) <= indexFrom {
		return nil
	}
	indexed := prefixLengths(routes)
	x := &routeIndex{exact: map[string][]int32{}}
	for _, n := range indexed {
		x.prefixes = append(x.prefixes, prefixIndex{n, map[string][]int32{}})
	}
	for i, r := range routes {
		place := int32(i)
		if len(r.matches) == 0 {
			x.rest = enter(x.rest, place)
		}
		for j := range r.matches {
			uri := r.matches[j].uri
			switch k := prefixLengthOf(&r.matches[j]); {
			case k >= 0 && slices.Contains(indexed, k):
				m := x.prefixes[slices.Index(indexed, k)].routes
				m[uri.Value] = enter(m[uri.Value], place)
			case uri != nil && uri.Kind == mesh.MatchExact && !r.matches[j].foldURI:
				x.exact[uri.Value] = enter(x.exact[uri.Value], place)
			default:
				x.rest = enter(x.rest, place)
			}
		}
	}
	return x
}

// enter adds a place to a list unless it is there already.
func enter(list []int32, place int32) []int32 {
	if n := len(list); n > 0 && list[n-1] == place {
		return list
	}
	return append(list, place)
}

// prefixLengthOf returns the length of the prefix that a condition asks for,
// or -1 if it asks for something else.
func prefixLengthOf(m *requestMatch) int {
	if m.uri == nil || m.uri.Kind != mesh.MatchPrefix || m.foldURI {
		return -1
	}
	return len(m.uri.Value)
}

// prefixLengths returns the most frequent lengths of prefixes.
func prefixLengths(routes []*route) []int {
	count := map[int]int{}
	for _, r := range routes {
		for i := range r.matches {
			if n := prefixLengthOf(&r.matches[i]); n >= 0 {
				count[n]++
			}
		}
	}
	var lengths []int
	for n := range count {
		lengths = append(lengths, n)
	}
	slices.SortFunc(lengths, func(a, b int) int {
		if count[a] != count[b] {
			return count[b] - count[a]
		}
		return a - b
	})
	return lengths[:min(len(lengths), maxPrefixLengths)]
}

// find returns the first of routes that fits the request, or nil.
func (i *routeIndex) find(routes []*route, x *exchange) *route {
	path := x.req.Path
	var room [maxPrefixLengths + 2][]int32
	lists := append(room[:0], i.rest)
	if l := i.exact[string(path)]; l != nil {
		lists = append(lists, l)
	}
	for _, p := range i.prefixes {
		if p.length > len(path) {
			continue
		}
		if l := p.routes[string(path[:p.length])]; l != nil {
			lists = append(lists, l)
		}
	}
	for {
		// The lists are few and ascending: the least of their first is next.
		next, from := int32(-1), -1
		for k, l := range lists {
			if len(l) > 0 && (next < 0 || l[0] < next) {
				next, from = l[0], k
			}
		}
		if from < 0 {
			return nil
		}
		lists[from] = lists[from][1:]
		if routes[next].fits(x) {
			return routes[next]
		}
	}
}
