// Package proxy is the data plane: it listens, reads requests, finds out by
// the configuration where each may go, sends it there and brings the reply
// back.
//
// Start with exchange.go, which carries one request from its first byte to its
// last, top to bottom: read the head, pin the table, match the route, admit,
// pick an endpoint, send, reply, record. What it consults is the table
// (table.go), which is compiled from a mesh.Snapshot whenever one is published
// and swapped in by one atomic store.
//
// One goroutine serves a downstream connection and does everything, the
// upstream's side included; only a request body that is too large to be held
// gets a second one. A request that meets nothing rare allocates nothing.
package proxy

import (
	"cmp"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"isthmus/accesslog"
	"isthmus/auth"
	"isthmus/extauthz"
	"isthmus/handover"
	"isthmus/http2"
	"isthmus/mesh"
	"isthmus/ratelimit"
	"isthmus/telemetry"
	"isthmus/tls"
	"isthmus/tracing"
)

// Options say what a proxy is and where it listens.
type Options struct {
	Node              *mesh.Node
	Outbound, Inbound string            // addresses to listen on; "": off
	GatewayBind       string            // the address of all gateway ports; "": off
	GatewayPorts      map[uint32]uint32 // a Gateway's port -> the port bound here; default: the same
	NumTrustedProxies int               // how many proxies before a gateway are believed in x-forwarded-*
	Downstream        Downstream        // what clients may take
	Overload          Overload          // what all of them together may
	Identity          *tls.Own          // this proxy's own; nil: it has none, and Node.Identity is ""
	Credentials       *tls.Store        // that Gateways and DestinationRules name; default: one without a folder
	Keys              *auth.Keys        // of issuers of tokens; default: some that are on no disk
	Clusters          map[string]string // addresses of helper services, by the names that configuration has for them
	Limits            *ratelimit.Shared // that decides on global rate limits of which no service is known; nil: nobody
	Through           bool              // the inbound listener serves the other services of the own cluster too
	Slow              time.Duration     // a request that waits longer for its reply is remembered; 0: none is
	AccessLog         *accesslog.Log    // where lines of exchanges go; nil: nowhere
	Tracing           mesh.Tracing      // what holds where Telemetry resources say nothing
	Logger            *slog.Logger      // default: slog.Default()

	// Predecessor has sockets for the listeners; then connections are accepted from
	// [Proxy.Accept] on, and not with the first snapshot. Nil: there is none.
	Predecessor *handover.Inheritance

	stores *stores // made by New

	// draw returns a number below n, for shares of requests. Nil: at random;
	// tests bring dice of their own.
	draw func(n uint32) uint32

	// bodies bounds those that nobody reads. Nil: Overload does; tests bring others.
	bodies *http2.Budget
}

// Proxy is the data plane. Its methods may be called by any goroutine.
type Proxy struct {
	options      Options
	node         *mesh.Node
	trusted      int
	patience     [3]patience // by listenerKind
	introduction []byte
	unrouted     [3]*telemetry.Requests // likewise: to nobody that is known
	answered     [3]*telemetry.Requests // likewise: by routes that answer by themselves
	log          *slog.Logger

	unroutedConns [3]*telemetry.Connections // likewise: relayed to nobody

	table    atomic.Pointer[table]
	draining atomic.Bool
	shut     atomic.Bool // draining, and no more connections are accepted but the application's
	alone    atomic.Bool // nor those
	ended    atomic.Bool // what is under way has been ended, by us
	reached  sync.Map    // upstreamKey -> *reach, of targets that others have asked for

	workers    workers
	websockets webSockets
	mirroring  mirroring
	spans      tracing.Counts
	slow       time.Duration // Options.Slow
	memory     memory        // of troubles
	overload   overload
	keys       *auth.Keys
	tallies    tallies
	refusals   [refusers]*rate.Limiter // of what the log tells of them
	audits     *rate.Limiter           // likewise

	mu          sync.Mutex // guards what is below
	listeners   map[string]*listener
	shutting    []*listener               // whose ports are closed, and that may have connections still
	upstreams   map[upstreamKey]*upstream // those in use, by key, of the table that is current
	candidates  map[upstreamKey]*upstream // those that a candidate alone has in use
	trialCounts *trialCounts              // of the last candidate; nil: there was none
	exporters   helpers[mesh.Collector, *tracing.Exporter]
	askers      helpers[string, *extauthz.Asker]
	services    helpers[string, *ratelimit.Service]
	closed      bool
	held        bool // see Accept

	sweeping  chan struct{} // closed by Close; ends the sweeper
	published chan struct{} // has the sweeper look at what a new table shows
	begun     chan struct{} // closed by the first Publish: there is a table
}

// New makes a proxy and opens its outbound and inbound listeners. Connections
// wait until the first snapshot is published.
func New(o Options) (*Proxy, error) {
	p := newProxy(o)
	for _, l := range []struct {
		name, address string
		kind          listenerKind
	}{{"outbound", o.Outbound, outbound}, {"inbound", o.Inbound, inbound}} {
		if l.address == "" {
			continue
		}
		if err := p.listen(l.name, l.address, l.kind, 0); err != nil {
			p.Close()
			return nil, err
		}
	}
	go p.sweep()
	if o.Overload.Memory > 0 {
		go p.watchMemory()
	}
	return p, nil
}

func newProxy(o Options) *Proxy {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Credentials == nil {
		o.Credentials = tls.NewStore("", nil)
	}
	p := &Proxy{
		options: o, node: o.Node, trusted: o.NumTrustedProxies, log: o.Logger,
		listeners: map[string]*listener{},
		upstreams: map[upstreamKey]*upstream{},
		sweeping:  make(chan struct{}),
		published: make(chan struct{}, 1),
		begun:     make(chan struct{}),
		keys:      o.Keys,
		audits:    tellLimiter(auditsTold),
		slow:      cmp.Or(o.Slow, math.MaxInt64),
		held:      o.Predecessor != nil,

		introduction: introduction(o.Node),
	}
	if p.keys == nil {
		p.keys = auth.NewKeys(auth.KeysOptions{Logger: o.Logger})
	}
	p.overload.init(o.Overload, o.bodies)
	p.options.stores = newStores(o.Node, p.requestsInUse, p.connectionsInUse, p.linksInUse)
	p.options.stores.bodies = p.overload.bodies
	for by := range p.refusals {
		p.refusals[by] = tellLimiter(refusalsTold)
	}
	s := p.options.stores
	for kind := range p.patience {
		p.patience[kind] = o.Downstream.patience(listenerKind(kind))
		p.unrouted[kind] = s.requests.Of(nobodyLabels(o.Node, listenerKind(kind), "BlackHoleCluster"))
		p.unroutedConns[kind] = s.connections.Of(nobodyLabels(o.Node, listenerKind(kind), "BlackHoleCluster"))
		p.answered[kind] = s.requests.Of(nobodyLabels(o.Node, listenerKind(kind), ""))
	}
	return p
}

// NewIdle makes a proxy that has a snapshot and listens nowhere: it opens no port,
// fetches no key set and connects to nobody, so that it can only be asked.
func NewIdle(o Options, s *mesh.Snapshot) *Proxy {
	if o.Keys == nil {
		o.Keys = auth.NewKeys(auth.KeysOptions{})
		o.Keys.Close()
	}
	p := newProxy(o)
	t := compile(s, p.options)
	p.mu.Lock()
	defer p.mu.Unlock()
	askers := map[string]*extauthz.Asker{}
	t.access = p.compileAccess(s, askers)
	p.askers.used, p.services.used = askers, map[string]*ratelimit.Service{}
	p.compileLimits(t, p.services.used)
	p.table.Store(t)
	return p
}

// sweepInterval is how often idle connections are looked at; it bounds how
// much longer than idleTimeout one may live.
const sweepInterval = 10 * time.Second

// sweep ends connections that have been idle for too long or whose peers nobody
// vouches for any more, and reads credentials that are in use. New starts it, Close
// ends it.
func (p *Proxy) sweep() {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-p.sweeping:
			return
		case <-p.published:
		case <-tick.C:
		}
		p.mu.Lock()
		upstreams := p.inUse()
		p.mu.Unlock()
		if t := p.table.Load(); t != nil {
			t.readCredentials(upstreams, p.log)
		}
		for _, u := range upstreams {
			for _, m := range u.members {
				m.pool.sweep(u)
				m.shared.sweep(u)
				if m.link != nil {
					m.measure()
				}
			}
		}
		p.review()
		p.workers.trim()
	}
}

// Node returns what this proxy is.
func (p *Proxy) Node() *mesh.Node { return p.node }

// Addresses returns where the proxy listens, by the name of the listener:
// "outbound", "inbound", "gateway:80".
func (p *Proxy) Addresses() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]string{}
	for name, l := range p.listeners {
		out[name] = l.address.String()
	}
	return out
}

// Close ends everything at once.
func (p *Proxy) Close() error {
	p.draining.Store(true)
	p.shut.Store(true)
	p.alone.Store(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	close(p.sweeping)
	p.workers.close()
	for name := range p.listeners {
		p.closeListener(name)
	}
	for _, l := range p.shutting {
		l.closeAll()
	}
	for _, u := range p.inUse() {
		u.close()
	}
	p.askers.close()
	p.exporters.close()
	p.services.close()
	if p.options.Keys == nil {
		p.keys.Close()
	}
	return nil
}
