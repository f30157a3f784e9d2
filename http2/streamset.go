package http2

import "iter"

// streamSet finds streams by their numbers. Those of a connection are counted up, and
// most do not last long: they lie in a ring, at the place of their number, but for
// one whose place an older one has still. The zero value is an empty set.
type streamSet struct {
	ring []*Stream // of ringSize once there has been one
	rest map[uint32]*Stream
}

// ringSize holds as many streams as one client of a gateway may have, and one of every
// second number: 1 KiB. A map costs five times the time.
const ringSize = 128

func place(id uint32) uint32 { return id / 2 % ringSize }

// get returns a stream; nil: there is none of the number.
func (t *streamSet) get(id uint32) *Stream {
	if t.ring == nil {
		return nil
	}
	if s := t.ring[place(id)]; s != nil && s.id == id {
		return s
	}
	if len(t.rest) == 0 {
		return nil
	}
	return t.rest[id]
}

// add adds a stream of which none has the number.
func (t *streamSet) add(s *Stream) {
	if t.ring == nil {
		t.ring = make([]*Stream, ringSize)
	}
	if at := &t.ring[place(s.id)]; *at == nil {
		*at = s
		return
	}
	if t.rest == nil {
		t.rest = map[uint32]*Stream{}
	}
	t.rest[s.id] = s
}

// remove removes a stream that is in the set.
func (t *streamSet) remove(s *Stream) {
	if at := &t.ring[place(s.id)]; *at == s {
		*at = nil
		return
	}
	delete(t.rest, s.id)
}

// all are the streams. Who ranges over them may remove them.
func (t *streamSet) all() iter.Seq[*Stream] {
	return func(yield func(*Stream) bool) {
		for _, s := range t.ring {
			if s != nil && !yield(s) {
				return
			}
		}
		for _, s := range t.rest {
			if !yield(s) {
				return
			}
		}
	}
}

// len returns how many there are.
func (t *streamSet) len() (n int) {
	for range t.all() {
		n++
	}
	return n
}
