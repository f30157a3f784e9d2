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
	s := c.streams.get(id)
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
		case s != nil || c.wasReset(id): // they were under way
			if c.server {
				return c.annoyed(glitchStray)
			}
			return nil // the reply to a request given up
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
	s.request, s.whole, s.tooLarge = s.fields[:len(s.fields):len(s.fields)], c.ending, large
	c.last = id
	if c.refuses(id) {
		s.recycle()
		fault := glitchRefused
		if c.tooMany() {
			fault = glitchProvoked
		}
		c.resetLocked(id, CodeRefusedStream)
		return c.annoyed(fault)
	}
	c.active++
	s.remoteEnd, s.opened = c.ending, c.heard
	s.send, s.recv = newSendWindow(c.peerWindow), newRecvWindow(c.window)
	c.list(s)
	c.fresh = append(c.fresh, s)
	if large {
		return c.annoyed(glitchLarge)
	}
	return nil
}

// refuses reports whether a stream that the client opens is not served: it was sent before
// the client knew that no more are, or there are too many. Those that have been reset give
// place for as many others, but no more (CVE-2023-44487), since somebody still serves them;
// and those that are finished always do: whoever served them may be about to say so.
func (c *Conn) refuses(id uint32) bool {
	return c.leaving && id > c.limit || c.err != nil || c.tooMany() || c.active-c.closed[finished] >= 2*int(c.options.MaxStreams)
}

// tooMany reports whether the client has as many streams open as it may, as far as it knows.
func (c *Conn) tooMany() bool {
	return c.active-c.closed[finished]-c.closed[reset] >= int(c.options.MaxStreams)
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
	s.trailers = trailers
	s.endRemote()
	s.readable.signal()
	return nil
}
