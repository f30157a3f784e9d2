package main

import (
	"slices"
	"sync"
	"time"
)

// condition is what one direction of a link does to packets.
type condition struct {
	delay time.Duration // from one end to the other
	loss  float64       // share of packets lost at random, 0 to 1
	cut   bool          // every packet is lost, and nobody is told

	rate   int           // bytes a second that the line carries; 0: as many as come
	buffer time.Duration // how long a packet may wait for the line; what would wait longer is lost
}

// laneCapacity is how many packets may be under way in one direction. Five
// hundred requests a second of some ten packets each, over the longest delay of
// 80 ms, are 400; a link that holds ten times as many never drops by itself.
const laneCapacity = 4000

// lane is one direction of a link: packets come out in the order in which they
// went in, each after the delay that held when it went in. It knows no clock:
// whoever calls says what time it is.
type lane struct {
	random func() float64 // uniform in [0, 1)

	mu    sync.Mutex // guards what is below
	now   condition
	queue []queued
	free  time.Time // when the line has carried all that was admitted, if it has a rate
	lost  int       // packets lost so far, by chance, cut or overflow
}

type queued struct {
	due    time.Time
	packet []byte
}

// set changes the condition. A cut loses what is under way too, as a cable
// does.
func (l *lane) set(c condition) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = c
	if c.cut {
		l.lost += len(l.queue)
		l.queue = nil
	}
}

// admit takes a packet that arrives at a time, unless it is lost.
func (l *lane) admit(now time.Time, packet []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now.cut || len(l.queue) >= laneCapacity || l.now.loss > 0 && l.random() < l.now.loss {
		l.lost++
		return false
	}
	leaves := now
	if l.now.rate > 0 {
		if l.free.After(now) {
			leaves = l.free
		}
		if leaves.Sub(now) > l.now.buffer {
			l.lost++
			return false
		}
		leaves = leaves.Add(time.Duration(len(packet)) * time.Second / time.Duration(l.now.rate))
		l.free = leaves
	}
	due := leaves.Add(l.now.delay)
	if n := len(l.queue); n > 0 && due.Before(l.queue[n-1].due) {
		due = l.queue[n-1].due // the delay has just shrunk: no packet overtakes
	}
	l.queue = append(l.queue, queued{due, slices.Clone(packet)})
	return true
}

// next is when the first packet is due; ok is false if there is none.
func (l *lane) next() (due time.Time, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		return time.Time{}, false
	}
	return l.queue[0].due, true
}

// take returns the packets that are due.
func (l *lane) take(now time.Time) [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out [][]byte
	n := 0
	for n < len(l.queue) && !l.queue[n].due.After(now) {
		out = append(out, l.queue[n].packet)
		n++
	}
	l.queue = slices.Delete(l.queue, 0, n)
	return out
}
