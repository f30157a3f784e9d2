package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	networking "istio.io/api/networking/v1alpha3"

	"isthmus/mesh"
)

func readDestinationRule(d *document) {
	var r networking.DestinationRule
	if !d.decode(&r) {
		return
	}
	out := &mesh.DestinationRule{Meta: d.meta(), Host: d.fullHost(r.Host), ExportTo: r.ExportTo}
	d.checkExportTo(r.ExportTo)
	d.checkHost(r.Host, "host", true)
	if r.WorkloadSelector != nil {
		if out.WorkloadSelector = r.WorkloadSelector.MatchLabels; out.WorkloadSelector == nil {
			out.WorkloadSelector = map[string]string{} // all of the namespace, and of no other
		}
	}
	d.policy(&out.Policy, r.TrafficPolicy, "trafficPolicy")
	for i, s := range r.Subsets {
		path := fmt.Sprintf("subsets[%d]", i)
		if !validLabel(s.Name) {
			d.error(path+".name", fmt.Sprintf("%q is no name", s.Name))
		}
		if slices.ContainsFunc(out.Subsets, func(o mesh.Subset) bool { return o.Name == s.Name }) {
			d.error(path+".name", fmt.Sprintf("%q is given twice", s.Name))
		}
		subset := mesh.Subset{Name: s.Name, Labels: s.Labels, Source: d.source(path)}
		d.policy(&subset.Policy, s.TrafficPolicy, path+".trafficPolicy")
		out.Subsets = append(out.Subsets, subset)
	}
	d.chooseAlgorithm(out)
	out.Inbound, out.Adaptive = d.flag(inboundAnnotation), d.flag(adaptiveAnnotation)
	d.reader.config.DestinationRules = append(d.reader.config.DestinationRules, out)
	d.reader.destinationRules = append(d.reader.destinationRules, located[*mesh.DestinationRule]{out, d})
}

// inboundAnnotation makes a rule's connectionPool hold on the side of the
// application too.
const inboundAnnotation = "isthmus.io/inbound"

// adaptiveAnnotation bounds the requests under way by how long they take.
const adaptiveAnnotation = "isthmus.io/adaptive-concurrency"

// flag reads an annotation that is "true" or "false"; false where there is
// none.
func (d *document) flag(annotation string) bool {
	switch v := d.annotations[annotation]; v {
	case "true":
		return true
	case "", "false":
	default:
		d.error(join("metadata.annotations", annotation), fmt.Sprintf("%q is neither \"true\" nor \"false\"", v))
	}
	return false
}

// policy reads a TrafficPolicy.
func (d *document) policy(out *mesh.TrafficPolicy, p *networking.TrafficPolicy, path string) {
	if p == nil {
		return
	}
	d.blocks(out, p.LoadBalancer, p.ConnectionPool, p.OutlierDetection, p.Tls, path)
	if p.RetryBudget != nil {
		out.RetryBudget = d.retryBudget(p.RetryBudget, path+".retryBudget")
	}
	for i, l := range p.PortLevelSettings {
		at := fmt.Sprintf("%s.portLevelSettings[%d]", path, i)
		if l.Port == nil || !d.checkPort(l.Port.Number, at+".port.number") {
			if l.Port == nil {
				d.error(at+".port", "is missing")
			}
			continue
		}
		if out.PortLevel == nil {
			out.PortLevel = map[uint32]*mesh.TrafficPolicy{}
		}
		if out.PortLevel[l.Port.Number] != nil {
			d.error(at+".port.number", fmt.Sprintf("port %d is given twice", l.Port.Number))
		}
		level := &mesh.TrafficPolicy{}
		d.blocks(level, l.LoadBalancer, l.ConnectionPool, l.OutlierDetection, l.Tls, at)
		out.PortLevel[l.Port.Number] = level
	}
}

func (d *document) blocks(out *mesh.TrafficPolicy, lb *networking.LoadBalancerSettings, pool *networking.ConnectionPoolSettings,
	outlier *networking.OutlierDetection, tls *networking.ClientTLSSettings, path string,
) {
	if lb != nil {
		out.LoadBalancer = d.loadBalancer(lb, path+".loadBalancer")
	}
	if pool != nil {
		out.ConnectionPool = d.connectionPool(pool, path+".connectionPool")
	}
	if outlier != nil {
		out.OutlierDetection = d.outlierDetection(outlier, path+".outlierDetection")
	}
	if tls != nil {
		out.TLS = d.clientTLS(tls, path+".tls")
	}
}

// clientTLS reads how endpoints are spoken to (Istio: validateTLS).
func (d *document) clientTLS(t *networking.ClientTLSSettings, path string) *mesh.ClientTLS {
	out := &mesh.ClientTLS{
		Credential: t.CredentialName, SNI: t.Sni, SubjectAltNames: t.SubjectAltNames, SkipVerify: t.InsecureSkipVerify.GetValue(), Source: d.source(path),
		Files: mesh.TLSFiles{Certificate: t.ClientCertificate, Key: t.PrivateKey, Roots: t.CaCertificates, Revoked: t.CaCrl},
	}
	named, files := t.CredentialName != "", out.Files != (mesh.TLSFiles{})
	switch t.Mode {
	case networking.ClientTLSSettings_SIMPLE:
		out.Mode = mesh.TLSSimple
		if t.ClientCertificate != "" || t.PrivateKey != "" {
			d.warning(path+".clientCertificate", "is not shown in mode SIMPLE, in Istio neither: write mode: MUTUAL, or leave it out")
			out.Files.Certificate, out.Files.Key = "", ""
		}
	case networking.ClientTLSSettings_MUTUAL:
		out.Mode = mesh.TLSMutual
		if !named && (t.ClientCertificate == "" || t.PrivateKey == "") {
			d.error(path, "mode MUTUAL needs credentialName, or clientCertificate and privateKey")
		}
	case networking.ClientTLSSettings_ISTIO_MUTUAL:
		out.Mode = mesh.TLSIstioMutual
		if named || files {
			d.error(path, "mode ISTIO_MUTUAL takes no certificates: the proxy's own are shown")
		}
	}
	if named && files {
		d.error(path+".credentialName", "cannot stand beside files: only one of them")
	}
	d.unusedClientTLS(t, path)
	return out
}

// unusedClientTLS names settings that a mode does not look at.
func (d *document) unusedClientTLS(t *networking.ClientTLSSettings, path string) {
	switch t.Mode {
	case networking.ClientTLSSettings_DISABLE:
		if proto.Equal(t, &networking.ClientTLSSettings{}) {
			return
		}
		why := "mode DISABLE"
		if !d.has(path + ".mode") {
			why = "no mode is named, which means DISABLE:"
		}
		d.warning(path, "has no effect, in Istio neither: "+why+" speaks plain text; write mode: SIMPLE, MUTUAL or ISTIO_MUTUAL if TLS is meant")
	case networking.ClientTLSSettings_ISTIO_MUTUAL:
		if t.InsecureSkipVerify.GetValue() {
			d.warning(path+".insecureSkipVerify", "has no effect by mode ISTIO_MUTUAL: who the other proxy is, is always looked at")
		}
	default:
		if !t.InsecureSkipVerify.GetValue() {
			return
		}
		for _, f := range []struct {
			field string
			set   bool
		}{{"caCertificates", t.CaCertificates != ""}, {"caCrl", t.CaCrl != ""}, {"subjectAltNames", len(t.SubjectAltNames) > 0}} {
			if f.set {
				d.warning(path+"."+f.field, "has no effect beside insecureSkipVerify, by which no certificate is looked at")
			}
		}
	}
}

// checkClientTLS names the rules that ask for this proxy's certificate, where it
// has none.
func (c *checker) checkClientTLS(node *mesh.Node, judged bool) {
	if !judged || node.Identity != "" {
		return
	}
	for _, l := range c.destinationRules {
		policies := []*mesh.TrafficPolicy{&l.value.Policy}
		for i := range l.value.Subsets {
			policies = append(policies, &l.value.Subsets[i].Policy)
		}
		for _, p := range policies {
			levels := []*mesh.TrafficPolicy{p}
			for _, port := range slices.Sorted(maps.Keys(p.PortLevel)) {
				levels = append(levels, p.PortLevel[port])
			}
			for _, level := range levels {
				if t := level.TLS; t != nil && t.Mode == mesh.TLSIstioMutual {
					c.find(Warning, ISM0027, at(l.value.Meta, t.Source), "tls.mode", "ISTIO_MUTUAL shows this proxy's certificate, and it has none: its requests get 503 until certificates of the bootstrap file names them")
				}
			}
		}
	}
}

func (d *document) connectionPool(p *networking.ConnectionPoolSettings, path string) *mesh.ConnectionPool {
	out := &mesh.ConnectionPool{Source: d.source(path)}
	count := func(n int32, field string) uint32 {
		if n < 0 {
			d.error(path+"."+field, "must not be negative")
			return 0
		}
		return uint32(n)
	}
	if t := p.Tcp; t != nil {
		out.MaxConnections = count(t.MaxConnections, "tcp.maxConnections")
		out.ConnectTimeout = t.ConnectTimeout.AsDuration()
		d.meansDefault(t.ConnectTimeout, path+".tcp.connectTimeout", "10s")
		out.MaxDuration = t.MaxConnectionDuration.AsDuration()
		if t.IdleTimeout != nil {
			idle := t.IdleTimeout.AsDuration()
			out.TCPIdleTimeout = &idle
		}
		if k := t.TcpKeepalive; k != nil {
			out.KeepAlive = &mesh.TCPKeepAlive{Probes: k.Probes, Time: k.Time.AsDuration(), Interval: k.Interval.AsDuration()}
			d.checkKeepAlive(out.KeepAlive, path+".tcp.tcpKeepalive")
		}
	}
	if h := p.Http; h != nil {
		out.MaxPending = count(h.Http1MaxPendingRequests, "http.http1MaxPendingRequests")
		out.MaxRequests = count(h.Http2MaxRequests, "http.http2MaxRequests")
		out.MaxRequestsPerCon = count(h.MaxRequestsPerConnection, "http.maxRequestsPerConnection")
		out.MaxRetries = count(h.MaxRetries, "http.maxRetries")
		out.IdleTimeout = h.IdleTimeout.AsDuration()
		d.meansDefault(h.IdleTimeout, path+".http.idleTimeout", "1h")
		out.UpgradeHTTP2 = h.H2UpgradePolicy == networking.ConnectionPoolSettings_HTTPSettings_UPGRADE
		if out.UseClientProtocol = h.UseClientProtocol; h.UseClientProtocol && out.UpgradeHTTP2 {
			d.warning(path+".http.h2UpgradePolicy", "has no effect beside useClientProtocol, which has requests go over what the client speaks; Istio refuses both")
		}
		out.MaxStreams = count(h.MaxConcurrentStreams, "http.maxConcurrentStreams")
		if k := h.Http2KeepAlive; k != nil {
			out.HTTP2KeepAlive = d.http2KeepAlive(k, path+".http.http2KeepAlive")
		}
	}
	return out
}

// checkKeepAlive names what the kernel does not take (Linux: MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL,
// MAX_TCP_KEEPCNT), so that it would go by its own.
func (d *document) checkKeepAlive(k *mesh.TCPKeepAlive, path string) {
	const longest, most = 32767 * time.Second, 127
	for _, f := range []struct {
		field, limit string
		over         bool
	}{{"time", longest.String(), k.Time > longest}, {"interval", longest.String(), k.Interval > longest}, {"probes", strconv.Itoa(most), k.Probes > most}} {
		if f.over {
			d.warning(path+"."+f.field, "has no effect: Linux takes "+f.limit+" at most")
		}
	}
}

// meansDefault says of a time of 0 that it does not mean none.
func (d *document) meansDefault(t *durationpb.Duration, path, standard string) {
	if t != nil && t.AsDuration() == 0 {
		d.warning(path, "0s means the default, "+standard+", as if it were left out; Istio refuses it")
	}
}

// http2KeepAlive reads both of its times: neither has a default (Istio:
// ValidateConnectionPool).
func (d *document) http2KeepAlive(k *networking.ConnectionPoolSettings_HTTPSettings_ConnectionKeepalive, path string) *mesh.HTTP2KeepAlive {
	out := &mesh.HTTP2KeepAlive{Interval: k.Interval.AsDuration(), Timeout: k.Timeout.AsDuration()}
	if out.Interval <= 0 {
		d.error(path+".interval", "is wanted: after how much silence to ask whether the other end is there, 30s say")
	}
	if out.Timeout <= 0 {
		d.error(path+".timeout", "is wanted: how long the answer may take, 10s say")
	}
	return out
}

func (d *document) outlierDetection(o *networking.OutlierDetection, path string) *mesh.OutlierDetection {
	out := &mesh.OutlierDetection{
		Consecutive5xx: 5, ConsecutiveGatewayErrors: o.ConsecutiveGatewayErrors.GetValue(),
		SplitLocalOrigin: o.SplitExternalLocalOriginErrors, ConsecutiveLocalOrigin: 5,
		Interval: 10 * time.Second, BaseEjectionTime: 30 * time.Second, MaxEjectionPercent: 10,
		Source: d.source(path),
	}
	if o.Consecutive_5XxErrors != nil {
		out.Consecutive5xx = o.Consecutive_5XxErrors.Value
	}
	if o.ConsecutiveLocalOriginFailures != nil {
		out.ConsecutiveLocalOrigin = o.ConsecutiveLocalOriginFailures.Value
		if !o.SplitExternalLocalOriginErrors {
			d.error(path+".consecutiveLocalOriginFailures", "needs splitExternalLocalOriginErrors: true")
		}
	}
	for _, p := range []struct {
		value *durationpb.Duration
		into  *time.Duration
		field string
	}{{o.Interval, &out.Interval, "interval"}, {o.BaseEjectionTime, &out.BaseEjectionTime, "baseEjectionTime"}} {
		if p.value == nil {
			continue
		}
		if *p.into = p.value.AsDuration(); *p.into == 0 {
			d.error(path+"."+p.field, "must be at least 1ms")
		}
	}
	for _, p := range []struct {
		value int32
		into  *uint32
		field string
	}{{o.MaxEjectionPercent, &out.MaxEjectionPercent, "maxEjectionPercent"}, {o.MinHealthPercent, &out.MinHealthPercent, "minHealthPercent"}} {
		switch {
		case p.value < 0 || p.value > 100:
			d.error(path+"."+p.field, fmt.Sprintf("%d is not between 0 and 100", p.value))
		case p.value > 0:
			*p.into = uint32(p.value)
		}
	}
	for i, code := range o.OutlierDetectionHttpErrorCodes {
		if code < 100 || code > 599 {
			d.error(fmt.Sprintf("%s.outlierDetectionHttpErrorCodes[%d]", path, i), fmt.Sprintf("%d is not between 100 and 599", code))
		}
		out.ErrorCodes = append(out.ErrorCodes, int(code))
	}
	//lint:ignore SA1019 still written by users
	if o.ConsecutiveErrors != 0 {
		d.warning(path+".consecutiveErrors", "has no effect, in Istio neither: write consecutive5xxErrors or consecutiveGatewayErrors")
	}
	if g := out.ConsecutiveGatewayErrors; g > 0 && out.Consecutive5xx > 0 && g >= out.Consecutive5xx {
		d.find(Info, ISM0029, path+".consecutiveGatewayErrors", fmt.Sprintf("%d changes nothing: consecutive5xxErrors ejects at %d already", g, out.Consecutive5xx))
	}
	return out
}
