package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"isthmus/mesh"
)

// tlsRoute reads a TLSRoute; hosts are those of the VirtualService, as they are
// written and in full.
func (d *document) tlsRoute(r *networking.TLSRoute, hosts []string, path string) *mesh.TCPRoute {
	out := &mesh.TCPRoute{Source: d.source(path), Route: d.tcpDestinations(r.Route, path+".route")}
	if len(r.Match) == 0 {
		d.error(path+".match", "is missing: say for which sniHosts the route is")
	}
	for i, m := range r.Match {
		at := fmt.Sprintf("%s.match[%d]", path, i)
		match := mesh.TCPMatch{
			Source: d.source(at), DestinationSubnets: d.subnets(m.DestinationSubnets, at+".destinationSubnets"),
			ProxyMatch: mesh.ProxyMatch{Port: m.Port, SourceLabels: m.SourceLabels, SourceNamespace: m.SourceNamespace, Gateways: d.gateways(m.Gateways)},
		}
		if len(m.SniHosts) == 0 {
			d.error(at+".sniHosts", "is missing: name at least one host")
		}
		for j, host := range m.SniHosts {
			at := fmt.Sprintf("%s.sniHosts[%d]", at, j)
			host = strings.ToLower(strings.TrimSuffix(host, "."))
			switch {
			case !d.checkHost(host, at, true):
			case !slices.ContainsFunc(hosts, func(h string) bool { return h == host || mesh.MatchHost(h, host) }):
				d.error(at, fmt.Sprintf("%q is not among the VirtualService's hosts, nor below one", host))
			default:
				match.SNIHosts = append(match.SNIHosts, host)
			}
		}
		out.Match = append(out.Match, match)
	}
	return out
}

func (d *document) tcpRoute(r *networking.TCPRoute, path string) *mesh.TCPRoute {
	out := &mesh.TCPRoute{Source: d.source(path), Route: d.tcpDestinations(r.Route, path+".route")}
	for i, m := range r.Match {
		at := fmt.Sprintf("%s.match[%d]", path, i)
		match := mesh.TCPMatch{
			Source: d.source(at), DestinationSubnets: d.subnets(m.DestinationSubnets, at+".destinationSubnets"),
			ProxyMatch: mesh.ProxyMatch{Port: m.Port, SourceLabels: m.SourceLabels, SourceNamespace: m.SourceNamespace, Gateways: d.gateways(m.Gateways)},
		}
		if m.SourceSubnet != "" {
			match.SourceSubnet, _ = d.subnet(m.SourceSubnet, at+".sourceSubnet")
		}
		out.Match = append(out.Match, match)
	}
	return out
}

// tcpDestinations reads the destinations of a route that tells no requests
// apart.
func (d *document) tcpDestinations(list []*networking.RouteDestination, path string) []mesh.RouteDestination {
	if len(list) == 0 {
		d.error(path, "is missing: name at least one destination")
	}
	var out []mesh.RouteDestination
	var total uint64
	for i, r := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case r.Destination == nil:
			d.error(at+".destination", "is missing")
			continue
		case r.Weight < 0:
			d.error(at+".weight", "must not be negative")
			continue
		}
		total += uint64(r.Weight)
		out = append(out, mesh.RouteDestination{Destination: d.destination(r.Destination, at+".destination"), Weight: uint32(r.Weight), Source: d.source(at)})
	}
	if len(list) > 1 && total == 0 {
		d.error(path, "the weights add up to 0: give at least one destination a weight")
	}
	return out
}

func (d *document) subnets(list []string, path string) []netip.Prefix {
	var out []netip.Prefix
	for i, text := range list {
		if p, ok := d.subnet(text, fmt.Sprintf("%s[%d]", path, i)); ok {
			out = append(out, p)
		}
	}
	return out
}

// subnet reads "10.0.0.0/8", or one address.
func (d *document) subnet(text, path string) (netip.Prefix, bool) {
	p, ok := prefixOf(text)
	if !ok {
		d.error(path, fmt.Sprintf("%q is neither an IP address nor a subnet", text))
	}
	return p, ok
}
