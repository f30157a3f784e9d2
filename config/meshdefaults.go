package config

import (
	"cmp"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	meshconfig "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"

	"isthmus/mesh"
)

// meshDefaults are what the mesh configuration says for resources that do not say it.
type meshDefaults struct {
	everywhere *mesh.DestinationRule // for every host; nil: nothing

	services, routes, rules []string // exportTo
}

// meshSilent are fields of the mesh configuration that change nothing about what a proxy
// does, or about one that is not Envoy beside a control plane.
var meshSilent = []string{
	"accessLogEncoding", "accessLogFile", "accessLogFormat", "configSources", "defaultConfig", "defaultProviders", "disableEnvoyListenerLog",
	"dnsRefreshRate", "enableEnvoyAccessLogService", "enablePrometheusMerge", "enableTracing", "extensionProviders", "ingressClass", "ingressControllerMode", "ingressSelector", "ingressService",
	"inboundClusterStatName", "outboundClusterStatName", "inboundTrafficPolicy", "pathNormalization", "protocolDetectionTimeout", "proxyHttpPort", "proxyInboundListenPort", "proxyListenPort",
	"connectTimeout", "localityLbSetting", "defaultServiceExportTo", "defaultVirtualServiceExportTo", "defaultDestinationRuleExportTo", "defaultHttpRetryPolicy",
}

// meshEffect says of fields of the mesh configuration that are understood why they do
// nothing; with a value, for that alone.
var meshEffect = map[string]string{
	"outboundTrafficPolicy": "requests to unknown hosts get 404, as with REGISTRY_ONLY",
	"enableAutoMtls":        "mTLS is spoken wherever both ends have certificates, unless a DestinationRule says DISABLE",
	"h2UpgradePolicy":       "HTTP/2 is spoken to ports that are named for it (http2, grpc), or where a DestinationRule says h2UpgradePolicy",
	"tcpKeepalive":          "write it in DestinationRules",
	"meshMTLS":              "TLS 1.2 is the floor",
	"tlsDefaults":           "TLS 1.2 is the floor; minProtocolVersion of a Gateway's server says more",
	"trustDomain":           "trustDomain of the bootstrap file says it",
	"trustDomainAliases":    "trustDomainAliases of the bootstrap file says it",
	"rootNamespace":         "rootNamespace of the bootstrap file says it",
	"caCertificates":        "certificates.ca of the bootstrap file names the roots",
	"discoverySelectors":    "what files hold is read, of every namespace",
	"serviceSettings":       "which clusters a name means, domains of the bootstrap file says",
	"hboneIdleTimeout":      "there is no ambient mesh",

	"verifyCertificateAtClient": "what cannot be checked is not spoken to",
}

// ProxyConfig's, below defaultConfig.
var proxyEffect = map[string]string{
	"gatewayTopology":          "numTrustedProxies of the bootstrap file says how many proxies are believed",
	"drainDuration":            "drain.timeout of the bootstrap file says it",
	"terminationDrainDuration": "drain.timeout of the bootstrap file says it",
}

// readMeshDefaults reads them, and names what of the mesh configuration has no effect. It
// reports whether there are any.
func (d *document) readMeshDefaults(root *yaml.Node, path string) bool {
	names := jsonNames((&meshconfig.MeshConfig{}).ProtoReflect().Descriptor().Fields())
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], resolve(root.Content[i+1])
		at := path + "." + key.Value
		d.places[at] = key.Line
		switch why := meshEffect[key.Value]; {
		case value.Tag == "!!null", slices.Contains(meshSilent, key.Value):
		case key.Value == "outboundTrafficPolicy" && scalar(child(value, "mode")) == "REGISTRY_ONLY":
		case (key.Value == "enableAutoMtls" || key.Value == "verifyCertificateAtClient") && value.Value == "true":
		case d.agrees(key.Value, value.Value):
		case why != "":
			d.find(Warning, ISM0003, at, "has no effect yet: "+why)
		case !slices.Contains(names, key.Value):
			d.warning(at, "unknown field, which has no effect"+suggest(key.Value, names))
		default:
			d.find(Warning, ISM0003, at, "has no effect yet")
		}
	}
	if proxy := child(root, "defaultConfig"); proxy != nil {
		for i := 0; i+1 < len(proxy.Content); i += 2 {
			if why := proxyEffect[proxy.Content[i].Value]; why != "" {
				at := path + ".defaultConfig." + proxy.Content[i].Value
				d.places[at] = proxy.Content[i].Line
				d.find(Warning, ISM0003, at, "has no effect: "+why)
			}
		}
	}
	return d.takeMeshDefaults(root, path)
}

// agrees reports whether a field of the mesh configuration says what the bootstrap file
// says, or, where that is not known, its default.
func (d *document) agrees(field, value string) bool {
	trustDomain, rootNamespace := "cluster.local", "istio-system"
	if n := d.reader.node; n != nil {
		trustDomain, rootNamespace = cmp.Or(n.TrustDomain, trustDomain), cmp.Or(n.RootNamespace, rootNamespace)
	}
	return field == "trustDomain" && value == trustDomain || field == "rootNamespace" && value == rootNamespace
}

// takeMeshDefaults takes them. Of what another mesh configuration has said already, what
// this one does not say stays.
func (d *document) takeMeshDefaults(root *yaml.Node, path string) (used bool) {
	out := &d.reader.defaults
	given := func(field string) (n *yaml.Node, at string) {
		if n = child(root, field); n == nil || n.Tag == "!!null" {
			return nil, ""
		}
		used = true
		return n, path + "." + field
	}
	everywhere := func() *mesh.TrafficPolicy {
		if out.everywhere == nil {
			out.everywhere = &mesh.DestinationRule{Meta: d.meta(), Host: "*", Default: true}
		}
		return &out.everywhere.Policy
	}
	if n, at := given("localityLbSetting"); n != nil {
		var l networking.LocalityLoadBalancerSetting
		d.message(n, l.ProtoReflect(), at)
		everywhere().LoadBalancer = &mesh.LoadBalancer{Locality: d.localityLB(&l, at), Source: d.source(at)}
	}
	if n, at := given("connectTimeout"); n != nil {
		var t durationpb.Duration
		d.message(n, t.ProtoReflect(), at)
		if t.AsDuration() > 0 {
			everywhere().ConnectionPool = &mesh.ConnectionPool{ConnectTimeout: t.AsDuration(), Source: d.source(at)}
		}
	}
	if n, at := given("defaultHttpRetryPolicy"); n != nil {
		var r networking.HTTPRetry
		d.message(n, r.ProtoReflect(), at)
		d.reader.config.Retries = d.retries(&r, at)
	}
	for _, l := range []struct {
		field string
		into  *[]string
	}{{"defaultServiceExportTo", &out.services}, {"defaultVirtualServiceExportTo", &out.routes}, {"defaultDestinationRuleExportTo", &out.rules}} {
		n, at := given(l.field)
		if n == nil {
			continue
		}
		if n.Kind != yaml.SequenceNode {
			d.errorAt(n.Line, at, "must be a list, not "+describe(n)+asList(n))
			continue
		}
		*l.into = nil
		for i, item := range n.Content {
			to := scalar(item)
			if to != "*" && to != "." && to != "~" && !validLabel(to) {
				d.error(index(at, i), fmt.Sprintf(`%q is neither a namespace nor ".", "*" or "~"`, to))
			}
			*l.into = append(*l.into, to)
		}
	}
	return used
}

// applyDefaults gives resources what they do not say themselves. What holds for every host
// stands behind all rules, and fills in what the blocks of others leave out.
func (r *reader) applyDefaults() {
	t := &r.defaults
	export := func(to *[]string, by []string) {
		if len(*to) == 0 {
			*to = by
		}
	}
	for _, s := range r.config.Services {
		export(&s.ExportTo, t.services)
	}
	for _, v := range r.config.VirtualServices {
		export(&v.ExportTo, t.routes)
	}
	for _, rule := range r.config.DestinationRules {
		export(&rule.ExportTo, t.rules)
		if t.everywhere == nil {
			continue
		}
		fill(&rule.Policy, &t.everywhere.Policy)
		for i := range rule.Subsets {
			fill(&rule.Subsets[i].Policy, &t.everywhere.Policy)
		}
	}
	if t.everywhere != nil {
		r.config.DestinationRules = append(r.config.DestinationRules, t.everywhere)
	}
}

// fill gives the blocks of a policy, and of its ports, what they leave out.
func fill(p, by *mesh.TrafficPolicy) {
	if p.LoadBalancer != nil && p.LoadBalancer.Locality == nil && by.LoadBalancer != nil {
		p.LoadBalancer.Locality = by.LoadBalancer.Locality
	}
	if p.ConnectionPool != nil && p.ConnectionPool.ConnectTimeout == 0 && by.ConnectionPool != nil {
		p.ConnectionPool.ConnectTimeout = by.ConnectionPool.ConnectTimeout
	}
	for _, port := range p.PortLevel {
		fill(port, by)
	}
}
