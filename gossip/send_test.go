package gossip

import (
	"io"
	"net"
	"testing"

	"github.com/hashicorp/memberlist"
)

// TestSend_WhileSending: a record that is on its way to an address keeps neither a question
// to it nor a newer record from being sent.
func TestSend_WhileSending(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	came := make(chan struct{}, 10)
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if b, _ := io.ReadAll(c); len(b) > 0 {
				came <- struct{}{}
			}
			c.Close()
		}
	}()
	a := start(t, "a", nil)
	a.Announce(endpoints(1, "a.ns"))
	address := l.Addr().(*net.TCPAddr)
	n := &memberlist.Node{Name: "x", Addr: address.IP.To4(), Port: uint16(address.Port)}
	a.mu.Lock()
	on := &outgoing{version: a.own.Version}
	key := string(messageRecord) + n.Address()
	a.sending[key] = on
	a.mu.Unlock()
	arrive := func(what string, messages int) {
		t.Helper()
		for range messages {
			eventually(t, what, func() bool {
				select {
				case <-came:
					return true
				default:
					return false
				}
			})
		}
	}

	a.sendBeside(n, []byte{messageAsk}, 0)
	arrive("the question", 1)
	a.reply("x\n" + n.Address())
	if on.next != nil {
		t.Error("the record that is on its way is sent once more")
	}
	for i := range 3 {
		a.Announce(endpoints(2+i, "a.ns"))
		a.reply("x\n" + n.Address())
	}
	a.sendOn(n, key, on, []byte{messageRecord}) // which is on its way
	arrive("it, and the newest", 2)
	eventually(t, "all is sent", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.sending) == 0
	})
	if len(came) > 0 {
		t.Error("others have been sent as well")
	}
}
