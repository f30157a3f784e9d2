package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"isthmus/breaker"
	"isthmus/rpc"
)

// Bounds of one Service.
const (
	// maxCalls is how many calls there may be at once: of a service that hangs,
	// each of them holds a request. Envoy's default for the requests of a cluster
	// is 1024 (circuit_breakers.thresholds.max_requests).
	maxCalls = 1000

	// dialTimeout is how long a connection may take, so that one that hangs ends
	// though no call waits for it (Envoy: connect_timeout).
	dialTimeout = 5 * time.Second

	// longestCall bounds calls whose filter has a timeout of 0, which in Envoy is
	// none.
	longestCall = time.Minute

	// maxAnswer bounds an answer in bytes: headers, a body, and what nobody reads.
	maxAnswer = 256 << 10
)

// What Ask fails with, beside what the connection does.
var (
	ErrTooMany = fmt.Errorf("%d calls are under way", maxCalls)
	ErrDown    = errors.New("has not answered three times in a row, and is left alone for a second")
	ErrClosed  = errors.New("no longer asked")
	errLate    = errors.New("no answer in time")
)

// Service asks a rate limit service, by envoy.service.ratelimit.v3. Its methods
// may be called by any goroutine.
type Service struct {
	Name    string // of the cluster
	client  *rpc.Client
	breaker *breaker.Breaker
	slots   chan struct{} // one for each call under way

	life  context.Context // ends with Close, and with it whatever is under way
	end   context.CancelFunc
	close sync.Once

	mu    sync.Mutex // guards what is below
	state breaker.State
	err   error // the last failure
	since time.Time
}

// NewService makes what asks a service over connections of dial. It connects at
// the first Ask.
func NewService(name, authority string, dial func(context.Context) (net.Conn, error)) *Service {
	s := &Service{Name: name, slots: make(chan struct{}, maxCalls)}
	s.life, s.end = context.WithCancel(context.Background())
	s.client = rpc.NewClient(authority, maxAnswer, func(ctx context.Context) (net.Conn, error) {
		// net/http goes on with a connection that its caller no longer waits for,
		// until this or Close.
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		defer context.AfterFunc(s.life, cancel)()
		return dial(ctx)
	})
	s.breaker = breaker.New(func(to breaker.State) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.state, s.since = to, time.Now()
	})
	return s
}

// method is the only one of the service.
const method = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"

// Ask asks whether a request with descriptors may pass, and waits for the
// timeout at most. An error is that nobody can tell. It is at once if 1000 calls
// are under way, or if the service is down.
func (s *Service) Ask(timeout time.Duration, domain string, d *Descriptors) (v Verdict, err error) {
	if s.life.Err() != nil {
		return v, s.failed(ErrClosed)
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return v, s.failed(ErrTooMany)
	}
	permit, ok := s.breaker.Dial()
	if !ok {
		return v, s.failed(ErrDown)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(s.life, bounded(timeout), errLate)
	defer cancel()
	answer, err := s.client.Call(ctx, method, marshalRequest(domain, d))
	if err == nil {
		v, err = parseResponse(answer)
	}
	switch {
	case err == nil:
		permit.Connected()
		return v, nil
	case s.life.Err() != nil:
		permit.Abandoned()
		return v, s.failed(ErrClosed)
	case errors.Is(context.Cause(ctx), errLate):
		s.client.Drop(began)
		err = errLate
	}
	permit.Failed()
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	return v, s.failed(err)
}

// bounded is how long a call with a filter's timeout takes at most.
func bounded(timeout time.Duration) time.Duration {
	if timeout <= 0 {
		return longestCall
	}
	return min(timeout, longestCall)
}

func (s *Service) failed(err error) error {
	return fmt.Errorf("rate limit service %s: %w", s.Name, err)
}

// State says how the service is: "" if well, else what it has failed with.
func (s *Service) State() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state == breaker.Closed:
		return ""
	case s.err != nil:
		return "down: " + s.err.Error()
	}
	return "down"
}

// Busy reports whether calls are under way.
func (s *Service) Busy() bool { return len(s.slots) > 0 }

// Close fails the calls that are under way, waits until they have returned, and
// ends the connection.
func (s *Service) Close() {
	s.close.Do(func() {
		s.end()
		for range cap(s.slots) {
			s.slots <- struct{}{}
		}
		s.client.Close()
	})
}
