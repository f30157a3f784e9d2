package telemetry

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Place is where a proxy or an endpoint is.
type Place struct{ Cluster, Locality string }

// Link counts what goes from this proxy to one place. Its fields may be written
// by any goroutine.
type Link struct {
	succeeded, failed, lost atomic.Uint64 // by replies: below 500, from 500 on, none
	sent, received          atomic.Uint64 // bytes, heads included
	latency                 histogram     // until replies began

	Refused    atomic.Uint64 // connections that could not be opened
	Silent     atomic.Uint64 // of whose opening nothing was heard
	Handshakes atomic.Uint64 // TLS that failed

	roundTrip atomic.Int64 // smoothed, of the connection last looked at, ns; 0: none yet
}

// Reply counts a request whose last try went over the link: the status of its
// reply, 0 if there was none, how long it took to begin, and bytes both ways.
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

// RoundTrip notes how long the kernel takes a round trip to be.
func (l *Link) RoundTrip(d time.Duration) { l.roundTrip.Store(int64(d)) }

// Links are those of one proxy. It is a [prometheus.Collector].
type Links struct {
	from Place

	mu   sync.Mutex // guards byTo
	byTo map[Place]*Link
}

// maxLinks bounds how many places are told apart; clusters and their zones are
// few.
const maxLinks = 1000

// NewLinks makes the links of a proxy.
func NewLinks(from Place) *Links { return &Links{from: from, byTo: map[Place]*Link{}} }

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
	return link
}

// LinkStats is a link as the console shows it.
type LinkStats struct {
	To                      Place
	Succeeded, Failed, Lost uint64
	Sent, Received          uint64
	Latency                 time.Duration // until replies began: their sum
	RoundTrip               time.Duration // 0: not known
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
	linkLabels      = []string{"source_cluster", "source_locality", "destination_cluster", "destination_locality"}
	linkDesc        = prometheus.NewDesc("isthmus_link_requests_total", "Requests by the place of the endpoint that was tried last: success (below 500), error (from 500 on), lost (no reply).", append(linkLabels[:4:4], "outcome"), nil)
	linkSentDesc    = prometheus.NewDesc("isthmus_link_sent_bytes_total", "Bytes of requests to a place.", linkLabels, nil)
	linkReplyDesc   = prometheus.NewDesc("isthmus_link_received_bytes_total", "Bytes of replies from a place.", linkLabels, nil)
	linkLatencyDesc = prometheus.NewDesc("isthmus_link_latency_milliseconds", "How long replies from a place took to begin.", linkLabels, nil)
	linkConnectDesc = prometheus.NewDesc("isthmus_link_connect_failures_total", "Connections to a place that could not be opened: refused, timeout, tls.", append(linkLabels[:4:4], "reason"), nil)
	linkRTTDesc     = prometheus.NewDesc("isthmus_link_rtt_seconds", "Round trip to a place, as the kernel has it of a connection in use.", linkLabels, nil)
)

// Describe implements prometheus.Collector.
func (l *Links) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{linkDesc, linkSentDesc, linkReplyDesc, linkLatencyDesc, linkConnectDesc, linkRTTDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (l *Links) Collect(out chan<- prometheus.Metric) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for to, k := range l.byTo {
		v := []string{l.from.Cluster, l.from.Locality, to.Cluster, to.Locality}
		with := func(last string) []string { return append(v[:4:4], last) }
		out <- counter(linkDesc, float64(k.succeeded.Load()), with("success")...)
		out <- counter(linkDesc, float64(k.failed.Load()), with("error")...)
		out <- counter(linkDesc, float64(k.lost.Load()), with("lost")...)
		out <- counter(linkSentDesc, float64(k.sent.Load()), v...)
		out <- counter(linkReplyDesc, float64(k.received.Load()), v...)
		out <- k.latency.metric(linkLatencyDesc, float64(time.Millisecond), v)
		out <- counter(linkConnectDesc, float64(k.Refused.Load()), with("refused")...)
		out <- counter(linkConnectDesc, float64(k.Silent.Load()), with("timeout")...)
		out <- counter(linkConnectDesc, float64(k.Handshakes.Load()), with("tls")...)
		if d := k.roundTrip.Load(); d != 0 {
			out <- gauge(linkRTTDesc, time.Duration(d).Seconds(), v...)
		}
	}
}
