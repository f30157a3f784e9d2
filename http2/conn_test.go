package http2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"pgregory.net/rapid"

	"isthmus/http1"
)

// ends is a client's and a server's end, joined by pipes.
type ends struct {
	client, server *Conn
	serve          func(s *Stream) // on a goroutine of its own
	wait           sync.WaitGroup
	heard          chan struct{} // of capacity 1: one of them has heard something
}

// join joins two ends. What the pipes carry comes in pieces of any size.
func join(client, server Options, serve func(*Stream)) *ends {
	e := &ends{client: NewClient(client), server: NewServer(server), serve: serve, heard: make(chan struct{}, 1)}
	there, back := newPipe(), newPipe()
	e.run(e.client, back, there)
	e.run(e.server, there, back)
	return e
}

func (e *ends) run(c *Conn, in, out *pipe) {
	e.wait.Add(2)
	go func() { // ends with close
		defer e.wait.Done()
		c.Flush(func(p []byte) error { _, err := out.Write(p); return err })
		out.Close()
	}()
	go func() { // ends with the other side
		defer e.wait.Done()
		var buf []byte
		piece := make([]byte, 7001)
		for {
			n, err := in.Read(piece)
			buf = append(buf, piece[:n]...)
			m, fault := c.Receive(buf)
			buf = buf[m:]
			select {
			case e.heard <- struct{}{}:
			default:
			}
			for s := c.Next(); s != nil; s = c.Next() {
				e.wait.Add(1)
				go func() { // ends with the request
					defer e.wait.Done()
					e.serve(s)
					s.Close()
				}()
			}
			if fault != nil || err != nil {
				c.Close(errors.Join(fault, err))
				return
			}
		}
	}()
}

// close ends both, and waits until all that they have begun is over.
func (e *ends) close() {
	e.client.Close(nil)
	e.server.Close(nil)
	e.wait.Wait()
}

// pipe is a buffer that is written to and read from.
type pipe struct {
	mu     sync.Mutex // guards what is below
	more   sync.Cond
	buf    bytes.Buffer
	closed bool
}

func newPipe() *pipe {
	p := &pipe{}
	p.more.L = &p.mu
	return p
}

func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, io.ErrClosedPipe
	}
	p.more.Signal()
	return p.buf.Write(b)
}

func (p *pipe) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.buf.Len() == 0 && !p.closed {
		p.more.Wait()
	}
	return p.buf.Read(b)
}

func (p *pipe) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.more.Broadcast()
}

func requestBlock() []byte {
	b := AppendMethod(nil, []byte("POST"))
	b = AppendScheme(b, []byte("http"))
	b = AppendAuthority(b, []byte("s.test"))
	return AppendPath(b, []byte("/"), nil, false)
}

func getBlock() []byte {
	b := AppendMethod(nil, []byte("GET"))
	b = AppendScheme(b, []byte("http"))
	b = AppendAuthority(b, []byte("s.test"))
	return AppendPath(b, []byte("/"), nil, false)
}

// readAll reads a body to its end.
func readAll(s *Stream) ([]byte, error) {
	var out []byte
	piece := make([]byte, 3000)
	for {
		n, err := s.Read(piece)
		out = append(out, piece[:n]...)
		switch err {
		case nil:
		case io.EOF:
			return out, nil
		case ErrWait:
			if err := s.Wait(time.Now().Add(10 * time.Second)); err != nil {
				return out, err
			}
		default:
			return out, err
		}
	}
}

// readReply reads the final head of a reply, its body and its trailers.
func readReply(s *Stream) (status string, body []byte, trailers []http1.Field, err error) {
	for {
		if fields, _, ok := s.Head(); ok {
			status = string(fields[0].Value)
			break
		}
		if err := s.Wait(time.Now().Add(10 * time.Second)); err != nil {
			return "", nil, nil, err
		}
	}
	body, err = readAll(s)
	return status, body, s.Trailers(), err
}

// TestConn_Echo: many requests at a time, of bodies of all sizes, whole or in
// pieces, with trailers and without, come back as they went, whatever the
// windows are.
func TestConn_Echo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		window := rapid.SampledFrom([]int{1, 100, 16 << 10, 64 << 10}).Draw(t, "window")
		e := join(Options{Window: window}, Options{Window: window}, func(s *Stream) {
			body, err := readAll(s)
			if err != nil {
				return
			}
			limit := time.Now().Add(10 * time.Second)
			block := AppendStatus(nil, 200)
			if trailers := s.Trailers(); len(trailers) > 0 {
				s.Send(block, body, false, limit)
				s.SendTrailers(AppendField(nil, trailers[0].Name, trailers[0].Value), limit)
				return
			}
			s.Send(block, body, true, limit)
		})
		defer e.close()
		var wait sync.WaitGroup
		most := 200_000
		if window < 1000 {
			most = 300
		}
		for range rapid.IntRange(1, 20).Draw(t, "requests") {
			body := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, rapid.IntRange(0, most).Draw(t, "size"))
			trailer := rapid.Bool().Draw(t, "trailer")
			piece := rapid.IntRange(most/20, most/2).Draw(t, "piece")
			wait.Go(func() { // ends with the reply
				s := e.client.Open(0)
				if s == nil {
					t.Errorf("no stream to be had")
					return
				}
				defer s.Close()
				limit := time.Now().Add(10 * time.Second)
				left := body
				if err := s.Send(requestBlock(), nil, false, limit); err != nil {
					t.Errorf("send: %v", err)
				}
				for len(left) > 0 {
					n := min(piece, len(left))
					if err := s.Write(left[:n], !trailer && n == len(left), limit); err != nil {
						t.Errorf("write: %v", err)
						return
					}
					left = left[n:]
				}
				if trailer {
					s.SendTrailers(AppendField(nil, []byte("x-last"), []byte("word")), limit)
				} else if len(body) == 0 {
					s.Write(nil, true, limit)
				}
				status, got, trailers, err := readReply(s)
				if err != nil || status != "200" || !bytes.Equal(got, body) || trailer != (len(trailers) == 1) {
					t.Errorf("status %q, %d bytes, trailers %v, error %v; want 200, %d bytes, a trailer: %v", status, len(got), trailers, err, len(body), trailer)
				}
			})
		}
		wait.Wait()
	})
}

// TestConn_SlowReaderHoldsUpNobody: bodies that nobody reads leave the others
// their windows, in either direction and however wide the windows have become, and
// hold no more than is said.
func TestConn_SlowReaderHoldsUpNobody(t *testing.T) {
	const size = 2 * connWindow
	const stuck = 6 // whose windows are more than the connection's, and than may wait
	body := make([]byte, size)
	for _, wide := range []uint32{defaultWindow, defaultMaxWindow} {
		t.Run(fmt.Sprintf("requests, windows of %d", wide), func(t *testing.T) {
			release := make(chan struct{})
			e := join(Options{}, Options{}, func(s *Stream) {
				if fields, _, _ := s.Request(); string(fields[0].Value) == "GET" {
					<-release
					return
				}
				got, _ := readAll(s)
				s.Send(AppendStatus(nil, 200), got[:1], true, time.Time{})
			})
			e.widen(e.server, wide)
			var wait sync.WaitGroup
			for range stuck {
				s := e.client.Open(0)
				s.Start(getBlock(), nil, false)
				wait.Go(func() { // ends with the other side's
					s.Write(body, true, time.Time{})
					s.Close()
				})
			}
			s := e.client.Open(0)
			sent := make(chan error)
			go func() { sent <- s.Send(requestBlock(), body, true, time.Time{}) }() // ends when all is on its way
			if status, _, _, err := readReply(s); status != "200" {
				t.Errorf("status %q, error %v", status, err)
				s.InterruptWrite()
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
			e.holds(t, e.server, stuck)
			close(release)
			wait.Wait()
			s.Close()
			e.close()
		})
		t.Run(fmt.Sprintf("replies, windows of %d", wide), func(t *testing.T) {
			e := join(Options{}, Options{}, func(s *Stream) {
				s.Send(AppendStatus(nil, 200), body, true, time.Time{})
			})
			defer e.close()
			e.widen(e.client, wide)
			for range stuck {
				s := e.client.Open(0)
				defer s.Close()
				s.Start(requestBlock(), nil, true)
			}
			s := e.client.Open(0)
			defer s.Close()
			s.Start(requestBlock(), nil, true)
			if _, got, _, err := readReply(s); err != nil || len(got) != size {
				t.Errorf("%d bytes, error %v", len(got), err)
			}
			e.holds(t, e.client, stuck)
		})
	}
}

// widen makes the windows of what comes to c as wide as the way there would.
func (e *ends) widen(c *Conn, window uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wide = window; window > c.window {
		c.enlarge(window)
	}
}

// holds has it that no more waits to be read than so many streams may leave.
func (e *ends) holds(t *testing.T, c *Conn, stuck int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if most := maxUnread + connWindow + stuck*defaultWindow; c.unread > most {
		t.Errorf("%d bytes wait to be read, want %d at the most", c.unread, most)
	}
}

// TestConn_Leave: requests that have come before GOAWAY are served, the others
// are known to be unprocessed, and the connection ends by itself.
func TestConn_Leave(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	e := join(Options{}, Options{}, func(s *Stream) {
		arrived <- struct{}{}
		<-release
		s.Send(AppendStatus(nil, 204), nil, true, time.Time{})
	})
	s := e.client.Open(0)
	late := e.client.Open(0)
	s.Start(requestBlock(), nil, true)
	<-arrived
	e.server.Leave()
	for e.client.TakesMore() {
		<-e.heard
	}
	if _, err := late.Start(requestBlock(), nil, true); err != ErrUnprocessed {
		t.Errorf("a request behind GOAWAY: %v, want ErrUnprocessed", err)
	}
	late.Close()
	close(release)
	if status, _, _, err := readReply(s); status != "204" {
		t.Errorf("status %q, error %v", status, err)
	}
	s.Close()
	e.wait.Wait() // both ends end by themselves
}

// FuzzConn: no sequence of frames breaks the server's end, makes it keep more than
// it should, or say what is not HTTP/2.
func FuzzConn(f *testing.F) {
	var seed bytes.Buffer
	framer := http2.NewFramer(&seed, nil)
	framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: requestBlock(), EndHeaders: true})
	framer.WriteData(1, false, []byte("body"))
	framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: AppendField(nil, []byte("a"), []byte("b")), EndHeaders: true, EndStream: true})
	f.Add(bytes.Clone(seed.Bytes()))
	seed.Reset()
	framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: requestBlock()})
	framer.WriteContinuation(1, true, nil)
	framer.WriteRSTStream(1, http2.ErrCodeCancel)
	framer.WritePing(false, [8]byte{})
	framer.WriteWindowUpdate(0, 5)
	framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	framer.WritePriority(3, http2.PriorityParam{})
	framer.WriteGoAway(1, 0, nil)
	f.Add(bytes.Clone(seed.Bytes()))
	f.Fuzz(func(t *testing.T, frames []byte) {
		c := NewServer(Options{MaxStreams: 3})
		input := AppendSettings([]byte(Preface))
		input = append(input, frames...)
		var said bytes.Buffer
		var open []*Stream
		for from := 0; from < len(input); {
			n, err := c.Receive(input[from:min(len(input), from+len(input)/2+20)])
			for s := c.Next(); s != nil; s = c.Next() {
				open = append(open, s)
			}
			for _, s := range open {
				fields, end, _ := s.Request()
				var r http1.Request
				ReadRequest(&r, fields, nil, end)
				if s.Read(make([]byte, 10)); s.Ended() {
					s.Send(AppendStatus(nil, 200), []byte("ok"), true, time.Now())
				}
			}
			if len(open) > 2 {
				open[0].Close()
				open = open[1:]
			}
			said.Write(c.out)
			c.out = nil
			if from += n; err != nil || n == 0 {
				break
			}
		}
		if c.unread > connWindow || c.streams.len() > 3 {
			t.Errorf("%d bytes and %d streams are kept", c.unread, c.streams.len())
		}
		for _, s := range open {
			s.Close()
		}
		if c.active != 0 || c.unread != 0 {
			t.Errorf("at the end %d streams are open and %d bytes unread", c.active, c.unread)
		}
		said.Write(c.out)
		reader := http2.NewFramer(nil, &said)
		for {
			if _, err := reader.ReadFrame(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("what was said is not HTTP/2: %v", err)
			}
		}
	})
}

// TestConn_TakesConnect: whether a server takes extended CONNECT is known when its
// SETTINGS have come, and nobody waits for those without end.
func TestConn_TakesConnect(t *testing.T) {
	e := join(Options{}, Options{}, func(*Stream) {})
	if takes, err := e.client.TakesConnect(time.Now().Add(20 * time.Second)); !takes || err != nil {
		t.Errorf("of our server: %v, %v", takes, err)
	}
	e.close()
	c := NewClient(Options{})
	if _, err := c.TakesConnect(time.Now()); err != ErrTimeout {
		t.Errorf("of one that says nothing: %v", err)
	}
	frames := AppendSettingsAck(AppendSettings(nil))
	if _, err := c.Receive(frames[:frameHeaderLen]); err != nil {
		t.Fatal(err)
	}
	if takes, err := c.TakesConnect(time.Now().Add(20 * time.Second)); takes || err != nil {
		t.Errorf("of one that does not: %v, %v", takes, err)
	}
	c = NewClient(Options{})
	c.Close(nil)
	if _, err := c.TakesConnect(time.Now().Add(20 * time.Second)); err != ErrClosed {
		t.Errorf("of one that has gone: %v", err)
	}
}

// TestConn_GivenUp: what is under way of streams that were given up at once is no
// fault of the peer's, however many they are.
func TestConn_GivenUp(t *testing.T) {
	const streams = maxResets
	data := func(b []byte, id uint32) []byte { return append(AppendDataHeader(b, id, false, 4), "body"...) }

	client := NewClient(Options{})
	b := AppendSettings(nil, Setting{SettingMaxConcurrentStreams, streams})
	if _, err := client.Receive(b); err != nil {
		t.Fatal(err)
	}
	var open []*Stream
	for range streams {
		s := client.Open(0)
		s.Start(getBlock(), nil, true)
		open = append(open, s)
	}
	for _, s := range open {
		s.Close()
	}

	server := NewServer(Options{MaxStreams: streams})
	b = AppendSettings([]byte(Preface))
	for i := range uint32(streams) {
		start := len(b)
		b = EndHeaders(append(BeginHeaders(b), requestBlock()...), start, 2*i+1, false, maxFrame)
	}
	if _, err := server.Receive(b); err != nil {
		t.Fatal(err)
	}
	for s := server.Next(); s != nil; s = server.Next() {
		s.Send(AppendStatus(nil, 503), nil, true, time.Now().Add(time.Second))
		s.Close()
	}

	for range 3 {
		for i := range uint32(streams) {
			if _, err := client.Receive(data(nil, 2*i+1)); err != nil {
				t.Fatalf("client, stream %d: %v", 2*i+1, err)
			}
			if _, err := server.Receive(data(nil, 2*i+1)); err != nil {
				t.Fatalf("server, stream %d: %v", 2*i+1, err)
			}
		}
	}
}

// TestConn_OtherLengths: bodies of another length than was announced end the
// connection in the end, also where that is found out by whoever serves them.
func TestConn_OtherLengths(t *testing.T) {
	c := NewServer(Options{})
	b := AppendSettings([]byte(Preface))
	for id := uint32(1); id < 1000; id += 2 {
		start := len(b)
		b = EndHeaders(append(BeginHeaders(b), requestBlock()...), start, id, false, maxFrame)
		b = append(AppendDataHeader(b, id, true, 4), "body"...)
		_, err := c.Receive(b)
		if err != nil {
			return
		}
		s := c.Next()
		c.Next()
		if s.ExpectLength(10) == nil {
			t.Fatal("4 bytes are taken for 10")
		}
		s.Close()
		b = AppendFrameHeader(b[:0], FrameHeader{Type: 0xbb})
	}
	t.Error("500 of them are no nuisance")
}

// TestConn_PeerStreams: a client opens as many streams as it has been told by whoever
// made it, until the server says how many it takes, or that it does not care.
func TestConn_PeerStreams(t *testing.T) {
	for _, tt := range []struct {
		name                    string
		settings                []Setting
		option, opened, allowed uint32
	}{
		{"fewer", []Setting{{ID: SettingMaxConcurrentStreams, Value: 2}}, 5, 5, 2},
		{"more", []Setting{{ID: SettingMaxConcurrentStreams, Value: 250}}, 5, 5, 250},
		{"not said", []Setting{{ID: SettingInitialWindowSize, Value: 1 << 16}}, 5, 5, 100},
		{"nothing said", nil, 5, 5, 100},
		{"by default", nil, 0, 100, 100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := NewClient(Options{PeerStreams: tt.option})
			opened := uint32(0)
			for c.Open(0) != nil {
				opened++
			}
			if opened != tt.opened {
				t.Errorf("%d streams were opened before the server said anything, want %d", opened, tt.opened)
			}
			if _, err := c.Receive(AppendSettings(nil, tt.settings...)); err != nil {
				t.Fatal(err)
			}
			if got := c.PeerStreams(); got != tt.allowed {
				t.Errorf("then it takes %d, want %d", got, tt.allowed)
			}
			if _, err := c.Receive(AppendSettings(nil)); err != nil { // which changes nothing
				t.Fatal(err)
			}
			if got := c.PeerStreams(); got != tt.allowed {
				t.Errorf("and after more SETTINGS %d, want %d", got, tt.allowed)
			}
		})
	}
}

// TestConn_ClosedGivePlace: streams that have ended for the client do not count against it,
// though somebody still serves them; of those that it has reset, as many as it may have.
func TestConn_ClosedGivePlace(t *testing.T) {
	const most = 4
	opens := func(in []byte, id uint32, end bool) []byte {
		start := len(in)
		return EndHeaders(append(BeginHeaders(in), getBlock()...), start, id, end, maxFrame)
	}
	for _, tt := range []struct {
		name    string
		end     bool // the request ends with its head
		close   func(c *Conn, s *Stream) (frames []byte)
		want    int // streams that are taken after that, of 3*most
		annoyed bool
	}{
		{"open", true, func(*Conn, *Stream) []byte { return nil }, 0, true},
		{"answered", true, func(_ *Conn, s *Stream) []byte { s.Send(nil, nil, true, time.Time{}); return nil }, most, true},
		{"answered, with a body", true, func(_ *Conn, s *Stream) []byte { s.Send(nil, []byte("x"), true, time.Time{}); return nil }, most, true},
		{"answered early", false, func(_ *Conn, s *Stream) []byte { s.Send(nil, nil, true, time.Time{}); return nil }, 0, true},
		{"answered before the end", false, func(_ *Conn, s *Stream) []byte {
			s.Send(nil, nil, true, time.Time{})
			return AppendDataHeader(nil, s.id, true, 0)
		}, most, true},
		{"reset by the client", true, func(_ *Conn, s *Stream) []byte { return AppendReset(nil, s.id, CodeCancel) }, most, true},
		{"reset by us", true, func(_ *Conn, s *Stream) []byte { s.Reset(CodeInternal); return nil }, most, true},
		{"half of them reset", true, func(_ *Conn, s *Stream) []byte {
			if s.id/2%2 == 0 {
				return nil
			}
			return AppendReset(nil, s.id, CodeCancel)
		}, most / 2, true},
		{"served by nobody any more", true, func(_ *Conn, s *Stream) []byte { s.Close(); return nil }, most, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := NewServer(Options{MaxStreams: most})
			c.nuisance = glitches{level: 1, since: time.Now().Add(time.Hour)} // from when on it leaks
			in := AppendSettings([]byte(Preface))
			for i := range uint32(most) {
				in = opens(in, 2*i+1, tt.end)
			}
			if _, err := c.Receive(in); err != nil {
				t.Fatal(err)
			}
			var list []*Stream
			for s := c.Next(); s != nil; s = c.Next() {
				list = append(list, s)
			}
			in = nil
			for _, s := range list {
				in = append(in, tt.close(c, s)...)
			}
			if _, err := c.Receive(in); err != nil {
				t.Fatal(err)
			}
			before := c.nuisance.level
			in = nil
			for i := range uint32(3 * most) {
				in = opens(in, 2*(i+most)+1, true)
			}
			if _, err := c.Receive(in); err != nil {
				t.Fatal(err)
			}
			got := 0
			for s := c.Next(); s != nil; s = c.Next() {
				got++
				list = append(list, s)
			}
			if got != tt.want {
				t.Errorf("%d more streams are taken, want %d", got, tt.want)
			}
			if annoyed := c.nuisance.level > before; annoyed != tt.annoyed {
				t.Errorf("what is too much counts as a nuisance: %v", annoyed)
			}
			for i, s := range list {
				if tt.name != "served by nobody any more" || i >= most {
					s.Close()
				}
			}
			if c.active != 0 || c.closed != [closings]int{} {
				t.Errorf("%d streams are still served, of which %v are closed", c.active, c.closed)
			}
		})
	}

	t.Run("reset again and again", func(t *testing.T) {
		c := NewServer(Options{MaxStreams: most})
		if _, err := c.Receive(AppendSettings([]byte(Preface))); err != nil {
			t.Fatal(err)
		}
		c.nuisance = glitches{level: 1, since: time.Now().Add(time.Hour)} // from when on it leaks
		before := c.nuisance.level
		id, taken := uint32(1), 0
		for range 5 {
			var in []byte
			for range most {
				in = AppendReset(opens(in, id, true), id, CodeCancel)
				id += 2
			}
			if _, err := c.Receive(in); err != nil {
				t.Fatal(err)
			}
			for c.Next() != nil {
				taken++
			}
		}
		if taken != 2*most {
			t.Errorf("%d streams are served at a time, want %d", taken, 2*most)
		}
		if got, want := c.nuisance.level-before, int32(2*most*20+3*most*(5+2)); got != want {
			t.Errorf("%d points of nuisance, want %d for resets and what was refused", got, want)
		}
	})
}
