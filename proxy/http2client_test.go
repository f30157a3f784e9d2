package proxy

import (
	"net/http"
	"sync"
	"testing"
	"time"
)

// TestHTTP2_OneDial: many requests at once open one connection, and when that
// fails, all of them know.
func TestHTTP2_OneDial(t *testing.T) {
	p := serve(t, Options{}, overHTTP2(entry("s.test", deadAddress(t))))
	x := &exchange{conn: &conn{stream: &stream{}, client: &client{proxy: p}}, table: p.table.Load()}
	vh := x.table.outbound.find([]byte("s.test"), 80)
	u := x.upstream(vh.routes[0].destinations[0].target)
	m := u.members[0]
	if _, mine := m.shared.dialTurn(); !mine {
		t.Fatal("somebody dials already")
	}
	const others = 10
	var all sync.WaitGroup
	errs := make(chan *Error, others)
	for range others {
		all.Go(func() {
			_, err := u.leaseStream(m, x.conn.stream, now(), 0)
			errs <- err
		})
	}
	want := &Error{Kind: ConnectFailure}
	m.shared.dialed(want)
	all.Wait()
	for range others {
		// Who comes late dials for itself, and is told the same by the endpoint.
		if err := <-errs; err == nil || err.Kind != ConnectFailure {
			t.Errorf("got %v", err)
		}
	}
	if n := u.live.queue.open.Load(); n != 0 {
		t.Errorf("%d connections are counted as open", n)
	}
}

// TestHTTP2_MemberGone: a request whose endpoint goes while it looks for a
// connection gets one that ends with it.
func TestHTTP2_MemberGone(t *testing.T) {
	p := serve(t, Options{}, overHTTP2(entry("s.test", h2Upstream(t, func(http.ResponseWriter, *http.Request) {}))))
	x := &exchange{conn: &conn{stream: &stream{}, client: &client{proxy: p}}, table: p.table.Load()}
	u := x.upstream(x.table.outbound.find([]byte("s.test"), 80).routes[0].destinations[0].target)
	m := u.members[0]
	m.close()
	c, err := u.leaseStream(m, x.conn.stream, now(), now()+instant(20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	c.discard()
	for u.live.queue.open.Load() != 0 { // until the connection has ended
		time.Sleep(100 * time.Microsecond)
	}
}
