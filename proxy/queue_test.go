package proxy

import (
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"isthmus/balancer"
	"isthmus/mesh"
)

// TestQueue_NobodyForgotten: a connection ends or falls idle while somebody
// looks for one. If he stood in line then and was not woken, he would wait for
// ever.
func TestQueue_NobodyForgotten(t *testing.T) {
	address := byteServer(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	p := serve(t, Options{}, entry("s.test", address))
	live := &live{}
	e := &mesh.Endpoint{Address: netip.MustParseAddrPort(address)}
	u := newUpstream(&target{resolve: func() resolved {
		return resolved{known: true, endpoints: []*mesh.Endpoint{e}, policy: mesh.Policy{ConnectionPool: &mesh.ConnectionPool{MaxConnections: 1}}, wires: make([]wire, 1)}
	}}, &p.options, balancer.Caller{}, nil)
	u.live, u.members[0].live = live, live
	client := sinkStream()
	lease := func() *upstreamConn {
		c, err := u.lease(u.members[0], client, now(), 0, false)
		if err != nil {
			t.Error(err)
		}
		return c
	}
	for round := range 20_000 {
		c := lease()
		next := make(chan *upstreamConn, 1)
		go func() { next <- lease() }() // ends with its turn
		for range rand.IntN(300) {
			live.queue.open.Load() // as little time as it takes the other to look
		}
		if round%100 == 0 {
			c.discard()
		} else {
			u.release(c, now())
		}
		u.release(await(t, "the next one's turn", next), now())
	}
}
