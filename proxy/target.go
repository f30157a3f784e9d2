package proxy

import (
	"slices"
	"strconv"
	"sync/atomic"

	"isthmus/mesh"
)

// upstreamKey names an upstream over all snapshots.
type upstreamKey struct {
	inbound bool // the application beside this proxy
	through bool // an east-west gateway's way to its own cluster
	callers      // whose way
	relay   bool // for connections that are passed on as they come
	host    string
	port    uint32
	subset  string
	pod     string // of the service, which alone is asked for; "": all

	namespace string // of ServiceEntries for the host, where that is no service's name
}

// meant enters the host that a view is of.
func (k *upstreamKey) meant(v *mesh.View) {
	k.host, k.pod = v.ServiceHost(), v.Pod
	if _, _, ok := mesh.ServiceOf(k.host); !ok {
		k.namespace = v.Namespace
	}
}

// callers are whom an east-west gateway leads to some of a service's endpoints, if
// not all callers are led to all.
type callers uint8

const (
	anybody callers = iota
	inMTLS
	inPlain
)

// String is Envoy's form, "outbound|80|v1|reviews.prod.svc.cluster.local".
func (k upstreamKey) String() string {
	direction := "outbound"
	if k.inbound || k.through {
		direction = "inbound"
	}
	return direction + "|" + strconv.FormatUint(uint64(k.port), 10) + "|" + k.subset + "|" + k.host
}

// target is a place in a table where an upstream goes. Most services that a
// proxy knows are never called, so the upstream is made when the first request
// comes for it.
type target struct {
	key upstreamKey

	// resolve finds what the configuration says of it.
	resolve func() resolved

	// upstream is written once, by Proxy.makeUpstream, under Proxy.mu.
	upstream atomic.Pointer[upstream]
}

// resolved is what the configuration says of a target.
type resolved struct {
	known     bool // false: it has no such host, port or subset
	endpoints []*mesh.Endpoint
	policy    mesh.Policy
	wires     []wire // how each endpoint is spoken to
	names     string // of subjectAltNames, as [tls.Expected] has them; "": none
}

// same reports whether two say the same.
func (r *resolved) same(o *resolved) bool {
	return r.known == o.known && r.policy == o.policy && r.names == o.names && slices.Equal(r.endpoints, o.endpoints) && slices.Equal(r.wires, o.wires)
}

// target enters a destination of a route. port is that of the request, which
// counts where the destination names none.
func (c *compiler) target(d mesh.Destination, port uint32) *target {
	v, known := c.reg.View(d.Host)
	k := upstreamKey{host: d.Host, port: d.Port, subset: d.Subset}
	if known {
		k.meant(v)
		if k.port == 0 {
			p, ok := v.Port(port)
			if !ok {
				p, ok = v.Port(0)
			}
			k.port, known = p.Number, ok
		} else {
			_, known = v.Port(k.port)
		}
	}
	return c.enterTarget(k, v, known)
}

// relayTarget enters a destination of a route that passes connections on. port
// is that of the listener. Endpoints at another proxy's inbound listener are left
// out where no server name tells that one what such a connection is for.
func (c *compiler) relayTarget(d mesh.Destination, port uint32, protocols []mesh.Protocol) *target {
	v, known := c.reg.View(d.Host)
	k := upstreamKey{relay: true, host: d.Host, port: d.Port, subset: d.Subset}
	if known {
		k.meant(v)
		p, ok := v.RelayPort(k.port, protocols...)
		if q, same := v.Port(port); k.port == 0 && same && port != 0 && slices.Contains(protocols, q.Protocol) {
			p, ok = q, true
		}
		k.port, known = p.Number, ok
	}
	return c.enterTarget(k, v, known)
}

// enterTarget enters what a key names. v is the view of its host, if that is
// known.
func (c *compiler) enterTarget(k upstreamKey, v *mesh.View, known bool) *target {
	if t := c.targets[k]; t != nil {
		return t
	}
	t := &target{key: k}
	reg, rules := c.reg, c.snapshot.Rules
	t.resolve = func() resolved {
		if !known {
			return resolved{}
		}
		policy := rules.Find(k.host, v.Namespace, k.port, k.subset)
		endpoints := reg.Endpoints(v, k.port)
		if k.subset != "" {
			if policy.Subset == nil {
				return resolved{}
			}
			// Whoever asks for one Pod gets that, whose subset it is (Istio: ORIGINAL_DST).
			endpoints = slices.DeleteFunc(endpoints, func(e *mesh.Endpoint) bool { return k.pod == "" && !e.MatchesSubset(policy.Subset.Labels) })
		}
		r := resolved{known: true, policy: policy, names: subjectAltNames(v, policy.TLS)}
		for i, w := range c.wires(k, v, endpoints, policy.TLS) {
			if k.relay && endpoints[i].Via && !w.named {
				continue
			}
			r.endpoints, r.wires = append(r.endpoints, endpoints[i]), append(r.wires, w)
		}
		return r
	}
	c.targets[k] = t
	return t
}

// addTarget enters a target with given endpoints of a view, which is nil for the
// application beside this proxy.
func (c *compiler) addTarget(k upstreamKey, v *mesh.View, endpoints []*mesh.Endpoint, policy mesh.Policy) *target {
	t := &target{key: k, resolve: func() resolved {
		return resolved{known: true, endpoints: endpoints, policy: policy, wires: c.wires(k, v, endpoints, policy.TLS), names: subjectAltNames(v, policy.TLS)}
	}}
	c.targets[k] = t
	return t
}
