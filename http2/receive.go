package http2

import (
	"errors"

	"isthmus/http1"
)

// takeHeaders begins a header block: a request's head, a reply's, or trailers.
func (c *Conn) takeHeaders(h FrameHeader, p []byte) error {
	fragment, err := ParseHeaders(h, p)
	if err != nil {
		if fragment == nil {
			return err
		}
	}
	c.fault = err // the block has to be decoded first
	if err := c.mayOpen(h.Stream); err != nil {
		return err
	}
	c.ending = h.Flags.Has(FlagEndStream)
	if h.Flags.Has(FlagEndHeaders) {
		return c.takeBlock(h.Stream, fragment)
	}
	c.expected = h.Stream
	c.block = append(c.block[:0], fragment...)
	return c.annoyed(glitchContinuation)
}

// mayOpen holds that HEADERS are for a stream that may have them at all.
func (c *Conn) mayOpen(id uint32) error {
	if c.server {
		if id%2 == 0 {
			return &ConnError{CodeProtocol, "HEADERS on a stream that is not the client's"}
		}
		return nil
	}
	if id%2 == 0 || id > c.last {
		return &ConnError{CodeProtocol, "HEADERS on a stream that nobody has opened"}
	}
	return nil
}

// takeContinuation goes on with a header block.
func (c *Conn) takeContinuation(h FrameHeader, p []byte) error {
	if len(c.block)+len(p) > maxHeaderBlock {
		return &ConnError{CodeEnhanceYourCalm, "header block too large"}
	}
	c.block = append(c.block, p...)
	if !h.Flags.Has(FlagEndHeaders) {
		return c.annoyed(glitchContinuation)
	}
	id := c.expected
	c.expected = 0
	err := c.takeBlock(id, c.block)
	if cap(c.block) > maxFrame {
		c.block = nil
	}
	return err
}

// takeBlock decodes a header block that is whole. It has to be decoded whatever
// becomes of it, since the next one builds upon it.
func (c *Conn) takeBlock(id uint32, block []byte) error {
	fault := c.fault
	c.fault = nil
	if c.server && id > c.last && fault == nil {
		return c.open(id, block)
	}
	s := c.streams[id]
	if s == nil || s.remoteEnd || s.err != nil || fault != nil {
		if _, _, err := c.decoder.Decode(block, nil, nil, 0); err != nil && !errors.Is(err, errHeaderListTooLarge) {
			return err
		}
		switch {
		case fault != nil:
			c.last = max(c.last, id)
			return fault
		case s != nil && s.remoteEnd && s.err == nil:
			return &StreamError{CodeStreamClosed, "HEADERS after the end"}
		case s != nil || c.wasReset(id):
			return nil // they were under way
		case c.server:
			return &ConnError{CodeStreamClosed, "HEADERS on a stream that is over"}
		}
		return nil
	}
	from := len(s.fields)
	var err error
	s.arena, s.fields, err = c.decoder.Decode(block, s.arena, s.fields, http1.DefaultLimits.HeadBytes)
	switch {
	case errors.Is(err, errHeaderListTooLarge):
		return &StreamError{CodeEnhanceYourCalm, "header list too large"}
	case err != nil:
		return err
	}
	if c.server || s.headDone {
		return c.endWithTrailers(s, from)
	}
	return c.takeHead(s, from)
}

// open opens a stream of the client's.
func (c *Conn) open(id uint32, block []byte) error {
	s := takeStream(c, id)
	var err error
	s.arena, s.fields, err = c.decoder.Decode(block, s.arena[:0], s.fields[:0], http1.DefaultLimits.HeadBytes)
	large := errors.Is(err, errHeaderListTooLarge)
	if err != nil && !large {
		s.recycle()
		return err
	}
	s.tooLarge = large
	c.last = id
	refused := c.leaving && id > c.limit || c.err != nil
	if refused || c.active >= int(c.options.MaxStreams) {
		s.recycle()
		if !refused { // what was sent before the limit was known, or after GOAWAY, is nobody's fault
			if err := c.annoyed(glitchProvoked); err != nil {
				return err
			}
		}
		c.resetLocked(id, CodeRefusedStream)
		return nil
	}
	c.active++
	s.remoteEnd, s.opened = c.ending, c.heard
	s.send, s.recv = newSendWindow(c.peerWindow), newRecvWindow(c.window)
	c.streams[id] = s
	c.fresh = append(c.fresh, s)
	return nil
}

// takeHead takes a reply's head, interim or final.
func (c *Conn) takeHead(s *Stream, from int) error {
	interim := isInterim(s.fields[from:])
	switch {
	case interim && c.ending:
		return &StreamError{CodeProtocol, "a 1xx reply that ends its stream"}
	case len(s.heads) >= maxHeads:
		return &StreamError{CodeEnhanceYourCalm, "too many 1xx replies"}
	}
	s.heads = append(s.heads, head{s.fields[from:len(s.fields):len(s.fields)], c.ending})
	s.headDone = !interim
	s.remoteEnd = c.ending
	if s.headDone && !c.ending {
		s.expectLength(s.fields[from:])
	}
	s.readable.signal()
	return nil
}

// maxHeads is how many heads of replies may wait for whoever reads them: the
// final one, and more 1xx than any server sends.
const maxHeads = 8

// isInterim reports whether a reply's status is 1xx.
func isInterim(fields []http1.Field) bool {
	return len(fields) > 0 && string(fields[0].Name) == ":status" && len(fields[0].Value) == 3 && fields[0].Value[0] == '1'
}

// endWithTrailers ends the body of a stream.
func (c *Conn) endWithTrailers(s *Stream, from int) error {
	if !c.ending {
		return &StreamError{CodeProtocol, "trailers that do not end their stream"}
	}
	if s.length > 0 {
		return &StreamError{CodeProtocol, "body shorter than its content-length"}
	}
	trailers, err := ReadTrailers(nil, s.fields[from:], c.options.DropUnderscores)
	if err != nil {
		return err
	}
	s.trailers, s.remoteEnd = trailers, true
	s.readable.signal()
	return nil
}

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
	s := c.streams[h.Stream]
	if s == nil || s.remoteEnd || s.err != nil {
		c.grant(len(p))
		switch {
		case s == nil && h.Stream > c.last || h.Stream%2 == 0:
			return &ConnError{CodeProtocol, "DATA on a stream that nobody has opened"}
		case s != nil && s.err != nil || c.wasReset(h.Stream):
			return nil // it was under way
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
	c.unread += len(data)
	if padding := len(p) - len(data); padding > 0 {
		c.grantStream(s, padding)
	}
	c.grant(len(p))
	if end {
		s.remoteEnd = true
	}
	s.readable.signal()
	if len(data) == 0 && !end {
		return c.annoyed(glitchEmpty)
	}
	c.measure(len(data))
	return nil
}

// grant lets the peer send as much anew of all bodies together as has come,
// unless too much of what has come was not read yet; then that follows as it is
// read.
func (c *Conn) grant(n int) {
	c.withheld += n
	if c.unread > connWindow/2 {
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
		c.enlarge(window)
	}
	if ping {
		c.out = AppendPing(c.room(), false, pingMeasure)
	}
}

// enlarge makes the windows larger: of new streams by a setting, which the peer
// applies to those that there are, too (RFC 9113 6.9.2).
func (c *Conn) enlarge(window uint32) {
	c.out = AppendSettings(c.room(), Setting{SettingInitialWindowSize, window})
	for _, s := range c.streams {
		s.recv.widen(window)
	}
	c.window = window
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
	switch data {
	case pingMeasure:
		c.estimator.acknowledge(c.heard)
	case pingProbe:
		c.probing = false
	case pingLeave:
		// What the client had sent before it read our first GOAWAY has come.
		c.leaveNow()
	}
	return nil
}

// takeSettings does as the peer asks.
func (c *Conn) takeSettings(h FrameHeader, p []byte) error {
	if h.Flags.Has(FlagAck) {
		return nil
	}
	if c.flooded() {
		return &ConnError{CodeEnhanceYourCalm, "SETTINGS whose answers nobody reads"}
	}
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
			for _, s := range c.streams {
				if !s.send.resize(c.peerWindow, v) {
					return &ConnError{CodeFlowControl, "SETTINGS_INITIAL_WINDOW_SIZE overflows a window"}
				}
				s.writable.signal()
			}
			c.peerWindow = v
		case SettingMaxConcurrentStreams:
			c.peerStreams = v
		case SettingEnableConnectProtocol:
			c.extended = v == 1
		}
	}
	c.introduce()
	c.out = AppendSettingsAck(c.room())
	return c.annoyed(glitchSettings)
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
	} else if s := c.streams[h.Stream]; s != nil {
		if !s.send.add(n) {
			return &StreamError{CodeFlowControl, "the stream's window overflows"}
		}
		s.writable.signal()
	} else if h.Stream > c.last || h.Stream%2 == 0 {
		return &ConnError{CodeProtocol, "WINDOW_UPDATE on a stream that nobody has opened"}
	}
	if c.nuisance.addUpdate(n, c.heard) {
		return errTiresome
	}
	return nil
}

// takeReset ends a stream.
func (c *Conn) takeReset(h FrameHeader, p []byte) error {
	code := ParseReset(p)
	if h.Stream > c.last || h.Stream%2 == 0 {
		return &ConnError{CodeProtocol, "RST_STREAM on a stream that nobody has opened"}
	}
	s := c.streams[h.Stream]
	if s == nil {
		return nil
	}
	switch {
	case !c.server && code == CodeRefusedStream:
		s.err = ErrUnprocessed
	case !c.server && code == CodeNo && s.headDone && s.remoteEnd:
		// The reply is whole, and the rest of the request is not wanted (8.1).
		s.unwanted = true
	case s.err == nil:
		s.err = ResetError{code, true}
	}
	c.remove(s)
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
	c.refused = true
	for id, s := range c.streams {
		if !c.server && id > last {
			s.err = ErrUnprocessed
			c.remove(s)
			s.readable.signal()
			s.writable.signal()
		}
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

// resetLocked sends RST_STREAM and forgets the stream. Whoever serves it finds
// out.
func (c *Conn) resetLocked(id uint32, code ErrCode) {
	if c.err == nil {
		c.out = AppendReset(c.room(), id, code)
	}
	c.resets[c.resetAt] = id
	c.resetAt = (c.resetAt + 1) % len(c.resets)
	if s := c.streams[id]; s != nil {
		if s.err == nil {
			s.err = ResetError{code, false}
		}
		c.remove(s)
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

// remove forgets a stream whose both ends are done with it.
func (c *Conn) remove(s *Stream) {
	if c.streams[s.id] == s {
		delete(c.streams, s.id)
	}
}
