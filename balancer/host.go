package balancer

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"isthmus/mesh"
)

// State says whether a host may get traffic, as far as this proxy has seen for
// itself.
type State uint8

// The states of a host.
const (
	Usable  State = iota
	Ejected       // gets nothing until its time is over
	OnTrial       // its time is over: one request at a time, until one succeeds
)

// Host is an endpoint's live twin: how many requests it has under way, and
// whether it was ejected. It survives snapshots.
type Host struct {
	endpoint atomic.Pointer[mesh.Endpoint]
	gate     *Gate // nil: none
	active   atomic.Int32
	state    atomic.Uint32 // State, for readers without the lock
	latency  latency
	trial    atomic.Pointer[Trial] // not nil while it is OnTrial
	since    atomic.Int64          // when it entered service, in Unix nanoseconds; 0: before anybody watched

	mu       sync.Mutex // guards what is below
	reason   string
	until    time.Time
	hard     bool
	timer    *time.Timer
	look     func() bool
	closed   bool
	watchers map[*atomic.Uint64]struct{}
}

// NewHost makes the twin of an endpoint, behind a gate if it is not nil.
func NewHost(e *mesh.Endpoint, gate *Gate) *Host {
	h := &Host{gate: gate, watchers: map[*atomic.Uint64]struct{}{}}
	h.endpoint.Store(e)
	return h
}

// Look sets what is asked, in a goroutine of its own, before a host that could
// not be connected to gets its trial: whether it can be now, so that no request
// is spent on finding out. It may eject the host anew. Without it, the first
// request finds out.
func (h *Host) Look(look func() bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.look = look
}

// Close ends what the host has under way by itself. It is to get no more
// traffic.
func (h *Host) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.timer != nil {
		h.timer.Stop()
	}
}

// Endpoint returns the endpoint as the latest snapshot has it.
func (h *Host) Endpoint() *mesh.Endpoint { return h.endpoint.Load() }

// Update gives the host its endpoint of a new snapshot.
func (h *Host) Update(e *mesh.Endpoint) {
	before := h.endpoint.Swap(e)
	if before == e {
		return
	}
	if before.Unready != "" && e.Unready == "" {
		h.Enter()
	}
	h.mu.Lock()
	h.changed()
	h.mu.Unlock()
}

// Enter says that the host enters service now: it is new, or well again. With
// a warmup, its share begins small.
func (h *Host) Enter() { h.since.Store(time.Now().UnixNano()) }

// EnterAs says that the host entered service when another one did, whose endpoint it has.
func (h *Host) EnterAs(o *Host) { h.since.Store(o.since.Load()) }

// Trial is one time that a host is on trial, and counts the requests that began
// in it: those before, which may go on for long, say nothing of the host now.
type Trial struct{ active atomic.Int32 }

// Begin counts a request under way. End is to be given what it returns.
func (h *Host) Begin() *Trial {
	h.active.Add(1)
	t := h.trial.Load()
	if t != nil {
		t.active.Add(1)
	}
	return t
}

// End is the counterpart of Begin.
func (h *Host) End(t *Trial) {
	h.active.Add(-1)
	if t != nil {
		t.active.Add(-1)
	}
}

// Active returns how many requests are under way.
func (h *Host) Active() int32 { return h.active.Load() }

// State returns the host's state and, unless it is Usable, the reason.
func (h *Host) State() (State, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := State(h.state.Load()); s != Usable || h.gate.open() {
		return s, h.reason
	}
	return Ejected, "cluster cannot be reached"
}

// Eject keeps traffic away for a time; then the host is on trial. hard says
// that replies, not connects, were the reason: then it is no last resort
// either, since outlier detection without a panic threshold means 503 when all
// are ejected. Of two ejections at a time, the one that is hard and the one that
// ends later hold. It returns when the ejection ends.
func (h *Host) Eject(reason string, d time.Duration, hard bool) (until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	// Up to a tenth more, so that many proxies do not try at the same moment.
	d += rand.N(d/10 + 1)
	if left := h.until.Sub(now); State(h.state.Load()) == Ejected && left > 0 {
		if h.hard && !hard {
			reason, hard = h.reason, true
		}
		d = max(d, left)
	}
	if h.timer != nil {
		h.timer.Stop()
	}
	h.reason, h.hard, h.until = reason, hard, now.Add(d)
	h.trial.Store(nil)
	h.state.Store(uint32(Ejected))
	h.schedule(d)
	h.changed()
	return h.until
}

// Release ends an ejection for replies before its time: the host is on trial as soon as
// it has been connected to.
func (h *Host) Release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if State(h.state.Load()) != Ejected || !h.hard {
		return
	}
	h.hard, h.until = false, time.Now()
	if h.timer != nil {
		h.timer.Stop()
	}
	h.schedule(0)
}

// schedule sets when the host is tried again. The timer's goroutine ends with
// tryAgain. The caller holds mu.
func (h *Host) schedule(d time.Duration) {
	if !h.closed {
		h.timer = time.AfterFunc(d, h.tryAgain)
	}
}

// lookAgain is how long a host stays out whose look has found nothing out.
const lookAgain = time.Second

// tryAgain ends the ejection.
func (h *Host) tryAgain() {
	h.mu.Lock()
	look := h.look
	if h.hard || !h.due() {
		look = nil // it is the replies that were bad
	}
	h.mu.Unlock()
	well := look == nil || look()
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case !h.due():
	case !well:
		h.schedule(lookAgain)
	default:
		h.trial.Store(new(Trial))
		h.state.Store(uint32(OnTrial))
		h.changed()
	}
}

// due reports whether the ejection is over. The caller holds mu.
func (h *Host) due() bool {
	return State(h.state.Load()) == Ejected && !time.Now().Before(h.until) && !h.closed
}

// Restore makes the host usable, as after a success.
func (h *Host) Restore() {
	if State(h.state.Load()) == Usable {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil {
		h.timer.Stop()
	}
	h.reason, h.hard = "", false
	h.Enter()
	h.trial.Store(nil)
	h.state.Store(uint32(Usable))
	h.changed()
}

// good reports whether the host should get traffic, if it is free.
func (h *Host) good() bool {
	return State(h.state.Load()) != Ejected && h.Endpoint().Unready == "" && h.gate.open()
}

// free reports whether a good host may be given one more request now: on trial,
// one after the other.
func (h *Host) free() bool {
	t := h.trial.Load()
	return t == nil || t.active.Load() == 0
}

// LastResort reports whether the host may be tried when there is no good one.
func (h *Host) LastResort() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return State(h.state.Load()) != Ejected || !h.hard
}

// watch makes the host bump a counter when it changes.
func (h *Host) watch(counter *atomic.Uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watchers[counter] = struct{}{}
	h.gate.watch(counter)
}

func (h *Host) unwatch(counter *atomic.Uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, counter)
	h.gate.unwatch(counter)
}

// changed tells the sets that hold the host. The caller holds mu.
func (h *Host) changed() {
	for c := range h.watchers {
		c.Add(1)
	}
}
