package http2

// sendWindow is how many bytes of data we may still send: on a stream, or on
// the whole connection (RFC 9113 5.2, 6.9). Both are taken from for each byte.
type sendWindow struct {
	left int64 // below 0 when the peer has shrunk the windows of its streams (6.9.2)
}

// newSendWindow returns a window as the peer's settings give it.
func newSendWindow(size uint32) sendWindow { return sendWindow{int64(size)} }

// take takes up to n bytes and says how many.
func (w *sendWindow) take(n int) int {
	n = int(max(0, min(int64(n), w.left)))
	w.left -= int64(n)
	return n
}

// put gives back what has been taken and not sent.
func (w *sendWindow) put(n int) { w.left += int64(n) }

// add is what a WINDOW_UPDATE does. It reports whether the window stays within
// what a peer may give (6.9.1); if not, the stream or the connection ends with
// FLOW_CONTROL_ERROR.
func (w *sendWindow) add(n uint32) bool {
	w.left += int64(n)
	return w.left <= maxWindow
}

// resize is what a new SETTINGS_INITIAL_WINDOW_SIZE does to each stream; like
// add it reports whether the window is within its bounds.
func (w *sendWindow) resize(before, after uint32) bool {
	w.left += int64(after) - int64(before)
	return w.left <= maxWindow
}

// recvWindow is how many bytes of data the peer may still send. What has been
// received is given back when it has been read, in one go when it comes to half
// the window: the sender never stands still for want of an update that is under
// way, if the window is twice what a round trip takes, and updates are few.
type recvWindow struct {
	size int64 // what the peer may send without hearing from us
	left int64 // what it may send now
	read int64 // what has been read since the last update
}

// newRecvWindow returns a window as we have announced it.
func newRecvWindow(size uint32) recvWindow { return recvWindow{size: int64(size), left: int64(size)} }

// receive takes down the payload of a DATA frame, its padding included. It
// reports whether the peer was allowed to send that; if not, the stream or the
// connection ends with FLOW_CONTROL_ERROR.
//
// An empty frame passes always, as the end of a body after which the window has
// been narrowed may be one.
func (w *recvWindow) receive(n int) bool {
	w.left -= int64(n)
	return w.left >= 0 || n == 0
}

// consume takes down that n bytes received have been read, or thrown away. It
// returns the increment of the WINDOW_UPDATE that is to be sent, 0 for none yet.
func (w *recvWindow) consume(n int) uint32 {
	w.read += int64(n)
	if w.read < (w.size+1)/2 {
		return 0
	}
	return w.update()
}

// grow widens the window, if it was narrower, and returns the increment of the
// WINDOW_UPDATE that is to be sent, 0 for none.
func (w *recvWindow) grow(size uint32) uint32 {
	more := min(int64(size), maxWindow) - w.size
	if more <= 0 {
		return 0
	}
	w.size += more
	w.read += more
	return w.update()
}

// widen is what a larger SETTINGS_INITIAL_WINDOW_SIZE of ours does at the peer,
// without an update.
func (w *recvWindow) widen(size uint32) {
	if more := int64(size) - w.size; more > 0 {
		w.size += more
		w.left += more
	}
}

// narrow is what a smaller SETTINGS_INITIAL_WINDOW_SIZE of ours has done at the
// peer, when it has acknowledged that. What it has sent before may be more than
// the window holds now: then it waits until enough of that is read (RFC 9113
// 6.9.2), which may have been: consume is to be asked.
func (w *recvWindow) narrow(size uint32) {
	if less := w.size - int64(size); less > 0 {
		w.size -= less
		w.left -= less
	}
}

// update gives back all that has been read.
func (w *recvWindow) update() uint32 {
	n := w.read
	w.left += n
	w.read = 0
	return uint32(n)
}
