package proxy

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"

	"isthmus/mesh"
	"isthmus/ratelimit"
)

// limitServices finds out whom the global rate limits of a snapshot ask, by the
// names of the clusters; connections to services live on. Those in use are entered
// into kept. The caller holds mu.
//
// A cluster is, in this order: what the bootstrap file's clusters say, a CLUSTER
// patch, an address or Istio's name of a service, a host of the mesh. Of none of
// these, limits that the proxies keep themselves decide, if there are any.
func (p *Proxy) limitServices(s *mesh.Snapshot, kept map[string]*ratelimit.Service) map[string]limitAsker {
	askers := map[string]limitAsker{}
	for _, f := range limitFilters(s) {
		if f.Global == nil || askers[f.Global.Cluster] != nil {
			continue
		}
		cluster := f.Global.Cluster
		addresses := addressesOf(s, p.options.Clusters, cluster)
		if len(addresses) == 0 {
			if p.options.Limits != nil {
				askers[cluster] = p.options.Limits
			}
			continue
		}
		authority := cmp.Or(f.Global.Authority, cluster) // as in Envoy
		if strings.Contains(authority, "|") {
			authority = addresses[0]
		}
		k := cluster + " " + authority + " " + strings.Join(addresses, " ")
		service := cmp.Or(kept[k], p.services.find(k))
		if service == nil {
			service = ratelimit.NewService(cluster, authority, p.dialAny(addresses))
		}
		kept[k], askers[cluster] = service, service
	}
	return askers
}

// Undecided returns the global rate limits of a snapshot's proxy that ask a cluster
// whose address neither the bootstrap file's clusters nor anything else says.
func Undecided(s *mesh.Snapshot, clusters map[string]string) (out []*mesh.RateLimitFilter) {
	for _, f := range limitFilters(s) {
		if f.Global != nil && len(addressesOf(s, clusters, f.Global.Cluster)) == 0 {
			out = append(out, f)
		}
	}
	return out
}

// addressesOf returns where a cluster is, "host:port" each; known are those of the
// bootstrap file.
func addressesOf(s *mesh.Snapshot, known map[string]string, cluster string) []string {
	if a := known[cluster]; a != "" {
		return []string{a}
	}
	for _, c := range s.Config.HelperClusters {
		if c.Cluster == cluster && c.AppliesTo(s.Node) {
			return c.Addresses
		}
	}
	if parts := strings.Split(cluster, "|"); len(parts) == 4 { // outbound|8081||ratelimit.default.svc.cluster.local
		return []string{net.JoinHostPort(parts[3], parts[1])}
	}
	if _, port, err := net.SplitHostPort(cluster); err == nil && port != "" {
		return []string{cluster}
	}
	v, ok := s.Registry.View(cluster)
	if !ok {
		return nil
	}
	for _, port := range v.Ports {
		if port.Protocol.IsHTTP2() || len(v.Ports) == 1 {
			return []string{net.JoinHostPort(cluster, strconv.FormatUint(uint64(port.Number), 10))}
		}
	}
	return nil
}

// dialAny connects to one of some addresses, whichever answers.
func (p *Proxy) dialAny(addresses []string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (c net.Conn, err error) {
		from := rand.IntN(len(addresses))
		for i := range addresses {
			host, text, splitErr := net.SplitHostPort(addresses[(from+i)%len(addresses)])
			port, parseErr := strconv.ParseUint(text, 10, 16)
			if err = errors.Join(splitErr, parseErr); err != nil {
				continue
			}
			if c, err = p.dialHelper(host, uint32(port))(ctx); err == nil {
				return c, nil
			}
		}
		return nil, err
	}
}
