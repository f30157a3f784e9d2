package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"isthmus/mesh"
)

func envoyFilter(patches string) string {
	return "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: f}\nspec:\n  configPatches:\n" + patches
}

func httpFilter(name, typedConfig string) string {
	return `
  - applyTo: HTTP_FILTER
    match: {context: GATEWAY}
    patch:
      operation: INSERT_BEFORE
      value:
        name: ` + name + `
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.` + typedConfig + "\n"
}

const service = `rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: rls}}}`

// TestRead_EnvoyFilter: what is said of patches; one finding for each that has
// no effect.
func TestRead_EnvoyFilter(t *testing.T) {
	local := func(settings string) string {
		return httpFilter("envoy.filters.http.local_ratelimit", "local_ratelimit.v3.LocalRateLimit\n          stat_prefix: x\n          filter_enforced: {default_value: {numerator: 100}}\n          filter_enabled: {default_value: {numerator: 100}}\n          "+settings)
	}
	global := func(settings string) string {
		return httpFilter("envoy.filters.http.ratelimit", "ratelimit.v3.RateLimit\n          domain: d\n          "+settings)
	}
	const bucket = "token_bucket: {max_tokens: 1, fill_interval: 1s}"
	const actions = "rate_limits: [{actions: [{remote_address: {}}]}]"
	for _, tt := range []struct {
		name, patches string
		want          []string // the beginnings of findings, after place and resource
	}{
		{"a local rate limit", local(bucket), nil},
		{"in camel case", local("tokenBucket: {maxTokens: 1, tokensPerFill: 5, fillInterval: 0.5s}"), nil},
		{"a status by its name", local(bucket + "\n          status: {code: TooManyRequests}"), nil},
		{"a status of nobody", local(bucket + "\n          status: {code: TooMany}"), []string{"error: configPatches[0].patch.value.typed_config.status.code: must be a whole number from 0 to 599"}},
		{"settings of routes alone", httpFilter("l", "local_ratelimit.v3.LocalRateLimit\n          stat_prefix: x") + "  - applyTo: HTTP_ROUTE\n    match: {context: GATEWAY}\n    patch: {operation: MERGE, value: {typed_per_filter_config: {l: {'@type': x.local_ratelimit.v3.LocalRateLimit, " + bucket + ", filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}}}}}\n", nil},
		{"a global rate limit", global(service + "\n          " + actions), nil},
		{"without actions", global(service), []string{"info: rate_limits: no action says"}},
		{"without a service", global(actions), []string{"error: configPatches[0].patch.value.typed_config.rate_limit_service: is missing"}},
		{"another filter", httpFilter("envoy.filters.http.lua", "lua.v3.Lua"), []string{"warning: configPatches[0]: unsupported patch HTTP_FILTER type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua: it has no effect"}},
		{"a listener", "  - {applyTo: LISTENER, patch: {operation: MERGE, value: {name: x}}}\n", []string{"warning: configPatches[0]: unsupported patch LISTENER x: it has no effect"}},
		{"a filter taken away", strings.Replace(local(bucket), "INSERT_BEFORE", "REMOVE", 1), []string{"warning: configPatches[0]: unsupported patch HTTP_FILTER of operation REMOVE"}},
		{"no bucket", local(""), []string{"warning: token_bucket: is missing, for routes too"}},
		{"a bucket of none", local("token_bucket: {max_tokens: 0, fill_interval: 1s}"), []string{"error: configPatches[0].patch.value.typed_config.token_bucket.max_tokens: must be a whole number from 1"}},
		{"too short an interval", local("token_bucket: {max_tokens: 1, fill_interval: 10ms}"), []string{"error: configPatches[0].patch.value.typed_config.token_bucket.fill_interval: must be a duration of at least 50ms"}},
		{"a misspelt field", local(bucket + "\n          stages: 1"), []string{`warning: configPatches[0].patch.value.typed_config.stages: is not known here and has no effect (did you mean "stage"?)`}},
		{"shares of instances", local(bucket + "\n          local_cluster_rate_limit: {}"), []string{"warning: configPatches[0].patch.value.typed_config.local_cluster_rate_limit: has no effect"}},
		{"a descriptor twice", local("descriptors: [{entries: [{key: a}], " + bucket + "}, {entries: [{key: a, value: b}], " + bucket + "}, {entries: [{key: a}], " + bucket + "}]"), []string{"warning: configPatches[0].patch.value.typed_config.descriptors[2]: has no effect: a descriptor before it has the same entries"}},
		{"an extension", global(service + "\n          rate_limits: [{actions: [{extension: {name: x}}]}]"), []string{"warning: configPatches[0].patch.value.typed_config.rate_limits[0].actions[0]: action extension makes no entry"}},
		{"a format for a value", local(bucket + "\n          rate_limits: [{actions: [{generic_key: {descriptor_value: '%REQ(x-user)%'}}]}]"), []string{"warning: configPatches[0].patch.value.typed_config.rate_limits[0].actions[0].generic_key.descriptor_value: is taken as it stands"}},
		{"a route", "  - applyTo: HTTP_ROUTE\n    match: {context: GATEWAY}\n    patch: {operation: MERGE, value: {route: {rate_limits: [{actions: [{remote_address: {}}]}], timeout: 5s}, decorator: {}}}\n",
			[]string{"warning: configPatches[0]: unsupported patch HTTP_ROUTE with decorator, route.timeout: it has no effect"}},
		{"settings of a filter that is not there", "  - applyTo: VIRTUAL_HOST\n    match: {context: GATEWAY}\n    patch: {operation: MERGE, value: {typed_per_filter_config: {a: {'@type': x.ratelimit.v3.RateLimitPerRoute}}}}\n",
			[]string{"warning: typed_per_filter_config: has no effect: no EnvoyFilter inserts a filter named a"}},
		{"a cluster", "  - applyTo: CLUSTER\n    patch: {operation: ADD, value: {name: rls, type: STRICT_DNS, connect_timeout: 1s, load_assignment: {cluster_name: rls, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: a.test, port_value: 8081}}}}]}]}}}\n", nil},
		{"a cluster of nobody that is asked", "  - applyTo: CLUSTER\n    patch: {operation: ADD, value: {name: rls}}\n" + global(service+"\n          "+actions), []string{`error: configPatches[0].patch.value.load_assignment: cluster "rls" has no endpoint`}},
		{"a cluster of nobody", "  - applyTo: CLUSTER\n    patch: {operation: ADD, value: {name: lua, type: ORIGINAL_DST}}\n", []string{`warning: configPatches[0]: unsupported patch CLUSTER that adds cluster "lua" without load_assignment.endpoints: it has no effect`}},
		{"waypoints", strings.Replace(local(bucket), "context: GATEWAY", "context: WAYPOINT", 1), []string{"warning: configPatches[0]: unsupported patch HTTP_FILTER of context WAYPOINT: it has no effect"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Read([]File{{Name: "f.yaml", Data: []byte(envoyFilter(tt.patches))}}, nil)
			var got []string
			for _, f := range r.Findings {
				if f.Line == 0 {
					t.Errorf("no line: %s", f)
				}
				f.File, f.Kind, f.Name = "", "", ""
				got = append(got, f.String())
			}
			if len(got) != len(tt.want) {
				t.Fatalf("found %q, want %q", got, tt.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], tt.want[i]) {
					t.Errorf("found %q, want %q", got[i], tt.want[i])
				}
			}
		})
	}
}

// TestRead_TargetRefs: what is for a Gateway of the Gateway API holds for nobody here.
func TestRead_TargetRefs(t *testing.T) {
	filter := envoyFilter(httpFilter("l", "local_ratelimit.v3.LocalRateLimit\n          stat_prefix: x\n          filter_enabled: {default_value: {numerator: 100}}\n          token_bucket: {max_tokens: 1, fill_interval: 1s}"))
	telemetry := "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: t}\nspec:\n  accessLogging: [{disabled: true}]\n"
	const refs = "spec:\n  targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: gw}]\n"
	for _, text := range []string{filter, telemetry} {
		checkFinding(t, strings.Replace(text, "spec:\n", refs, 1), "targetRefs: name resources of the Gateway API and waypoints", ISM0003)
		c := Read([]File{{Name: "f.yaml", Data: []byte(strings.Replace(text, "spec:\n", refs, 1) + "---\n" + strings.Replace(text, "name: ", "name: other-", 1))}}, nil).Config
		if n := len(c.RateLimitFilters) + len(c.Telemetries); n != 1 {
			t.Errorf("%d of two hold: the one without targetRefs should", n)
		}
	}
}

// TestRead_RefusalStatus: by number or name; what is no error is 429.
func TestRead_RefusalStatus(t *testing.T) {
	for text, want := range map[string]int{"503": 503, "Forbidden": 403, "URITooLong": 414, "PayloadTooLarge": 413, "HTTPVersionNotSupported": 505, "OK": 429, "200": 429, "'431'": 431} {
		r := Read([]File{{Name: "f.yaml", Data: []byte(envoyFilter(httpFilter("l", "local_ratelimit.v3.LocalRateLimit\n          stat_prefix: x\n          token_bucket: {max_tokens: 1, fill_interval: 1s}\n          status: {code: "+text+"}")))}}, nil)
		if r.HasErrors() {
			t.Fatal(r.Findings)
		}
		if got := r.Config.RateLimitFilters[0].Local.Status; got != want {
			t.Errorf("%s is %d, want %d", text, got, want)
		}
	}
}

// TestRead_GlobalRateLimit: the time-out, wherever it is written, and what is
// meant where nothing is.
func TestRead_GlobalRateLimit(t *testing.T) {
	for _, tt := range []struct{ name, service, want string }{
		{"nowhere", "grpc_service: {envoy_grpc: {cluster_name: c}}", "20ms"},
		{"of the call", "grpc_service: {envoy_grpc: {cluster_name: c}, timeout: 100ms}", "100ms"},
		{"beside the cluster", "grpc_service: {envoy_grpc: {cluster_name: c, timeout: 30ms}}", "30ms"},
		{"of the service", "timeout: 40ms, grpc_service: {envoy_grpc: {cluster_name: c}}", "40ms"},
	} {
		r := Read([]File{{Name: "f.yaml", Data: []byte(envoyFilter(httpFilter("f", "ratelimit.v3.RateLimit\n          domain: d\n          rate_limit_service: {"+tt.service+"}")))}}, nil)
		if r.HasErrors() {
			t.Fatal(r.Findings)
		}
		g := r.Config.RateLimitFilters[0].Global
		if g.Timeout.String() != tt.want || g.Cluster != "c" || g.Domain != "d" {
			t.Errorf("%s: %+v, want %s", tt.name, g, tt.want)
		}
		if g.Enabled != mesh.AllRequests || g.Enforced != mesh.AllRequests || g.FailureDeny != 0 || g.Status != 429 || g.StatusOnError != 500 {
			t.Errorf("%s: %+v", tt.name, g)
		}
	}
}

// TestLoadLimits reads the format of envoyproxy/ratelimit.
func TestLoadLimits(t *testing.T) {
	const good = `domain: a
descriptors:
- key: generic_key
  value: default
  rate_limit: {unit: second, requests_per_unit: 100, name: all}
- key: path
  descriptors:
  - {key: user, value: "b*", shadow_mode: true, rate_limit: {unit: MINUTE, requests_per_unit: 5}}
  - {key: user, rate_limit: {unlimited: true}}
---
domain: b
`
	load := func(text string) ([]*mesh.LimitDomain, []string, error) {
		path := filepath.Join(t.TempDir(), "l.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return LoadLimits(path)
	}
	got, warnings, err := load(good)
	if err != nil || len(warnings) > 0 || len(got) != 2 || got[0].Descriptors[0].Limit.Requests != 100 {
		t.Fatalf("%+v, %v, %v", got, warnings, err)
	}
	inner := got[0].Descriptors[1].Children
	if !inner[0].Shadow || inner[0].Limit.Unit != mesh.UnitMinute || inner[0].Value != "b*" || !inner[1].Limit.Unlimited {
		t.Errorf("%+v %+v", inner[0], inner[1])
	}
	for _, tt := range []struct{ name, text, want string }{
		{"no domain", "descriptors: []", "1: domain: is missing"},
		{"a domain twice", "domain: a\n---\ndomain: a", `3: domain: "a" is there twice`},
		{"an unknown field", "domain: a\ndescriptor: []", `2: descriptor: unknown field (did you mean "descriptors"?)`},
		{"no key", "domain: a\ndescriptors:\n- value: b", "3: descriptors[0].key: is missing"},
		{"a descriptor twice", "domain: a\ndescriptors:\n- key: b\n- key: b", "4: descriptors[1]: the descriptor b= is there twice"},
		{"no unit", "domain: a\ndescriptors:\n- {key: b, rate_limit: {requests_per_unit: 1}}", "3: descriptors[0].rate_limit.unit: is missing"},
		{"no number", "domain: a\ndescriptors:\n- {key: b, rate_limit: {unit: day}}", "3: descriptors[0].rate_limit.requests_per_unit: is missing"},
		{"a fortnight", "domain: a\ndescriptors:\n- {key: b, rate_limit: {unit: fortnight, requests_per_unit: 1}}", `3: descriptors[0].rate_limit.unit: "fortnight" is none of`},
		{"half a request", "domain: a\ndescriptors:\n- {key: b, rate_limit: {unit: day, requests_per_unit: 0.5}}", "3: descriptors[0].rate_limit.requests_per_unit: must be a whole number"},
		{"limited and not", "domain: a\ndescriptors:\n- {key: b, rate_limit: {unit: day, requests_per_unit: 1, unlimited: true}}", "3: descriptors[0].rate_limit: unlimited cannot stand beside"},
		{"a list", "[]", "1: must be a mapping"},
		{"no YAML", "domain: [", "not YAML"},
		{"a ConfigMap", "apiVersion: v1\nkind: ConfigMap\ndata: {config.yaml: x}", "1: is a resource of Kubernetes: name a file"},
	} {
		if _, _, err := load(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q in it", tt.name, err, tt.want)
		}
	}
}

// TestLoadLimits_NoFile: of the bootstrap file's field, not of --config.
func TestLoadLimits_NoFile(t *testing.T) {
	_, _, err := LoadLimits(filepath.Join(t.TempDir(), "none.yaml"))
	if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "rateLimits.config: ") {
		t.Errorf("%v", err)
	}
}

// FuzzLimits: whatever the text, reading ends, and what it gives can be used.
func FuzzLimits(f *testing.F) {
	f.Add([]byte("domain: a\ndescriptors:\n- {key: b, value: c, rate_limit: {unit: day, requests_per_unit: 1}, descriptors: [{key: d}]}\n"))
	f.Add([]byte("domain: a\n---\ndomain: b\n"))
	f.Add([]byte("domain: a\ndescriptors:\n- &one {key: b, rate_limit: {unit: day, requests_per_unit: 1}}\n- {<<: *one, value: c}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		domains, _, err := readLimits("fuzz.yaml", data)
		if err != nil {
			return
		}
		for _, d := range domains {
			if d.Domain == "" {
				t.Error("a domain without a name")
			}
		}
	})
}

// TestEnvoyFilter_PortName: a match by the name of a port is told to be none.
func TestEnvoyFilter_PortName(t *testing.T) {
	filter := func(match string) string {
		return "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: f}\nspec:\n  configPatches:\n  - applyTo: VIRTUAL_HOST\n    match: " + match + "\n    patch: {operation: MERGE, value: {rate_limits: [{actions: [{remote_address: {}}]}]}}\n"
	}
	for match, want := range map[string]string{
		"{routeConfiguration: {portName: http}}":     "configPatches[0].match: names a port by its name, which is not looked at: write portNumber",
		"{routeConfiguration: {portNumber: 80}}":     "",
		"{context: GATEWAY, routeConfiguration: {}}": "",
	} {
		checkFinding(t, filter(match), want, ISM0002)
	}
}
