package http2

import "sync"

// queue is what has come of a body and was not read yet. Its memory is borrowed
// in chunks, the first of them small: most bodies are.
type queue struct {
	chunks []chunk
	n      int // bytes in all of them
}

type chunk struct {
	data []byte // of one of the sizes below
	r, w int
}

const (
	smallChunk = 1 << 10
	largeChunk = 16 << 10
)

var (
	smallChunks = sync.Pool{New: func() any { return new([smallChunk]byte) }}
	largeChunks = sync.Pool{New: func() any { return new([largeChunk]byte) }}
)

func (c *chunk) free() {
	if len(c.data) == smallChunk {
		smallChunks.Put((*[smallChunk]byte)(c.data))
	} else {
		largeChunks.Put((*[largeChunk]byte)(c.data))
	}
	*c = chunk{}
}

func (q *queue) len() int { return q.n }

// put appends a copy of p.
func (q *queue) put(p []byte) {
	q.n += len(p)
	for len(p) > 0 {
		if len(q.chunks) == 0 || q.last().w == len(q.last().data) {
			q.add(len(p))
		}
		c := q.last()
		n := copy(c.data[c.w:], p)
		c.w += n
		p = p[n:]
	}
}

func (q *queue) last() *chunk { return &q.chunks[len(q.chunks)-1] }

// add adds an empty chunk, for n bytes and what follows.
func (q *queue) add(n int) {
	if len(q.chunks) == 0 && n <= smallChunk {
		q.chunks = append(q.chunks, chunk{data: smallChunks.Get().(*[smallChunk]byte)[:]})
		return
	}
	q.chunks = append(q.chunks, chunk{data: largeChunks.Get().(*[largeChunk]byte)[:]})
}

// read moves bytes to p.
func (q *queue) read(p []byte) (n int) {
	done := 0
	for done < len(q.chunks) && n < len(p) {
		c := &q.chunks[done]
		m := copy(p[n:], c.data[c.r:c.w])
		c.r += m
		n += m
		if c.r < c.w {
			break
		}
		c.free()
		done++
	}
	if done > 0 {
		q.chunks = append(q.chunks[:0], q.chunks[done:]...)
	}
	q.n -= n
	return n
}

// clear gives everything back.
func (q *queue) clear() {
	for i := range q.chunks {
		q.chunks[i].free()
	}
	q.chunks, q.n = q.chunks[:0], 0
}
