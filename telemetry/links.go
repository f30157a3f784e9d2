package telemetry

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Place is where a proxy or an endpoint is.
type Place struct{ Cluster, Locality string }

// Link counts what goes from this proxy to one place. Its fields may be written
// by any goroutine.
type Link struct {
	succeeded, failed, lost atomic.Uint64 // by replies: below 500, from 500 on, none
	gone                    atomic.Uint64 // that clients did not wait for
	sent, received          atomic.Uint64 // bytes, heads included
	latency                 histogram     // until replies began

	Refused    atomic.Uint64 // connections that could not be opened
	Silent     atomic.Uint64 // of whose opening nothing was heard
	Handshakes atomic.Uint64 // TLS that failed

	shown   uint64    // its total when the page was last made; guarded by Links.mu
	changed time.Time // when it last was in use, was asked for, or had changed since; likewise

	roundTrip atomic.Int64 // smoothed, of the connection last looked at, ns; 0: none yet
	measured  atomic.Int64 // when that was last heard from, in Unix seconds
}

// Gone counts a request whose client went away before the reply began, which says
// nothing of the link, and its bytes.
func (l *Link) Gone(sent int64) {
	l.gone.Add(1)
	l.sent.Add(uint64(sent))
}

// Reply counts a request whose last try went over the link: the status of its
// reply, or what means the same as that of gRPC, 0 if there was none, how long it took to begin, and bytes both ways.
func (l *Link) Reply(status int, waited time.Duration, sent, received int64) {
	switch {
	case status == 0:
		l.lost.Add(1)
	case status >= 500:
		l.failed.Add(1)
	default:
		l.succeeded.Add(1)
	}
	if status != 0 {
		l.latency.observe(int64(waited), float64(time.Millisecond))
	}
	l.sent.Add(uint64(sent))
	l.received.Add(uint64(received))
}

// RoundTrip notes how long the kernel takes a round trip to be, by a connection on
// which it last heard from the other end at that time.
func (l *Link) RoundTrip(d time.Duration, heard time.Time) {
	if at := heard.Unix(); at >= l.measured.Load() { // else another connection knows better
		l.roundTrip.Store(int64(d))
		l.measured.Store(at)
	}
}

// rttKept is how long a round trip is shown when nothing is heard any more: of a
// place that cannot be reached there is none, though connections to it be kept.
const rttKept = 5 * time.Minute

// total changes with whatever is counted.
func (l *Link) total() uint64 {
	return l.succeeded.Load() + l.failed.Load() + l.lost.Load() + l.gone.Load() + l.Refused.Load() + l.Silent.Load() + l.Handshakes.Load()
}

// Links are those of one proxy.
type Links struct {
	from  Place
	inUse func(found func(*Link))

	mu   sync.Mutex // guards byTo
	byTo map[Place]*Link
}

// maxLinks bounds how many places are told apart; clusters and their zones are
// few.
const maxLinks = 1000

// NewLinks makes the links of a proxy. inUse finds those that are held, and are shown
// though nothing is counted.
func NewLinks(from Place, inUse func(found func(*Link))) *Links {
	return &Links{from: from, inUse: inUse, byTo: map[Place]*Link{}}
}

// To returns the link to a place.
func (l *Links) To(p Place) *Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	link := l.byTo[p]
	if link == nil {
		if len(l.byTo) >= maxLinks {
			p = Place{}
			if link = l.byTo[p]; link != nil {
				return link
			}
		}
		link = &Link{}
		l.byTo[p] = link
	}
	link.changed = time.Now()
	return link
}

// sweep forgets the places that are gone, and returns the rest.
func (l *Links) sweep() map[Place]*Link {
	used := map[*Link]bool{}
	l.inUse(func(k *Link) { used[k] = true })
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for to, k := range l.byTo {
		if total := k.total(); used[k] || total != k.shown {
			k.shown, k.changed = total, now
		} else if now.Sub(k.changed) > KeptFor {
			delete(l.byTo, to)
		}
	}
	return maps.Clone(l.byTo)
}

// LinkStats is a link as the console shows it.
type LinkStats struct {
	To                      Place
	Succeeded, Failed, Lost uint64
	Sent, Received          uint64
	Latency                 time.Duration // until replies began: their sum
	RoundTrip               time.Duration // the last that was measured; 0: not known
	ConnectFailures         uint64
}

// List returns what the links have counted.
func (l *Links) List() []LinkStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]LinkStats, 0, len(l.byTo))
	for to, k := range l.byTo {
		out = append(out, LinkStats{
			To: to, Succeeded: k.succeeded.Load(), Failed: k.failed.Load(), Lost: k.lost.Load(), Sent: k.sent.Load(), Received: k.received.Load(),
			Latency: time.Duration(k.latency.sum.Load()), RoundTrip: time.Duration(k.roundTrip.Load()),
			ConnectFailures: k.Refused.Load() + k.Silent.Load() + k.Handshakes.Load(),
		})
	}
	return out
}

var (
	linkFamily        = family{"isthmus_link_requests_total", "counter", "Requests by the place of the endpoint that was tried last: success (below 500), error (from 500 on), lost (no reply), gone (the client did not wait)."}
	linkSentFamily    = family{"isthmus_link_sent_bytes_total", "counter", "Bytes of requests to a place."}
	linkReplyFamily   = family{"isthmus_link_received_bytes_total", "counter", "Bytes of replies from a place."}
	linkLatencyFamily = family{"isthmus_link_latency_milliseconds", "histogram", "How long replies from a place took to begin."}
	linkConnectFamily = family{"isthmus_link_connect_failures_total", "counter", "Connections to a place that could not be opened: refused, timeout, tls."}
	linkRTTFamily     = family{"isthmus_link_rtt_seconds", "gauge", "Round trip to a place, as the kernel has it of a connection in use."}

	linkLabels     = newLabels("source_cluster", "source_locality", "destination_cluster", "destination_locality")
	outcomeLabels  = newLabels("source_cluster", "source_locality", "destination_cluster", "destination_locality", "outcome")
	connectsLabels = newLabels("source_cluster", "source_locality", "destination_cluster", "destination_locality", "reason")
)

// Show implements [Source].
func (l *Links) Show(p *Page) {
	byTo := l.sweep()
	each := func(f *family, show func(to Place, k *Link)) {
		p.begin(f)
		for to, k := range byTo {
			show(to, k)
		}
	}
	plain := func(to Place) { p.set(linkLabels, l.from.Cluster, l.from.Locality, to.Cluster, to.Locality) }
	each(&linkFamily, func(to Place, k *Link) {
		for _, o := range [...]struct {
			name string
			n    *atomic.Uint64
		}{{"success", &k.succeeded}, {"error", &k.failed}, {"lost", &k.lost}, {"gone", &k.gone}} {
			p.set(outcomeLabels, l.from.Cluster, l.from.Locality, to.Cluster, to.Locality, o.name)
			p.count(&linkFamily, o.n.Load())
		}
	})
	each(&linkSentFamily, func(to Place, k *Link) { plain(to); p.count(&linkSentFamily, k.sent.Load()) })
	each(&linkReplyFamily, func(to Place, k *Link) { plain(to); p.count(&linkReplyFamily, k.received.Load()) })
	each(&linkLatencyFamily, func(to Place, k *Link) {
		plain(to)
		p.histogram(&linkLatencyFamily, &k.latency, float64(time.Millisecond), nil)
	})
	each(&linkConnectFamily, func(to Place, k *Link) {
		for _, o := range [...]struct {
			reason string
			n      *atomic.Uint64
		}{{"refused", &k.Refused}, {"timeout", &k.Silent}, {"tls", &k.Handshakes}} {
			p.set(connectsLabels, l.from.Cluster, l.from.Locality, to.Cluster, to.Locality, o.reason)
			p.count(&linkConnectFamily, o.n.Load())
		}
	})
	each(&linkRTTFamily, func(to Place, k *Link) {
		if d := k.roundTrip.Load(); d != 0 && time.Since(time.Unix(k.measured.Load(), 0)) < rttKept {
			plain(to)
			p.value(&linkRTTFamily, time.Duration(d).Seconds())
		}
	})
}
