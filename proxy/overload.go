package proxy

import (
	"cmp"
	"math"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"isthmus/http2"
	"isthmus/telemetry"
)

// Overload bounds what all clients together may take of this process. A zero field
// is no bound.
type Overload struct {
	// Memory is how many bytes requests may hold, and what serves them: what the
	// process may have (see [MemoryFor]). When four fifths of it are held, requests
	// are refused; when nine tenths are, new connections as well. A quarter is for
	// bodies over HTTP/2 that wait to be read; see [http2.Budget].
	Memory int64

	// Connections is how many connections clients may have open. One more takes the
	// place of one that is idle, or is closed.
	Connections int
}

// LeastMemory is how much a process has to have for bounds to make sense.
const LeastMemory = 48 << 20

// MemoryFor returns what Overload.Memory is for a process that may have so many bytes:
// 16 MiB are the binary's, and the kernel's for sockets.
func MemoryFor(process int64) int64 { return process - 16<<20 }

// What is refused, as by Envoy's actions stop_accepting_requests and
// stop_accepting_connections.
const (
	refuseNothing int32 = iota
	refuseRequests
	refuseConnections
)

// memoryInterval is how often it is looked how much memory is held, and calmInterval how
// often while that is less than half of it. A burst fills a small container sooner than
// whoever looks has his turn: whoever takes a connection or a request looks, too, when what
// was made has grown by a 64th of the memory.
const (
	memoryInterval = 100 * time.Millisecond
	calmInterval   = time.Second
	lookSteps      = 64
)

// made is how many bytes have been made, rather than taken from a pool, for what
// requests hold. It only says when to look; it is the process's, as the pools are.
var made atomic.Int64

// What there is no pool for, about: with a goroutine's stack, and for a connection of
// HTTP/2 with what is to be sent to a client that does not read.
const (
	connMade  = 8 << 10
	http2Made = 64 << 10
)

// A request over HTTP/2 that waits for its upstream holds workerMemory, and the process
// idleMemory without any. A burst of requests has its workers made before these have
// begun to fill their memory, so it is their number that is bounded.
const (
	workerMemory = 16 << 10
	idleMemory   = 12 << 20
)

// collectInterval is how often at the most garbage is collected while requests are
// refused: that takes time from those that are under way.
const collectInterval = instant(time.Second)

// overload is how much clients take of the process.
type overload struct {
	bounds Overload
	bodies *http2.Budget // nil: no bound

	refusal atomic.Int32 // one of the above
	open    atomic.Int64 // connections of clients

	workers int64 // that there may be

	step   int64        // of made, from one look to the next
	looked atomic.Int64 // made at the last look

	mu    sync.Mutex // guards what is below, and changes of refusal
	meter *memoryMeter
	held  int64 // at the last look

	requests, conns, idle atomic.Uint64 // refused, and ended to make room

	warnings *rate.Limiter // of connections that are refused
}

func (o *overload) init(bounds Overload, bodies *http2.Budget) {
	o.bounds, o.meter, o.bodies = bounds, newMemoryMeter(), bodies
	o.warnings = rate.NewLimiter(rate.Every(10*time.Second), 1)
	o.step, o.workers = math.MaxInt64, math.MaxInt64
	if bounds.Memory > 0 {
		o.step = bounds.Memory / lookSteps
		o.workers = max((bounds.Memory/5*4-idleMemory)/workerMemory, edgeStreams)
		o.bodies = cmp.Or(bodies, http2.NewBudget(int(bounds.Memory/4)))
	}
}

// refuse counts a request that is not served.
func (o *overload) refuse() Kind {
	o.requests.Add(1)
	return Overloaded
}

// overloaded is the head of the reply to a request that no worker looks at; unsentHead
// tells another proxy besides that nobody has.
var (
	overloaded = http2.AppendField(http2.AppendStatus(nil, answers[Overloaded].status), nameOverloaded, valueTrue)
	unsentHead = http2.AppendField(slices.Clone(overloaded), nameUnsent, valueTrue)
)

// refuseStream answers a request over HTTP/2 for whoever reads them, since a worker
// takes memory, even if all it does is to refuse. It does not wait. REFUSED_STREAM
// would have clients come again at once.
func (p *Proxy) refuseStream(s *http2.Stream, kind listenerKind) {
	a := &answers[p.overload.refuse()]
	p.answered[kind].Record(&telemetry.Exchange{Status: a.status, Flag: a.flag, GRPC: telemetry.NoGRPC})
	head := overloaded
	if kind == inbound {
		head = unsentHead
	}
	if s.Send(head, nil, true, epoch) != nil { // there is no room: the client does not read
		s.Reset(http2.CodeEnhanceYourCalm)
	}
	s.Close()
}

// judge says whether a request may be served at all.
func (p *Proxy) judge() Kind {
	if p.refusing() == refuseNothing {
		return NoError
	}
	return p.overload.refuse()
}

// refusing says what is refused.
func (p *Proxy) refusing() int32 {
	o := &p.overload
	if made.Load()-o.looked.Load() >= o.step {
		p.lookAtMemory()
	}
	return o.refusal.Load()
}

// takesConn reports whether a listener may take one more connection, and counts it.
func (p *Proxy) takesConn(l *listener) bool {
	o := &p.overload
	full := o.bounds.Connections > 0 && o.open.Load() >= int64(o.bounds.Connections)
	short := p.refusing() >= refuseConnections
	if !short && (!full || p.makeRoom(l)) {
		o.open.Add(1)
		made.Add(connMade)
		return true
	}
	o.conns.Add(1)
	if o.warnings.Allow() {
		why := "clients have as many as they may, and none is idle: raise overload.connections"
		if short {
			why = "requests hold nine tenths of the memory: raise the limit of the container or overload.memory"
		}
		p.log.Warn("connections are refused: "+why+", or run more replicas", "listener", l.name, "open", o.open.Load(), "limit", o.bounds.Connections)
	}
	return false
}

// makeRoom ends a connection that is idle, of a listener rather than of the others,
// and reports whether there was one.
func (p *Proxy) makeRoom(l *listener) bool {
	if l.endIdle() {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, other := range p.everyListener() {
		if other != l && other.endIdle() {
			return true
		}
	}
	return false
}

// mostLookedAt bounds the search for an idle connection: whoever has all of them
// busy shall not have us look through them for each one more.
const mostLookedAt = 64

// endIdle ends any connection between two requests, and reports whether there was
// one.
func (l *listener) endIdle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	looked := 0
	for c := range l.conns {
		if looked++; looked > mostLookedAt {
			break
		}
		if c.waiting.Load() && c.leaving.CompareAndSwap(false, true) {
			c.interrupt()
			l.proxy.overload.idle.Add(1)
			return true
		}
	}
	return false
}

// lookAtMemory finds out how much is held, and has requests refused before that is too
// much.
func (p *Proxy) lookAtMemory() {
	o := &p.overload
	if !o.mu.TryLock() {
		return // somebody looks
	}
	defer o.mu.Unlock()
	o.looked.Store(made.Load())
	o.held = o.meter.held()
	was := o.refusal.Load()
	is := whatToRefuse(was, o.held, o.bounds.Memory)
	if was == refuseNothing && (o.open.Load()+p.workers.count.Load())*mostHeld < o.bounds.Memory/8 {
		// It is not for them: a configuration is being read, say, and refusing requests
		// would not give back what that takes.
		is = refuseNothing
	}
	o.refusal.Store(is)
}

// mostHeld is how much a connection or a request of a client's may hold: two large
// buffers, and two others.
const mostHeld = 2*largeBufferSize + 2*bufferSize

// watchMemory looks at it again and again, and tells the log. New starts it, Close ends
// it.
func (p *Proxy) watchMemory() {
	o := &p.overload
	tick := time.NewTimer(0)
	defer tick.Stop()
	told, seen, collected := false, uint64(0), instant(0)
	for {
		p.lookAtMemory()
		o.mu.Lock()
		is, held := o.refusal.Load(), o.held
		o.mu.Unlock()
		n := o.requests.Load()
		refuses := is != refuseNothing || n != seen
		switch {
		case refuses && !told:
			p.log.Warn("requests are refused: they hold four fifths of the memory, or would; raise the limit of the container or overload.memory, or run more replicas", "held", held, "limit", o.bounds.Memory)
		case !refuses && told:
			p.log.Info("requests are served again", "held", held, "refused", n)
		}
		told, seen = refuses, n
		if is != refuseNothing && now() > collected+collectInterval {
			p.workers.trim()
			runtime.GC()
			collected = now()
			continue
		}
		if is == refuseNothing && held < o.bounds.Memory/2 {
			tick.Reset(calmInterval)
		} else {
			tick.Reset(memoryInterval)
		}
		select {
		case <-p.sweeping:
			return
		case <-tick.C:
		}
	}
}

// whatToRefuse says what is refused when so much is held and was is refused so far: a
// twentieth less ends what has begun, so that it does not come and go.
func whatToRefuse(was int32, held, limit int64) int32 {
	twentieths := held * 20 / limit
	switch {
	case twentieths >= 18, twentieths >= 17 && was == refuseConnections:
		return refuseConnections
	case twentieths >= 16, twentieths >= 15 && was != refuseNothing:
		return refuseRequests
	}
	return refuseNothing
}

// memoryMeter tells how much memory is held: all that the runtime has of the system
// but what it has given back, or could at once. Garbage is held, too: the runtime keeps
// it below what has requests refused, for as long as it can (debug.SetMemoryLimit).
type memoryMeter struct{ samples [3]metrics.Sample }

func newMemoryMeter() *memoryMeter {
	return &memoryMeter{[3]metrics.Sample{
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
	}}
}

func (m *memoryMeter) held() int64 {
	metrics.Read(m.samples[:])
	return int64(m.samples[0].Value.Uint64() - m.samples[1].Value.Uint64() - m.samples[2].Value.Uint64())
}

// Overload returns how much clients take, for the metrics.
func (p *Proxy) Overload() telemetry.OverloadState {
	o := &p.overload
	s := telemetry.OverloadState{
		Memory: newMemoryMeter().held(), MemoryLimit: o.bounds.Memory, Refusing: int(o.refusal.Load()),
		Connections: int(o.open.Load()), ConnectionsLimit: o.bounds.Connections,
		Requests: o.requests.Load(), Refused: o.conns.Load(), Ended: o.idle.Load(),
	}
	if o.bodies != nil {
		s.Bodies, s.Reset = o.bodies.State()
	}
	return s
}
