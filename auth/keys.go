package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// KeysOptions say how key sets are fetched and kept.
type KeysOptions struct {
	Dir    string                                                               // a folder for them, made if need be; "": nothing on disk
	Client *http.Client                                                         // default: one with limits of its own; see newClient
	Dial   func(ctx context.Context, network, address string) (net.Conn, error) // of the default client; nil: as the system does
	Logger *slog.Logger                                                         // default: none
}

// Keys keeps the key sets of issuers, in memory and, where there is a folder for
// it, on disk, and what tokens were found to say. Its methods may be called by
// any goroutine. Each key set that is fetched has one goroutine, which Retain or
// Close ends.
type Keys struct {
	dir    string
	client *http.Client
	logger *slog.Logger
	cache  *tokenCache
	slots  chan struct{} // one for each fetch under way
	loops  sync.WaitGroup

	mu      sync.Mutex // guards what is below
	closed  bool
	sources map[string]*keySource // those being fetched, by id
}

// maxFetches bounds the fetches at once: enough that a few issuers that do not
// answer keep nobody waiting, few enough that a start is no burst.
const maxFetches = 16

// NewKeys makes a keeper without any key sets.
func NewKeys(o KeysOptions) *Keys {
	k := &Keys{
		dir:     o.Dir,
		client:  o.Client,
		logger:  o.Logger,
		cache:   &tokenCache{},
		slots:   make(chan struct{}, maxFetches),
		sources: map[string]*keySource{},
	}
	if k.client == nil {
		k.client = newClient(o.Dial)
	}
	if k.logger == nil {
		k.logger = slog.New(slog.DiscardHandler)
	}
	return k
}

// Close ends all fetching and waits until it has ended. Tokens that were made
// before go on with the key sets there are.
func (k *Keys) Close() {
	k.mu.Lock()
	k.closed = true
	for _, s := range k.sources {
		s.stop()
	}
	clear(k.sources)
	k.mu.Unlock()
	k.loops.Wait()
	k.client.CloseIdleConnections()
}

// Retain is called when lists become current: their key sets, and no others, are
// fetched from then on. A nil one has none.
func (k *Keys) Retain(lists ...*Tokens) {
	k.mu.Lock()
	defer k.mu.Unlock()
	used := map[string]*keySource{}
	for _, t := range lists {
		if t != nil {
			maps.Copy(used, t.sources)
		}
	}
	for id, s := range k.sources {
		if used[id] != s {
			s.stop()
			delete(k.sources, id)
		}
	}
	for id, s := range used {
		if k.sources[id] == nil { // dropped by the Retain of another
			k.start(s)
		}
	}
}

// source returns the key set of an issuer, at uri or, if that is "", found by
// discovery; it is fetched from now on.
func (k *Keys) source(issuer, uri string) *keySource {
	id := uri
	if uri == "" {
		id = "discovery " + issuer
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.sources[id]; s != nil {
		return s
	}
	s := &keySource{id: id, issuer: issuer, uri: uri, kick: make(chan struct{}, 1)}
	if set, fetched, err := k.load(id); err != nil {
		k.logger.Warn("a key set on disk is not used", "uri", s.address(), "error", err)
	} else if set != nil {
		s.fetched = fetched
		s.current.Store(set)
		k.logger.Info("a key set is used from disk until it is fetched", "uri", s.address(), "keys", len(set.keys), "age", time.Since(fetched).Round(time.Second))
	}
	k.start(s)
	return s
}

// start is called with mu held.
func (k *Keys) start(s *keySource) {
	if k.closed {
		return
	}
	k.sources[s.id] = s
	ctx, cancel := context.WithCancel(context.Background())
	s.mu.Lock()
	s.cancel, s.answered, s.attempt, s.err = cancel, false, make(chan struct{}), nil
	s.mu.Unlock()
	k.loops.Go(func() { k.keep(ctx, s) })
}

// KeySetStatus is how it is with a key set.
type KeySetStatus struct {
	URI, Issuer string
	Keys        int           // that can be used
	Age         time.Duration // since it was fetched; 0 if it never was
	Error       string        // of the last attempt; "": it succeeded, or is under way
}

// Status returns all key sets that are fetched, by URI.
func (k *Keys) Status() []KeySetStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []KeySetStatus
	for _, s := range k.sources {
		out = append(out, s.status())
	}
	slices.SortFunc(out, func(a, b KeySetStatus) int { return strings.Compare(a.URI, b.URI) })
	return out
}

// keySource is where the keys of an issuer come from.
type keySource struct {
	id, issuer, uri string
	current         atomic.Pointer[keySet] // the last good one; nil: there was none
	kick            chan struct{}          // has the set fetched now

	mu       sync.Mutex // guards what is below
	cancel   context.CancelFunc
	answered bool          // an attempt has ended since the start
	attempt  chan struct{} // closed when the attempt that is under way, or due now, ends; nil: there is none
	asked    time.Time     // when a token last had the set fetched
	fetched  time.Time     // the current one
	err      error         // of the last attempt
}

// inlineSource is a rule's own key set.
func inlineSource(issuer string, data []byte) *keySource {
	s := &keySource{issuer: issuer}
	set, err := parseKeySet(data)
	if err != nil {
		s.err = fmt.Errorf("the key set of %s cannot be used: %w", issuer, err)
		return s
	}
	s.current.Store(set)
	return s
}

// address is what is fetched first.
func (s *keySource) address() string {
	if s.uri == "" {
		return discoveryURL(s.issuer)
	}
	return s.uri
}

func (s *keySource) status() KeySetStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := KeySetStatus{URI: s.address(), Issuer: s.issuer}
	if set := s.current.Load(); set != nil {
		out.Keys, out.Age = len(set.keys), time.Since(s.fetched)
	}
	if s.err != nil {
		out.Error = s.err.Error()
	}
	return out
}

var (
	errSlow    = errors.New("it was not there in time")
	errStopped = errors.New("it is not fetched any longer")
)

// await returns the key set. Where there is none yet it waits for the end of the
// first attempt; once that has failed, others are made in the background.
func (s *keySource) await(deadline time.Time) (*keySet, error) {
	if set := s.current.Load(); set != nil {
		return set, nil
	}
	s.mu.Lock()
	attempt, answered := s.attempt, s.answered
	s.mu.Unlock()
	late := attempt != nil && !answered && !wait(attempt, deadline)
	if set := s.current.Load(); set != nil {
		return set, nil
	}
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	switch {
	case s.id == "":
		return nil, err
	case late:
		err = errSlow
	case err == nil:
		err = errStopped
	}
	return nil, fmt.Errorf("the key set of %s could not be fetched: %w", s.issuer, err)
}

// refetchEvery is how often tokens may have a set fetched whose keys they are
// not signed with. Who invents key ids makes that many requests to the issuer.
const refetchEvery = 10 * time.Second

// refetch has the set fetched now, for a token that may be signed with a newer
// key, and waits for it; not if it was for another token a moment ago. It
// reports whether there was an attempt.
func (s *keySource) refetch(deadline time.Time) bool {
	s.mu.Lock()
	if s.cancel == nil { // it is the rule's own, or kept no longer
		s.mu.Unlock()
		return false
	}
	attempt := s.attempt
	if attempt == nil {
		now := time.Now()
		if now.Sub(s.asked) < refetchEvery {
			s.mu.Unlock()
			return false
		}
		attempt = make(chan struct{})
		s.asked, s.attempt = now, attempt
		select {
		case s.kick <- struct{}{}:
		default: // one is in it already
		}
	}
	s.mu.Unlock()
	wait(attempt, deadline)
	return true
}

// wait reports whether done was closed by the deadline.
func wait(done <-chan struct{}, deadline time.Time) bool {
	t := time.NewTimer(time.Until(deadline))
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}

// stop ends the source's goroutine, and the waiting for it.
func (s *keySource) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel()
	s.cancel, s.answered, s.err = nil, true, errStopped
	s.done()
}

// done is called with mu held.
func (s *keySource) done() {
	if s.attempt != nil {
		close(s.attempt)
		s.attempt = nil
	}
}

// begin makes whoever asks from now on wait for the attempt that starts.
func (s *keySource) begin(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	select {
	case <-s.kick: // this attempt is what it asks for
	default:
	}
	if s.attempt == nil {
		s.attempt = make(chan struct{})
	}
}

// keep fetches a set again and again until ctx ends. start starts it.
func (k *Keys) keep(ctx context.Context, s *keySource) {
	var pause time.Duration
	for {
		s.begin(ctx)
		select {
		case k.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		got, err := k.fetch(ctx, s)
		<-k.slots
		if !k.finish(ctx, s, got, err) {
			return
		}
		var next time.Duration
		if err == nil {
			pause = 0
			next = max(got.fresh-rand.N(got.fresh/10), minFresh) // not all at once
		} else {
			pause = min(max(2*pause, minPause), maxPause)
			next = pause - rand.N(pause/4)
		}
		t := time.NewTimer(next)
		select {
		case <-t.C:
		case <-s.kick:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// How long it takes from one attempt to the next.
const (
	maxFresh = 20 * time.Minute // istiod: PILOT_JWT_PUB_KEY_REFRESH_INTERVAL
	minFresh = time.Minute      // if the issuer says less
	minPause = time.Second      // after a failure; doubled each time
	maxPause = time.Minute      // as istiod's pause
)

// finish notes how an attempt ended. It reports whether there are to be more.
func (k *Keys) finish(ctx context.Context, s *keySource, got fetchedSet, err error) bool {
	s.mu.Lock()
	if ctx.Err() != nil { // stop has told those who wait
		s.mu.Unlock()
		return false
	}
	first := s.err == nil // of an outage
	s.err, s.answered = err, true
	old := s.current.Load()
	if err == nil {
		s.fetched = got.at
		if old == nil || !slices.EqualFunc(old.keys, got.set.keys, func(a, b *publicKey) bool { return a.id == b.id }) {
			s.current.Store(got.set)
		}
	}
	age := time.Since(s.fetched).Round(time.Second)
	s.done()
	s.mu.Unlock()
	switch {
	case err == nil && !first:
		k.logger.Info("a key set can be fetched again", "uri", s.address(), "issuer", s.issuer)
	case err != nil && first && old == nil:
		k.logger.Warn("a key set cannot be fetched; tokens of the issuer are refused with 503", "uri", s.address(), "issuer", s.issuer, "error", err)
	case err != nil && first:
		k.logger.Warn("a key set cannot be fetched; the last one is used", "uri", s.address(), "issuer", s.issuer, "age", age, "error", err)
	}
	if err == nil {
		if err := k.save(s.id, got); err != nil {
			k.logger.Warn("a key set cannot be kept on disk", "uri", s.address(), "error", err)
		}
	}
	return true
}
