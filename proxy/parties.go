package proxy

import (
	"cmp"
	"net/url"
	"strings"

	"isthmus/http1"
	"isthmus/http2"
	"isthmus/mesh"
	"isthmus/telemetry"
)

// The parties of an exchange, as metrics name them: this proxy's application, the
// endpoint that was sent to, and the proxy that has called.

// canonical returns Istio's canonical service and revision by a workload's labels.
func canonical(labels map[string]string, workload string) (service, revision string) {
	service = cmp.Or(labels["service.istio.io/canonical-name"], labels["app.kubernetes.io/name"], labels["app"], workload)
	revision = cmp.Or(labels["service.istio.io/canonical-revision"], labels["app.kubernetes.io/version"], labels["version"], "latest")
	return service, revision
}

// partyOfNode is this proxy's application, or the gateway that it is.
func partyOfNode(n *mesh.Node) telemetry.Party {
	p := telemetry.Party{
		Workload: mesh.WorkloadName(n.Name), Namespace: n.Namespace, Principal: n.Identity, Cluster: n.Cluster,
		App: n.Labels["app"], Version: n.Labels["version"],
	}
	p.Service, p.Revision = canonical(n.Labels, p.Workload)
	return p
}

// partyOfEndpoint is what is known of an endpoint of an upstream for a host before it
// was connected to. Who it is, only its certificate says.
func partyOfEndpoint(e *mesh.Endpoint, host string) telemetry.Party {
	p := telemetry.Party{Cluster: e.Cluster, App: e.Labels["app"], Version: e.Labels["version"]}
	if name := e.Owner; name != "" && !e.Relayed {
		p.Workload = mesh.WorkloadName(name[strings.LastIndexByte(name, '/')+1:])
	}
	_, _, ok := mesh.ServiceOf(host) // else the endpoint's service may be a ServiceEntry's host
	if service, _ := destinationOf(e); (ok || e.Forward != "") && isKey(service) {
		_, p.Namespace, _ = strings.Cut(service, ".")
	}
	if p.Workload != "" || len(e.Labels) > 0 {
		p.Service, p.Revision = canonical(e.Labels, p.Workload)
	}
	return p
}

// labelsOf are those of exchanges with an upstream, as this node reports them,
// without what depends on the endpoint or on who has called.
func labelsOf(n *mesh.Node, k upstreamKey) telemetry.Labels {
	l := telemetry.Labels{Reporter: "source", DestinationService: k.host}
	service, _, ok := mesh.ServiceOf(k.host)
	if k.inbound {
		service, ok = k.host, true
		l.Reporter, l.DestinationService = "destination", k.host+".svc."+mesh.LocalDomain
		l.Destination = partyOfNode(n)
		l.Destination.Principal = "" // plain text proves nothing
	} else {
		l.Source = partyOfNode(n)
	}
	if ok {
		l.DestinationName, l.DestinationNamespace, _ = strings.Cut(service, ".")
	} else {
		l.DestinationName, l.DestinationNamespace = k.host, k.namespace
	}
	return l
}

// nobodyLabels are those of exchanges that are for no upstream: under Istio's
// name for nobody that is known, or for a destination that does not matter.
func nobodyLabels(n *mesh.Node, kind listenerKind, name string) telemetry.Labels {
	l := telemetry.Labels{Reporter: "source", DestinationName: name}
	if kind == inbound {
		l.Reporter, l.Destination = "destination", partyOfNode(n)
		l.Destination.Principal = "" // as of upstreams
		return l
	}
	l.Source = partyOfNode(n)
	return l
}

// stores are the counters of a proxy, by their labels.
type stores struct {
	requests    *telemetry.Store[telemetry.Requests, *telemetry.Requests]
	connections *telemetry.Store[telemetry.Connections, *telemetry.Connections]
	links       *telemetry.Links
	bodies      *http2.Budget // nil: none
}

// newStores makes those of a proxy; inUse find the counters that are held.
func newStores(n *mesh.Node, requestsInUse func(func(*telemetry.Requests)), connectionsInUse func(func(*telemetry.Connections)), linksInUse func(func(*telemetry.Link))) *stores {
	return &stores{
		requests:    telemetry.NewStore(telemetry.NewRequests, requestsInUse),
		connections: telemetry.NewStore(telemetry.NewConnections, connectionsInUse),
		links:       telemetry.NewLinks(telemetry.Place{Cluster: n.Cluster, Locality: n.Locality.String()}, linksInUse),
	}
}

// A proxy introduces itself to another one with the first request on a connection
// by mTLS: whose application it stands for, as far as its certificate does not
// say it. It is the proxies' own word; what the certificate proves is not asked.

// introduction is what this proxy says of itself in x-isthmus-source.
func introduction(n *mesh.Node) []byte {
	p, v := partyOfNode(n), url.Values{}
	for _, f := range introduced(&p) {
		if *f.value != "" {
			v.Set(f.name, *f.value)
		}
	}
	return []byte(v.Encode())
}

type introducedField struct {
	name  string
	value *string
}

func introduced(p *telemetry.Party) []introducedField {
	return []introducedField{{"app", &p.App}, {"cluster", &p.Cluster}, {"revision", &p.Revision}, {"service", &p.Service}, {"version", &p.Version}, {"workload", &p.Workload}}
}

const (
	maxIntroduction = 1024 // bytes; more is not read
	maxName         = 128  // bytes of one name in it
)

// introducedBy reads what a proxy of an identity says of itself.
func introducedBy(identity string, said []byte) telemetry.Party {
	p := telemetry.Party{Principal: identity}
	if who, ok := mesh.ParseIdentity(identity); ok {
		p.Namespace = who.Namespace
	}
	if len(said) == 0 || len(said) > maxIntroduction {
		return p
	}
	v, err := url.ParseQuery(string(said))
	if err != nil {
		return p
	}
	for _, f := range introduced(&p) {
		if s := v.Get(f.name); len(s) <= maxName && isName(s) && s != "unknown" { // which is how nothing is shown
			*f.value = s
		}
	}
	return p
}

// isName reports whether a text may be shown as a label of a metric.
func isName(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// caller is the proxy at the other end of a connection, and where its exchanges
// are counted.
type caller struct {
	said     string // its introduction
	party    telemetry.Party
	live     *live // the upstream whose requests these are
	requests *telemetry.Requests
}

// calledBy finds where a request to the application is counted whose client has
// proved who it is.
func (x *exchange) calledBy(l *live) *telemetry.Requests {
	c := x.conn
	k := c.caller.Load()
	said, ok := x.req.Get(http1.IsthmusSource)
	if k != nil && k.live == l && (!ok || k.said == string(said)) && !k.requests.Gone() {
		return k.requests
	}
	if !ok && k != nil {
		said = []byte(k.said) // it has introduced itself before
	}
	next := &caller{said: string(said), party: introducedBy(c.identity, said), live: l}
	next.requests = l.stores.requests.Of(l.calledBy(next.party))
	c.caller.Store(next)
	return next.requests
}

// calledBy are the labels of what a caller that has proved who it is asks of the
// application.
func (l *live) calledBy(party telemetry.Party) telemetry.Labels {
	labels := l.labels
	labels.Source, labels.MTLS = party, true
	labels.Destination.Principal = l.identity
	return labels
}
