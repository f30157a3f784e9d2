package health

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"isthmus/mesh"
)

// State is what a prober holds of a subject.
type State struct {
	Known    bool      // there were enough successes, or failures, for a verdict
	Failing  string    // why it is taken to fail; "": it succeeds, or nothing is known
	Degraded bool      // it asks to be spared
	Since    time.Time // of the first of the failures in a row that led to Failing
}

// ProberOptions say how many looks there may be, and who hears of them.
type ProberOptions struct {
	// Look does the looking; default: that of a [Looker] that knows no mTLS.
	Look func(context.Context, Job) Found

	// Concurrent bounds the looks that are under way at once. When all are, those
	// that are due wait, the longest overdue first.
	Concurrent int

	// Spacing is the least time between the starts of two looks; 0: none.
	Spacing time.Duration

	// Spread is within which time of its initial delay a subject is looked at for
	// the first time, at random so that not all are at once; a subject's period
	// bounds it.
	Spread time.Duration

	// Changed is called when a state has changed, by a goroutine that does nothing
	// else then; the state is there already.
	Changed func()
}

// Prober looks at subjects again and again, and judges by Kubernetes'
// thresholds. One goroutine keeps the time; each look has one of its own for as
// long as it takes.
type Prober struct {
	options           ProberOptions
	succeeded, failed atomic.Uint64
	wake              chan struct{}
	cancel            context.CancelFunc
	done              chan struct{}
	looks             sync.WaitGroup

	mu       sync.Mutex // guards what is below
	watched  map[Subject]*watch
	queue    queue     // those of watched that are not being looked at
	underway int       // looks
	next     time.Time // before which none may start, for Spacing
}

// watch is a subject under observation.
type watch struct {
	Job
	state                State
	successes, failures  uint32    // in a row
	firstFailure, looked time.Time // looked: the start of the latest look
	due                  time.Time
	underway             bool // it is being looked at, and not in the queue
}

// NewProber starts a prober without subjects. Close ends it.
func NewProber(o ProberOptions) *Prober {
	if o.Look == nil {
		o.Look = Looker{}.Look
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Prober{options: o, wake: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{}), watched: map[Subject]*watch{}}
	go p.run(ctx)
	return p
}

// Close ends the prober and waits for the looks that are under way.
func (p *Prober) Close() {
	p.cancel()
	<-p.done
	p.looks.Wait()
}

// Watch replaces what is looked at. A subject that was there already keeps its
// state; if its probe is another one now, its successes and failures are
// counted anew.
func (p *Prober) Watch(jobs []Job) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.watched
	p.watched = make(map[Subject]*watch, len(jobs))
	p.queue = make(queue, 0, len(jobs))
	for _, j := range jobs {
		if p.watched[j.Subject] != nil {
			continue
		}
		w := before[j.Subject]
		switch {
		case w == nil:
			w = &watch{Job: j, due: now.Add(j.Probe.InitialDelay + p.jitter(j.Probe))}
		case w.Probe == j.Probe:
		case w.Probe.Equal(j.Probe):
			w.Probe = j.Probe
		default:
			w = &watch{Job: j, state: w.state, due: now.Add(p.jitter(j.Probe))}
		}
		p.watched[j.Subject] = w
		if !w.underway {
			p.queue = append(p.queue, w)
		}
	}
	heap.Init(&p.queue)
	p.poke()
}

func (p *Prober) jitter(probe *mesh.Probe) time.Duration {
	if n := min(p.options.Spread, probe.Period); n > 0 {
		return rand.N(n)
	}
	return 0
}

// State returns what is known of a subject; the zero State if nothing is.
func (p *Prober) State(s Subject) State {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.watched[s]; w != nil {
		return w.state
	}
	return State{}
}

// Counts returns how many looks have succeeded and failed since the start.
func (p *Prober) Counts() (succeeded, failed uint64) { return p.succeeded.Load(), p.failed.Load() }

func (p *Prober) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run starts what is due. NewProber starts it; Close ends it.
func (p *Prober) run(ctx context.Context) {
	defer close(p.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-timer.C:
		}
		if wait := p.start(ctx); wait >= 0 {
			timer.Reset(wait)
		}
	}
}

// start starts what is due, and returns when the next look will be; less than
// 0 if that is not for the clock to say.
func (p *Prober) start(ctx context.Context) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) > 0 && p.underway < p.options.Concurrent {
		now, at := time.Now(), p.queue[0].due
		if at.Before(p.next) {
			at = p.next
		}
		if now.Before(at) {
			return at.Sub(now)
		}
		w := heap.Pop(&p.queue).(*watch)
		w.looked, w.underway = now, true
		p.next = now.Add(p.options.Spacing)
		p.underway++
		p.looks.Add(1)
		go p.look(ctx, w, w.Job)
	}
	return -1
}

// look looks once. start starts it; it ends with the probe's time-out at the
// latest.
func (p *Prober) look(ctx context.Context, w *watch, j Job) {
	defer p.looks.Done()
	limited, cancel := context.WithTimeout(ctx, j.Probe.Timeout)
	found := p.options.Look(limited, j)
	cancel()
	if ctx.Err() != nil {
		return // closed: that is not the subject's fault
	}
	if found.Err == nil {
		p.succeeded.Add(1)
	} else {
		p.failed.Add(1)
	}
	if p.note(w, found) && p.options.Changed != nil {
		p.options.Changed()
	}
}

// note takes the outcome of a look to its subject, which may be gone or under
// another probe by now, and reports whether its state has changed.
func (p *Prober) note(w *watch, found Found) (changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.underway--
	p.poke()
	if p.watched[w.Subject] != w {
		return false
	}
	w.underway = false
	w.due = w.looked.Add(w.Probe.Period)
	heap.Push(&p.queue, w)
	return w.judge(found)
}

// judge counts, and reports whether that changes the state. A look for which this process
// has had no room tells nothing.
func (w *watch) judge(found Found) (changed bool) {
	if IsOurs(found.Err) {
		return false
	}
	before := w.state
	if found.Err == nil {
		w.successes, w.failures = w.successes+1, 0
		if w.successes >= w.Probe.SuccessThreshold {
			w.state = State{Known: true, Degraded: found.Degraded}
		}
		return w.state != before
	}
	if w.successes, w.failures = 0, w.failures+1; w.failures == 1 {
		w.firstFailure = w.looked
	}
	if w.failures < w.Probe.FailureThreshold {
		return false
	}
	w.state.Known, w.state.Failing = true, reasonOf(found.Err)
	if before.Failing == "" {
		w.state.Since = w.firstFailure
	}
	return w.state != before
}

// queue has what is due first at its head (container/heap).
type queue []*watch

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *queue) Push(x any) { *q = append(*q, x.(*watch)) }

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	old := *q
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return w
}
