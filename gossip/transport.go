package gossip

import (
	"errors"
	"fmt"
	"log"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/hashicorp/memberlist"
)

// maxStreams is how many connections others may have to the gossip port at a time, at the
// most: twice as many as memberlist answers push/pulls at a time (maxPushPullRequests).
const maxStreams = 256

// transport is memberlist's, but that it bounds how many connections others have: each is
// open for ten seconds (TCPTimeout) though it says nothing, and whoever reaches the port,
// without a key, could take all the files of the process, and with them those of requests.
type transport struct {
	*memberlist.NetTransport
	most    int // streams
	streams chan net.Conn
	over    chan struct{}  // closed when Shutdown begins: whoever still comes is closed
	closed  chan struct{}  // closed when nobody comes any more
	done    sync.WaitGroup // of accept
	log     *log.Logger

	end  sync.Once  // of Shutdown
	mu   sync.Mutex // guards open, and what its streams have said
	open []*stream  // the oldest first
}

// stream is a connection to the gossip port.
type stream struct {
	net.Conn
	of     *transport
	spoken bool // something has come by it
}

// create makes a member whose transport it is.
func create(c *memberlist.Config, streams int) (*memberlist.Memberlist, error) {
	t, err := newTransport(c, streams)
	if err != nil {
		return nil, err
	}
	c.Transport = t
	list, err := memberlist.Create(c)
	if err != nil {
		t.Shutdown()
	}
	return list, err
}

// listenError says what to do about an error of create.
func listenError(bind string, err error) error {
	for _, usual := range []struct {
		errno syscall.Errno
		why   string
	}{
		{syscall.EADDRINUSE, "another listener of this process, or another process, has the port; stop it or"},
		{syscall.EADDRNOTAVAIL, "this machine has no such address;"},
	} {
		if isErrno(err, usual.errno) {
			return fmt.Errorf("listen gossip %s: %w: %s choose another one with gossip.bind in the bootstrap file", bind, usual.errno, usual.why)
		}
	}
	return fmt.Errorf("gossip on %s: %w", bind, err)
}

// isErrno reports whether an error of memberlist's, which keeps the text alone, is the
// system's.
func isErrno(err error, errno syscall.Errno) bool {
	return errors.Is(err, errno) || strings.Contains(err.Error(), errno.Error())
}

// dynamic is how often a port is asked of the kernel: somebody may have the one that is
// free for TCP for UDP.
const dynamic = 10

// newTransport listens at an address; port 0 is any, which the configuration has afterwards.
// It has so many streams at a time; 0: maxStreams.
func newTransport(c *memberlist.Config, streams int) (*transport, error) {
	bind := &memberlist.NetTransportConfig{BindAddrs: []string{c.BindAddr}, BindPort: c.BindPort, Logger: c.Logger}
	under, err := memberlist.NewNetTransport(bind)
	for try := 1; err != nil && c.BindPort == 0 && try < dynamic && strings.Contains(err.Error(), syscall.EADDRINUSE.Error()); try++ {
		under, err = memberlist.NewNetTransport(bind)
	}
	if err != nil {
		return nil, err
	}
	if c.BindPort == 0 {
		c.BindPort = under.GetAutoBindPort()
		c.AdvertisePort = c.BindPort
	}
	if streams == 0 {
		streams = maxStreams
	}
	t := &transport{NetTransport: under, most: min(streams, maxStreams), streams: make(chan net.Conn), over: make(chan struct{}), closed: make(chan struct{}), log: c.Logger}
	t.done.Go(t.accept)
	return t, nil
}

// accept hands connections on to memberlist. newTransport starts it; it ends with Shutdown,
// as late as what is below, which waits for it.
func (t *transport) accept() {
	for {
		select {
		case c := <-t.NetTransport.StreamCh():
			s := t.enter(c)
			select {
			case t.streams <- s:
			case <-t.over:
				s.Close()
			}
		case <-t.closed:
			return
		}
	}
}

// enter lets a connection in. Where there are too many, the oldest of those goes that have
// said nothing, or else the oldest.
func (t *transport) enter(c net.Conn) *stream {
	s := &stream{Conn: c, of: t}
	t.mu.Lock()
	var victim *stream
	if len(t.open) >= t.most {
		i := max(slices.IndexFunc(t.open, func(s *stream) bool { return !s.spoken }), 0)
		victim = t.open[i]
	}
	t.open = append(t.open, s)
	t.mu.Unlock()
	if victim != nil {
		t.log.Printf("[ERR] memberlist: more than %d connections at a time: one that is silent is closed, or the oldest", t.most)
		victim.Close()
	}
	return s
}

// Read implements [net.Conn].
func (s *stream) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if n > 0 && !s.spoken { // which Read alone writes
		s.of.mu.Lock()
		s.spoken = true
		s.of.mu.Unlock()
	}
	return n, err
}

// Close implements [net.Conn].
func (s *stream) Close() error {
	s.of.mu.Lock()
	s.of.open = slices.DeleteFunc(s.of.open, func(o *stream) bool { return o == s })
	s.of.mu.Unlock()
	return s.Conn.Close()
}

// StreamCh implements [memberlist.Transport].
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown implements [memberlist.Transport]. It may be called again.
func (t *transport) Shutdown() (err error) {
	t.end.Do(func() {
		close(t.over)
		err = t.NetTransport.Shutdown()
		close(t.closed)
		t.done.Wait()
	})
	return err
}

var _ memberlist.NodeAwareTransport = (*transport)(nil) // which memberlist asks for
