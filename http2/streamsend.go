package http2

import "time"

// Send sends a head, made by the Append functions, and data behind it, which may
// be all of the body if end says so. A client's stream is opened by it:
// [ErrUnprocessed] if the connection takes no more.
func (s *Stream) Send(block, data []byte, end bool, limit time.Time) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.room(0, limit); err != nil {
		return err
	}
	if s.id == 0 {
		if err := c.openLocked(s); err != nil {
			return err
		}
	}
	s.replied = true
	s.head(block, end && len(data) == 0)
	return s.write(data, end, limit)
}

// Write sends a part of the body, the last one if end says so. It returns when
// all of it is on its way to the socket: the peer's windows let it be, and there
// is room.
func (s *Stream) Write(data []byte, end bool, limit time.Time) error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.write(data, end, limit)
}

// SendTrailers ends the body with a block of trailers.
func (s *Stream) SendTrailers(block []byte, limit time.Time) error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if err := s.room(0, limit); err != nil {
		return err
	}
	s.head(block, true)
	return nil
}

// Start opens a client's stream with a head and as much of data as can be sent at
// once, which it returns. It never waits. See Send.
func (s *Stream) Start(block, data []byte, end bool) (n int, err error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.openLocked(s); err != nil {
		return 0, err
	}
	s.head(block, end && len(data) == 0)
	for n < len(data) && len(c.out) < c.most(len(data)) {
		m := s.frame(data[n:], end)
		if m == 0 {
			break
		}
		n += m
	}
	return n, nil
}

// head appends a header block. The caller holds conn.mu.
func (s *Stream) head(block []byte, end bool) {
	c := s.conn
	out := c.room()
	start := len(out)
	out = BeginHeaders(out)
	if c.peerTable {
		out = append(out, tableSizeZero)
		c.peerTable = false
	}
	c.out = EndHeaders(append(out, block...), start, s.id, end, maxFrame)
	if end {
		s.localEnd = true
		s.over()
	}
}

// room waits until there is room for frames of n bytes, or the first of them. The
// caller holds conn.mu.
func (s *Stream) room(n int, limit time.Time) error {
	c := s.conn
	for {
		switch {
		case s.err != nil:
			return s.err
		case s.unwanted:
			return ResetError{CodeNo, true}
		case s.stopWrite:
			return ErrInterrupted
		case len(c.out) < c.most(n):
			return nil
		}
		if err := s.pause(limit); err != nil {
			return err
		}
	}
}

// pause waits until writing may go on. The caller holds conn.mu.
func (s *Stream) pause(limit time.Time) error {
	c := s.conn
	c.waiting = append(c.waiting, s)
	c.mu.Unlock()
	err := s.writable.wait(limit)
	c.mu.Lock()
	for i, w := range c.waiting { // unless it was woken from there
		if w == s {
			c.waiting = append(c.waiting[:i], c.waiting[i+1:]...)
			break
		}
	}
	return err
}

// write appends DATA frames, as many as the windows and the room allow at a
// time: when there is no more room, it is others' turn. The caller holds conn.mu.
func (s *Stream) write(data []byte, end bool, limit time.Time) error {
	all := len(data)
	for len(data) > 0 || end && !s.localEnd {
		if err := s.room(all, limit); err != nil {
			return err
		}
		n := s.frame(data, end)
		data = data[n:]
		if n == 0 && len(data) > 0 {
			if err := s.pause(limit); err != nil {
				return err
			}
		}
	}
	return nil
}

// frame appends a DATA frame of as much of data as the windows let go, and
// returns how much that is. The caller holds conn.mu.
func (s *Stream) frame(data []byte, end bool) int {
	c := s.conn
	want := min(len(data), maxFrame)
	n := c.send.take(want)
	if m := s.send.take(n); m < n {
		c.send.put(n - m)
		n = m
	}
	switch {
	case n == 0 && want > 0:
		return 0
	case n == want && n > 0:
		c.nuisance.add(workData, c.heard)
	}
	last := end && n == len(data)
	c.out = append(AppendDataHeader(c.room(), s.id, last, n), data[:n]...)
	if last {
		s.localEnd = true
		s.over()
	}
	return n
}
