package proxy

import (
	"sync"

	"isthmus/mesh"
)

// applications finds which port of its application another proxy sends to. Made at the first
// question: most tables are asked none, and of 10,000 endpoints each is asked about.
type applications struct {
	once      sync.Once
	services  map[string]*mesh.Service
	workloads map[string][]*mesh.Workload // by address
}

func (a *applications) read(c *mesh.Config) {
	a.services, a.workloads = map[string]*mesh.Service{}, map[string][]*mesh.Workload{}
	for _, s := range c.Services {
		if !s.IsEntry() && a.services[s.Key()] == nil {
			a.services[s.Key()] = s
		}
	}
	for _, w := range c.Workloads {
		a.workloads[w.Address] = append(a.workloads[w.Address], w)
	}
}

// workloadPort is the port that an endpoint's workload listens on, by which policies speak
// of it: at another proxy's inbound listener, which port of its application that proxy sends
// to, as far as this configuration knows.
func (t *table) workloadPort(e *mesh.Endpoint) uint32 {
	if !e.Via {
		return uint32(e.Address.Port())
	}
	c, a := t.snapshot.Config, &t.applications
	a.once.Do(func() { a.read(c) })
	service, number := destinationOf(e)
	if s := a.services[service]; s != nil {
		for _, p := range s.Ports {
			if p.Number == number {
				there := mesh.Node{Namespace: s.Namespace, Labels: e.Labels, Address: e.Address.Addr().String()}
				known := mesh.Config{Workloads: a.workloads[there.Address], WorkloadGroups: c.WorkloadGroups}
				port, _ := mesh.ApplicationPort(&there, &known, s, p)
				return port
			}
		}
	}
	return mesh.TargetPort(e.Port, nil)
}
