package accesslog

import (
	"net/netip"
	"sync/atomic"
)

// ClientEnd is what is known of the connection that an exchange came by. What lines
// say of it is made once, and kept with it: it must not change once an exchange
// has been logged. Any goroutine may use it.
type ClientEnd struct {
	Local      netip.AddrPort
	Remote     netip.AddrPort // the client
	ServerName string         // that TLS was for
	Peer       string         // identity that the client has proved

	memo memo
}

// UpstreamEnd is what is known of the connection that its reply came by, or, where
// there was none, of where it should have come from. What lines say of it is kept
// with it as with [ClientEnd].
type UpstreamEnd struct {
	Name    string // of the upstream: "outbound|80||reviews.prod.svc.cluster.local"
	Host    netip.AddrPort
	Local   netip.AddrPort
	Cluster string // whose endpoint it was

	memo memo
}

// memo keeps what lines say of an end: a third of a line of Istio's.
type memo struct{ last atomic.Pointer[remembered] }

// remembered are the runs of a format of one scope, as text.
type remembered struct {
	format *Format
	text   []byte
	ends   []int // of the runs, in text
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
		switch p.kind {
		case opRequest, opReply:
			f.wanted = append(f.wanted, wanted{p.kind, p.argument.fields, int(p.length)})
		case opTrace:
			f.wanted = append(f.wanted, wanted{kind: opTrace})
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

// of returns what lines of a format say of the end that the memo belongs to, of
// which from is the source.
func (m *memo) of(f *Format, s scope, from source) *remembered {
	r := &remembered{format: f}
	r.make(s, &from)
	m.last.Store(r)
	return r
}

// remembered returns what lines of a format say of a client's connection.
func (c *ClientEnd) remembered(f *Format) *remembered {
	if r := c.memo.last.Load(); r != nil && r.format == f {
		return r
	}
	return c.memo.of(f, ofClient, source{client: c})
}

// remembered returns what lines of a format say of an upstream's connection.
func (u *UpstreamEnd) remembered(f *Format) *remembered {
	if r := u.memo.last.Load(); r != nil && r.format == f {
		return r
	}
	return u.memo.of(f, ofUpstream, source{upstream: u})
}

// make makes the text of the runs of a scope anew.
func (r *remembered) make(s scope, from *source) {
	r.text, r.ends = r.text[:0], r.ends[:0]
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
