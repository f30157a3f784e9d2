package proxy

import "sync"

// The sizes of buffers.
const (
	// bufferSize is what a message head and a small body fit in, so that they are
	// one read and one write; the same as nginx's and HAProxy's default buffers.
	bufferSize = 16 << 10

	// largeBufferSize is for heads beyond bufferSize, up to the limit of 60 KiB,
	// and for bodies under way.
	largeBufferSize = 64 << 10

	// smallBufferSize is for a head of which only the beginning has come, so
	// that ten thousand clients that never finish theirs cost little.
	smallBufferSize = 1 << 10
)

var (
	smallBuffers = sync.Pool{New: func() any { made.Add(smallBufferSize); return new([smallBufferSize]byte) }}
	buffers      = sync.Pool{New: func() any { made.Add(bufferSize); return new([bufferSize]byte) }}
	largeBuffers = sync.Pool{New: func() any { made.Add(largeBufferSize); return new([largeBufferSize]byte) }}
)

// buffer is bytes read and not yet consumed: data[r:w]. Its memory is borrowed
// from a pool when bytes come and given back when all are consumed, so a
// connection that waits holds none.
type buffer struct {
	data []byte // nil while nothing is borrowed
	r, w int
}

func (b *buffer) bytes() []byte { return b.data[b.r:b.w] }
func (b *buffer) len() int      { return b.w - b.r }

// borrow makes room to read into, if there is none yet: a large buffer, or one
// of bufferSize.
func (b *buffer) borrow(large bool) {
	switch {
	case b.data != nil:
	case large:
		b.data = largeBuffers.Get().(*[largeBufferSize]byte)[:]
	default:
		b.data = buffers.Get().(*[bufferSize]byte)[:]
	}
}

// put fills an empty buffer with bytes that fit into a large one.
func (b *buffer) put(p []byte) {
	if len(p) > 0 {
		b.borrow(true)
		b.w = copy(b.data, p)
	}
}

// release gives the memory back; what was not consumed is lost.
func (b *buffer) release() {
	b.recycle()
	*b = buffer{}
}

// recycle gives the memory of a buffer back that nobody looks at any more.
func (b buffer) recycle() {
	switch len(b.data) {
	case smallBufferSize:
		smallBuffers.Put((*[smallBufferSize]byte)(b.data))
	case bufferSize:
		buffers.Put((*[bufferSize]byte)(b.data))
	case largeBufferSize:
		largeBuffers.Put((*[largeBufferSize]byte)(b.data))
	}
}

// grow exchanges the buffer for the next larger one and reports whether there
// is one. Slices into the buffer are void afterwards.
func (b *buffer) grow() bool {
	var larger []byte
	switch len(b.data) {
	case smallBufferSize:
		larger = buffers.Get().(*[bufferSize]byte)[:]
	case bufferSize:
		larger = largeBuffers.Get().(*[largeBufferSize]byte)[:]
	default:
		return false
	}
	b.move(larger)
	return true
}

// shrink exchanges the buffer for a small one, if what is in it leaves half of
// that free. Slices into the buffer are void afterwards.
func (b *buffer) shrink() {
	if len(b.data) > smallBufferSize && b.len() <= smallBufferSize/2 {
		b.move(smallBuffers.Get().(*[smallBufferSize]byte)[:])
	}
}

func (b *buffer) move(to []byte) {
	n := copy(to, b.bytes())
	b.release()
	b.data, b.w = to, n
}

// compact moves what is left to the front. Slices into the buffer are void
// afterwards.
func (b *buffer) compact() {
	if b.r > 0 {
		b.w = copy(b.data, b.data[b.r:b.w])
		b.r = 0
	}
}
