package http2

import "time"

// Receive takes whole frames off the bytes that have come, and returns how many
// bytes these are; the rest is to be given again, with what comes behind it. An
// error ends the connection: what the peer is told is left for the flusher.
func (c *Conn) Receive(b []byte) (n int, err error) {
	c.mu.Lock()
	c.heard = time.Now()
	c.mu.Unlock()
	if !c.preface {
		if !c.takePreface(b) {
			return 0, c.fail(&ConnError{CodeProtocol, "not the preface of HTTP/2"})
		}
		if !c.preface {
			return 0, nil
		}
		n = len(Preface)
	}
	for len(b)-n >= frameHeaderLen {
		h := ParseFrameHeader(b[n:])
		switch {
		case h.Length <= maxFrame:
		case !c.server && !c.settled: // "HTTP/1.1 400", say
			return n, c.fail(ErrNotHTTP2)
		default:
			return n, c.fail(errFrameLarge)
		}
		end := n + frameHeaderLen + int(h.Length)
		if end > len(b) {
			break
		}
		if err := c.take(h, b[n+frameHeaderLen:end]); err != nil {
			return end, c.fail(err)
		}
		n = end
	}
	return n, nil
}

// takePreface looks for the client's preface, and reports whether what has come
// may be one.
func (c *Conn) takePreface(b []byte) bool {
	m := min(len(b), len(Preface))
	if string(b[:m]) != Preface[:m] {
		return false
	}
	c.preface = m == len(Preface)
	return true
}

// take takes one frame. A *StreamError ends its stream only.
func (c *Conn) take(h FrameHeader, p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.inOrder(h); err != nil {
		return err
	}
	err := h.Check(maxFrame)
	if err == nil {
		err = c.dispatch(h, p)
	}
	if s, ok := err.(*StreamError); ok {
		c.resetLocked(h.Stream, s.Code)
		return c.annoyed(glitchProvoked)
	}
	return err
}

// dispatch gives a frame to whoever takes its type. The caller of all those holds
// mu.
func (c *Conn) dispatch(h FrameHeader, p []byte) (err error) {
	switch h.Type {
	case FrameData:
		err = c.takeData(h, p)
	case FrameHeaders:
		err = c.takeHeaders(h, p)
	case FrameContinuation:
		err = c.takeContinuation(h, p)
	case FramePriority:
		err = c.takePriority(h, p)
	case FrameReset:
		err = c.takeReset(h, p)
	case FrameSettings:
		err = c.takeSettings(h, p)
	case FramePing:
		err = c.takePing(h, p)
	case FrameGoAway:
		err = c.takeGoAway(h, p)
	case FrameWindowUpdate:
		err = c.takeWindowUpdate(h, p)
	default:
		// Frames of unknown types are ignored (5.5).
		err = c.annoyed(glitchUnknown)
	}
	return err
}

// inOrder holds that SETTINGS come first (RFC 9113 3.4), and that nothing comes
// between the parts of a header block (4.3).
func (c *Conn) inOrder(h FrameHeader) error {
	if !c.settled {
		if h.Type != FrameSettings || h.Flags.Has(FlagAck) {
			return ErrNotHTTP2
		}
		c.settled = true
		c.peerStreams = defaultMaxStreams // unless it says another number
	}
	if c.expected != 0 && (h.Type != FrameContinuation || h.Stream != c.expected) {
		return &ConnError{CodeProtocol, "a frame within a header block"}
	}
	if c.expected == 0 && h.Type == FrameContinuation {
		return &ConnError{CodeProtocol, "CONTINUATION without a header block"}
	}
	return nil
}

// annoyed counts a nuisance. Too many end the connection (FAULTS: rapid reset,
// floods).
func (c *Conn) annoyed(g glitch) error {
	if c.nuisance.add(g, c.heard) {
		return errTiresome
	}
	return nil
}

var errTiresome = &ConnError{CodeEnhanceYourCalm, "too_much_for_nothing"}

// takeSettings does as the peer asks.
func (c *Conn) takeSettings(h FrameHeader, p []byte) error {
	if h.Flags.Has(FlagAck) {
		if c.unacked == 0 {
			return c.annoyed(glitchIdle)
		}
		c.acknowledged()
		return nil
	}
	if c.flooded() {
		return &ConnError{CodeEnhanceYourCalm, "SETTINGS whose answers nobody reads"}
	}
	c.changes++
	window := c.peerWindow
	for len(p) > 0 {
		setting, rest, err := NextSetting(p)
		if err != nil {
			return err
		}
		p = rest
		switch v := setting.Value; setting.ID {
		case SettingHeaderTableSize:
			// We use none; a decoder whose table has become smaller wants to hear so
			// (RFC 7541 4.2).
			c.peerTable = c.peerTable || v < headerTable
		case SettingInitialWindowSize:
			window = v // once for all streams, however often the frame says it
		case SettingMaxConcurrentStreams:
			c.peerStreams = v
		case SettingEnableConnectProtocol:
			c.extended = v == 1
		}
	}
	if err := c.resize(window); err != nil {
		return err
	}
	c.introduce()
	c.out = AppendSettingsAck(c.room())
	return c.annoyed(glitchSettings)
}

// resize makes the windows that we have for bodies as large as the peer says (RFC 9113
// 6.9.2).
func (c *Conn) resize(window uint32) error {
	if window == c.peerWindow {
		return nil
	}
	for s := range c.streams.all() {
		if !s.send.resize(c.peerWindow, window) {
			return &ConnError{CodeFlowControl, "SETTINGS_INITIAL_WINDOW_SIZE overflows a window"}
		}
		s.writable.signal()
	}
	c.peerWindow = window
	return nil
}

// The contents of our PINGs.
var (
	pingMeasure = [8]byte{'m', 'e', 'a', 's', 'u', 'r', 'e'}
	pingProbe   = [8]byte{'p', 'r', 'o', 'b', 'e'}
	pingLeave   = [8]byte{'l', 'e', 'a', 'v', 'e'}
)

// takePing answers a PING, or takes the answer to ours.
func (c *Conn) takePing(h FrameHeader, p []byte) error {
	data := ParsePing(p)
	if !h.Flags.Has(FlagAck) {
		if c.flooded() {
			return &ConnError{CodeEnhanceYourCalm, "PINGs whose answers nobody reads"}
		}
		c.out = AppendPing(c.room(), true, data)
		return c.annoyed(glitchPing)
	}
	switch {
	case data == pingMeasure && c.estimator.pinged:
		c.estimator.acknowledge(c.heard)
	case data == pingProbe && c.probing:
		c.probing = false
	case data == pingLeave && c.leaving && c.limit > c.last:
		// What the client had sent before it read our first GOAWAY has come.
		c.leaveNow()
	default:
		return c.annoyed(glitchIdle)
	}
	return nil
}

// takeWindowUpdate lets us send more.
func (c *Conn) takeWindowUpdate(h FrameHeader, p []byte) error {
	n, err := ParseWindowUpdate(h, p)
	if err != nil {
		return err
	}
	if h.Stream == 0 {
		if !c.send.add(n) {
			return &ConnError{CodeFlowControl, "the connection's window overflows"}
		}
		c.roomMade()
	} else if s := c.streams.get(h.Stream); s != nil {
		if !s.send.add(n) {
			return &StreamError{CodeFlowControl, "the stream's window overflows"}
		}
		s.writable.signal()
	} else if h.Stream > c.last || h.Stream%2 == 0 {
		return &ConnError{CodeProtocol, "WINDOW_UPDATE on a stream that nobody has opened"}
	} else if c.server {
		if int64(n) > c.late {
			return c.annoyed(glitchIdle)
		}
		c.late -= int64(n) // who reads a reply when it has come whole gives its window back then
	}
	if c.nuisance.addUpdate(n, c.heard) {
		return errTiresome
	}
	return nil
}

// takePriority holds what is left of priorities (RFC 9113 5.3.2): nothing.
func (c *Conn) takePriority(h FrameHeader, p []byte) error {
	if err := ParsePriority(h, p); err != nil {
		return err
	}
	return c.annoyed(glitchPriority)
}

// takeReset ends a stream.
func (c *Conn) takeReset(h FrameHeader, p []byte) error {
	code := ParseReset(p)
	if h.Stream > c.last || h.Stream%2 == 0 {
		return &ConnError{CodeProtocol, "RST_STREAM on a stream that nobody has opened"}
	}
	s := c.streams.get(h.Stream)
	switch {
	case s == nil || s.err != nil || s.localEnd && s.remoteEnd: // it is over
		if c.server {
			return c.annoyed(glitchIdle)
		}
		return nil // a server's early replies may each end so
	case s.replyWhole():
		s.unwanted = true // with NO_ERROR (8.1), and servers do so with others
	case !c.server && code == CodeRefusedStream:
		s.fail(ErrUnprocessed)
	default:
		s.fail(ResetError{code, true})
	}
	c.close(s, reset)
	if c.server {
		c.throwAway(s) // nobody needs the request any more
	}
	c.done(s)
	s.readable.signal()
	s.writable.signal()
	if c.server && c.nuisance.addReset(c.heard.Sub(s.opened), s.replied, c.heard) {
		return errTiresome
	}
	return nil
}

// takeGoAway opens no more streams; those that the peer will not look at are
// over.
func (c *Conn) takeGoAway(h FrameHeader, p []byte) error {
	last, _, _ := ParseGoAway(p)
	err := ErrUnprocessed
	if last > 0 {
		err = ErrMoved
	}
	c.refused = true
	c.changes++
	for s := range c.streams.all() {
		if !c.server && s.id > last && s.err == nil && !s.replyWhole() {
			s.fail(err)
			c.done(s)
			s.readable.signal()
			s.writable.signal()
		}
	}
	return c.annoyed(glitchIdle)
}

// resetLocked sends RST_STREAM and forgets the stream. Whoever serves it finds
// out.
func (c *Conn) resetLocked(id uint32, code ErrCode) {
	if c.err == nil {
		c.out = AppendReset(c.room(), id, code)
	}
	c.resets[c.resetAt] = id
	c.resetAt = (c.resetAt + 1) % len(c.resets)
	if s := c.streams.get(id); s != nil {
		if s.err == nil {
			s.fail(ResetError{code, false})
		}
		c.close(s, reset)
		c.done(s)
		s.readable.signal()
		s.writable.signal()
	}
}

// wasReset reports whether we have reset a stream of late: what comes for it
// was under way.
func (c *Conn) wasReset(id uint32) bool {
	for _, r := range c.resets {
		if r == id {
			return true
		}
	}
	return false
}

// list has frames find a stream by its number.
func (c *Conn) list(s *Stream) {
	c.streams.add(s)
	s.listed = true
}

// done forgets a stream whose both ends are done with it, unless some of its body is
// still to be read: then Budget has to find it, until Close.
func (c *Conn) done(s *Stream) {
	if s.queue.len() == 0 {
		c.remove(s)
	}
}

// remove forgets a stream.
func (c *Conn) remove(s *Stream) {
	if s.listed {
		c.streams.remove(s)
		s.listed = false
		if c.server {
			c.late = min(c.late+max(0, int64(c.peerWindow)-s.send.left), maxWindow)
		}
	}
}
