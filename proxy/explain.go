package proxy

import (
	"cmp"
	stdtls "crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"isthmus/explain"
	"isthmus/http1"
	"isthmus/mesh"
)

// Explain says what becomes of a request, by the way that requests walk, without
// sending anything and without leaving a trace in limits, counters or logs; limits
// are asked where the question says when. An error is a question that makes no
// sense.
func (p *Proxy) Explain(q explain.Question) (*explain.Explanation, error) {
	t := p.table.Load()
	if t == nil {
		return nil, errors.New("there is no configuration yet")
	}
	x, u, err := p.imagine(t, q)
	if err != nil {
		return nil, err
	}
	s := t.snapshot
	e := &explain.Explanation{
		Request:  cmp.Or(q.Method, "GET") + " " + u.Redacted(),
		Listener: listenerName(x.conn.kind, x.conn.port),
		Node:     s.Node.Member(),
		Snapshot: explain.Snapshot{Number: s.Number, Hash: s.Config.Hash},
		Tried:    []explain.Tried{}, Destinations: []explain.Destination{}, Policies: []explain.Policy{},
	}
	if r := passedOn(x, t, u); r != nil {
		e.Outcome, e.Host = explain.PassedOn, x.conn.serverName
		by := "by the server name in its TLS"
		if e.Host == "" {
			by = "since the port is of protocol TCP"
		}
		e.Notes = append(e.Notes, "the connection is passed on as it comes, "+by+": nothing in the request counts")
		x.route = r.route
		e.Route = &explain.Route{Name: r.route.name, Match: r.describe(x.conn.serverName), Source: r.route.rule.Source.String()}
		x.explainDestinations(e)
		if x.conn.kind != outbound {
			x.explainConnection(e, t, r)
		}
		x.collectPolicies(e)
		return e, nil
	}
	if x.conn.kind == outbound && x.conn.https {
		x.conn.https = false
		e.Notes = append(e.Notes, "no route is for TLS connections with the server name "+x.conn.serverName+": what is said here is of the request in plain text, whose scheme is http")
	}
	kind, status := x.head(q)
	if kind == NoError {
		if x.conn.kind != outbound {
			e.Access = x.explainCaller(t)
			x.asked.access = e.Access
		}
		kind = x.decide()
	}
	if vh := x.host; vh != nil {
		e.Host = vh.name + ":" + strconv.FormatUint(uint64(vh.port), 10)
		if kind == NoError || kind == NoRoute {
			x.explainTried(e, vh)
		}
	}
	x.explainLimits(e)
	if kind == NoError && x.route != nil && !q.At.IsZero() {
		kind = x.admitAt(e, q.At)
	}
	if kind == NoError && x.route != nil {
		x.setDeadline()
		if kind = x.explainRoute(e); kind == NoError {
			x.explainThere(e)
		}
	}
	if kind != NoError {
		x.explainRefusal(e, kind, status)
	}
	x.collectPolicies(e)
	return e, nil
}

func listenerName(kind listenerKind, port uint32) string {
	switch kind {
	case inbound:
		return "inbound"
	case gateway:
		return gatewayName(port)
	}
	return "outbound"
}

// imagine makes an exchange on a connection that is none.
func (p *Proxy) imagine(t *table, q explain.Question) (*exchange, *url.URL, error) {
	u, err := url.Parse(q.URL)
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("%q is no URL: %w", q.URL, errors.Unwrap(err))
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, nil, fmt.Errorf("%q is no URL of a request: write http://HOST/PATH or https://HOST/PATH", q.URL)
	}
	c := &conn{stream: &stream{fd: -1}, client: &client{
		proxy: p, address: q.Address, peer: q.Address.String(),
		https: u.Scheme == "https", serverName: mesh.NormalizeHost(u.Hostname()), identity: q.Caller,
	}}
	if !c.https {
		c.serverName = ""
	}
	if !q.Address.IsValid() {
		c.address = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		c.peer = c.address.String()
	}
	if err := c.choose(t, q.Listener, u); err != nil {
		return nil, nil, err
	}
	c.patience = &p.patience[c.kind]
	if c.https && q.ServerName != "" {
		c.serverName = strings.ToLower(q.ServerName)
	}
	if c.kind == inbound {
		c.underTLS(q)
	}
	x := &exchange{conn: c, table: t, asked: &inquiry{access: &explain.Access{}}, start: now()}
	x.clock = x.start
	return x, u, nil
}

// underTLS has a connection to the inbound listener be one by mTLS where the question says
// so, for the service that its server name names.
func (c *conn) underTLS(q explain.Question) {
	c.https, c.serverName = q.Caller != "" || q.ServerName != "", q.ServerName
	if !c.https {
		return
	}
	c.secure = &stdtls.Conn{} // which says that TLS is spoken, and is never used
	if port, _, host, ok := mesh.ParseDestinationSNI(q.ServerName); ok {
		c.destinationHost, c.destinationPort = []byte(host), port
	}
}

// choose finds the listener that is meant: for a request without one, the
// outbound, but a gateway's port where only that knows the host.
func (c *conn) choose(t *table, name string, u *url.URL) error {
	port := uint32(80)
	if u.Scheme == "https" {
		port = 443
	}
	named, _ := strconv.ParseUint(u.Port(), 10, 16)
	if named != 0 {
		port = uint32(named)
	}
	switch {
	case name == "inbound":
		c.kind = inbound
	case name == "outbound":
	case strings.HasPrefix(name, "gateway:"):
		n, err := strconv.ParseUint(name[len("gateway:"):], 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("listener %q: write gateway:PORT, with the port of the Gateway", name)
		}
		c.kind, c.port = gateway, uint32(n)
	case name != "":
		return fmt.Errorf("there is no listener %q: write outbound, inbound or gateway:PORT", name)
	default:
		var scratch [256]byte
		host, _, ok := splitAuthority(scratch[:], []byte(u.Host)) // as requests have it: of IPv6 in brackets
		if ok && t.outbound.find(host, uint32(named)) == nil && t.gateways[port].knows(host, c) {
			c.kind, c.port = gateway, port
		}
	}
	return nil
}

// knows reports whether a port of a gateway does something for a host.
func (t *gatewayTable) knows(host []byte, c *conn) bool {
	switch {
	case t == nil:
		return false
	case c.https:
		return t.sni != nil && t.sni.find(c.serverName, c) != nil
	}
	return t.hosts != nil && t.hosts.find(host, 0) != nil
}

// head writes the request as a client would, and reads it as from one. status is
// that of a refusal.
func (x *exchange) head(q explain.Question) (k Kind, status int) {
	u, _ := url.Parse(q.URL)
	target := u.EscapedPath()
	// url.Parse has decoded what the request may well hold: what was written counts.
	if _, rest, ok := strings.Cut(q.URL, "://"); ok {
		if i := strings.IndexAny(rest, "/?#"); i >= 0 {
			target, _, _ = strings.Cut(rest[i:], "#")
		}
	}
	if !strings.HasPrefix(target, "/") {
		target = "/" + target
	}
	var b strings.Builder
	b.WriteString(cmp.Or(q.Method, "GET") + " " + target + " HTTP/1.1\r\n")
	host := u.Host
	for _, f := range q.Fields {
		if strings.EqualFold(f.Name, "host") {
			host = f.Value
			continue
		}
		b.WriteString(f.Name + ": " + f.Value + "\r\n")
	}
	b.WriteString("host: " + host + "\r\n\r\n")
	head := []byte(b.String())
	n, err := x.req.Parse(head, http1.Limits{})
	var bad *http1.Error
	switch {
	case errors.As(err, &bad):
		return BadRequest, bad.Status
	case err != nil || n != len(head):
		return BadRequest, 400 // a line break in a value ends the head
	}
	return x.judgeHead()
}

// passedOn returns the route of a connection whose bytes are passed on: of TLS that
// is not terminated here, or to a port of protocol TCP; nil if requests count.
func passedOn(x *exchange, t *table, u *url.URL) *tcpRoute {
	c := x.conn
	if c.kind == inbound {
		return c.passedThrough(t.inbound, u)
	}
	if c.kind == gateway && t.gateways[c.port].raw() {
		c.serverName, c.identity = "", "" // nobody looks at what comes
		return firstFit(t.gateways[c.port].tcp, c)
	}
	names := t.sni
	if c.kind == gateway && t.gateways[c.port] != nil {
		names = t.gateways[c.port].sni
	}
	if !c.https || names == nil {
		return nil
	}
	r := names.find(c.serverName, c)
	if r == nil || r.terminate != nil && r.terminate.hosts != nil {
		return nil
	}
	if r.terminate == nil {
		c.identity = "" // whoever the client proves to be, it proves to the other end
	}
	if r.terminate != nil {
		for _, relay := range r.terminate.relay {
			return relay
		}
		return nil
	}
	return r
}

// passedThrough returns the route by which an east-west gateway passes the mTLS of
// another proxy on; nil if it ends that itself.
func (c *conn) passedThrough(t *inboundTable, u *url.URL) *tcpRoute {
	var scratch [256]byte
	host, port, ok := splitAuthority(scratch[:], []byte(u.Host))
	if c.destinationHost != nil {
		host, port, ok = c.destinationHost, c.destinationPort, true
	}
	if !ok || !c.https || t.through == nil || t.hosts.find(host, port) != nil {
		return nil
	}
	vh := t.through.find(host, port)
	if vh == nil {
		return nil
	}
	name := mesh.DestinationSNI(vh.port, "", vh.name)
	r := t.passed.find(name, c)
	if r != nil {
		c.serverName, c.identity = name, ""
	}
	return r
}

// explainRefusal says how a request ends that goes nowhere.
func (x *exchange) explainRefusal(e *explain.Explanation, k Kind, status int) {
	a := &answers[k]
	e.Outcome, e.Flag, e.Detail = explain.Refused, a.flag, a.detail
	e.Status = cmp.Or(status, a.status)
	switch k {
	case Unauthorized:
		e.Status, e.Reason = x.badToken.Status, "its token is not to be believed: "+x.badToken.Error()
	case Forbidden:
		e.Reason = x.refusal.Error()
	case NoRoute:
		e.Reason = x.whyNoRoute(e)
		host, _, ok := splitAuthority(x.scratch[:], x.req.Authority)
		e.Unheard = ok && x.host == nil && x.conn.kind == outbound && x.table.snapshot.Registry.MayBeHeard(string(host))
	case FaultInjected:
		e.Status, e.Reason = abortStatus(x.route.fault), "the route's fault aborts every request"
	case RateLimited:
		e.Status, e.Reason = x.limited.status, "the bucket of a rate limit is empty"
	case Misdirected:
		e.Reason = fmt.Sprintf("TLS was terminated for the server name %q, and the host is another Gateway server's, or none's", x.conn.serverName)
	case PlainText:
		e.Reason = "there is no answer, the connection ends: the port asks for mTLS (PeerAuthentication), and the caller comes in plain text; give its identity by --from"
		if x.conn.secure != nil {
			e.Reason = "there is no answer, the connection ends: the port takes no mTLS (PeerAuthentication DISABLE)"
		}
	case BadRequest:
		e.Reason = "the request is malformed, or could be read in two ways"
		if said, ok := x.trail.cause.(notTaken); ok {
			e.Reason = string(said)
		}
	}
}

// collectPolicies lists every block that comes from a file, for all to see at
// once.
func (x *exchange) collectPolicies(e *explain.Explanation) {
	add := func(block, source, says, destination string) {
		if source != "" {
			e.Policies = append(e.Policies, explain.Policy{Block: block, Source: source, Says: says, Destination: destination})
		}
	}
	for _, d := range e.Destinations {
		for _, p := range d.Policies {
			add(p.Block, p.Source, p.Says, d.Host)
		}
	}
	if e.Retries != nil {
		add("retries", e.Retries.Source, fmt.Sprintf("%d more tries on %s", e.Retries.Attempts, e.Retries.On), "")
	}
	for _, f := range e.Effects {
		add(f.Name, f.Source, f.Says, "")
	}
	for _, l := range e.Limits {
		add("rateLimit", l.Source, l.Says, "")
	}
	if a := e.Access; a != nil {
		add("peerAuthentication", a.ModeFrom, a.Mode, "")
		for _, s := range a.TokenSource {
			add("requestAuthentication", s, "token "+a.Token, "")
		}
		add("authorizationPolicy", a.Source, a.Verdict+" by "+a.By, "")
	}
}
