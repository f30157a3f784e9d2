package proxy

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
)

// limitService is a rate limit service that remembers what it was asked.
type limitService struct {
	address string
	mu      sync.Mutex // guards what is below
	asked   []string   // "domain: key=value key=value, key=value"
	answer  func(context.Context) (*rlsv3.RateLimitResponse, error)
}

// ShouldRateLimit makes it an rlsv3.RateLimitServiceServer.
func (s *limitService) ShouldRateLimit(ctx context.Context, r *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	var lists []string
	for _, d := range r.Descriptors {
		var parts []string
		for _, e := range d.Entries {
			parts = append(parts, e.Key+"="+e.Value)
		}
		lists = append(lists, strings.Join(parts, " "))
	}
	s.mu.Lock()
	s.asked = append(s.asked, r.Domain+": "+strings.Join(lists, ", "))
	answer := s.answer
	s.mu.Unlock()
	return answer(ctx)
}

func (s *limitService) will(answer func(context.Context) (*rlsv3.RateLimitResponse, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer, s.asked = answer, nil
}

func (s *limitService) seen() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.asked, "\n")
}

func letIn(context.Context) (*rlsv3.RateLimitResponse, error) {
	return &rlsv3.RateLimitResponse{
		OverallCode: rlsv3.RateLimitResponse_OK, ResponseHeadersToAdd: []*corev3.HeaderValue{{Key: "x-told", Value: "you"}}, RequestHeadersToAdd: []*corev3.HeaderValue{{Key: "x-told", Value: "them"}},
	}, nil
}

func keepOut(context.Context) (*rlsv3.RateLimitResponse, error) {
	return &rlsv3.RateLimitResponse{
		OverallCode: rlsv3.RateLimitResponse_OVER_LIMIT,
		Statuses: []*rlsv3.RateLimitResponse_DescriptorStatus{{
			Code: rlsv3.RateLimitResponse_OVER_LIMIT, CurrentLimit: &rlsv3.RateLimitResponse_RateLimit{RequestsPerUnit: 9, Unit: rlsv3.RateLimitResponse_RateLimit_MINUTE},
		}},
	}, nil
}

func hang(ctx context.Context) (*rlsv3.RateLimitResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func newLimitService(t *testing.T) *limitService {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &limitService{address: l.Addr().String(), answer: letIn}
	server := grpc.NewServer()
	rlsv3.RegisterRateLimitServiceServer(server, s)
	go server.Serve(l) // until Stop
	t.Cleanup(server.Stop)
	return s
}

// globalFilter is an EnvoyFilter of the gateway that asks cluster rls, and more
// patches.
func globalFilter(settings, more string) string {
	return `---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: global, namespace: istio-system}
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: GATEWAY}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.ratelimit
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
          domain: d
          timeout: 5s
          rate_limit_service: {grpc_service: {envoy_grpc: {cluster_name: rls}}}
          ` + settings + "\n" + more
}

func atGateway(patch string) string { return strings.ReplaceAll(patch, "SIDECAR_OUTBOUND", "GATEWAY") }

// TestGlobalLimit_Asks: about which requests a service is asked, and by what.
func TestGlobalLimit_Asks(t *testing.T) {
	s := newLimitService(t)
	up := replying(t, okReply)
	const routes = `{route: {rate_limits: [{actions: [{destination_cluster: {}}, {request_headers: {header_name: x-a, descriptor_key: a}}]}, {actions: [{source_cluster: {}}]}]}}`
	for _, tt := range []struct{ name, yaml, fields, want string }{
		{"without actions", globalFilter("", ""), "", "d: generic_key=default, destination_cluster=outbound|80||s.test"},
		{"actions", globalFilter("", atGateway(ofRoutes("HTTP_ROUTE", "{}", routes))), "x-a: b\r\n", "d: destination_cluster=outbound|80||s.test a=b, source_cluster=client.default"},
		{"one that makes nothing", globalFilter("", atGateway(ofRoutes("HTTP_ROUTE", "{}", routes))), "", "d: source_cluster=client.default"},
		{"none that makes anything", globalFilter("rate_limits: [{actions: [{request_headers: {header_name: x-a, descriptor_key: a}}]}]", ""), "", ""},
		{"internal requests", globalFilter("request_type: internal", ""), "", ""},
		{"external requests", globalFilter("request_type: external", ""), "", "d: generic_key=default, destination_cluster=outbound|80||s.test"},
		{"of another stage", globalFilter("stage: 2", atGateway(ofRoutes("HTTP_ROUTE", "{}", routes))), "", ""},
		{"of no request", globalFilter("filter_enabled: {default_value: {numerator: 0}}", ""), "", ""},
		{"a route's domain", globalFilter("", atGateway(ofRoutes("HTTP_ROUTE", "{}", `{typed_per_filter_config: {envoy.filters.http.ratelimit: {"@type": x.ratelimit.v3.RateLimitPerRoute, domain: e, rate_limits: [{actions: [{remote_address: {}}]}]}}}`))), "", "e: remote_address=127.0.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.will(letIn)
			o := atEdge()
			o.Clusters = map[string]string{"rls": s.address}
			p := serve(t, o, entry("s.test", up.address)+edge("s.test")+tt.yaml)
			got := exchangeRaw(t, p.address("gateway:80"), "GET / HTTP/1.1\r\nHost: s.test\r\n"+tt.fields+"\r\n", whole(1))
			if status(got) != "200" || strings.Contains(got, "x-told: you\r\n") != (tt.want != "") {
				t.Errorf("the reply is %q", got)
			}
			if asked := s.seen(); asked != tt.want {
				t.Errorf("asked %q, want %q", asked, tt.want)
			}
			if heads := up.seen(); strings.Contains(heads[len(heads)-1], "x-told: them\r\n") != (tt.want != "") {
				t.Errorf("the upstream got %q", heads[len(heads)-1])
			}
		})
	}
}

// TestGlobalLimit_Answers: what becomes of requests for what a service says, and
// when it says nothing.
func TestGlobalLimit_Answers(t *testing.T) {
	const short = "timeout: 20ms\n          "
	for _, tt := range []struct {
		name, settings string
		answer         func(context.Context) (*rlsv3.RateLimitResponse, error)
		status         string
		want, not      string
		limited, fails uint64
	}{
		{"let in", "", letIn, "200", "x-told: you", "x-envoy-ratelimited", 0, 0},
		{"kept out", "", keepOut, "429", "x-envoy-ratelimited: true", "x-ratelimit", 1, 0},
		{"with another status", "rate_limited_status: {code: 503}", keepOut, "503", "", "", 1, 0},
		{"with the state", "enable_x_ratelimit_headers: DRAFT_VERSION_03", keepOut, "429", "x-ratelimit-limit: 9, 9;w=60", "", 1, 0},
		{"silently", "disable_x_envoy_ratelimited_header: true", keepOut, "429", "", "x-envoy-ratelimited", 1, 0},
		{"not enforced", "filter_enforced: {default_value: {numerator: 0}}", keepOut, "200", "", "x-envoy-ratelimited", 1, 0},
		{"no answer", short, hang, "200", "", "", 0, 1},
		{"no answer, and that refuses", short + "failure_mode_deny: true", hang, "500", "", "x-envoy-ratelimited", 0, 1},
		{"with a status", short + "failure_mode_deny: true\n          status_on_error: {code: 503}", hang, "503", "", "", 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newLimitService(t)
			s.will(tt.answer)
			o := atEdge()
			o.Clusters = map[string]string{"rls": s.address}
			yaml := globalFilter(tt.settings, "")
			if strings.HasPrefix(tt.settings, "timeout") {
				yaml = strings.Replace(yaml, "          timeout: 5s\n", "", 1)
			}
			p := serve(t, o, entry("s.test", replying(t, okReply).address)+edge("s.test")+yaml)
			got := exchangeRaw(t, p.address("gateway:80"), get("s.test"), whole(1))
			if status(got) != tt.status || !strings.Contains(got, tt.want) || tt.not != "" && strings.Contains(got, tt.not) {
				t.Errorf("the reply is %q, want %s with %q and without %q", got, tt.status, tt.want, tt.not)
			}
			if l := p.Limits(); len(l) != 1 || l[0].Kind != "service" || l[0].Limited != tt.limited || l[0].Failed != tt.fails {
				t.Errorf("shown: %+v", l)
			}
		})
	}
}

// TestGlobalLimit_WhereItIs: the ways in which configuration says where a
// service is.
func TestGlobalLimit_WhereItIs(t *testing.T) {
	s := newLimitService(t)
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		t.Fatal(err)
	}
	named := func(cluster string) string {
		return strings.Replace(globalFilter("", ""), "cluster_name: rls", "cluster_name: \""+cluster+"\"", 1)
	}
	grpcEntry := strings.Replace(entry("rls.test", s.address), "protocol: HTTP}", "protocol: GRPC}", 1)
	const deny = "failure_mode_deny: true"
	for _, tt := range []struct{ name, yaml, status string }{
		{"an address", named(s.address), "429"},
		{"a ServiceEntry's host", grpcEntry + named("rls.test"), "429"},
		{"Istio's name of it", grpcEntry + named("outbound|80||rls.test"), "429"},
		{"a patch", globalFilter("", "  - applyTo: CLUSTER\n    match: {context: GATEWAY}\n    patch: {operation: ADD, value: {name: rls, load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: "+host+", port_value: "+port+"}}}}]}]}}}\n"), "429"},
		{"a target", strings.Replace(globalFilter("", ""), "envoy_grpc: {cluster_name: rls}", "google_grpc: {stat_prefix: x, target_uri: \"dns:///"+s.address+"\"}", 1), "429"},
		{"nobody knows", globalFilter("", ""), "200"},
		{"nobody knows, and that refuses", globalFilter(deny, ""), "500"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.will(keepOut)
			p := serve(t, atEdge(), entry("s.test", replying(t, okReply).address)+edge("s.test")+"---\n"+tt.yaml)
			if got := exchangeRaw(t, p.address("gateway:80"), get("s.test"), whole(1)); status(got) != tt.status {
				t.Errorf("the reply is %q, want %s", got, tt.status)
			}
		})
	}
}
