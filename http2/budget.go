package http2

import "sync"

// Budget bounds what bodies may lie unread on all connections together that share
// it. When there is too much, the streams that hold most are reset with
// ENHANCE_YOUR_CALM, those of the connections first that hold most.
type Budget struct {
	most int

	mu       sync.Mutex // guards what is below; taken under Conn.mu, never the other way round
	told     map[*Conn]int
	held     int
	trimming bool
	vain     map[*Conn]bool // looked at by trim, and no word of them since
	resets   uint64
}

// budgetStep is how much a connection may hold, or no longer hold, without a word to
// its Budget: bodies that are read as they come, most of them, cost it nothing.
const budgetStep = 64 << 10

// NewBudget makes a Budget of so many bytes.
func NewBudget(most int) *Budget {
	return &Budget{most: most, told: map[*Conn]int{}, vain: map[*Conn]bool{}}
}

// State returns how many bytes lie unread, to within 64 KiB for each connection,
// and how many streams have been reset since there were too many.
func (b *Budget) State() (held int, resets uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held, b.resets
}

// tell takes down what a connection holds. What is too much is reset by a
// goroutine of its own, one at a time, since whoever tells has a Conn.mu; it ends
// when it has looked at every connection.
func (b *Budget) tell(c *Conn, holds int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held += holds - b.told[c]
	delete(b.vain, c)
	if b.told[c] = holds; holds == 0 {
		delete(b.told, c)
	}
	if b.held > b.most && !b.trimming {
		b.trimming = true
		go b.trim()
	}
}

// trim resets streams until an eighth of the budget is free again, so that not
// every frame that comes next is one too many.
func (b *Budget) trim() {
	for {
		c := b.fullest()
		if c == nil {
			return
		}
		if c.resetFullest() {
			b.mu.Lock()
			delete(b.vain, c)
			b.mu.Unlock()
		}
	}
}

// fullest returns the connection that holds most, of those that have not been
// looked at in vain; nil: that was all, or enough. It is taken for one of these until
// it turns out otherwise, so that what it says meanwhile is not lost.
func (b *Budget) fullest() (fullest *Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held > b.most-b.most/8 {
		for c, n := range b.told {
			if !b.vain[c] && (fullest == nil || n > b.told[fullest]) {
				fullest = c
			}
		}
	}
	if fullest == nil {
		b.trimming = false
		clear(b.vain)
		return nil
	}
	b.vain[fullest] = true
	return fullest
}

// resetFullest resets the stream that holds most, and reports whether one does.
func (c *Conn) resetFullest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	var fullest *Stream
	for s := range c.streams.all() {
		if s.queue.len() > 0 && (fullest == nil || s.queue.len() > fullest.queue.len()) {
			fullest = s
		}
	}
	if fullest == nil {
		return false
	}
	switch {
	case fullest.err != nil: // it was over before
	case fullest.localEnd && fullest.remoteEnd:
		fullest.fail(ErrShed) // of which the peer need not know
		fullest.readable.signal()
	default:
		fullest.fail(ErrShed)
		c.resetLocked(fullest.id, CodeEnhanceYourCalm)
	}
	c.throwAway(fullest)
	c.remove(fullest)
	c.options.Budget.count()
	return true
}

// throwAway throws away what lies unread of a body. Who finds nothing more to read
// shall not take that for its end. The caller holds mu.
func (c *Conn) throwAway(s *Stream) {
	n := s.queue.len()
	if n == 0 {
		return
	}
	s.queue.clear()
	s.remoteEnd = false
	c.hold(-n)
	if c.withheld > 0 && c.err == nil {
		c.grant(0)
	}
}

func (b *Budget) count() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.resets++
}

// hold counts n more bytes of bodies that lie unread. The caller holds mu.
func (c *Conn) hold(n int) {
	c.unread += n
	b := c.options.Budget
	if b == nil || c.unread == c.told || c.unread > 0 && max(c.unread-c.told, c.told-c.unread) < budgetStep {
		return
	}
	c.told = c.unread
	b.tell(c, c.told)
}
