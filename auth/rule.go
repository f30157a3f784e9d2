package auth

import (
	"slices"
	"strconv"
	"strings"

	"isthmus/mesh"
)

// rule is a compiled AuthorizationRule.
type rule struct {
	policy  *policy
	index   int
	forbids bool
	from    []peerMatch
	to      []operationMatch
	when    []condition
}

type peerMatch struct {
	principals, requestPrincipals, namespaces, accounts, trustDomains texts
	ip, remote                                                        blocks
	request                                                           bool // requestPrincipals are asked for
}

type operationMatch struct {
	hosts, methods, paths texts
	ports                 []uint32
	notPorts              []uint32
	request               bool // something of HTTP is asked for
}

type condition struct {
	*mesh.Condition
	values texts
	blocks blocks
}

func newRule(p *policy, i int, m *mesh.AuthorizationRule, domains []string) *rule {
	r := &rule{policy: p, index: i, forbids: p.Action != mesh.ActionAllow}
	alias := func(v mesh.Values) texts { return newTexts(aliased(v, domains), newText) }
	for _, f := range m.From {
		r.from = append(r.from, peerMatch{
			principals: alias(f.Principals), requestPrincipals: newTexts(f.RequestPrincipals, newText), namespaces: newTexts(f.Namespaces, newText),
			accounts: newTexts(f.ServiceAccounts, newText), trustDomains: alias(f.TrustDomains), ip: newBlocks(f.IPBlocks), remote: newBlocks(f.RemoteIPBlocks),
			request: !f.RequestPrincipals.IsZero(),
		})
	}
	lower := func(s string) text { return newText(strings.ToLower(s)) }
	for _, o := range m.To {
		r.to = append(r.to, operationMatch{
			hosts: newTexts(o.Hosts, lower), methods: newTexts(o.Methods, newText), paths: newTexts(o.Paths, newPath),
			ports: ports(o.Ports.In), notPorts: ports(o.Ports.NotIn),
			request: !o.Hosts.IsZero() || !o.Methods.IsZero() || !o.Paths.IsZero(),
		})
	}
	for j := range m.When {
		w := &m.When[j]
		c := condition{Condition: w, values: newTexts(w.Values, newText), blocks: newBlocks(w.Blocks)}
		switch {
		case w.Key == mesh.KeySourcePrincipal, w.Key == mesh.KeySourceTrustDomain:
			c.values = alias(w.Values)
		case w.Key == mesh.KeyHeader && isHost(w.Name):
			c.values = newTexts(w.Values, lower)
		}
		r.when = append(r.when, c)
	}
	return r
}

// aliased puts principals, or trust domains, of one of the own trust domain's
// names under all of them. "cluster.local" stands for the own one, whatever its
// name, and for nobody else's; "*.example" is what it says, and more where it fits
// one of the names (Istio: trust domain aliases).
func aliased(v mesh.Values, domains []string) mesh.Values {
	expand := func(list []string) (out []string) {
		for _, s := range list {
			domain, rest, more := strings.Cut(s, "/")
			own := func(d string) bool {
				end, wild := strings.CutPrefix(domain, "*")
				return d == domain || wild && more && end != "" && strings.HasSuffix(d, end)
			}
			if domain != mesh.LocalDomain && !slices.ContainsFunc(domains, own) {
				out = append(out, s)
				continue
			}
			for _, d := range domains {
				switch {
				case own(d):
					d = s
				case more:
					d += "/" + rest
				}
				if !slices.Contains(out, d) {
					out = append(out, d)
				}
			}
		}
		return out
	}
	return mesh.Values{In: expand(v.In), NotIn: expand(v.NotIn)}
}

func ports(list []string) (out []uint32) {
	for _, s := range list {
		var n uint32
		for _, c := range s {
			n = n*10 + uint32(c-'0')
		}
		out = append(out, n)
	}
	return out
}

func (r *rule) match(q *Request) bool {
	if !r.matchFrom(q) || !r.matchTo(q) {
		return false
	}
	for i := range r.when {
		if !r.matchWhen(&r.when[i], q) {
			return false
		}
	}
	return true
}

func (r *rule) matchFrom(q *Request) bool {
	for i := range r.from {
		if r.from[i].miss(q, r.forbids) == "" {
			return true
		}
	}
	return len(r.from) == 0
}

func (r *rule) matchTo(q *Request) bool {
	for i := range r.to {
		if r.to[i].miss(q, r.forbids) == "" {
			return true
		}
	}
	return len(r.to) == 0
}

// Of a connection that carries no requests, conditions on requests cannot be
// judged: a rule that allows never fits it, one that forbids does without them
// (Istio: HTTP attributes on TCP).

// miss names the first field that does not fit; "": all do.
func (m *peerMatch) miss(q *Request, forbids bool) string {
	p := q.Peer
	switch {
	case !m.principals.matchString(p.Principal):
		return "principals"
	case !m.namespaces.matchString(p.Namespace):
		return "namespaces"
	case !m.accounts.matchString(p.ServiceAccount):
		return "serviceAccounts"
	case !m.trustDomains.matchString(p.TrustDomain):
		return "trustDomains"
	case !m.ip.match(q.Source):
		return "ipBlocks"
	case !m.remote.match(q.Remote):
		return "remoteIpBlocks"
	case !m.request, q.HTTP == nil && forbids:
		return ""
	case q.HTTP == nil:
		return "requestPrincipals"
	}
	if !m.requestPrincipals.matchString(q.caller()) {
		return "requestPrincipals"
	}
	return ""
}

// miss is the same for what is asked for.
func (m *operationMatch) miss(q *Request, forbids bool) string {
	switch {
	case len(m.ports) > 0 && !slices.Contains(m.ports, q.Port) || slices.Contains(m.notPorts, q.Port):
		return "ports"
	case !m.request, q.HTTP == nil && forbids:
		return ""
	case q.HTTP == nil:
		return "paths, methods or hosts, which a connection has none of"
	case !m.methods.match(q.HTTP.Method):
		return "methods"
	case !m.paths.match(q.Path):
		return "paths"
	case !m.hosts.matchHost(q.HTTP.Authority):
		return "hosts"
	}
	return ""
}

func (r *rule) matchWhen(c *condition, q *Request) bool {
	p := q.Peer
	switch c.Key {
	case mesh.KeySourceIP:
		return c.blocks.match(q.Source)
	case mesh.KeyRemoteIP:
		return c.blocks.match(q.Remote)
	case mesh.KeyDestinationIP:
		return c.blocks.match(q.Destination)
	case mesh.KeySourceNamespace:
		return c.values.matchString(p.Namespace)
	case mesh.KeySourcePrincipal:
		return c.values.matchString(p.Principal)
	case mesh.KeySourceServiceAccount:
		return c.values.matchString(p.ServiceAccount)
	case mesh.KeySourceTrustDomain:
		return c.values.matchString(p.TrustDomain)
	case mesh.KeyDestinationPort:
		var digits [10]byte
		return c.values.match(appendUint(digits[:0], q.Port))
	case mesh.KeySNI:
		return c.values.matchString(q.SNI)
	}
	if q.HTTP == nil {
		return r.forbids
	}
	if c.Key == mesh.KeyHeader {
		switch {
		case isHost(c.Name):
			return c.values.matchHost(q.HTTP.Authority)
		case c.Name == ":method":
			return c.values.match(q.HTTP.Method)
		case c.Name == ":path":
			return c.values.match(q.Path)
		case c.Name == forwardedFor && q.Forwarded != nil:
			return c.values.match(q.Forwarded)
		}
		return c.values.matchHeader(q.HTTP, c.Name, r.forbids)
	}
	claims := q.Claims
	if claims == nil {
		claims = noClaims
	}
	switch c.Key {
	case mesh.KeyRequestPrincipal:
		return c.values.matchString(claims.Principal)
	case mesh.KeyAudiences:
		return c.values.matchList(claims.Audiences)
	case mesh.KeyPresenter:
		return c.values.matchString(claims.Presenter)
	case mesh.KeyClaims:
		return c.values.matchList(claims.Values(c.Claims...))
	}
	return false
}

var noClaims = &Claims{root: &claim{}}

func appendUint(dst []byte, n uint32) []byte {
	if n >= 10 {
		dst = appendUint(dst, n/10)
	}
	return append(dst, byte('0'+n%10))
}

// asksForToken reports whether a rule looks at what a token says.
func (r *rule) asksForToken() bool {
	for i := range r.from {
		if r.from[i].request {
			return true
		}
	}
	for i := range r.when {
		switch r.when[i].Key {
		case mesh.KeyRequestPrincipal, mesh.KeyAudiences, mesh.KeyPresenter, mesh.KeyClaims:
			return true
		}
	}
	return false
}

// near says how much of a rule fits.
func (r *rule) near(q *Request) (score int) {
	if r.matchFrom(q) {
		score++
	}
	if r.matchTo(q) {
		score++
	}
	for i := range r.when {
		if r.matchWhen(&r.when[i], q) {
			score++
		}
	}
	return score
}

// misses names the first part of a rule that does not fit. Of alternatives, none
// of which does, each says which of its fields it is.
func (r *rule) misses(q *Request) string {
	alternatives := func(n int, miss func(i int) (at string)) string {
		var out []string
		for i := range n {
			out = append(out, miss(i))
		}
		return strings.Join(out, " and ")
	}
	if !r.matchFrom(q) {
		return alternatives(len(r.from), func(i int) string {
			return "from[" + strconv.Itoa(i) + "].source." + r.from[i].miss(q, r.forbids)
		})
	}
	if !r.matchTo(q) {
		return alternatives(len(r.to), func(i int) string {
			return "to[" + strconv.Itoa(i) + "].operation." + r.to[i].miss(q, r.forbids)
		})
	}
	for i := range r.when {
		if !r.matchWhen(&r.when[i], q) {
			return "when[" + strconv.Itoa(i) + "] " + r.when[i].KeyText()
		}
	}
	return ""
}
