package config

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"isthmus/http1"
	"isthmus/mesh"
)

// priorityAnnotation says how important the requests of a VirtualService are.
const priorityAnnotation = "isthmus.io/priority"

func readVirtualService(d *document) {
	var v networking.VirtualService
	if !d.decode(&v) {
		return
	}
	out := &mesh.VirtualService{Meta: d.meta(), ExportTo: v.ExportTo}
	d.checkExportTo(v.ExportTo)
	for i, h := range v.Hosts {
		full := d.fullHost(h)
		if a, err := netip.ParseAddr(h); err == nil && a.Is6() && a.Zone() == "" {
			full = mesh.AddressHost(a)
		} else if !d.checkHost(h, fmt.Sprintf("hosts[%d]", i), true) {
			continue
		}
		if slices.Contains(v.Hosts[:i], h) { // in another form it is as good as once (Istio, too)
			d.error(fmt.Sprintf("hosts[%d]", i), fmt.Sprintf("%q is given twice", h))
		}
		out.Hosts = append(out.Hosts, full)
	}
	out.Gateways = d.gateways(v.Gateways)
	if len(out.Gateways) == 0 {
		out.Gateways = []string{mesh.MeshGateway}
	}
	if s, ok := d.annotations[standbyAnnotation]; ok {
		standby, err := strconv.ParseBool(s)
		if err != nil {
			d.error("metadata.annotations."+standbyAnnotation, fmt.Sprintf(`must be "true" or "false", not %q`, s))
		}
		out.Standby = &standby
	}
	out.Priority = mesh.P2
	if s, ok := d.annotations[priorityAnnotation]; ok {
		if out.Priority, ok = mesh.PriorityOf(s); !ok {
			d.error(join("metadata.annotations", priorityAnnotation), fmt.Sprintf("%q is none of P1, P2, P3, P4", s))
		}
	}
	if len(v.Http)+len(v.Tls)+len(v.Tcp) == 0 {
		d.error("http", "is missing: a VirtualService needs at least one route")
	}
	for i, r := range v.Http {
		if rule := d.httpRoute(r, fmt.Sprintf("http[%d]", i), len(v.Hosts) == 0); rule != nil {
			out.HTTP = append(out.HTTP, rule)
		}
	}
	hosts := slices.Clone(out.Hosts)
	for _, h := range v.Hosts {
		hosts = append(hosts, strings.ToLower(strings.TrimSuffix(h, ".")))
	}
	for i, r := range v.Tls {
		out.TLS = append(out.TLS, d.tlsRoute(r, hosts, fmt.Sprintf("tls[%d]", i)))
	}
	for i, r := range v.Tcp {
		out.TCP = append(out.TCP, d.tcpRoute(r, fmt.Sprintf("tcp[%d]", i)))
	}
	d.reader.config.VirtualServices = append(d.reader.config.VirtualServices, out)
	d.reader.virtualServices = append(d.reader.virtualServices, located[*mesh.VirtualService]{out, d})
}

// gateways makes names full: "namespace/name", or "mesh".
func (d *document) gateways(list []string) []string {
	var out []string
	for _, g := range list {
		if g != mesh.MeshGateway && !strings.Contains(g, "/") {
			g = d.namespace + "/" + g
		}
		out = append(out, g)
	}
	return out
}

func (d *document) httpRoute(r *networking.HTTPRoute, path string, delegate bool) *mesh.HTTPRoute {
	out := &mesh.HTTPRoute{Name: r.Name, Source: d.source(path), Timeout: r.Timeout.AsDuration(), Timed: r.Timeout != nil}
	for i, m := range r.Match {
		out.Match = append(out.Match, d.match(m, fmt.Sprintf("%s.match[%d]", path, i)))
	}
	d.exactlyOne(r, path, delegate)
	if r.Redirect != nil {
		out.Redirect = d.redirect(r.Redirect, path+".redirect")
		whole := func(m *networking.HTTPMatchRequest) bool { return m.Uri.GetPrefix() == "" }
		if r.Redirect.PrefixRewrite != "" && (len(r.Match) == 0 || slices.ContainsFunc(r.Match, whole)) {
			d.error(path+".redirect.prefixRewrite", "needs a uri prefix in every match: there is nothing to replace otherwise")
		}
	}
	if r.DirectResponse != nil {
		out.DirectResponse = d.directResponse(r.DirectResponse, path+".directResponse")
	}
	if r.Delegate != nil {
		out.Delegate = &mesh.Delegate{Namespace: cmp.Or(r.Delegate.Namespace, d.namespace), Name: r.Delegate.Name}
		if r.Delegate.Name == "" {
			d.error(path+".delegate.name", "is missing")
		}
	}
	var total uint64
	for i, dest := range r.Route {
		at := fmt.Sprintf("%s.route[%d]", path, i)
		if dest.Destination == nil {
			d.error(at+".destination", "is missing")
			continue
		}
		if dest.Weight < 0 {
			d.error(at+".weight", "must not be negative")
			continue
		}
		total += uint64(dest.Weight)
		out.Route = append(out.Route, mesh.RouteDestination{
			Destination: d.destination(dest.Destination, at+".destination"),
			Weight:      uint32(dest.Weight),
			Headers:     d.headerRules(dest.Headers, at+".headers"),
			Source:      d.source(at),
		})
	}
	if len(r.Route) > 1 && total == 0 {
		d.error(path+".route", "the weights add up to 0: give at least one destination a weight")
	}
	if r.Rewrite != nil {
		out.Rewrite = d.rewrite(r.Rewrite, path+".rewrite")
	}
	if r.Retries != nil {
		out.Retries = d.retries(r.Retries, path+".retries")
	}
	out.Headers = d.headerRules(r.Headers, path+".headers")
	if len(r.Route) == 0 && r.Delegate == nil {
		for _, f := range []struct {
			field string
			set   bool
		}{{"timeout", r.Timeout != nil}, {"retries", r.Retries != nil}, {"headers.request", r.Headers.GetRequest() != nil}} {
			if f.set {
				d.warning(join(path, f.field), "has no effect without a route: nothing is sent on")
			}
		}
	}
	out.Fault = d.fault(r.Fault, path+".fault")
	out.CORS = d.cors(r.CorsPolicy, path+".corsPolicy")
	out.Mirrors = d.mirrors(r, path)
	return out
}

// exactlyOne checks that a rule says one thing to do, and nothing that does not
// go with it (Istio: validation/virtualservice.go).
func (d *document) exactlyOne(r *networking.HTTPRoute, path string, delegate bool) {
	var what []string
	for _, w := range []struct {
		name string
		set  bool
	}{{"route", len(r.Route) > 0}, {"redirect", r.Redirect != nil}, {"directResponse", r.DirectResponse != nil}, {"delegate", r.Delegate != nil}} {
		if w.set {
			what = append(what, w.name)
		}
	}
	switch {
	case len(what) == 0:
		d.error(path, "says nothing to do: write route, redirect, directResponse or delegate")
	case len(what) > 1:
		d.error(path, strings.Join(what, " and ")+" exclude each other")
	}
	if len(r.Route) == 0 && r.Delegate == nil && r.Rewrite != nil {
		d.error(path+".rewrite", "needs a route")
	}
	if r.Fault != nil && (r.Redirect != nil || r.DirectResponse != nil) {
		d.error(path+".fault", "needs a route")
	}
	if r.Mirror != nil && len(r.Mirrors) > 0 {
		d.error(path+".mirrors", "cannot stand beside mirror: only one of them")
	}
	if r.Delegate != nil && delegate {
		d.error(path+".delegate", "a delegate cannot delegate again: Istio allows one level, so no cycle is possible")
	}
}

func (d *document) destination(t *networking.Destination, path string) mesh.Destination {
	out := mesh.Destination{Host: d.fullHost(t.Host), Subset: t.Subset}
	d.checkHost(t.Host, path+".host", false) // a wildcard is that of a ServiceEntry, with its endpoints
	if t.Port != nil && d.checkPort(t.Port.Number, path+".port.number") {
		out.Port = t.Port.Number
	}
	return out
}

func (d *document) directResponse(r *networking.HTTPDirectResponse, path string) *mesh.DirectResponse {
	if r.Status < 200 || r.Status > 599 {
		d.error(path+".status", fmt.Sprintf("%d is not between 200 and 599", r.Status))
	}
	body := []byte(r.GetBody().GetString_())
	if b := r.GetBody().GetBytes(); b != nil {
		body = b
	}
	return &mesh.DirectResponse{Status: int(r.Status), Body: body}
}

var backReference = regexp.MustCompile(`\\(\d)`)

func (d *document) rewrite(r *networking.HTTPRewrite, path string) *mesh.Rewrite {
	out := &mesh.Rewrite{URI: r.Uri, HasURI: r.Uri != "", Authority: r.Authority}
	if x := r.UriRegexRewrite; x != nil {
		if r.Uri != "" {
			d.error(path+".uriRegexRewrite", "cannot stand beside uri: only one of them")
		}
		re, err := compileRegex(x.Match)
		if err != nil {
			d.error(path+".uriRegexRewrite.match", err.Error())
		}
		d.checkPath(x.Rewrite, path+".uriRegexRewrite.rewrite")
		out.Regex = re
		out.Substitution = backReference.ReplaceAllString(strings.ReplaceAll(x.Rewrite, "$", "$$"), "$${$1}")
	}
	d.checkPath(r.Uri, path+".uri")
	if _, _, ok := http1.SplitHost([]byte(r.Authority)); r.Authority != "" && !ok {
		d.error(path+".authority", fmt.Sprintf("%q is no host", r.Authority))
	}
	if r.Uri == "" && r.Authority == "" && r.UriRegexRewrite == nil {
		d.error(path, "changes nothing: write uri, uriRegexRewrite or authority")
	}
	return out
}

// checkPath holds that what becomes a part of a request line does not end it.
func (d *document) checkPath(text, path string) {
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		d.error(path, "a path cannot hold spaces, line ends or other controls: write %20 for a space")
	}
}

func (d *document) headerRules(h *networking.Headers, path string) mesh.HeaderRules {
	return mesh.HeaderRules{
		Request:  d.headerOps(h.GetRequest(), path+".request", true),
		Response: d.headerOps(h.GetResponse(), path+".response", false),
	}
}

func (d *document) headerOps(o *networking.Headers_HeaderOperations, path string, request bool) mesh.HeaderOps {
	var out mesh.HeaderOps
	if o == nil {
		return out
	}
	pairs := func(m map[string]string, what string) (list []mesh.NameValue) {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			at := join(path+"."+what, name)
			authority := request && strings.EqualFold(name, ":authority")
			if !authority && !validHeaderName(name) {
				d.error(at, fmt.Sprintf("%q is no header name", name))
				continue
			}
			if strings.ContainsAny(m[name], "\r\n\x00") {
				d.error(at, "a header value cannot hold line ends")
				continue
			}
			if _, _, ok := http1.SplitHost([]byte(m[name])); !ok && request && (authority || strings.EqualFold(name, "host")) {
				d.error(at, fmt.Sprintf("%q is no host", m[name]))
				continue
			}
			if op := operator.FindString(m[name]); op != "" {
				d.find(Warning, ISM0076, at, fmt.Sprintf("has %s, which is sent as it stands; Envoy would put something else in its place", op))
			}
			name, value := strings.ToLower(name), m[name]
			if slices.Contains(connectionFields, name) || name == "host" && !request {
				d.warning(at, unsettable)
			}
			list = append(list, mesh.NameValue{Name: name, Value: value})
		}
		return list
	}
	out.Set, out.Add = pairs(o.Set, "set"), pairs(o.Add, "add")
	for i, name := range o.Remove {
		if !validHeaderName(name) {
			d.error(fmt.Sprintf("%s.remove[%d]", path, i), fmt.Sprintf("%q is no header name", name))
			continue
		}
		name = strings.ToLower(name)
		if slices.Contains(connectionFields, name) || name == "host" {
			d.warning(fmt.Sprintf("%s.remove[%d]", path, i), unsettable)
		}
		out.Remove = append(out.Remove, name)
	}
	return out
}

// connectionFields are about one connection alone, or about where a message ends: no rule
// changes them.
var connectionFields = []string{"connection", "content-length", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}

const unsettable = "has no effect: who a message is for, where it ends and what becomes of its connection is the proxy's to say; leave it out"

// operator is what Envoy replaces in a header's value (its access log's operators).
var operator = regexp.MustCompile(`%%|%[A-Z]{3}[A-Z0-9_]*(\([^%]*\))?(:[0-9]+)?%`)

func validHeaderName(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

func (d *document) retries(r *networking.HTTPRetry, path string) *mesh.Retries {
	out := &mesh.Retries{
		Attempts: int(r.Attempts), PerTryTimeout: r.PerTryTimeout.AsDuration(), Backoff: r.Backoff.AsDuration(),
		RemoteLocalities: r.RetryRemoteLocalities.GetValue(), Explicit: r.RetryOn != "", On: mesh.DefaultRetries.On, Source: d.source(path),
	}
	if r.RetryIgnorePreviousHosts != nil {
		v := r.RetryIgnorePreviousHosts.GetValue()
		out.IgnorePreviousHosts = &v
	}
	if r.Attempts < 0 {
		d.error(path+".attempts", "must not be negative")
	}
	if r.Attempts == 0 && (r.RetryOn != "" || r.PerTryTimeout != nil || r.RetryRemoteLocalities != nil) {
		d.error(path+".attempts", "is 0, which turns retries off, so the other fields must not be there")
	}
	if r.RetryOn != "" {
		out.On = 0
		for word := range strings.SplitSeq(r.RetryOn, ",") {
			word = strings.TrimSpace(word)
			if code, err := strconv.Atoi(word); err == nil {
				if code < 100 || code > 599 {
					d.error(path+".retryOn", fmt.Sprintf("%d is no status", code))
				}
				out.On |= mesh.RetryRetriableStatusCodes
				out.Codes = append(out.Codes, code)
				continue
			}
			on, ok := mesh.RetryWords[word]
			if !ok {
				d.error(path+".retryOn", fmt.Sprintf("%q is no condition%s", word, suggest(word, slices.Sorted(maps.Keys(mesh.RetryWords)))))
			}
			out.On |= on
		}
		d.idleConditions(out, path+".retryOn")
	}
	return out
}

// idleConditions names the conditions of retries that nothing ever meets.
func (d *document) idleConditions(r *mesh.Retries, path string) {
	idle := mesh.RetryHTTP3PostConnectFailure | mesh.RetryRetriableHeaders
	if len(r.Codes) == 0 {
		idle |= mesh.RetryRetriableStatusCodes
	}
	for _, word := range (r.On & idle).Words() {
		why := "no header is named, nor can one be"
		switch word {
		case "http3-post-connect-failure":
			why = "no endpoint is spoken to by HTTP/3"
		case "retriable-status-codes":
			why = "no status is named: write 503, say, beside it or in its place"
		}
		if r.On&^idle == 0 {
			why += "; nothing is ever tried again"
		}
		d.warning(path, fmt.Sprintf("%s has no effect: %s", word, why))
	}
}
