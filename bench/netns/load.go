package main

import (
	"sync"
	"sync/atomic"
	"time"
)

// openLoop is a load of GETs that are sent when they are due, whether or not
// earlier ones have been answered, as independent users do.
type openLoop struct {
	begin time.Time
	stop  chan struct{}
	done  sync.WaitGroup

	mu      sync.Mutex // guards replies
	replies []reply
}

// startOpenLoop sends rate requests a second to a host until finish. Its
// goroutine starts one for each request, which ends with the reply.
func startOpenLoop(c *client, host string, rate int) *openLoop {
	l := &openLoop{begin: time.Now(), stop: make(chan struct{})}
	l.done.Go(func() {
		for i := 0; ; i++ {
			due := dueAt(i, rate)
			select {
			case <-l.stop:
				return
			case <-time.After(time.Until(l.begin.Add(due))):
			}
			l.done.Go(func() {
				r := c.get(host)
				r.due, r.took = due, time.Since(l.begin)-due
				l.mu.Lock()
				l.replies = append(l.replies, r)
				l.mu.Unlock()
			})
		}
	})
	return l
}

// dueAt is when the i-th request of an even load is to be sent.
func dueAt(i, rate int) time.Duration {
	return time.Duration(i) * time.Second / time.Duration(rate)
}

// since is how long the load has been going.
func (l *openLoop) since() time.Duration { return time.Since(l.begin) }

// finish ends the load, waits for the replies that are still to come, and
// returns all.
func (l *openLoop) finish() []reply {
	close(l.stop)
	l.done.Wait()
	return l.replies
}

// closedLoop sends n requests, each of the workers one after the other, and
// returns the replies.
func closedLoop(c *client, workers, n int, host string, header ...string) []reply {
	replies := make([]reply, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for range workers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				due := time.Since(begin)
				replies[i] = c.get(host, header...)
				replies[i].due, replies[i].took = due, time.Since(begin)-due
			}
		})
	}
	wg.Wait()
	return replies
}
