package config

import (
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"isthmus/mesh"
)

func hostPort(host string, port int64) string {
	return net.JoinHostPort(host, strconv.FormatInt(port, 10))
}

// localRateLimit reads envoy.extensions.filters.http.local_ratelimit.v3, that
// of a listener, or of a route in the place of that.
func (m *envoyMessage) localRateLimit(ofRoute bool) *mesh.LocalRateLimit {
	d := m.doc
	out := &mesh.LocalRateLimit{
		StatPrefix: m.text("stat_prefix"), Stage: uint32(m.number("stage", 0, 0, 10)), Source: d.source(m.path),
		Status: m.refusalStatus("status"), Enforced: mesh.AllRequests, Enabled: m.fraction("filter_enabled", 0),
		PerConnection:     m.flag("local_rate_limit_per_downstream_connection", false),
		Headers:           m.word("enable_x_ratelimit_headers", "OFF", "DRAFT_VERSION_03") == 1,
		ResourceExhausted: m.flag("rate_limited_as_resource_exhausted", false),
		DescriptorsOnly:   !m.flag("always_consume_default_token_bucket", true),
		MaxDynamic:        uint32(m.number("max_dynamic_descriptors", 20, 1, 1<<20)),
		Response:          m.headers("response_headers_to_add"),
		NotEnforced:       m.headers("request_headers_to_add_when_not_enforced"),
		VirtualHost:       m.virtualHost(),
	}
	if b := m.message("token_bucket"); b != nil {
		out.Bucket = b.bucket()
	}
	for _, e := range m.list("descriptors") {
		desc := mesh.BucketDescriptor{Shadow: e.flag("shadow_mode", false)}
		for _, entry := range e.list("entries") {
			desc.Entries = append(desc.Entries, mesh.DescriptorEntry{Key: entry.needText("key"), Value: entry.text("value")})
			entry.done()
		}
		b := e.message("token_bucket")
		if b == nil || len(desc.Entries) == 0 {
			d.error(e.path, "a descriptor needs entries and token_bucket")
			continue
		}
		desc.Bucket = *b.bucket()
		e.done()
		if slices.ContainsFunc(out.Descriptors, func(o mesh.BucketDescriptor) bool { return slices.Equal(o.Entries, desc.Entries) }) {
			d.warning(e.path, "has no effect: a descriptor before it has the same entries (Envoy refuses both)")
			continue
		}
		out.Descriptors = append(out.Descriptors, desc)
	}
	for _, r := range m.list("rate_limits") {
		if a := r.rateLimitAction(); a != nil {
			out.Actions = append(out.Actions, a)
		}
	}
	m.noEffect("each proxy has buckets of its own; for one limit of them all use envoy.filters.http.ratelimit with rateLimits.config", "local_cluster_rate_limit")
	if m.has("filter_enforced") {
		out.Enforced = m.fraction("filter_enforced", 0)
	} else if out.Enabled > 0 {
		d.find(Info, ISM0025, m.path, "the local rate limit has no filter_enforced: Envoy would only count, Isthmus enforces it for all requests")
	}
	switch {
	case out.Bucket == nil && len(out.Descriptors) == 0:
		if ofRoute { // else routes have them
			d.find(Warning, ISM0026, m.path, "the local rate limit has neither token_bucket nor descriptors, so it limits nothing")
		}
	case !m.has("filter_enabled"):
		d.find(Warning, ISM0026, m.path, "the local rate limit has no filter_enabled, which means 0 %: it limits nothing")
	}
	m.done()
	return out
}

// bucket reads envoy.type.v3.TokenBucket.
func (m *envoyMessage) bucket() *mesh.Bucket {
	const most = 1 << 30 // a bucket counts in signed numbers of 32 bits
	b := &mesh.Bucket{
		MaxTokens: uint32(m.number("max_tokens", 0, 1, most)), TokensPerFill: uint32(m.number("tokens_per_fill", 1, 1, most)),
		FillInterval: m.duration("fill_interval", 0),
	}
	if !m.has("max_tokens") {
		m.doc.error(m.path+".max_tokens", "is missing")
	}
	if b.FillInterval < 50*time.Millisecond {
		m.doc.error(join(m.path, "fill_interval"), "must be a duration of at least 50ms")
	}
	m.done()
	return b
}

// refusalStatus reads an HttpStatus. Envoy turns whatever is no error into 429.
func (m *envoyMessage) refusalStatus(name string) int {
	s := m.message(name)
	code := int(s.status("code", 429, 0))
	s.done()
	if code < 400 {
		return 429
	}
	return code
}

// status returns a field that is a status, by its number or by the name that
// envoy.type.v3.StatusCode has for it.
func (m *envoyMessage) status(name string, otherwise, least int64) int64 {
	if v, _ := m.get(name); v != nil {
		if code, ok := statusNames[v.GetStringValue()]; ok && code >= least {
			return code
		}
	}
	return m.number(name, otherwise, least, 599)
}

var statusNames = func() map[string]int64 {
	out := map[string]int64{"PayloadTooLarge": 413, "URITooLong": 414, "RangeNotSatisfiable": 416}
	for code := range 600 {
		if text := http.StatusText(code); text != "" {
			out[strings.NewReplacer(" ", "", "-", "").Replace(text)] = int64(code)
		}
	}
	return out
}()

func (m *envoyMessage) virtualHost() mesh.VirtualHostLimits {
	return mesh.VirtualHostLimits(m.word("vh_rate_limits", "OVERRIDE", "INCLUDE", "IGNORE"))
}

// defaultTimeout is how long a rate limit service has to answer where nothing
// says so (Envoy: RateLimit.timeout).
const defaultTimeout = 20 * time.Millisecond

// globalRateLimit reads envoy.extensions.filters.http.ratelimit.v3.
func (m *envoyMessage) globalRateLimit() *mesh.GlobalRateLimit {
	d := m.doc
	out := &mesh.GlobalRateLimit{
		StatPrefix: m.text("stat_prefix"), Domain: m.needText("domain"), Stage: uint32(m.number("stage", 0, 0, 10)),
		Source: d.source(m.path), Status: m.refusalStatus("rate_limited_status"),
		Requests: [...]mesh.RequestOrigin{mesh.AllRequestOrigins, mesh.AllRequestOrigins, mesh.InternalRequests, mesh.ExternalRequests}[m.word("request_type", "", "both", "internal", "external")],
		Enabled:  m.fraction("filter_enabled", mesh.AllRequests), Enforced: m.fraction("filter_enforced", mesh.AllRequests),
		Headers:           m.word("enable_x_ratelimit_headers", "OFF", "DRAFT_VERSION_03") == 1,
		NoLimitedHeader:   m.flag("disable_x_envoy_ratelimited_header", false),
		ResourceExhausted: m.flag("rate_limited_as_resource_exhausted", false),
		Response:          m.headers("response_headers_to_add"),
		Timeout:           defaultTimeout, StatusOnError: 500,
	}
	if m.flag("failure_mode_deny", false) {
		out.FailureDeny = m.fraction("failure_mode_deny_percent", mesh.AllRequests)
	} else {
		m.ignore("failure_mode_deny_percent")
	}
	if s := m.message("status_on_error"); s != nil {
		out.StatusOnError = int(s.status("code", 500, 200))
		s.done()
	}
	for _, r := range m.list("rate_limits") {
		if a := r.rateLimitAction(); a != nil {
			out.Actions = append(out.Actions, a)
		}
	}
	m.rateLimitService(out)
	m.done()
	return out
}

// rateLimitService reads config.ratelimit.v3.RateLimitServiceConfig: whom to
// ask, and for how long. People write the time-out in any of three places; the
// nearest to the call counts.
func (m *envoyMessage) rateLimitService(out *mesh.GlobalRateLimit) {
	d := m.doc
	s := m.message("rate_limit_service")
	if s == nil {
		d.error(m.path+".rate_limit_service", "is missing")
		return
	}
	g := s.message("grpc_service")
	envoy, google := g.message("envoy_grpc"), g.message("google_grpc")
	switch {
	case envoy != nil:
		out.Cluster, out.Authority = envoy.needText("cluster_name"), envoy.text("authority")
		if t := envoy.duration("timeout", -1); t >= 0 {
			out.Timeout = t // it belongs beside envoy_grpc
		}
		envoy.ignore("retry_policy", "max_receive_message_length", "skip_envoy_headers")
		envoy.done()
	case google != nil:
		out.Cluster = strings.TrimPrefix(strings.TrimPrefix(google.needText("target_uri"), "dns:"), "///")
		google.noEffect("the service is asked in plain text", "channel_credentials", "call_credentials")
		google.ignore("stat_prefix", "credentials_factory_name", "config", "channel_args")
		google.done()
	default:
		d.error(s.path+".grpc_service", "must have envoy_grpc with cluster_name, or google_grpc with target_uri")
		return
	}
	for _, at := range []*envoyMessage{m, s, g} {
		if t := at.duration("timeout", -1); t >= 0 {
			out.Timeout = t
		}
	}
	g.ignore("retry_policy")
	g.noEffect("calls carry no metadata", "initial_metadata")
	g.done()
	if v := s.word("transport_api_version", "AUTO", "V3", "V2"); v == 2 {
		d.warning(s.path+".transport_api_version", "V2 is not spoken: the service is asked by V3")
	}
	s.done()
}

// globalOverride reads RateLimitPerRoute.
func (m *envoyMessage) globalOverride() *mesh.GlobalOverride {
	out := &mesh.GlobalOverride{VirtualHost: m.virtualHost(), Domain: m.text("domain")}
	for _, r := range m.list("rate_limits") {
		if a := r.rateLimitAction(); a != nil {
			out.Actions = append(out.Actions, a)
		}
	}
	m.noEffect("vh_rate_limits decides", "override_option")
	m.done()
	return out
}
