package accesslog

import (
	"net/netip"
	"sync/atomic"
)

// ClientEnd is what is known of the connection that an exchange came by.
type ClientEnd struct {
	Local      netip.AddrPort
	Remote     netip.AddrPort // the client
	ServerName string         // that TLS was for
	Peer       string         // identity that the client has proved
}

// UpstreamEnd is what is known of the connection that its reply came by.
type UpstreamEnd struct {
	Upstream      string // "outbound|80||reviews.prod.svc.cluster.local"
	UpstreamHost  netip.AddrPort
	UpstreamLocal netip.AddrPort
	Cluster       string // whose endpoint it was
}

// Memo belongs to a connection, and keeps what lines say of it: that is a third of
// a line of Istio's, and hardly ever changes. Its zero value is ready. Any
// goroutine may use it.
type Memo struct{ last atomic.Pointer[remembered] }

// remembered are the runs of a format that say something of one end, or of how an
// exchange went, as text. Of ends, it never changes.
type remembered struct {
	format   *Format
	client   ClientEnd
	upstream UpstreamEnd
	outcome  Outcome
	text     []byte
	ends     []int // of the runs, in text
}

// scope is what the text of an operator depends on.
type scope uint8

const (
	ofExchange scope = iota
	ofOutcome
	ofClient
	ofUpstream
	scopes
)

func (k opKind) scope() scope {
	switch k {
	case opProtocol, opStatus, opFlags, opDetails, opTermination, opFailure:
		return ofOutcome
	case opLocal, opLocalAddress, opRemote, opRemoteAddress, opServerName, opPeer:
		return ofClient
	case opUpstream, opUpstreamHost, opUpstreamAddress, opUpstreamLocal, opCluster:
		return ofUpstream
	}
	return ofExchange
}

// run is a row of parts of one scope.
type run struct {
	scope scope
	at    int // among those of its scope
	parts []part
}

// group makes the runs, and finds out what they need.
func (f *Format) group() {
	for i := range f.parts {
		p := &f.parts[i]
		f.asks[p.kind.scope()] = true
		if p.kind == opRequest || p.kind == opReply {
			f.wanted = append(f.wanted, wanted{p.kind, p.argument.fields, int(p.length)})
		}
	}
	var seen [scopes]int
	for from := 0; from < len(f.parts); {
		s := f.parts[from].kind.scope()
		to := from + 1
		for to < len(f.parts) && f.parts[to].kind.scope() == s {
			to++
		}
		f.runs = append(f.runs, run{s, seen[s], f.parts[from:to]})
		seen[s]++
		from = to
	}
}

// of returns the runs of a format that say something of an end of an exchange,
// remembered if they still say the same. m may be nil.
func (m *Memo) of(s scope, f *Format, e *Entry) *remembered {
	if m != nil {
		if r := m.last.Load(); r != nil && r.format == f && (s == ofClient && r.client == e.ClientEnd || s == ofUpstream && r.upstream == e.UpstreamEnd) {
			return r
		}
	}
	r := &remembered{format: f}
	if s == ofClient {
		r.client = e.ClientEnd
	} else {
		r.upstream = e.UpstreamEnd
	}
	r.make(s)
	if m != nil {
		m.last.Store(r)
	}
	return r
}

// learn makes it be of an outcome.
func (r *remembered) learn(f *Format, o *Outcome) {
	r.format, r.outcome = f, *o
	r.text, r.ends = r.text[:0], r.ends[:0]
	r.make(ofOutcome)
}

// make makes the text of the runs of a scope.
func (r *remembered) make(s scope) {
	from := source{facts: &Facts{Outcome: r.outcome}, client: &r.client, upstream: &r.upstream}
	for i := range r.format.runs {
		if run := &r.format.runs[i]; run.scope == s {
			r.text = from.appendParts(r.text, run.parts)
			r.ends = append(r.ends, len(r.text))
		}
	}
}

// run is the text of one of the runs.
func (r *remembered) run(i int) []byte {
	if i == 0 {
		return r.text[:r.ends[0]]
	}
	return r.text[r.ends[i-1]:r.ends[i]]
}
