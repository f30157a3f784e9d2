package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"isthmus/mesh"
)

func index(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }

// shortConnect is how short a connect time-out may be without a word: a SYN over
// a distance takes 10 to 150 ms to be answered, and one that is lost is sent
// again after 1 s (RFC 6298).
const shortConnect = 100 * time.Millisecond

// fewRequests is how many requests a connection should carry at the least: with
// TLS over a distance, opening one takes as long as several.
const fewRequests = 100

// lintDestinationRule looks at the numbers of a rule.
func (c *checker) lintDestinationRule(r *mesh.DestinationRule, d *document) {
	endpoints := c.endpointsOf(r.Host)
	c.lintSubsets(r, d, endpoints)
	blocks := policyBlocks(r)
	for _, path := range slices.Sorted(maps.Keys(blocks)) {
		p := blocks[path]
		if b := p.ConnectionPool; b != nil {
			lintPool(d, b, path+".connectionPool")
		}
		if p.RetryBudget != nil && p.ConnectionPool != nil && p.ConnectionPool.MaxRetries > 0 {
			d.warning(path+".connectionPool.http.maxRetries", "has no effect beside retryBudget, in Istio neither")
		}
		if b := p.OutlierDetection; b != nil {
			lintOutliers(d, b, len(endpoints), path+".outlierDetection")
		}
		above := []*mesh.TrafficPolicy{p}
		if p != &r.Policy {
			above = append(above, &r.Policy)
		}
		c.lintPortLevel(d, r, above, path)
	}
	for i, s := range r.Subsets {
		for _, label := range []string{"region", "zone", "subzone", "cluster"} {
			if v, ok := s.Labels[label]; ok {
				at := index("subsets", i) + ".labels." + label
				d.find(Info, ISM0046, at, fmt.Sprintf("%q is compared with the endpoint's locality, or its cluster, unless the endpoint bears a label of that name; Istio knows such labels only under topology.kubernetes.io and topology.istio.io", v))
			}
		}
	}
}

// lintPlain names the places where a rule has a service spoken to in plain text, or
// in TLS without a certificate, that takes mTLS alone.
func (c *checker) lintPlain(r *mesh.DestinationRule, d *document) {
	eachTLS(r, func(t *mesh.ClientTLS, path string) {
		if t.Mode != mesh.TLSDisable && t.Mode != mesh.TLSSimple {
			return
		}
		if s, mode := c.strictService(c.full(r.Host)); s != nil {
			d.find(Warning, ISM0066, path, fmt.Sprintf("service %s takes mTLS alone, since PeerAuthentication in %s says STRICT: every request to it fails; write mode: ISTIO_MUTUAL, or leave tls out", s.Key(), mode.Source))
		}
	})
}

// lintServerName names TLS that is begun for a ServiceEntry's wildcard without a name that
// its servers know.
func (c *checker) lintServerName(r *mesh.DestinationRule, d *document) {
	if !strings.HasPrefix(r.Host, "*") {
		return
	}
	eachTLS(r, func(t *mesh.ClientTLS, path string) {
		if t.Mode != mesh.TLSSimple && t.Mode != mesh.TLSMutual || t.SNI != "" {
			return
		}
		for _, s := range c.config.Services {
			for _, h := range s.Hosts {
				if strings.HasPrefix(h, "*") && mesh.MatchHost(r.Host, h) {
					d.warning(path, fmt.Sprintf("asks for the server name %s, as ServiceEntry %s/%s has it, and not for the request's host, as Istio does: few servers know it; write sni, or a ServiceEntry for each host", h, s.Namespace, s.Name))
					return
				}
			}
		}
	})
}

// strictService finds a Service that a rule's host stands for whose workloads take
// mTLS alone; nil: there is none.
func (c *checker) strictService(host string) (*mesh.Service, mesh.PeerMode) {
	strict := func(s *mesh.Service) (mesh.PeerMode, bool) {
		if s == nil || len(s.Selector) == 0 {
			return mesh.PeerMode{}, false
		}
		m := c.modes.of(s.Namespace, s.Selector)
		return m, m.StrictEverywhere()
	}
	if name, _, exact := mesh.ServiceOf(host); exact {
		s := c.services[name]
		if m, ok := strict(s); ok {
			return s, m
		}
		return nil, mesh.PeerMode{}
	}
	if !strings.HasPrefix(host, "*") {
		return nil, mesh.PeerMode{}
	}
	for _, s := range c.config.Services {
		own := s.Key()
		if s.IsEntry() || !mesh.MatchHost(host, own+".global") && !mesh.MatchHost(host, own+".svc."+mesh.LocalDomain) {
			continue
		}
		if m, ok := strict(s); ok {
			return s, m
		}
	}
	return nil, mesh.PeerMode{}
}

func lintPool(d *document, b *mesh.ConnectionPool, path string) {
	if b.ConnectTimeout > 0 && b.ConnectTimeout < shortConnect {
		d.find(Warning, ISM0048, path+".tcp.connectTimeout", fmt.Sprintf("%s is less than a connection to another region may take, and one lost packet (sent again after 1 s) fails every attempt: write 1s or more, since a failed connect goes to another endpoint at once", b.ConnectTimeout))
	}
	if n := b.MaxRequestsPerCon; n > 1 && n < fewRequests {
		d.find(Warning, ISM0052, path+".http.maxRequestsPerConnection", fmt.Sprintf("closes a connection after %d requests: each new one costs handshakes of TCP and TLS, over the distance to another cluster some hundred milliseconds; leave it out, or write %d or more", n, fewRequests))
	}
	if b.MaxRetries > 0 {
		d.find(Info, ISM0051, path+".http.maxRetries", fmt.Sprintf("%d is how many retries may be under way at once for the whole service, not how often one request is tried (retries.attempts of the VirtualService): while an endpoint fails, requests beyond it get no retry; retryBudget grows with the traffic", b.MaxRetries))
	}
}

func lintOutliers(d *document, b *mesh.OutlierDetection, endpoints int, path string) {
	if p := b.MaxEjectionPercent; p > 0 && p < 50 && endpoints*int(p) < 100 {
		at, which := path+".maxEjectionPercent", fmt.Sprintf("%d %%", p)
		if !d.has(at) {
			at, which = path, which+", the default of maxEjectionPercent,"
		}
		of := "fewer than " + strconv.Itoa((99+int(p))/int(p)) + " endpoints"
		if endpoints > 0 {
			of = "the endpoints that files give, " + strconv.Itoa(endpoints) + ","
		}
		d.find(Info, ISM0042, at, fmt.Sprintf("%s of %s is less than one: Istio ejects nobody then, Isthmus one where there are two or more; write 50 or more for a few endpoints", which, of))
	}
	if m := b.MinHealthPercent; m > 0 && b.MaxEjectionPercent+m <= 100 {
		d.find(Info, ISM0043, path+".minHealthPercent", fmt.Sprintf("%d is never reached by ejections: at most %d %% of the endpoints are ejected, so at least %d %% stay", m, b.MaxEjectionPercent, 100-b.MaxEjectionPercent))
	}
}

// lintPortLevel says that an entry for a port takes all blocks with it, of its own policy and,
// in a subset, of the rule's, and names ports that the service has not.
func (c *checker) lintPortLevel(d *document, r *mesh.DestinationRule, above []*mesh.TrafficPolicy, path string) {
	ports, known := c.ports(r.Host)
	for _, port := range slices.Sorted(maps.Keys(above[0].PortLevel)) {
		kept := blocksOf(above[0].PortLevel[port])
		var lost, beside []string
		for i, p := range above {
			if i > 0 {
				p = cmp.Or(p.PortLevel[port], p)
			}
			for _, b := range blocksOf(p) {
				if slices.Contains(lost, b.name) || slices.ContainsFunc(kept, func(k policyBlock) bool { return k.name == b.name }) {
					continue
				}
				if lost = append(lost, b.name); b.name != "retryBudget" {
					beside = append(beside, b.name)
				}
			}
		}
		if len(lost) > 0 {
			hint := ": write it once more beside the port"
			if len(beside) == 0 {
				hint = ""
			}
			d.find(Warning, ISM0062, path+".portLevelSettings", fmt.Sprintf("for port %d they stand in the place of all that is above them, so %s has no effect there%s", port, strings.Join(lost, " and "), hint))
		}
		if known && len(ports) > 0 && !slices.ContainsFunc(ports, func(q mesh.Port) bool { return q.Number == port }) {
			d.find(Warning, ISM0063, path+".portLevelSettings", fmt.Sprintf("%s has no port %d: they are about ports of the service, not of its workloads", r.Host, port))
		}
	}
}

// lintSubsets names subsets that none of the endpoints is in which files give.
func (c *checker) lintSubsets(r *mesh.DestinationRule, d *document, endpoints []*mesh.Endpoint) {
	for i, s := range r.Subsets {
		if len(endpoints) == 0 || slices.ContainsFunc(endpoints, func(e *mesh.Endpoint) bool { return e.MatchesSubset(s.Labels) }) {
			continue
		}
		hint := ""
		if !slices.ContainsFunc(endpoints, func(e *mesh.Endpoint) bool { return e.Source != mesh.SourceKubernetes }) {
			hint = "; an EndpointSlice has no labels of its Pods: WorkloadEntries have them, and sidecars announce theirs"
		}
		d.find(Warning, IST0173, index("subsets", i)+".labels", fmt.Sprintf("none of the %d endpoints that files give %s bears %s: unless gossip brings one, requests for subset %q get 503 UH%s", len(endpoints), r.Host, mesh.LabelText(s.Labels), s.Name, hint))
	}
}

// endpointsOf returns the endpoints that files give a host.
func (c *checker) endpointsOf(host string) []*mesh.Endpoint {
	v, ok := c.known.View(host)
	if !ok || len(v.Ports) == 0 {
		return nil
	}
	return c.known.Endpoints(v, v.Ports[0].Number)
}

// lintWildcards says which rules for single hosts a wildcard one holds beside:
// Istio would take one of them.
func (c *checker) lintWildcards() {
	for _, l := range c.destinationRules {
		w := l.value
		if !strings.HasPrefix(w.Host, "*") {
			continue
		}
		var beside []string
		for _, o := range c.destinationRules {
			if strings.HasPrefix(o.value.Host, "*") || !mesh.MatchHost(w.Host, o.value.Host) || !adds(&w.Policy, &o.value.Policy) {
				continue
			}
			beside = append(beside, fmt.Sprintf("%s (%s)", o.value.Host, o.value.Source))
		}
		if len(beside) > 0 {
			d, more := l.doc, ""
			if n := len(beside) - maxNamed; n > 0 {
				beside, more = beside[:maxNamed], fmt.Sprintf(" and %d more", n)
			}
			d.find(Info, ISM0044, "host", fmt.Sprintf("what it sets holds for hosts with a rule of their own as well, as far as that sets nothing: %s%s; in Istio the rule for the host would hold alone", strings.Join(beside, ", "), more))
		}
	}
}

// maxNamed bounds how many others a message names.
const maxNamed = 5

// adds reports whether a policy sets a block that another leaves out.
func adds(p, to *mesh.TrafficPolicy) bool {
	return p.LoadBalancer != nil && to.LoadBalancer == nil || p.ConnectionPool != nil && to.ConnectionPool == nil ||
		p.OutlierDetection != nil && to.OutlierDetection == nil || p.TLS != nil && to.TLS == nil || p.RetryBudget != nil && to.RetryBudget == nil
}

// lintReach says of rules that hold for destinations under another name of the
// service: in Istio they would not.
func (c *checker) lintReach() {
	used := map[*mesh.DestinationRule][]string{}
	done := map[string]bool{}
	for _, v := range c.config.VirtualServices {
		for _, r := range v.HTTP {
			for _, dest := range r.Route {
				host := c.full(dest.Host)
				svc, _, ok := mesh.ServiceOf(host)
				if !ok || done[host] {
					continue
				}
				done[host] = true
				_, namespace, _ := strings.Cut(svc, ".")
				for _, rule := range c.rules.Candidates(host, namespace) {
					if c.full(rule.Host) != host && !strings.HasPrefix(rule.Host, "*") {
						used[rule] = append(used[rule], dest.Host)
					}
				}
			}
		}
	}
	byPlace := map[mesh.Source][]string{} // candidates are copies
	for rule, hosts := range used {
		byPlace[rule.Source] = hosts
	}
	for _, l := range c.destinationRules {
		p := &l.value.Policy
		hosts := byPlace[l.value.Source]
		if len(hosts) == 0 || !adds(p, &mesh.TrafficPolicy{}) {
			continue
		}
		l.doc.find(Info, ISM0045, "host", fmt.Sprintf("the rule holds for %s, too, which routes send to: they are names of one service; Istio would apply it to %s alone", strings.Join(hosts, " and "), l.value.Host))
	}
}
