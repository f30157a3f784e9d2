package proxy

import (
	"sync"
	"time"
)

// helper is a service beside the mesh that requests ask or tell of themselves, over
// connections of its own: for authorization, for rate limits, a collector of spans.
type helper interface {
	comparable
	Busy() bool // somebody is asking
	Close()     // fails what is under way, and what is to come
}

// helpers are those of one kind, by all that the configuration says of them. Proxy.mu guards
// them.
type helpers[K comparable, H helper] struct {
	used map[K]H
	left map[K]*leftHelper[H]
}

// leftHelper is one that no table in force has, only those of requests that are under way.
type leftHelper[H helper] struct {
	is   H
	stay chan struct{} // closed when it is not to be closed any more: a table has it again, or close was called
}

// find returns one that there is; nil: there is none.
func (h *helpers[K, H]) find(k K) H {
	if left := h.left[k]; left != nil {
		return left.is
	}
	return h.used[k]
}

// keep has these as those in use. The others are closed some time later, unless they
// are used again by then. mu is the proxy's.
func (h *helpers[K, H]) keep(kept map[K]H, mu *sync.Mutex) {
	if h.left == nil {
		h.left = map[K]*leftHelper[H]{}
	}
	for k := range kept {
		if left := h.left[k]; left != nil {
			close(left.stay)
			delete(h.left, k)
		}
	}
	var none H
	for k, is := range h.used {
		if kept[k] != none {
			continue
		}
		left := &leftHelper[H]{is, make(chan struct{})}
		h.left[k] = left
		go func() { // ends with left, some time after
			if !left.await() {
				return
			}
			mu.Lock()
			gone := h.left[k] == left
			if gone {
				delete(h.left, k)
			}
			mu.Unlock()
			if gone {
				is.Close()
			}
		}()
	}
	h.used = kept
}

// leftAfter is for how long at least requests of the tables before may ask a helper that the
// one in force does not have: the bodies that it is asked with may have to come. A
// configuration that comes back within that time has what it had.
const leftAfter = time.Minute

// await waits until it is time to close it; false: it is to stay.
func (l *leftHelper[H]) await() bool {
	for wait := leftAfter; ; wait = time.Second {
		select {
		case <-l.stay:
			return false
		case <-time.After(wait):
		}
		if !l.is.Busy() {
			return true
		}
	}
}

// close closes all of them.
func (h *helpers[K, H]) close() {
	var closing sync.WaitGroup
	for _, is := range h.used {
		closing.Go(is.Close)
	}
	for _, left := range h.left {
		close(left.stay)
		closing.Go(left.is.Close)
	}
	h.left = nil
	closing.Wait()
}
