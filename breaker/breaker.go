// Package breaker breaks off what does not work: a [Breaker] keeps a proxy
// from dialling a cluster that cannot be reached, a [Budget] keeps retries from
// adding to an overload.
package breaker

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// State is that of a breaker.
type State uint8

// The states of a breaker.
const (
	Closed   State = iota // all is well
	Open                  // nobody dials
	HalfOpen              // its time is over: one dial decides
)

const (
	// tripAfter is how many dials in a row fail before a breaker opens, without
	// any sign of life between them. One endpoint that is gone is no dead cluster.
	tripAfter = 3

	// openFor is how long a breaker stays open, and up to a tenth more, so that
	// many proxies do not try at the same moment.
	openFor = time.Second
)

// Breaker watches the dials to one remote cluster for one upstream. Its
// methods may be called by any goroutine. While nothing fails, it costs one
// atomic load.
type Breaker struct {
	cb       *gobreaker.TwoStepCircuitBreaker[struct{}]
	troubled atomic.Bool // not closed, or a dial has failed since the last success
}

// errDial stands for any failed dial, errUnknown for one that proved nothing.
var (
	errDial    = errors.New("dial failed")
	errUnknown = errors.New("dial proved nothing")
)

// New makes a closed breaker. changed is told each new state; it must not call
// the breaker.
func New(changed func(State)) *Breaker {
	b := &Breaker{}
	timeout := openFor + rand.N(openFor/10)
	b.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: 1,
		Timeout:     timeout,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
		IsExcluded:  func(err error) bool { return err == errUnknown },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			switch to {
			case gobreaker.StateOpen:
				b.troubled.Store(true)
				changed(Open)
				// gobreaker finds out that its time is over when it is next asked;
				// those who pick hosts must know without asking. The timer ends by itself.
				time.AfterFunc(timeout+time.Millisecond, func() { b.cb.State() })
			case gobreaker.StateHalfOpen:
				changed(HalfOpen)
			case gobreaker.StateClosed:
				changed(Closed)
			}
		},
	})
	return b
}

// State returns the state as it is now.
func (b *Breaker) State() State {
	switch b.cb.State() {
	case gobreaker.StateOpen:
		return Open
	case gobreaker.StateHalfOpen:
		return HalfOpen
	}
	return Closed
}

// Dial asks whether a connection may be opened. If ok, the outcome must be
// told to the permit.
func (b *Breaker) Dial() (p Permit, ok bool) {
	if !b.troubled.Load() {
		return Permit{breaker: b}, true
	}
	done, err := b.cb.Allow()
	return Permit{b, done}, err == nil
}

// Permit is the right to dial once. The zero value belongs to no breaker.
type Permit struct {
	breaker *Breaker
	done    func(error) // nil: nothing had failed when it was asked for
}

// Connected says that the dial succeeded.
func (p Permit) Connected() {
	if p.done != nil {
		p.done(nil)
	}
	if p.breaker != nil {
		p.breaker.Succeeded()
	}
}

// Failed says that the dial failed.
func (p Permit) Failed() {
	if p.breaker == nil {
		return
	}
	if p.done == nil {
		var err error
		if p.done, err = p.breaker.cb.Allow(); err != nil {
			return // it has opened meanwhile
		}
	}
	p.done(errDial)
	p.breaker.troubled.Store(true) // after it: see Succeeded
}

// Abandoned says that the dial was given up before it could prove anything.
func (p Permit) Abandoned() {
	if p.done != nil {
		p.done(errUnknown)
	}
}

// Succeeded notes a sign of life that is no dial: a reply. That all is well is
// noted first, and failures are told before they are noted, so that of a success
// and a failure at the same moment none is forgotten that still counts.
func (b *Breaker) Succeeded() {
	if !b.troubled.Load() {
		return
	}
	done, err := b.cb.Allow()
	if err != nil {
		return
	}
	b.troubled.Store(false)
	done(nil)
	if b.cb.State() != gobreaker.StateClosed {
		b.troubled.Store(true)
	}
}
