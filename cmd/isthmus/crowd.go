package main

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// crowd bounds how many connections an [http.Server] has: one more takes the place of
// the one that has asked nothing for the longest, or, where all are being answered, of
// the one that has been for the longest. So whoever opens many and says nothing keeps
// nobody out who asks at once, as probes of Kubernetes do.
type crowd struct {
	most int

	mu  sync.Mutex // guards all
	all map[net.Conn]visitor
}

type visitor struct {
	since    time.Time // it has been as it is
	answered bool      // it has asked, and is being answered
}

func newCrowd(most int) *crowd { return &crowd{most: most, all: map[net.Conn]visitor{}} }

// changed is the server's ConnState.
func (c *crowd) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(c.all, conn)
		return
	}
	if state == http.StateNew && len(c.all) >= c.most {
		if victim := c.dispensable(); victim != nil {
			delete(c.all, victim)
			victim.Close()
		}
	}
	if _, there := c.all[conn]; there || state == http.StateNew { // else it has had to go
		c.all[conn] = visitor{time.Now(), state == http.StateActive}
	}
}

// dispensable is whoever goes first. The caller holds mu.
func (c *crowd) dispensable() (out net.Conn) {
	var is visitor
	for conn, v := range c.all {
		if out == nil || is.answered && !v.answered || is.answered == v.answered && v.since.Before(is.since) {
			out, is = conn, v
		}
	}
	return out
}
