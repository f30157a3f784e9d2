package admin

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Service is a service of the mesh, and how it fares.
type Service struct {
	Name      string           `json:"name"` // as that of its endpoints
	Endpoints int              `json:"endpoints"`
	Healthy   int              `json:"healthy"`
	Reason    string           `json:"reason,omitempty"` // of the first that is not
	Clusters  []ServiceCluster `json:"clusters"`         // by name
	Traffic
}

// ServiceCluster is the part of a service in one cluster.
type ServiceCluster struct {
	Cluster   string `json:"cluster"` // "": requests that reached no endpoint
	Endpoints int    `json:"endpoints"`
	Healthy   int    `json:"healthy"`
	Reason    string `json:"reason,omitempty"`
	Traffic
}

// servicesOf unites endpoints with what proxies tell of services; those that
// need somebody's eyes come first, then those with most requests. Endpoints
// are sorted by service and cluster.
func servicesOf(members []Member, endpoints []Endpoint) []Service {
	type key struct{ service, cluster string }
	parts, sent := map[key]*ServiceCluster{}, map[key]*[2]Traffic{}
	part := func(k key) *ServiceCluster {
		if parts[k] == nil {
			parts[k] = &ServiceCluster{Cluster: k.cluster}
		}
		return parts[k]
	}
	var last key
	var p *ServiceCluster
	for i := range endpoints {
		e := &endpoints[i]
		if k := (key{e.Service, e.Cluster}); p == nil || k != last {
			p, last = part(k), k
		}
		p.Endpoints++
		if e.Healthy {
			p.Healthy++
		} else if p.Reason == "" {
			p.Reason = e.Reason
		}
	}
	for _, m := range members {
		if m.Digest == nil {
			continue
		}
		for _, f := range m.Digest.Flows {
			if f.Service == "" {
				continue
			}
			k := key{f.Service, f.Cluster}
			if sent[k] == nil {
				sent[k] = &[2]Traffic{}
			}
			direction := 0
			if f.Inbound {
				direction = 1
			}
			sent[k][direction].Add(f.Traffic)
		}
	}
	for k, t := range sent {
		// Callers' proxies and the application's own see the same requests. Callers
		// know better, where there are any: what does not arrive is theirs alone.
		p := part(k)
		if p.Traffic = t[0]; t[0].Requests == 0 {
			p.Traffic = t[1]
		}
	}
	services := map[string]*Service{}
	for k, p := range parts {
		s := services[k.service]
		if s == nil {
			s = &Service{Name: k.service}
			services[k.service] = s
		}
		s.Endpoints += p.Endpoints
		s.Healthy += p.Healthy
		s.Add(p.Traffic)
		s.Clusters = append(s.Clusters, *p)
	}
	out := make([]Service, 0, len(services))
	for _, s := range services {
		slices.SortFunc(s.Clusters, func(a, b ServiceCluster) int { return strings.Compare(a.Cluster, b.Cluster) })
		for _, c := range s.Clusters {
			s.Reason = cmp.Or(s.Reason, c.Reason)
		}
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b Service) int {
		return cmp.Or(
			cmp.Compare(a.rank(), b.rank()), cmp.Compare(b.Errors, a.Errors),
			cmp.Compare(b.Requests, a.Requests), strings.Compare(a.Name, b.Name),
		)
	})
	return out
}

// rank is how soon somebody should look at a service.
func (s *Service) rank() int {
	switch {
	case s.Healthy == 0 && s.Endpoints > 0:
		return 0
	case s.failing() >= failingBadly:
		return 1
	case s.Healthy < s.Endpoints || s.failing() >= failing:
		return 2
	}
	return 3
}

// sortServices sorts as the query asks.
func sortServices(list []Service, by string) {
	switch by {
	case "name":
		slices.SortFunc(list, func(a, b Service) int { return strings.Compare(a.Name, b.Name) })
	case "requests":
		slices.SortStableFunc(list, func(a, b Service) int { return cmp.Compare(b.Requests, a.Requests) })
	case "errors":
		slices.SortStableFunc(list, func(a, b Service) int { return cmp.Compare(b.Errors, a.Errors) })
	case "p99":
		slices.SortStableFunc(list, func(a, b Service) int { return cmp.Compare(b.P99, a.P99) })
	}
}

// WriteServices writes services for people.
func WriteServices(w io.Writer, list []Service) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tCLUSTER\tENDPOINTS\tHEALTHY\tREQUESTS/S\tSUCCESS\tP50\tP99")
	for _, s := range list {
		for _, c := range s.Clusters {
			fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\n", s.Name, dash(c.Cluster), c.Endpoints, c.Healthy, c.columns())
		}
	}
	t.Flush()
}

func serviceTexts(b []byte, s *Service) []byte {
	b = texts(b, s.Name, s.Reason)
	for _, c := range s.Clusters {
		b = texts(b, c.Cluster)
	}
	return b
}
