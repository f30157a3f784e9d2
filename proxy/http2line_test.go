package proxy

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// streamsOf returns the upstream of s.test at its endpoints, over HTTP/2 and with a policy.
func streamsOf(t *testing.T, policy string, addresses ...string) *upstream {
	p := serve(t, Options{}, overHTTP2(entry("s.test", addresses...))+"---\n"+destinationRule("s.test", policy))
	x := &exchange{conn: &conn{stream: &stream{}, client: &client{proxy: p}}, table: p.table.Load()}
	return x.upstream(x.table.outbound.find([]byte("s.test"), 80).routes[0].destinations[0].target)
}

// TestStreamLine: requests get the streams of a connection that has no room in the order in
// which they have come, whoever asks at the moment that one ends; those that were sent
// before, in vain, come first.
func TestStreamLine(t *testing.T) {
	for _, connections := range []string{"", "tcp: {maxConnections: 1}, "} {
		t.Run(connections, func(t *testing.T) {
			t.Parallel()
			u := streamsOf(t, "connectionPool: {"+connections+"http: {maxConcurrentStreams: 1}}", h2Upstream(t, func(http.ResponseWriter, *http.Request) {}))
			m := u.members[0]
			lease := func(again bool) *upstreamConn {
				c, err := u.leaseStream(m, sinkStream(), now(), now()+instant(10*time.Second), again)
				if err != nil {
					t.Error(err)
				}
				return c
			}
			first := lease(false)
			m.shared.mu.Lock()
			m.shared.leader = &streamTurn{told: make(chan struct{}, 1), leads: true} // who opens another one takes his time
			m.shared.mu.Unlock()
			var mu sync.Mutex
			var got []string
			var all sync.WaitGroup
			ask := func(name string, again bool) {
				c := lease(again)
				mu.Lock()
				got = append(got, name)
				mu.Unlock()
				c.discard()
			}
			for i, name := range []string{"1", "2", "again", "3"} {
				all.Go(func() { ask(name, name == "again") })
				await(t, "who stands in line", until(func() bool { return u.live.queue.follow.Load() == int32(i+1) }))
			}
			first.discard()
			ask("late", false)
			all.Wait()
			if want := []string{"again", "1", "2", "3", "late"}; !slices.Equal(got, want) {
				t.Errorf("streams went to %v, want %v", got, want)
			}
		})
	}
}

// TestStreamLine_AtOnce: a stream that the leader of a line is given at the moment that it gives
// up is not lost.
func TestStreamLine_AtOnce(t *testing.T) {
	u := streamsOf(t, "connectionPool: {tcp: {maxConnections: 1}, http: {maxConcurrentStreams: 1}}", h2Upstream(t, func(http.ResponseWriter, *http.Request) {}))
	m := u.members[0]
	for i := range 50 {
		first, err := u.leaseStream(m, sinkStream(), now(), now()+instant(5*time.Second), false)
		if err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
		_, turn, _ := m.shared.take(u, now(), false)
		first.discard()
		c, err := u.lead(m, turn, sinkStream(), false, now())
		if c == nil {
			t.Fatalf("after %d: %v", i, err)
		}
		c.discard()
	}
}

// TestStreamLine_Told: a leader that has heard of its stream while it waited for what a
// connection says waits for no place.
func TestStreamLine_Told(t *testing.T) {
	u := streamsOf(t, "connectionPool: {tcp: {maxConnections: 1}, http: {maxConcurrentStreams: 1}}", h2Upstream(t, func(http.ResponseWriter, *http.Request) {}))
	m := u.members[0]
	first, err := u.leaseStream(m, sinkStream(), now(), now()+instant(5*time.Second), false)
	if err != nil {
		t.Fatal(err)
	}
	_, turn, _ := m.shared.take(u, now(), false)
	first.discard()
	await(t, "the stream", turn.told)
	got := make(chan *upstreamConn, 1)
	go func() { // ends with the stream
		c, _ := u.lead(m, turn, sinkStream(), false, 0)
		got <- c
	}()
	await(t, "that it is used", got).discard()
}

// TestStreamLine_EachItsOwn: an endpoint that has no connection gets one, though another
// one has all that there may be and never is idle.
func TestStreamLine_EachItsOwn(t *testing.T) {
	address := func() string { return h2Upstream(t, func(http.ResponseWriter, *http.Request) {}) }
	u := streamsOf(t, "connectionPool: {tcp: {maxConnections: 1}}", address(), address())
	for _, m := range u.members {
		c, err := u.leaseStream(m, sinkStream(), now(), now()+instant(5*time.Second), false)
		if err != nil {
			t.Fatal(err)
		}
		defer c.discard()
	}
}

// TestStreamLine_EndsAtOnce: a connection that is ended for the sake of another one has its
// place back at once, whatever its other end does.
func TestStreamLine_EndsAtOnce(t *testing.T) {
	u := streamsOf(t, "connectionPool: {}", byteServer(t, func(c net.Conn) {
		http2.NewFramer(c, nil).WriteSettings()
		io.Copy(io.Discard, c)
	}))
	m, least := u.members[0], time.Hour
	for range 5 { // the machine may have other things to do
		c, err := u.leaseStream(m, sinkStream(), now(), now()+instant(5*time.Second), false)
		if err != nil {
			t.Fatal(err)
		}
		c.discard()
		start := time.Now()
		u.endIdle()
		await(t, "its place", until(func() bool { return u.live.queue.open.Load() == 0 }))
		least = min(least, time.Since(start))
	}
	if least > lastWords/2 {
		t.Errorf("it took %v", least)
	}
}

// TestStreamLine_Deadline: an endpoint is told how long its reply is waited for from when the
// request has its stream, however long it has stood in line.
func TestStreamLine_Deadline(t *testing.T) {
	const within, inLine = 10_000, 500 // ms
	shake, told := make(chan struct{}), make(chan string, 10)
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		told <- r.Header.Get("x-envoy-expected-rq-timeout-ms")
	}))
	up.EnableHTTP2, up.Config.ErrorLog = true, log.New(io.Discard, "", 0)
	up.Listener = &gate{up.Listener, shake}
	up.StartTLS()
	t.Cleanup(up.Close)
	p := serve(t, Options{}, overHTTP2(entry("s.test", up.Listener.Addr().String()))+"---\n"+
		destinationRule("s.test", "tls: {mode: SIMPLE, insecureSkipVerify: true}")+virtualService("s.test", "{timeout: 10s, route: [{destination: {host: s.test}}]}"))
	time.AfterFunc(inLine*time.Millisecond, func() { close(shake) })
	var all sync.WaitGroup
	for range cap(told) {
		all.Go(func() {
			if got := exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1)); status(got) != "200" {
				t.Errorf("%q", got)
			}
		})
	}
	all.Wait()
	for range cap(told) {
		if n, err := strconv.Atoi(<-told); err != nil || n > within-inLine/2 {
			t.Errorf("%d ms, %v, want %d at most", n, err, within-inLine/2)
		}
	}
}

// TestStreamLine_NoStreams: requests wait for an endpoint that takes none over its
// connection for now, as long as a dial may take; nobody opens others in vain.
func TestStreamLine_NoStreams(t *testing.T) {
	for _, tt := range []struct {
		name   string
		opens  bool
		status string
		most   int32
	}{
		{"for now", true, "200", 1},
		{"for ever", false, "503", 8},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var conns atomic.Int32
			var open atomic.Bool
			up := byteServer(t, func(c net.Conn) {
				conns.Add(1)
				io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
				f := http2.NewFramer(c, c)
				f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
				for {
					frame, err := f.ReadFrame()
					if err != nil {
						return
					}
					switch frame := frame.(type) {
					case *http2.SettingsFrame:
						if frame.IsAck() && tt.opens && !open.Load() {
							time.Sleep(50 * time.Millisecond)
							open.Store(true)
							f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100})
						}
					case *http2.HeadersFrame:
						if open.Load() {
							replyTo(f, frame.StreamID)
						} else {
							f.WriteRSTStream(frame.StreamID, http2.ErrCodeRefusedStream)
						}
					}
				}
			})
			p := serve(t, Options{}, overHTTP2(entry("s.test", up))+"---\n"+destinationRule("s.test", "connectionPool: {tcp: {connectTimeout: 300ms}}"))
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					if got := exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1)); status(got) != tt.status {
						t.Errorf("%q", got)
					}
				})
			}
			all.Wait()
			if n := conns.Load(); n > tt.most {
				t.Errorf("%d connections, want %d at most", n, tt.most)
			}
		})
	}
}

// replyTo answers a request with 200 and nothing else.
func replyTo(f *http2.Framer, id uint32) {
	var b strings.Builder
	hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte(b.String()), EndHeaders: true, EndStream: true})
}

// leaving is a server whose connections say GOAWAY with their nth stream, or when nothing
// comes any more. It has not looked at the last of them, answers the others, and closes.
type leaving struct {
	n, last int
	hurried bool // every other connection ends at its second stream, and is closed at once
	conns   atomic.Int32
}

func (l *leaving) serve(c net.Conn) {
	n, last, at := l.n, l.last, 100*time.Millisecond
	if k := l.conns.Add(1); l.hurried && k%2 == 1 {
		n, last, at = 2, 1, 0
	}
	io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
	f := http2.NewFramer(c, c)
	f.WriteSettings()
	f.WriteWindowUpdate(0, 1<<30)
	seen, answered, highest, behind := 0, 0, uint32(0), uint32(2*(n-last))
	for seen < n || answered < n-last {
		c.SetReadDeadline(time.Time{})
		if seen > 0 && answered == min(seen, n-last) {
			c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		}
		frame, err := f.ReadFrame()
		if err != nil {
			break
		}
		id := frame.Header().StreamID
		if h, ok := frame.(*http2.HeadersFrame); ok {
			highest = id
			if seen++; seen == n {
				f.WriteGoAway(behind-1, http2.ErrCodeNo, nil)
			}
			frame = &http2.DataFrame{FrameHeader: h.FrameHeader}
		}
		if d, ok := frame.(*http2.DataFrame); ok && d.StreamEnded() && id < behind {
			answered++
			replyTo(f, id)
		}
	}
	if seen < n {
		f.WriteGoAway(min(behind-1, highest), http2.ErrCodeNo, nil)
	}
	time.Sleep(at) // what it has said is there
}

// TestHTTP2_Leaving: what a server has not looked at, as it says by GOAWAY, is sent over
// another connection, which is opened once for all, as often as it takes, even if it
// closes the connection before that is read.
func TestHTTP2_Leaving(t *testing.T) {
	for _, tt := range []struct {
		name string
		l    *leaving
		body int
		most int32 // connections
	}{
		{"all looked at", &leaving{n: 60}, 0, 60},
		{"some not", &leaving{n: 60, last: 40}, 1, 150},
		{"closed at once", &leaving{n: 60, hurried: true}, 20_000, 100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := serve(t, Options{}, overHTTP2(entry("s.test", byteServer(t, tt.l.serve))))
			c := h1Client(t, p, "outbound")
			var all sync.WaitGroup
			var mu sync.Mutex
			got := map[string]int{}
			for range 128 {
				all.Go(func() {
					for range 15 {
						res, err := c.Post("http://s.test/", "text/plain", strings.NewReader(strings.Repeat("x", tt.body)))
						what := fmt.Sprint(err)
						if err == nil {
							body, _ := io.ReadAll(res.Body)
							res.Body.Close()
							what = fmt.Sprint(res.StatusCode, string(body))
						}
						mu.Lock()
						got[what]++
						mu.Unlock()
					}
				})
			}
			all.Wait()
			if len(got) != 1 || got["200"] == 0 {
				t.Errorf("%v", got)
			}
			if n := tt.l.conns.Load(); n > tt.most {
				t.Errorf("%d connections, want %d at most", n, tt.most)
			}
		})
	}
}
