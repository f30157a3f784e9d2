package gossip

import (
	"io"
	"log"
	"net"
	"strconv"
	"testing"

	"github.com/hashicorp/memberlist"
)

// TestTransport_Crowd: whoever opens connections and says nothing keeps nobody out, nor ends
// one that says something.
func TestTransport_Crowd(t *testing.T) {
	const most = 5
	tr, err := newTransport(&memberlist.Config{BindAddr: "127.0.0.1", Logger: log.New(io.Discard, "", 0)}, most)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Shutdown()
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(tr.GetAutoBindPort()))
	var clients, streams []net.Conn
	for i := range most + 2 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s := <-tr.StreamCh()
		defer s.Close()
		clients, streams = append(clients, c), append(streams, s)
		if i == 0 {
			c.Write([]byte("x"))
			if _, err := s.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, i := range []int{1, 2} {
		if n, err := clients[i].Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("silent connection %d: %d bytes, %v, want its end", i, n, err)
		}
	}
	if n := len(tr.open); n != most || tr.open[0] != streams[0] || tr.open[1] != streams[3] {
		t.Errorf("%d connections, want %d, the first of which is the one that has spoken", n, most)
	}
	for _, s := range streams {
		s.Close()
	}
	if n := len(tr.open); n != 0 {
		t.Errorf("%d connections that are closed count", n)
	}
}
