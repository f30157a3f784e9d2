package http2

import "time"

// takeData takes a part of a body.
func (c *Conn) takeData(h FrameHeader, p []byte) error {
	data, err := ParseData(h, p)
	if err != nil {
		return err
	}
	if !c.recv.receive(len(p)) { // padding counts (RFC 9113 6.9.1)
		return &ConnError{CodeFlowControl, "more than the connection's window"}
	}
	end := h.Flags.Has(FlagEndStream)
	s := c.streams.get(h.Stream)
	if s == nil || s.remoteEnd || s.err != nil {
		c.grant(len(p))
		switch {
		case s == nil && h.Stream > c.last || h.Stream%2 == 0:
			return &ConnError{CodeProtocol, "DATA on a stream that nobody has opened"}
		case s != nil && s.err != nil, s == nil && !c.server, c.wasReset(h.Stream):
			if c.server && len(data) == 0 {
				return c.annoyed(glitchEmpty)
			}
			return nil // it was under way, which of a server's reply may be much
		}
		return &StreamError{CodeStreamClosed, "DATA after the end"}
	}
	switch {
	case !c.server && !s.headDone:
		c.grant(len(p))
		return &StreamError{CodeProtocol, "DATA before HEADERS"}
	case !s.recv.receive(len(p)):
		c.grant(len(p))
		return &StreamError{CodeFlowControl, "more than the stream's window"}
	case s.counted && (int64(len(data)) > s.length || end && int64(len(data)) < s.length):
		c.grant(len(p))
		return &StreamError{CodeProtocol, "body of another length than its content-length"}
	}
	if s.counted {
		s.length -= int64(len(data))
	}
	s.queue.put(data)
	c.hold(len(data))
	if padding := len(p) - len(data); padding > 0 {
		c.grantStream(s, padding)
	}
	c.grant(len(p))
	if end {
		s.endRemote()
		if c.server && !s.taken {
			s.whole = s.queue.len() == 0
		}
	}
	s.readable.signal()
	if len(data) == 0 && !end {
		return c.annoyed(glitchEmpty)
	}
	c.measure(len(data))
	return nil
}

// grant lets the peer send as much anew of all bodies together as has come. Where
// too much of that was not read yet, the windows of streams are narrowed first;
// until they are, what has come is granted as it is read.
func (c *Conn) grant(n int) {
	c.withheld += n
	if c.unread > maxUnread && !c.narrow() {
		return
	}
	if n := c.recv.consume(c.withheld); n > 0 {
		c.out = AppendWindowUpdate(c.room(), 0, n)
	}
	c.withheld = 0
}

// grantStream lets the peer send as much anew of one body as was read of it. The
// caller holds mu.
func (c *Conn) grantStream(s *Stream, n int) {
	if s.remoteEnd || s.err != nil || c.err != nil {
		return
	}
	if n := s.recv.consume(n); n > 0 {
		c.out = AppendWindowUpdate(c.room(), s.id, n)
	}
}

// measure finds out how much the way to the peer holds, and makes the windows as
// large.
func (c *Conn) measure(n int) {
	window, ping := c.estimator.receive(n, c.heard)
	if window > 0 && int(window) <= c.options.MaxWindow {
		c.wide = window
	}
	if ping {
		c.out = AppendPing(c.room(), false, pingMeasure)
	}
	if c.wide > c.window && (c.narrowed.IsZero() || c.unread < maxUnread/2 && c.heard.Sub(c.narrowed) > narrowTime) {
		c.narrowed = time.Time{}
		c.enlarge(c.wide)
	}
}

// enlarge makes the windows larger: of new streams by a setting, which the peer
// applies to those that there are, too (RFC 9113 6.9.2).
func (c *Conn) enlarge(window uint32) {
	c.setWindow(window)
	for s := range c.streams.all() {
		s.recv.widen(window)
	}
	c.window = window
}

// setWindow tells the peer which windows streams have.
func (c *Conn) setWindow(window uint32) {
	c.out = AppendSettings(c.room(), Setting{SettingInitialWindowSize, window})
	c.unacked++
}

// narrow makes the windows of streams as small as they were first, so that bodies
// that nobody reads hold no more than that each, and leave the others the
// connection's window. It reports whether they are: the peer has to know.
func (c *Conn) narrow() bool {
	if c.narrowed.IsZero() && c.window > uint32(c.options.Window) && c.err == nil {
		c.narrowed = c.heard
		c.setWindow(uint32(c.options.Window))
	}
	return c.window == uint32(c.options.Window)
}

// acknowledged takes down that the peer has applied settings of ours, which it had not.
func (c *Conn) acknowledged() {
	c.unacked--
	if c.unacked > 0 || c.narrowed.IsZero() || c.window == uint32(c.options.Window) {
		return
	}
	c.window = uint32(c.options.Window)
	for s := range c.streams.all() {
		s.recv.narrow(c.window)
		c.grantStream(s, 0)
	}
	c.grant(0)
}
