package gossip

import (
	"time"

	"github.com/hashicorp/memberlist"
)

// Leave says goodbye: nobody keeps this member's own endpoints. It waits until
// others have heard it, or for the time-out; then gossip is over. Who knows nobody
// yet waits as long again, at most, for seeds that are being asked. After Close it does nothing.
func (g *Gossip) Leave(timeout time.Duration) error {
	select {
	case <-g.stopped: // by Close: nobody hears it any more
		return nil
	default:
	}
	began := time.Now()
	if g.alive() == 1 {
		// A seed that is letting us in knows of us before we know of it.
		select {
		case g.joining <- struct{}{}:
			<-g.joining
		case <-time.After(timeout):
		}
		began = time.Now()
	}
	g.mu.Lock()
	last := &record{Left: true}
	for _, e := range g.own.Endpoints {
		if e.Relayed {
			last.Endpoints = append(last.Endpoints, e)
		}
	}
	g.mu.Unlock()
	g.announce(last)
	g.tell(farewells, timeout/2)
	err := g.list.Leave(max(timeout-time.Since(began), timeout/4))
	g.Close()
	return err
}

// farewells is how many members hear a goodbye directly, beside those that
// gossip reaches.
const farewells = 5

// tell sends the own record to some members over TCP, all at once, and waits until
// that is done, for some time at most: some may be out of reach, which takes longer to
// find out.
func (g *Gossip) tell(n int, within time.Duration) {
	g.mu.Lock()
	b := append([]byte{messageRecord}, encode(g.own)...)
	var nodes []*memberlist.Node
	for name, m := range g.members { // which come in no order
		if node := m.living(); node != nil && name != g.name && len(nodes) < n {
			nodes = append(nodes, node)
		}
	}
	g.mu.Unlock()
	told := make(chan struct{}, n)
	waiting := len(nodes)
	for _, node := range nodes {
		go func() { // ends with memberlist's TCPTimeout at the latest
			g.sendTo(node, b)
			told <- struct{}{}
		}()
	}
	for end := time.After(within); waiting > 0; waiting-- {
		select {
		case <-told:
		case <-end:
			return
		}
	}
}

// Close ends gossip without a word, as a crash would.
func (g *Gossip) Close() {
	g.cancel()
	g.list.Shutdown()
	g.done.Wait()
}
