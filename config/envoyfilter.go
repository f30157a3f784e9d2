package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	networking "istio.io/api/networking/v1alpha3"

	"isthmus/mesh"
)

// patch is one patch of an EnvoyFilter.
type patch struct {
	*document
	*networking.EnvoyFilter_EnvoyConfigObjectPatch
	filter *networking.EnvoyFilter
	path   string
}

// readEnvoyFilter takes the patches that Isthmus has a counterpart for, and
// names every other one.
func readEnvoyFilter(d *document) {
	var f networking.EnvoyFilter
	if !d.decode(&f) {
		return
	}
	if d.isForOthers(len(f.TargetRefs) > 0) {
		return
	}
	for i, p := range f.ConfigPatches {
		p := &patch{d, p, &f, fmt.Sprintf("configPatches[%d]", i)}
		if p.GetMatch().GetContext() == networking.EnvoyFilter_WAYPOINT {
			p.unsupported("of context WAYPOINT")
			continue
		}
		switch p.ApplyTo {
		case networking.EnvoyFilter_HTTP_FILTER:
			p.httpFilter()
		case networking.EnvoyFilter_HTTP_ROUTE, networking.EnvoyFilter_VIRTUAL_HOST:
			p.route()
		case networking.EnvoyFilter_CLUSTER:
			p.cluster()
		default:
			p.unsupported(typeOf(p.GetPatch().GetValue()))
		}
	}
}

// unsupported is the one finding on a patch that does nothing.
func (p *patch) unsupported(what string) {
	p.find(Warning, ISM0004, p.path, strings.TrimSpace("unsupported patch "+p.ApplyTo.String()+" "+what)+": it has no effect")
}

// value is what the patch puts in.
func (p *patch) value() *envoyMessage {
	v := p.GetPatch().GetValue()
	if v == nil {
		return nil
	}
	return p.newEnvoyMessage(structpb.NewStructValue(v), p.path+".patch.value")
}

// scope says of which requests the patch speaks.
func (p *patch) scope() mesh.FilterScope {
	s := mesh.FilterScope{Meta: p.meta()}
	s.Source = p.source(p.path)
	if p.filter.WorkloadSelector != nil {
		s.Selector = p.filter.WorkloadSelector.Labels
	}
	m := p.GetMatch()
	switch m.GetContext() {
	case networking.EnvoyFilter_SIDECAR_INBOUND:
		s.Inbound = true
	case networking.EnvoyFilter_SIDECAR_OUTBOUND:
		s.Outbound = true
	case networking.EnvoyFilter_GATEWAY:
		s.Gateway = true
	default:
		s.Inbound, s.Outbound, s.Gateway = true, true, true
	}
	if l := m.GetListener(); l != nil {
		s.Port = max(l.PortNumber, l.GetFilterChain().GetDestinationPort())
		if c := l.GetFilterChain(); l.Name != "" || c.GetName() != "" || c.GetSni() != "" || c.GetTransportProtocol() != "" || c.GetApplicationProtocols() != "" {
			p.info(p.path+".match.listener", "the names of listener and filter chain, and SNI and protocols, are not looked at: it holds for every listener of the context and port")
		}
	}
	if m.GetListener().GetPortName()+m.GetRouteConfiguration().GetPortName() != "" {
		p.info(p.path+".match", "names a port by its name, which is not looked at: write portNumber, or it holds for every port")
	}
	if m.GetProxy() != nil {
		p.info(p.path+".match.proxy", "is not looked at: it holds for every proxy")
	}
	return s
}

// typed takes the type and the content of a configuration, directly or wrapped
// in a TypedStruct, as Istio's own documents write it.
func (m *envoyMessage) typed() (typeURL string, content *envoyMessage) {
	typeURL = m.text("@type")
	if strings.HasSuffix(typeURL, ".TypedStruct") {
		typeURL = m.text("type_url")
		content = m.message("value")
		m.done()
		return typeURL, content
	}
	return typeURL, m
}

// typeOf is the type of what a patch puts in, by which its author knows it; or
// its name.
func typeOf(s *structpb.Struct) string {
	value := s.GetFields()
	for _, name := range []string{"typed_config", "typedConfig"} {
		if inner := value[name].GetStructValue(); inner != nil {
			t := inner.GetFields()["@type"].GetStringValue()
			if strings.HasSuffix(t, ".TypedStruct") {
				for _, name := range []string{"type_url", "typeUrl"} {
					if u := inner.GetFields()[name].GetStringValue(); u != "" {
						return u
					}
				}
			}
			return t
		}
	}
	return value["name"].GetStringValue()
}

// The types that rate limits have in Envoy.
const (
	localType    = ".local_ratelimit.v3.LocalRateLimit"
	globalType   = ".ratelimit.v3.RateLimit"
	perRouteType = ".ratelimit.v3.RateLimitPerRoute"
)

// httpFilter takes filters that limit rates.
func (p *patch) httpFilter() {
	t := typeOf(p.GetPatch().GetValue())
	local := strings.HasSuffix(t, localType)
	op := p.GetPatch().GetOperation()
	inserts := []networking.EnvoyFilter_Patch_Operation{
		networking.EnvoyFilter_Patch_ADD, networking.EnvoyFilter_Patch_INSERT_BEFORE, networking.EnvoyFilter_Patch_INSERT_AFTER, networking.EnvoyFilter_Patch_INSERT_FIRST,
	}
	if !local && !strings.HasSuffix(t, globalType) {
		p.unsupported(t)
		return
	}
	if !slices.Contains(inserts, op) {
		p.unsupported("of operation " + op.String() + " " + t)
		return
	}
	v := p.value()
	_, content := v.message("typed_config").typed()
	if content == nil {
		p.error(p.path+".patch.value.typed_config", "is empty")
		return
	}
	out := &mesh.RateLimitFilter{FilterScope: p.scope(), Filter: v.needText("name"), First: op == networking.EnvoyFilter_Patch_INSERT_FIRST, Priority: p.filter.Priority}
	if local {
		out.Local = content.localRateLimit(false)
	} else {
		out.Global = content.globalRateLimit()
	}
	v.ignore("disabled", "is_optional")
	v.done()
	p.reader.config.RateLimitFilters = append(p.reader.config.RateLimitFilters, out)
}

// route takes what virtual hosts and routes say of rate limits.
func (p *patch) route() {
	m := p.GetMatch().GetRouteConfiguration()
	host := m.GetVhost()
	out := &mesh.RoutePatch{
		FilterScope: p.scope(), Priority: p.filter.Priority, Routes: p.ApplyTo == networking.EnvoyFilter_HTTP_ROUTE,
		RouteConfig: m.GetName(), VirtualHost: host.GetName(), Domain: strings.ToLower(host.GetDomainName()), Route: host.GetRoute().GetName(), GatewayName: m.GetGateway(),
	}
	out.Port = m.GetPortNumber()
	switch host.GetRoute().GetAction() {
	case networking.EnvoyFilter_RouteConfigurationMatch_RouteMatch_ROUTE:
		out.Action = mesh.ForwardingRoute
	case networking.EnvoyFilter_RouteConfigurationMatch_RouteMatch_REDIRECT:
		out.Action = mesh.RedirectRoute
	case networking.EnvoyFilter_RouteConfigurationMatch_RouteMatch_DIRECT_RESPONSE:
		out.Action = mesh.DirectRoute
	}
	if op := p.GetPatch().GetOperation(); op != networking.EnvoyFilter_Patch_MERGE {
		p.unsupported("of operation " + op.String())
		return
	}
	v := p.value()
	settings := v
	if out.Routes {
		settings = v.message("route")
		out.IncludeVirtualHost = settings.flag("include_vh_rate_limits", false)
	}
	for _, r := range settings.list("rate_limits") {
		if a := r.rateLimitAction(); a != nil {
			out.Actions = append(out.Actions, a)
		}
	}
	var others []string
	v.byName("typed_per_filter_config", func(name string, config *envoyMessage) {
		switch t, content := config.typed(); {
		case content == nil:
		case strings.HasSuffix(t, localType):
			if out.Local == nil {
				out.Local = map[string]*mesh.LocalRateLimit{}
			}
			out.Local[name] = content.localRateLimit(true)
		case strings.HasSuffix(t, perRouteType):
			if out.Global == nil {
				out.Global = map[string]*mesh.GlobalOverride{}
			}
			out.Global[name] = content.globalOverride()
		default:
			others = append(others, t)
		}
	})
	others = append(others, v.unread()...)
	if out.Routes {
		for _, name := range settings.unread() {
			others = append(others, "route."+name)
		}
	}
	if len(others) > 0 {
		p.unsupported("with " + strings.Join(others, ", "))
	}
	if len(out.Actions)+len(out.Local)+len(out.Global) > 0 {
		p.reader.config.RoutePatches = append(p.reader.config.RoutePatches, out)
	}
}

// vacant is a patch that adds a cluster without endpoints.
type vacant struct {
	*patch
	cluster string
}

// checkVacant refuses clusters without endpoints that a rate limit is to be asked at;
// others are none of this proxy's.
func (c *checker) checkVacant() {
	for _, v := range c.vacant {
		if slices.ContainsFunc(c.config.RateLimitFilters, func(f *mesh.RateLimitFilter) bool { return f.Global != nil && f.Global.Cluster == v.cluster }) {
			v.error(v.path+".patch.value.load_assignment", fmt.Sprintf("cluster %q has no endpoint, so nobody can be asked: write load_assignment.endpoints", v.cluster))
			continue
		}
		v.unsupported(fmt.Sprintf("that adds cluster %q without load_assignment.endpoints", v.cluster))
	}
}

// cluster takes the address of a helper service.
func (p *patch) cluster() {
	v := p.value()
	if op := p.GetPatch().GetOperation(); op != networking.EnvoyFilter_Patch_ADD {
		p.unsupported("of operation " + op.String() + " " + v.text("name"))
		return
	}
	out := &mesh.HelperCluster{FilterScope: p.scope(), Cluster: v.needText("name"), Timeout: v.duration("connect_timeout", 5*time.Second)}
	assignment := v.message("load_assignment")
	for _, locality := range assignment.list("endpoints") {
		for _, e := range locality.list("lb_endpoints") {
			socket := e.message("endpoint").message("address").message("socket_address")
			if socket == nil {
				p.warning(e.path, "has no endpoint.address.socket_address, so nobody is asked there")
				continue
			}
			out.Addresses = append(out.Addresses, hostPort(socket.needText("address"), socket.number("port_value", 0, 1, 65535)))
		}
	}
	if len(out.Addresses) == 0 {
		p.reader.vacant = append(p.reader.vacant, vacant{p, out.Cluster})
		return
	}
	v.noEffect("the cluster is asked in plain text: name a ServiceEntry's host in cluster_name, with a DestinationRule for its tls", "transport_socket", "transport_socket_matches")
	v.ignore("type", "lb_policy", "http2_protocol_options", "typed_extension_protocol_options", "dns_lookup_family", "dns_refresh_rate", "respect_dns_ttl", "alt_stat_name", "circuit_breakers", "health_checks", "upstream_connection_options", "per_connection_buffer_limit_bytes")
	v.done()
	p.reader.config.HelperClusters = append(p.reader.config.HelperClusters, out)
}
