package ratelimit

// lru is a map of bounded size: whoever has not been asked for the longest goes
// first. Its nodes lie in one slice, so that a full one holds its memory and
// the collector has little to look at. The caller locks.
type lru[K comparable, V any] struct {
	most  int
	index map[K]int32
	nodes []lruNode[K, V]
	first int32 // lately used; -1: none
	last  int32
}

type lruNode[K comparable, V any] struct {
	key        K
	value      V
	prev, next int32
}

func newLRU[K comparable, V any](most int) *lru[K, V] {
	return &lru[K, V]{most: most, index: map[K]int32{}, first: -1, last: -1}
}

// get returns the value of a key, nil if there is none. The pointer holds until
// the next put.
func (l *lru[K, V]) get(key K) *V {
	i, ok := l.index[key]
	if !ok {
		return nil
	}
	l.touch(i)
	return &l.nodes[i].value
}

// put enters a key that is not there, in the place of the one that was not used
// for the longest if there are too many.
func (l *lru[K, V]) put(key K, value V) *V {
	var i int32
	if len(l.nodes) < l.most {
		i = int32(len(l.nodes))
		l.nodes = append(l.nodes, lruNode[K, V]{prev: -1, next: -1})
	} else {
		i = l.last
		l.unlink(i)
		delete(l.index, l.nodes[i].key)
	}
	n := &l.nodes[i]
	n.key, n.value = key, value
	l.index[key] = i
	l.link(i)
	return &n.value
}

func (l *lru[K, V]) touch(i int32) {
	if l.first != i {
		l.unlink(i)
		l.link(i)
	}
}

func (l *lru[K, V]) link(i int32) {
	n := &l.nodes[i]
	n.prev, n.next = -1, l.first
	if l.first >= 0 {
		l.nodes[l.first].prev = i
	}
	if l.first = i; l.last < 0 {
		l.last = i
	}
}

func (l *lru[K, V]) unlink(i int32) {
	n := &l.nodes[i]
	if n.prev >= 0 {
		l.nodes[n.prev].next = n.next
	} else {
		l.first = n.next
	}
	if n.next >= 0 {
		l.nodes[n.next].prev = n.prev
	} else {
		l.last = n.prev
	}
}

// peek is get without the key's becoming lately used.
func (l *lru[K, V]) peek(key K) *V {
	i, ok := l.index[key]
	if !ok {
		return nil
	}
	return &l.nodes[i].value
}

// each calls fn from the lately used on, until it returns false. The pointer holds
// during the call.
func (l *lru[K, V]) each(fn func(K, *V) bool) {
	for i := l.first; i >= 0; i = l.nodes[i].next {
		if !fn(l.nodes[i].key, &l.nodes[i].value) {
			return
		}
	}
}
