package http2

import (
	"io"
	"sync"
	"time"

	"isthmus/http1"
)

// Conn is one end of a connection. Receive and Next are for one goroutine, the
// reader, and Flush for one, the flusher; all else is for any.
type Conn struct {
	options Options
	server  bool

	// The reader's alone.
	decoder  *Decoder
	preface  bool   // the client's has come
	settled  bool   // the peer's first SETTINGS have come
	block    []byte // of a header block that comes in several frames
	expected uint32 // the stream that it is for; 0: none is coming
	ending   bool   // it ends its stream
	fault    error  // what is wrong with it besides
	fresh    []*Stream
	taken    int // of fresh
	changes  int // see Changes

	mu      sync.Mutex // guards what is below, and what streams say it does
	out     []byte     // frames to be sent; borrowed while there are any
	writing bool       // the flusher has others under way
	ready   sync.Cond  // for the flusher: there are some, or it is over
	slow    bool       // the flusher's last write took long
	waiting []*Stream  // for room in out, or for the connection's window

	streams   streamSet
	last      uint32        // the highest stream of the client's
	active    int           // streams that somebody serves
	closed    [closings]int // those of them that have ended for the peer
	send      sendWindow
	recv      recvWindow
	unread    int // bytes of all bodies that have come and were not read
	told      int // of unread, what Options.Budget knows
	withheld  int // of the connection's window, while unread is too much
	estimator bdpEstimator
	wide      uint32    // what the estimator has last found a stream's window should be
	narrowed  time.Time // when streams' windows were narrowed; zero: they are not
	unacked   int       // our SETTINGS that the peer has not acknowledged; windows are narrow only when it has
	nuisance  glitches  // what the peer has done that costs it nothing and us much
	late      int64     // bytes of replies that are over and whose windows the client has not given back yet
	heard     time.Time // when bytes came last
	probing   bool      // the answer to Probe has not come
	window    uint32    // a new stream's, for the peer to send

	peerWindow  uint32 // a new stream's, for us to send
	peerStreams uint32 // how many the peer lets us open
	peerTable   bool   // the peer has made its decoder's table smaller: we have none
	extended    bool   // the peer takes extended CONNECT (RFC 8441)

	introduced chan struct{} // a client's: closed when the server's first SETTINGS have come, or will not

	resets  [maxResets]uint32 // streams that we have reset of late, of which frames may be under way
	resetAt int

	leaving bool   // GOAWAY went out: no stream above limit is served
	limit   uint32 // see leaving
	refused bool   // GOAWAY came: open no more streams
	err     error  // why the connection is over
}

// NewServer makes a server's end, whose SETTINGS are to be flushed.
func NewServer(o Options) *Conn {
	o.Window = max(o.Window, defaultWindow)
	c := newConn(o, true)
	c.out = AppendSettings(c.borrow(),
		Setting{ID: SettingMaxConcurrentStreams, Value: c.options.MaxStreams},
		Setting{ID: SettingInitialWindowSize, Value: uint32(c.options.Window)},
		Setting{ID: SettingMaxHeaderListSize, Value: uint32(http1.DefaultLimits.HeadBytes)},
		Setting{ID: SettingEnableConnectProtocol, Value: 1},
	)
	c.unacked++
	c.widen()
	return c
}

// NewClient makes a client's end, whose preface is to be flushed.
func NewClient(o Options) *Conn {
	c := newConn(o, false)
	c.preface, c.introduced = true, make(chan struct{})
	c.out = AppendSettings(append(c.borrow(), Preface...),
		Setting{ID: SettingEnablePush, Value: 0},
		Setting{ID: SettingInitialWindowSize, Value: uint32(c.options.Window)},
		Setting{ID: SettingMaxHeaderListSize, Value: uint32(http1.DefaultLimits.HeadBytes)},
	)
	c.unacked++
	c.widen()
	return c
}

func newConn(o Options, server bool) *Conn {
	o = o.orDefault()
	c := &Conn{
		options: o, server: server, decoder: NewDecoder(headerTable),
		send: newSendWindow(protocolWindow), recv: newRecvWindow(protocolWindow),
		window: uint32(o.Window), peerWindow: protocolWindow, peerStreams: o.PeerStreams,
		estimator: newBDPEstimator(uint32(o.Window)),
	}
	c.ready.L = &c.mu
	return c
}

// headerTable is the size of the peer's dynamic table, which our decoder
// mirrors; the protocol's default.
const headerTable = 4096

// widen grants the connection's whole window.
func (c *Conn) widen() {
	c.out = AppendWindowUpdate(c.out, 0, c.recv.grow(connWindow))
}

// fail ends the connection with the error's code.
func (c *Conn) fail(err error) error {
	code := CodeInternal
	if e, ok := err.(*ConnError); ok {
		code = e.Code
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.out = AppendGoAway(c.room(), c.last, code, err.Error())
		c.end(err)
	}
	return err
}

// Close ends the connection: its socket is no good any more, or nobody wants it.
// Frames under way are still flushed.
func (c *Conn) Close(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil || err == io.EOF {
		err = ErrClosed
	}
	c.end(err)
}

// end ends all streams and wakes everybody. The caller holds mu.
func (c *Conn) end(err error) {
	if c.err == nil {
		c.err = err
	}
	for s := range c.streams.all() {
		switch {
		case s.err != nil || s.remoteEnd && s.localEnd:
		case s.replyWhole():
			s.unwanted = true
		default:
			s.fail(c.err)
		}
		s.readable.signal()
		s.writable.signal()
	}
	c.introduce()
	c.ready.Signal()
}

// introduce wakes those who wait for the server's first SETTINGS. The caller holds
// mu.
func (c *Conn) introduce() {
	if c.introduced != nil {
		select {
		case <-c.introduced:
		default:
			close(c.introduced)
		}
	}
}

// Err returns why the connection is over; nil while it is not.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Next returns a stream that the client has opened in what Receive was last
// given, nil when there are no more. Whoever takes one has to close it.
func (c *Conn) Next() *Stream {
	if c.taken == len(c.fresh) {
		clear(c.fresh)
		c.fresh, c.taken = c.fresh[:0], 0
		return nil
	}
	s := c.fresh[c.taken]
	c.taken++
	s.taken = true
	return s
}

// closing is how a stream has ended for the peer, whoever still serves it.
type closing uint8

const (
	stillOpen closing = iota
	finished          // both sides have ended theirs
	reset             // by RST_STREAM, of either side
	closings
)

// close notes that a stream has ended for the peer. The caller holds mu.
func (c *Conn) close(s *Stream, how closing) {
	if s.closed == stillOpen {
		s.closed = how
		c.closed[how]++
	}
}

// Active returns how many streams are open.
func (c *Conn) Active() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.active
}

// Idle reports whether nothing is under way.
func (c *Conn) Idle() bool { return c.Active() == 0 }

// TakesMore reports whether the server looks at more requests.
func (c *Conn) TakesMore() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil && !c.refused && !c.leaving && c.last < maxStreamID-1
}

// Changes returns how often the server has said something anew of the streams that it
// takes: by SETTINGS and GOAWAY. It is for the reader.
func (c *Conn) Changes() int { return c.changes }

// TakesNone reports whether the server takes no streams for now, or has not said yet how
// many it takes.
func (c *Conn) TakesNone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.introduced:
		return c.peerStreams == 0
	default:
		return true
	}
}

// PeerStreams returns how many streams the server takes at a time; before it has said
// so, what was taken for it.
func (c *Conn) PeerStreams() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peerStreams
}

// Open returns a stream for a request, or nil if as many are open as the server
// allows, or most, unless that is 0. [Stream.Send] and [Stream.Start] open it.
func (c *Conn) Open(most int) *Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	if most == 0 || uint32(most) > c.peerStreams {
		most = int(min(c.peerStreams, maxStreamID))
	}
	if c.active >= most {
		return nil
	}
	c.active++
	return takeStream(c, 0)
}

// open gives a client's stream its number, in the order in which heads are sent.
// The caller holds mu.
func (c *Conn) openLocked(s *Stream) error {
	if c.err != nil || c.refused || c.last >= maxStreamID-1 {
		return ErrUnprocessed
	}
	s.id = c.last + 2
	if c.last == 0 {
		s.id = 1
	}
	c.last = s.id
	s.send, s.recv = newSendWindow(c.peerWindow), newRecvWindow(c.window)
	c.list(s)
	return nil
}

// TakesConnect reports whether the server takes extended CONNECT (RFC 8441), which
// it says with its first SETTINGS. [ErrTimeout]: they have not come before limit.
func (c *Conn) TakesConnect(limit time.Time) (bool, error) {
	timer := time.NewTimer(time.Until(limit))
	defer timer.Stop()
	select {
	case <-c.introduced:
	case <-timer.C:
		return false, ErrTimeout
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.extended, c.err
}

// Leave says that no more streams are served, and is the beginning of the end:
// once those are over that the client has sent before it hears of it, and no
// others can come, Flush returns. A client leaves at once (RFC 9113 6.8).
func (c *Conn) Leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving || c.err != nil {
		return
	}
	c.leaving = true
	if !c.server {
		c.out = AppendGoAway(c.room(), 0, CodeNo, "")
		return
	}
	c.limit = maxStreamID
	c.out = AppendGoAway(c.room(), maxStreamID, CodeNo, "")
	c.out = AppendPing(c.out, false, pingLeave)
}

// LeaveNow serves no streams but those that have come.
func (c *Conn) LeaveNow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaveNow()
}

// leaveNow does so. The caller holds mu.
func (c *Conn) leaveNow() {
	if c.leaving && c.limit > c.last && c.err == nil {
		c.limit = c.last
		c.out = AppendGoAway(c.room(), c.last, CodeNo, "")
	}
}

// left reports whether nothing more can come. The caller holds mu.
func (c *Conn) left() bool {
	return c.server && c.leaving && c.limit <= c.last && c.active == 0
}

// Probe asks the peer whether it is there. It reports false if the answer to
// the last time has not come yet.
func (c *Conn) Probe() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.probing {
		return false
	}
	c.probing = true
	c.out = AppendPing(c.room(), false, pingProbe)
	return true
}

// Probing reports whether an answer is awaited.
func (c *Conn) Probing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.probing
}

// Pending reports whether a frame, or a header block, has come in part.
func (c *Conn) Pending() bool { return c.expected != 0 }
