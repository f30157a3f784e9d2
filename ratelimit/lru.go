package ratelimit

import "hash/maphash"

// lru is a map of bounded size: whoever has not been asked for the longest goes
// first. Its nodes lie in one slice, so that a full one holds its memory, however
// many keys come and go, which Go's own maps do not, and the collector has little
// to look at. The caller locks.
type lru[K comparable, V any] struct {
	most  int
	seed  maphash.Seed
	heads []int32 // by hash: the first of a chain of nodes, counted from 1; 0: none
	nodes []lruNode[K, V]
	first int32 // lately used; -1: none
	last  int32
}

type lruNode[K comparable, V any] struct {
	key        K
	value      V
	prev, next int32
	chain      int32 // the next of those whose keys have one hash, counted from 1
}

func newLRU[K comparable, V any](most int) *lru[K, V] {
	return &lru[K, V]{most: most, seed: maphash.MakeSeed(), heads: make([]int32, 1), first: -1, last: -1}
}

// head is where the chain of a key begins. The number of chains is a power of two.
func (l *lru[K, V]) head(key K) *int32 {
	return &l.heads[maphash.Comparable(l.seed, key)&uint64(len(l.heads)-1)]
}

// find returns the place of a key, -1 if it is not there.
func (l *lru[K, V]) find(key K) int32 {
	i := *l.head(key) - 1
	for i >= 0 && l.nodes[i].key != key {
		i = l.nodes[i].chain - 1
	}
	return i
}

// get returns the value of a key, nil if there is none. The pointer holds until
// the next put.
func (l *lru[K, V]) get(key K) *V {
	i := l.find(key)
	if i < 0 {
		return nil
	}
	l.touch(i)
	return &l.nodes[i].value
}

// peek is get without the key's becoming lately used.
func (l *lru[K, V]) peek(key K) *V {
	i := l.find(key)
	if i < 0 {
		return nil
	}
	return &l.nodes[i].value
}

// put enters a key that is not there, in the place of the one that was not used
// for the longest if there are too many.
func (l *lru[K, V]) put(key K, value V) *V {
	var i int32
	if len(l.nodes) < l.most {
		i = int32(len(l.nodes))
		l.nodes = append(l.nodes, lruNode[K, V]{})
		l.grow()
	} else {
		i = l.last
		l.unlink(i)
		at := l.head(l.nodes[i].key)
		for *at != i+1 {
			at = &l.nodes[*at-1].chain
		}
		*at = l.nodes[i].chain
	}
	n, at := &l.nodes[i], l.head(key)
	n.key, n.value, n.chain = key, value, *at
	*at = i + 1
	l.link(i)
	return &n.value
}

// grow has as many chains as there are nodes, but for the last one, which is in
// none yet.
func (l *lru[K, V]) grow() {
	if len(l.nodes) <= len(l.heads) {
		return
	}
	l.heads = make([]int32, 2*len(l.heads))
	for i := range l.nodes[:len(l.nodes)-1] {
		at := l.head(l.nodes[i].key)
		l.nodes[i].chain, *at = *at, int32(i)+1
	}
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
