package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	security "istio.io/api/security/v1beta1"

	"isthmus/mesh"
)

// dryRunAnnotation makes a policy one that decides nothing (Istio).
const dryRunAnnotation = "istio.io/dry-run"

func readAuthorizationPolicy(d *document) {
	var p security.AuthorizationPolicy
	if !d.decode(&p) {
		return
	}
	out := &mesh.AuthorizationPolicy{Meta: d.meta(), Selector: p.Selector.GetMatchLabels(), DryRun: d.flag(dryRunAnnotation)}
	d.refuseTargets(len(p.TargetRefs) > 0 || p.TargetRef != nil)
	switch p.Action {
	case security.AuthorizationPolicy_DENY:
		out.Action = mesh.ActionDeny
	case security.AuthorizationPolicy_AUDIT:
		out.Action = mesh.ActionAudit
	case security.AuthorizationPolicy_CUSTOM:
		out.Action = mesh.ActionCustom
	}
	switch out.Provider = p.GetProvider().GetName(); {
	case out.Action == mesh.ActionCustom && out.Provider == "":
		d.error("provider.name", "is missing: CUSTOM asks one of the mesh configuration's extensionProviders")
	case out.Action != mesh.ActionCustom && p.GetProvider() != nil:
		d.error("provider", "goes with action CUSTOM alone")
	}
	for i, r := range p.Rules {
		out.Rules = append(out.Rules, d.authorizationRule(r, fmt.Sprintf("rules[%d]", i)))
	}
	switch {
	case len(out.Rules) > 0:
	case out.Action == mesh.ActionAllow:
		d.find(Info, ISM0022, "rules", "are missing: an ALLOW policy without any allows nothing, so that everything is refused which no other one allows")
	default:
		d.find(Warning, ISM0022, "rules", "are missing: a policy without any matches nothing, so it has no effect; rules: [{}] matches everything")
	}
	d.reader.config.AuthorizationPolicies = append(d.reader.config.AuthorizationPolicies, out)
	d.reader.authorization = append(d.reader.authorization, located[*mesh.AuthorizationPolicy]{out, d})
}

// refuseTargets refuses a policy that would be for something else than it says.
func (d *document) refuseTargets(set bool) {
	if set {
		d.error("targetRefs", "name resources of the Gateway API and waypoints, which Isthmus does not read: write selector")
	}
}

// isForOthers reports, and says, that a resource is for something that this proxy is
// not, where it is of no use without.
func (d *document) isForOthers(set bool) bool {
	if set {
		d.find(Warning, ISM0003, "targetRefs", "name resources of the Gateway API and waypoints, which Isthmus does not read, so it has no effect: write selector, or workloadSelector")
	}
	return set
}

func (d *document) authorizationRule(r *security.Rule, path string) *mesh.AuthorizationRule {
	out := &mesh.AuthorizationRule{Source: d.source(path)}
	for _, part := range []struct {
		field string
		n     int
		means string
	}{{"from", len(r.From), "everybody"}, {"to", len(r.To), "everything"}, {"when", len(r.When), "any request"}} {
		if at := path + "." + part.field; part.n == 0 && d.has(at) {
			d.error(at, "is empty: write what is meant, or leave it out for "+part.means)
		}
	}
	for i, f := range r.From {
		at := fmt.Sprintf("%s.from[%d].source", path, i)
		m := d.peerMatch(f.GetSource(), at)
		if proto.Size(f.GetSource()) == 0 {
			d.error(at, "is empty: name at least one field, or leave from out for everybody")
		}
		out.From = append(out.From, m)
	}
	for i, t := range r.To {
		at := fmt.Sprintf("%s.to[%d].operation", path, i)
		m := d.operationMatch(t.GetOperation(), at)
		if proto.Size(t.GetOperation()) == 0 {
			d.error(at, "is empty: name at least one field, or leave to out for everything")
		}
		out.To = append(out.To, m)
	}
	for i, c := range r.When {
		out.When = append(out.When, d.condition(c, fmt.Sprintf("%s.when[%d]", path, i)))
	}
	return out
}

func (d *document) peerMatch(s *security.Source, path string) mesh.PeerMatch {
	m := mesh.PeerMatch{
		Principals:        d.values(s.GetPrincipals(), s.GetNotPrincipals(), path, "principals", "notPrincipals"),
		RequestPrincipals: d.values(s.GetRequestPrincipals(), s.GetNotRequestPrincipals(), path, "requestPrincipals", "notRequestPrincipals"),
		Namespaces:        d.values(s.GetNamespaces(), s.GetNotNamespaces(), path, "namespaces", "notNamespaces"),
		ServiceAccounts:   d.values(s.GetServiceAccounts(), s.GetNotServiceAccounts(), path, "serviceAccounts", "notServiceAccounts"),
		TrustDomains:      d.values(s.GetTrustDomains(), s.GetNotTrustDomains(), path, "trustDomains", "notTrustDomains"),
		IPBlocks:          d.ipBlocks(s.GetIpBlocks(), s.GetNotIpBlocks(), path, "ipBlocks", "notIpBlocks"),
		RemoteIPBlocks:    d.ipBlocks(s.GetRemoteIpBlocks(), s.GetNotRemoteIpBlocks(), path, "remoteIpBlocks", "notRemoteIpBlocks"),
	}
	for _, list := range [][]string{m.Principals.In, m.Principals.NotIn} {
		for _, v := range list {
			if strings.HasPrefix(v, "spiffe://") {
				d.error(path+".principals", fmt.Sprintf("%q never fits: write it without spiffe://", v))
			}
		}
	}
	d.serviceAccounts(&m.ServiceAccounts, path+".serviceAccounts")
	if !m.ServiceAccounts.IsZero() && (!m.Principals.IsZero() || !m.Namespaces.IsZero()) {
		d.error(path+".serviceAccounts", "cannot stand beside principals or namespaces: it says both")
	}
	return m
}

// serviceAccounts puts the policy's namespace before accounts that have none.
func (d *document) serviceAccounts(v *mesh.Values, path string) {
	for _, list := range [][]string{v.In, v.NotIn} {
		for i, s := range list {
			if strings.Contains(s, "*") || strings.Count(s, "/") > 1 {
				d.error(path, fmt.Sprintf("%q is no service account: write name, or namespace/name", s))
			}
			if !strings.Contains(s, "/") {
				list[i] = d.namespace + "/" + s
			}
		}
	}
}

func (d *document) operationMatch(o *security.Operation, path string) mesh.OperationMatch {
	m := mesh.OperationMatch{
		Hosts:   d.values(o.GetHosts(), o.GetNotHosts(), path, "hosts", "notHosts"),
		Ports:   mesh.Values{In: o.GetPorts(), NotIn: o.GetNotPorts()},
		Methods: d.values(o.GetMethods(), o.GetNotMethods(), path, "methods", "notMethods"),
		Paths:   d.paths(o.GetPaths(), o.GetNotPaths(), path),
	}
	d.sayEmpty(m.Ports.In, path+".ports")
	d.sayEmpty(m.Ports.NotIn, path+".notPorts")
	for _, list := range [][]string{m.Ports.In, m.Ports.NotIn} {
		for _, p := range list {
			if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
				d.error(path+".ports", fmt.Sprintf("%q is no port between 1 and 65535", p))
			}
		}
	}
	return m
}

// values checks that a "*" stands at one end only.
func (d *document) values(in, notIn []string, path, field, notField string) mesh.Values {
	return d.eachValue(in, notIn, path, field, notField, d.pattern)
}

// eachValue has every value of two lists checked, with its path.
func (d *document) eachValue(in, notIn []string, path, field, notField string, check func(value, at string)) mesh.Values {
	for _, l := range []struct {
		field string
		list  []string
	}{{field, in}, {notField, notIn}} {
		at := path + "." + l.field
		d.sayEmpty(l.list, at)
		for i, s := range l.list {
			check(s, index(at, i))
		}
	}
	return mesh.Values{In: slices.Clone(in), NotIn: slices.Clone(notIn)}
}

// pattern refuses a value with a "*" elsewhere than at one end.
func (d *document) pattern(s, at string) {
	switch {
	case s == "":
		d.error(at, `is empty: write "*" for anything that is there`)
	case s != "*" && strings.Contains(strings.TrimSuffix(strings.TrimPrefix(s, "*"), "*"), "*"), len(s) > 1 && s[0] == '*' && s[len(s)-1] == '*':
		hint := ""
		if once := strings.ReplaceAll(s, "**", "*"); once != s && strings.Count(once, "*") == 1 {
			hint = fmt.Sprintf(": write %q; to Istio, the other * is one in the request", once)
		}
		d.error(at, fmt.Sprintf("%q: a * may stand at the beginning or the end, once%s", s, hint))
	}
}

// sayEmpty says of a list that is there, and has nothing in it, what it means: Istio
// takes it for one that is not there.
func (d *document) sayEmpty(list []string, path string) {
	if len(list) == 0 && d.has(path) {
		d.warning(path, "is empty, so it asks for nothing and whatever comes fits: write what is meant, or leave it out")
	}
}

// paths is values for paths, which may be templates too.
func (d *document) paths(in, notIn []string, path string) mesh.Values {
	return d.eachValue(in, notIn, path, "paths", "notPaths", func(s, at string) {
		if !strings.ContainsAny(s, "{}") {
			d.pattern(s, at)
		} else if problem := templateProblem(s); problem != "" {
			d.error(at, fmt.Sprintf("%q: %s", s, problem))
		}
	})
}

// templateProblem says what is wrong with a path template (Istio:
// ValidatePathTemplate); "" if nothing is.
func templateProblem(s string) string {
	last := false
	for segment := range strings.SplitSeq(s, "/") {
		switch {
		case segment == "{*}" || segment == "{**}":
			if last {
				return "{**} must be the last operator"
			}
			last = segment == "{**}"
		case strings.ContainsAny(segment, "{}*"):
			return "a segment is {*}, {**}, or holds neither braces nor *"
		}
	}
	return ""
}

func (d *document) ipBlocks(in, notIn []string, path, field, notField string) mesh.Blocks {
	read := func(list []string, field string) (out []netip.Prefix) {
		d.sayEmpty(list, path+"."+field)
		for i, s := range list {
			p, ok := prefixOf(s)
			if !ok {
				d.error(fmt.Sprintf("%s.%s[%d]", path, field, i), fmt.Sprintf("%q is neither an IP address nor a block such as 10.0.0.0/8", s))
				continue
			}
			out = append(out, p)
		}
		return out
	}
	return mesh.Blocks{In: read(in, field), NotIn: read(notIn, notField)}
}

// prefixOf reads an address or a block of them. Those of IPv4 that are written as
// IPv6 are what they stand for, as the addresses of clients are.
func prefixOf(s string) (netip.Prefix, bool) {
	const mapped = 96 // bits before an address of IPv4 (RFC 4291, section 2.5.5.2)
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	if p.Addr().Is4In6() && p.Bits() >= mapped {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	return p.Masked(), err == nil
}

func (d *document) condition(c *security.Condition, path string) mesh.Condition {
	out := mesh.Condition{Source: d.source(path)}
	key := c.GetKey()
	known := true
	switch name, inside := bracketed(key, "request.headers["); {
	case inside:
		out.Key, out.Name = mesh.KeyHeader, strings.ToLower(name)
		known = name != "" && !strings.ContainsAny(name, "[] ")
	default:
		if names, ok := bracketed(key, "request.auth.claims["); ok {
			out.Key, out.Claims = mesh.KeyClaims, strings.Split(names, "][")
			known = !slices.Contains(out.Claims, "")
			break
		}
		out.Key, known = mesh.ConditionKeys[key]
	}
	if !known {
		names := []string{"request.headers[NAME]", "request.auth.claims[NAME]"}
		for k := range mesh.ConditionKeys {
			names = append(names, k)
		}
		slices.Sort(names)
		d.error(path+".key", fmt.Sprintf("%q is none of %s%s", key, strings.Join(names, ", "), suggest(key, names)))
	}
	if len(c.GetValues())+len(c.GetNotValues()) == 0 {
		d.error(path, "has neither values nor notValues")
	}
	switch out.Key {
	case mesh.KeySourceIP, mesh.KeyRemoteIP, mesh.KeyDestinationIP:
		if known {
			out.Blocks = d.ipBlocks(c.GetValues(), c.GetNotValues(), path, "values", "notValues")
			return out
		}
	}
	out.Values = d.values(c.GetValues(), c.GetNotValues(), path, "values", "notValues")
	if out.Key == mesh.KeySourceServiceAccount && known {
		d.serviceAccounts(&out.Values, path)
	}
	return out
}

// bracketed returns what stands between a prefix and a closing bracket.
func bracketed(key, prefix string) (string, bool) {
	rest, ok := strings.CutPrefix(key, prefix)
	if !ok || !strings.HasSuffix(rest, "]") {
		return "", false
	}
	return rest[:len(rest)-1], true
}

// checkAuthorization names policies that ask for what cannot be there.
func (c *checker) checkAuthorization(node *mesh.Node) {
	for _, l := range c.authorization {
		p := l.value
		if p.Action == mesh.ActionCustom && p.Provider != "" && !slices.ContainsFunc(c.config.AuthorizationProviders, func(o *mesh.AuthorizationProvider) bool { return o.Name == p.Provider }) {
			why := fmt.Sprintf("there is no %q among extensionProviders of the mesh configuration (ConfigMap istio, key mesh), so nobody could say whom to let in", p.Provider)
			switch kind := c.otherProviders[p.Provider]; {
			case kind != "":
				why = fmt.Sprintf("%q is an extensionProvider of kind %s, which cannot say whom to let in: name one of envoyExtAuthzHttp or envoyExtAuthzGrpc", p.Provider, kind)
			case c.meshConfigOf == nil:
				why += ": give that ConfigMap, too"
			}
			l.doc.find(Error, IST0101, "provider.name", why)
		}
		tokens := slices.ContainsFunc(c.config.RequestAuthentications, func(r *mesh.RequestAuthentication) bool {
			return (r.Namespace == p.Namespace || r.Namespace == node.RootNamespace || p.Namespace == node.RootNamespace) && c.forSame(r.Selector, p.Selector)
		})
		for i, r := range p.Rules {
			c.checkSources(l.doc, r, fmt.Sprintf("rules[%d]", i))
			if tokens {
				continue
			}
			if at := asksForToken(r); at != "" {
				effect := "it never matches"
				if p.Action == mesh.ActionAllow {
					effect += ", and everything is refused that no other policy allows"
				}
				l.doc.find(Warning, ISM0020, fmt.Sprintf("rules[%d].%s", i, at), "asks for a token, and no RequestAuthentication is for the workloads that this policy selects, so no token is ever read there: "+effect+"; write a RequestAuthentication with the same selector")
			}
		}
	}
}

// asksForToken returns the field by which a rule fits requests with a token
// alone; "" if it does not.
func asksForToken(r *mesh.AuthorizationRule) string {
	for i, w := range r.When {
		switch w.Key {
		case mesh.KeyRequestPrincipal, mesh.KeyAudiences, mesh.KeyPresenter, mesh.KeyClaims:
			if len(w.Values.In) > 0 {
				return fmt.Sprintf("when[%d]", i)
			}
		}
	}
	for i, f := range r.From {
		if len(f.RequestPrincipals.In) > 0 {
			return fmt.Sprintf("from[%d].source.requestPrincipals", i)
		}
	}
	return ""
}

// checkSources says that sources are alternatives, where one takes another in.
func (c *checker) checkSources(d *document, r *mesh.AuthorizationRule, path string) {
	for i, f := range r.From {
		for j, o := range r.From {
			if i == j || len(f.Principals.In) == 0 || len(o.Namespaces.In) == 0 || len(o.Namespaces.NotIn) > 0 || !o.Principals.IsZero() || !o.RequestPrincipals.IsZero() || !o.IPBlocks.IsZero() || !o.RemoteIPBlocks.IsZero() || !o.TrustDomains.IsZero() {
				continue
			}
			within := !slices.ContainsFunc(f.Principals.In, func(p string) bool {
				id, ok := mesh.ParseIdentity("spiffe://" + p)
				return !ok || !slices.Contains(o.Namespaces.In, id.Namespace)
			})
			if within {
				d.find(Warning, ISM0021, fmt.Sprintf("%s.from[%d]", path, i), fmt.Sprintf("changes nothing: sources are alternatives, and from[%d] lets in the whole namespace; put both into one source to ask for both", j))
			}
		}
	}
}
