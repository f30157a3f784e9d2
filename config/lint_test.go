package config

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// readFolder reads a folder of deploy/examples, its files by their base names.
func readFolder(t testing.TB, folder string) []File {
	t.Helper()
	names, err := filepath.Glob("../deploy/examples/" + folder + "/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatal(err, len(names))
	}
	var files []File
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, File{Name: filepath.Base(name), Data: data})
	}
	return files
}

// TestLint_Traps: of each thing in the example that does something else in Istio
// than its author meant, something is said at its line.
func TestLint_Traps(t *testing.T) {
	findings := Read(readFolder(t, "multicluster"), nil).Findings
	for _, trap := range []struct {
		what string
		at   string
		code Code
	}{
		{"1: the local rate limit has no filter_enforced", "08-rate-limits.yaml:22", ISM0025},
		{"2: the global rate limit has no action", "08-rate-limits.yaml:53", ISM0064},
		{"3: 0.1 is 0.1 %", "05-failover.yaml:24", ISM0040},
		{"4: weight 0 is no backup", "05-failover.yaml:15", ISM0016},
		{"5: retries stay in the destination drawn", "04-latency-routing.yaml:40", ISM0041},
		{"5: likewise", "05-failover.yaml:49", ISM0041},
		{"6: 10 % of a few endpoints is none", "09-circuit-breakers.yaml:20", ISM0042},
		{"6: 10 % is the default", "04-latency-routing.yaml:20", ISM0042},
		{"7: gateway errors are errors 5xx", "09-circuit-breakers.yaml:43", ISM0029},
		{"8: minHealthPercent is never reached", "09-circuit-breakers.yaml:47", ISM0043},
		{"9: two rules for one host", "09-circuit-breakers.yaml:27", ISM0018},
		{"9: both set outlierDetection", "09-circuit-breakers.yaml:41", ISM0017},
		{"10: *.global beside exact rules", "06-encryption.yaml:16", ISM0044},
		{"11: the rule is for another name than routes send to", "09-circuit-breakers.yaml:6", ISM0045},
		{"12: the subset is defined for another name", "03-geo-routing.yaml:41", ISM0015},
		{"13: endpoints bear no label region", "03-geo-routing.yaml:56", ISM0046},
		{"13: likewise", "03-geo-routing.yaml:59", ISM0046},
		{"14: localities without outlierDetection", "01-service-registration.yaml:17", ISM0047},
		{"15: 30 ms for a connect", "09-circuit-breakers.yaml:11", ISM0048},
		{"15: 50 ms for a connect", "09-circuit-breakers.yaml:32", ISM0048},
		{"16: 5 s for three tries of 2 s", "05-failover.yaml:16", ISM0049},
		{"17: no timeout", "05-failover.yaml:49", ISM0050},
		{"17: 5xx repeats POST", "05-failover.yaml:52", ISM0030},
		{"18: maxRetries is no number of attempts", "09-circuit-breakers.yaml:15", ISM0051},
		{"19: ten requests on a connection", "09-circuit-breakers.yaml:14", ISM0052},
		{"20: claims without a token", "07-authentication-authorization.yaml:34", ISM0020},
		{"21: sources are alternatives", "07-authentication-authorization.yaml:25", ISM0021},
		{"22: *.global covers no service", "06-encryption.yaml:37", ISM0023},
		{"22: no SPIFFE ID", "06-encryption.yaml:26", ISM0024},
		{"23: a monitor of Mixer", "10-monitoring.yaml:35", ISM0057},
		{"23: every request is traced", "11-tracing.yaml:28", ISM0058},
		{"24: the entry's port wins", "02-health-checks.yaml:15", ISM0053},
		{"24: STRICT holds for it", "02-health-checks.yaml:15", ISM0055},
		{"24: no namespace is default", "03-geo-routing.yaml:16", ISM0054},
		{"25: no registry knows the host", "04-latency-routing.yaml:31", ISM0056},
		{"25: likewise", "05-failover.yaml:7", ISM0056},
		{"25: likewise", "05-failover.yaml:33", ISM0056},
		{"26: a request without a token passes", "07-authentication-authorization.yaml:1", ISM0061},
	} {
		found := slices.ContainsFunc(findings, func(f Finding) bool {
			return fmt.Sprintf("%s:%d", f.File, f.Line) == trap.at && cmp.Or(trap.code, f.Code) == f.Code
		})
		if !found {
			t.Errorf("%s: nothing (%s) is said at %s", trap.what, trap.code, trap.at)
		}
	}
	if t.Failed() {
		for _, f := range findings {
			t.Log(f)
		}
	}
}

// TestLint_Corrected: the corrected example has no finding at all, and every
// mistake that is made in it is found.
func TestLint_Corrected(t *testing.T) {
	files := readFolder(t, "corrected")
	for _, f := range Read(files, nil).Findings {
		t.Errorf("unexpected: %s", f)
	}
	for _, m := range []struct {
		name, file, old, new string
		want                 Code
	}{
		// Dropped.
		{"a Service", "01", "  name: inventory-service\n", "  name: other-service\n", ISM0014},
		{"a host of the ServiceEntry", "01", "  - catalog-service.production.global\n", "", ISM0056},
		{"the label of a workload's proxy", "02", "    security.istio.io/tlsMode: istio # a proxy is before it\n", "", ""},
		{"a subset", "03", "  - name: us-west\n    labels:\n      topology.kubernetes.io/region: us-west1\n", "", IST0101},
		{"a Gateway's host", "03", `    - "*.example.com"`, `    - "*.example.org"`, IST0132},
		{"the namespace of a VirtualService", "03", "  name: geo-based-routing\n  namespace: production\n", "  name: geo-based-routing\n", IST0101},
		{"outlierDetection's percentage", "04", "      maxEjectionPercent: 90\n", "", ISM0042},
		{"tls of an exact rule", "04", "    tls:\n      mode: ISTIO_MUTUAL\n---", "---", ISM0044},
		{"a time-out beside retries", "04", "    timeout: 9s\n", "", ISM0050},
		{"the standby annotation", "05", "    isthmus.io/standby: \"true\" # what has weight 0 serves when nothing else can\n", "    a: b\n", ISM0016},
		{"the method of what is repeated", "05", "  - match:\n    - method:\n        exact: GET\n    route:", "  - route:", ISM0030},
		{"fixedDelay's percentage", "05", "        percentage:\n          value: 10\n", "", ISM0031},
		{"the token rules of a service", "07", "      app: user-service\n  jwtRules", "      app: order-service\n  jwtRules", ISM0020},
		{"the policy that asks for tokens", "07", "        requestPrincipals: [\"*\"]\n", "        namespaces: [\"*\"]\n", ISM0061},
		{"filter_enforced", "08", "          filter_enforced:\n            default_value:\n              numerator: 100\n              denominator: HUNDRED\n", "", ISM0025},

		// Misspelt.
		{"a kind", "03", "kind: Gateway", "kind: Gatway", ISM0006},
		{"a field", "03", "  gateways:", "  gateway:", IST0106},
		{"a destination", "05", "host: catalog-service.production.svc.cluster.premium", "host: catalog-servise.production.svc.cluster.premium", ISM0014},
		{"a subset's name", "03", "        subset: us-west\n", "        subset: us-wets\n", IST0101},
		{"a gateway's name", "03", "  - geo-routing-gateway\n", "  - geo-routing-gatway\n", IST0101},
		{"a workload's label", "02", "  labels:\n    app: order-service\n    version", "  labels:\n    app: order-servise\n    version", ISM0059},
		{"a policy's selector", "07", "      app: user-service\n  rules", "      app: user-servise\n  rules", ISM0060},
		{"a rate limit's selector", "08", "      app: user-service", "      app: user-servise", ISM0060},
		{"a condition of retries", "05", "retryOn: gateway-error", "retryOn: gatway-error", IST0106},
		{"a region", "03", "topology.kubernetes.io/region: us-west1", "region: us-west1", ISM0046},
		{"an API group", "06", "apiVersion: networking.istio.io/v1", "apiVersion: security.istio.io/v1", ISM0007},

		// Contradicting.
		{"plain text to who takes mTLS alone", "06", "      mode: ISTIO_MUTUAL", "      mode: DISABLE", ISM0066},
		{"plain text to a port of who takes mTLS alone", "06", "    tls:\n      mode: ISTIO_MUTUAL", "    portLevelSettings:\n    - port: {number: 80}\n      tls:\n        mode: DISABLE", ISM0066},
		{"one more rule for the host", "09", "  host: payment-service.production.global", "  host: order-service.production.global", ISM0017},
		{"a rule for another name", "09", "  host: payment-service.production.global", "  host: inventory-service.production.global", ISM0045},
		{"one more VirtualService for the host", "05", "  - catalog-service.production.global", "  - inventory-service.production.global", IST0109},
		{"a time-out below the tries", "04", "    timeout: 9s", "    timeout: 5s", ISM0049},
		{"a try beyond the time-out", "04", "      perTryTimeout: 2s", "      perTryTimeout: 20s", ISM0049},
		{"a rule behind one that takes all", "03", "  - match:\n    - headers:\n        geo-location:\n          exact: \"us-west\"\n", "  - match:\n    - headers:\n        geo-location:\n          exact: \"us-central\"\n", IST0130},
		{"distribute that adds up to 90", "04", "            \"us-west1/*\": 20\n        - from", "            \"us-west1/*\": 10\n        - from", IST0106},
		{"gateway errors as many as errors", "04", "consecutiveGatewayErrors: 3", "consecutiveGatewayErrors: 5", ISM0029},
		{"minHealthPercent out of reach", "04", "maxEjectionPercent: 90", "maxEjectionPercent: 60", ISM0043},
		{"a port of its own", "02", "  address: 10.10.10.10\n", "  address: 10.10.10.10\n  ports:\n    http: 80\n", ISM0053},
		{"a fraction for a percentage", "05", "          value: 10\n", "          value: 0.1\n", ISM0040},
		{"a short connect time-out", "09", "connectTimeout: 1s", "connectTimeout: 30ms", ISM0048},
		{"attempts as maxRetries", "09", "        http1MaxPendingRequests: 1000\n", "        maxRetries: 3\n", ISM0051},
		{"connections of ten requests", "09", "        http1MaxPendingRequests: 1000\n", "        maxRequestsPerConnection: 10\n", ISM0052},
		{"a port's settings that erase the others", "09", "    tls:\n      mode: ISTIO_MUTUAL\n", "    portLevelSettings:\n    - port: {number: 80}\n      tls:\n        mode: ISTIO_MUTUAL\n", ISM0062},
		{"settings of a port that is not there", "09", "    tls:\n      mode: ISTIO_MUTUAL\n", "    tls:\n      mode: ISTIO_MUTUAL\n    portLevelSettings:\n    - port: {number: 8080}\n      tls:\n        mode: ISTIO_MUTUAL\n", ISM0063},
		{"sources as alternatives", "07", `        namespaces: ["production", "istio-system"]`, "        principals: [\"cluster.local/ns/production/sa/x\"]\n    - source:\n        namespaces: [\"production\"]", ISM0021},
		{"a split with retries", "05", "      weight: 10\n    timeout: 5s", "      weight: 10\n    timeout: 9s\n    retries: {attempts: 1, perTryTimeout: 1s, retryOn: connect-failure}", ISM0041},
	} {
		t.Run(m.name, func(t *testing.T) {
			changed := slices.Clone(files)
			for i := range changed {
				if !strings.HasPrefix(changed[i].Name, m.file) {
					continue
				}
				if !bytes.Contains(changed[i].Data, []byte(m.old)) {
					t.Fatalf("%s has no %q", changed[i].Name, m.old)
				}
				changed[i].Data = bytes.Replace(changed[i].Data, []byte(m.old), []byte(m.new), 1)
			}
			findings := Read(changed, nil).Findings
			if m.want == "" {
				if len(findings) > 0 {
					t.Errorf("unexpected: %v", findings) // its service account says it, too
				}
				return
			}
			if !slices.ContainsFunc(findings, func(f Finding) bool { return f.Code == m.want }) {
				t.Errorf("no finding %s among %v", m.want, findings)
			}
		})
	}
}

// TestLint_Order: a rule behind one that takes all it would match is named, and
// no other.
func TestLint_Order(t *testing.T) {
	for _, tt := range []struct {
		name, first, second string
		dead                bool
	}{
		{"the same", "uri: {exact: /a}", "uri: {exact: /a}", true},
		{"within a prefix", "uri: {prefix: /a}", "uri: {exact: /a/b}", true},
		{"a longer prefix", "uri: {prefix: /a}", "uri: {prefix: /a/b}", true},
		{"a shorter prefix", "uri: {prefix: /a/b}", "uri: {prefix: /a}", false},
		{"an exact path that a regex matches", `uri: {regex: "/[ab]"}`, "uri: {exact: /a}", false}, // found by an index of paths that regexes are not in
		{"one more condition", "uri: {prefix: /a}", "uri: {prefix: /a}, method: {exact: GET}", true},
		{"one condition less", "uri: {prefix: /a}, method: {exact: GET}", "uri: {prefix: /a}", false},
		{"a header, any value", "headers: {x: {}}", "headers: {x: {exact: y}}", true},
		{"another header", "headers: {x: {exact: y}}", "headers: {z: {exact: y}}", false},
		{"without a header", "withoutHeaders: {x: {}}", "withoutHeaders: {x: {}}, uri: {prefix: /}", true},
		{"without another", "withoutHeaders: {x: {}}", "uri: {prefix: /}", false},
		{"case", "uri: {prefix: /a}", "uri: {prefix: /a}, ignoreUriCase: true", false},
		{"any case", "uri: {prefix: /a}, ignoreUriCase: true", "uri: {prefix: /a}", true},
		{"a port", "uri: {prefix: /a}, port: 80", "uri: {prefix: /a}", false},
		{"labels", "uri: {prefix: /a}, sourceLabels: {a: b}", "uri: {prefix: /a}, sourceLabels: {a: b, c: d}", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec:\n  hosts: [a.test]\n  http:\n  - match: [{%s}]\n    directResponse: {status: 201}\n  - match: [{%s}]\n    directResponse: {status: 202}\n", tt.first, tt.second)
			r := Read([]File{{Name: "v.yaml", Data: []byte(text)}}, nil)
			dead := slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Code == IST0130 && f.Field == "http[1]" })
			if dead != tt.dead || r.HasErrors() {
				t.Errorf("findings %v, want the second rule dead: %v", r.Findings, tt.dead)
			}
		})
	}
}

// TestCodes_HavePages: every code has a page under its title, and the list of
// them is whole.
func TestCodes_HavePages(t *testing.T) {
	const folder = "../docs/findings/"
	list := "# What validate says\n\n`isthmus validate` ends each line with a code. Those that begin with IST are those of `istioctl analyze` for the same thing.\n\n| code | |\n| --- | --- |\n"
	want := map[string]bool{"README.md": true}
	codes := slices.Clone(Codes)
	slices.SortFunc(codes, func(a, b CodeTitle) int { return cmp.Compare(a.Code, b.Code) })
	for _, c := range codes {
		name := string(c.Code) + ".md"
		if want[name] {
			t.Errorf("%s is there twice", c.Code)
		}
		want[name] = true
		list += fmt.Sprintf("| [%s](%s) | %s |\n", c.Code, name, c.Title)
		page, err := os.ReadFile(folder + name)
		if err != nil {
			t.Error(err)
			continue
		}
		if title := fmt.Sprintf("# %s: %s\n", c.Code, c.Title); !strings.HasPrefix(string(page), title) || !strings.Contains(string(page), "\n## What to write\n") {
			t.Errorf("%s does not begin with %q, or says not what to write", name, title)
		}
	}
	files, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !want[f.Name()] {
			t.Errorf("%s is the page of no code", f.Name())
		}
	}
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(folder+"README.md", []byte(list), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(folder + "README.md"); err != nil || string(got) != list {
		t.Errorf("%sREADME.md is not the list of all codes (UPDATE_GOLDEN=1 rewrites it): %v", folder, err)
	}
	known := func(c Code) bool {
		return slices.ContainsFunc(Codes, func(o CodeTitle) bool { return o.Code == c })
	}
	for _, f := range Read(readFolder(t, "multicluster"), nil).Findings {
		if !known(f.Code) {
			t.Errorf("%s has the unknown code %q", f, f.Code)
		}
	}
}

// largeSet makes some n resources as a mesh of many teams has them.
func largeSet(n int) []File {
	var b bytes.Buffer
	for i := range n / 5 {
		ns := fmt.Sprintf("ns%d", i%50)
		fmt.Fprintf(&b, `apiVersion: v1
kind: Service
metadata: {name: s%[1]d, namespace: %[2]s}
spec: {selector: {app: s%[1]d}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: w%[1]d, namespace: %[2]s}
spec: {address: 10.%[3]d.%[4]d.1, labels: {app: s%[1]d}, locality: r1/z1, serviceAccount: s%[1]d}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v%[1]d, namespace: %[2]s}
spec:
  hosts: [s%[1]d.%[2]s.svc.cluster.local]
  http:
  - match: [{uri: {prefix: /a}, headers: {x: {exact: y}}}]
    route: [{destination: {host: s%[1]d.%[2]s.svc.cluster.local, subset: v1}}]
  - route: [{destination: {host: s%[1]d}}]
    timeout: 10s
    retries: {attempts: 2, perTryTimeout: 2s, retryOn: connect-failure}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d%[1]d, namespace: %[2]s}
spec: {host: s%[1]d.%[2]s.svc.cluster.local, trafficPolicy: {outlierDetection: {maxEjectionPercent: 100}}, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a%[1]d, namespace: %[2]s}
spec: {selector: {matchLabels: {app: s%[1]d}}, rules: [{from: [{source: {namespaces: [%[2]s]}}]}]}
---
`, i, ns, i/256, i%256)
	}
	return []File{{Name: "large.yaml", Data: b.Bytes()}}
}

// TestRead_ManyOfOneHost: each DestinationRule is told of the one that wins, and not
// of every other.
func TestRead_ManyOfOneHost(t *testing.T) {
	const n = 200
	var b bytes.Buffer
	b.WriteString("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {app: s}, ports: [{name: http, port: 80}]}\n")
	for i := range n {
		fmt.Fprintf(&b, "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d%d}\nspec: {host: s, trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets: [{name: v1, labels: {version: v1}}]}\n", i)
	}
	r := Read([]File{{Name: "many.yaml", Data: b.Bytes()}}, nil)
	count := map[Code]int{}
	for _, f := range r.Findings {
		count[f.Code]++
		if f.Code == ISM0017 && !strings.Contains(f.Message, "many.yaml:9") {
			t.Fatalf("%s: want the first one named", f)
		}
	}
	if count[ISM0017] != 2*(n-1) || count[ISM0018] != n-1 {
		t.Errorf("%v", count)
	}
}

// BenchmarkRead is what 10,000 resources cost.
func BenchmarkRead(b *testing.B) {
	files := largeSet(10_000)
	if r := Read(files, nil); len(r.Findings) > 0 {
		b.Fatal(r.Findings[0])
	}
	b.ReportAllocs()
	for b.Loop() {
		Read(files, nil)
	}
}

// TestLint_ShortNames: "name.namespace" is a name of the service, wherever it stands.
func TestLint_ShortNames(t *testing.T) {
	const service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: prod}\nspec: {ports: [{name: http, port: 80}]}\n"
	rule := func(host string) string {
		return "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web, namespace: prod}\nspec: {host: " + host + ", subsets: [{name: v1, labels: {version: v1}}]}\n"
	}
	route := func(name, host, to string) string {
		return "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: " + name + ", namespace: prod}\nspec: {hosts: [" + host + "], http: [{route: [{destination: {host: " + to + ", subset: v1}}]}]}\n"
	}
	const full = "web.prod.svc.cluster.local"
	for _, tt := range []struct {
		name, text, want string
		code             Code
	}{
		{"a subset of the full name", service + rule(full) + route("v", full, "web.prod"), "", ISM0015},
		{"one of the short name", service + rule("web.prod") + route("v", full, full), "", ISM0015},
		{"one of another cluster's", service + rule("web.prod") + route("v", full, "web.prod.global"), `"v1" is defined for web.prod in f.yaml:9`, ISM0015},
		{"of a service that gossip brings", rule("api.other.svc.cluster.local") + route("v", "api.other", "api.other"), "", ISM0015},
		{"routes for two forms of a name", service + rule(full) + route("v", full, full) + route("w", "web.prod", full), `hosts[0]: "web.prod" has another VirtualService`, IST0109},
		{"rules for two forms of a name", service + rule(full) + strings.Replace(rule("web.prod"), "name: web,", "name: other,", 1), `host: web.prod has another DestinationRule, web in f.yaml:6`, ISM0018},
		{"what Istio makes of it", service + rule(full) + route("v", "web.prod", full), `"web.prod" means service web.prod; Istio takes it for a full name`, ISM0056},
	} {
		t.Run(tt.name, func(t *testing.T) { checkFinding(t, tt.text, tt.want, tt.code) })
	}
}

// TestLint_RulesOfWorkloads: a rule for some callers does not conflict with one for all,
// beside which it stands; two for some do if there may be callers that both select.
func TestLint_RulesOfWorkloads(t *testing.T) {
	rule := func(name, selector string) string {
		if selector != "" {
			selector = "workloadSelector: {matchLabels: {" + selector + "}}, "
		}
		return "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: " + name + "}\nspec: {host: web.test, " + selector + "trafficPolicy: {tls: {mode: SIMPLE}}}\n---\n"
	}
	const wins, beside = "f.yaml:4 sets it for web.test too and wins", "web.test has another DestinationRule, a in f.yaml:1"
	for _, tt := range []struct{ first, second, conflict, info string }{
		{"", "", wins, beside},
		{"", "app: x", "", beside},
		{"app: x", "", "", beside},
		{"app: x", "app: x", wins, beside},
		{"app: x", "version: v1", wins, beside},
		{"app: x", "app: x, version: v1", wins, beside},
		{"app: x", "app: y", "", ""},
	} {
		t.Run(tt.first+" and "+tt.second, func(t *testing.T) {
			text := rule("a", tt.first) + rule("b", tt.second)
			checkFinding(t, text, tt.conflict, ISM0017)
			checkFinding(t, text, tt.info, ISM0018)
		})
	}
	checkFinding(t, rule("a", "")+rule("b", "app: x")+rule("c", "app: x"), "f.yaml:9 sets it for web.test too", ISM0017)
}

// TestCheck_ExportToGateway: a VirtualService that its Gateway's namespace must not use
// has no effect there.
func TestCheck_ExportToGateway(t *testing.T) {
	text := func(exportTo string) string {
		return `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: edge}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v, namespace: prod}
spec: {hosts: [web.test], gateways: [edge/gw], exportTo: [` + exportTo + `], http: [{directResponse: {status: 200}}]}
`
	}
	for exportTo, want := range map[string]string{"": "", "edge": "", `"*"`: "", `".", edge`: "", `"."`: "f.yaml:9: warning: VirtualService prod/v: exportTo: leaves out namespace edge, in which Gateway edge/gw is"} {
		checkFinding(t, text(exportTo), want, IST0132)
	}
}

// TestLint_SlicePorts: ports of an EndpointSlice are ports of its Service, by name.
func TestLint_SlicePorts(t *testing.T) {
	slice := func(ports string) string {
		return `apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{name: http, port: 80, targetPort: web}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [` + ports + `]
endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}]
`
	}
	for ports, want := range map[string]string{
		"{name: http, port: 8080}": "", "{name: http, port: 8080}, {name: quic, port: 443, protocol: UDP}": "", "{name: web, port: 8080}": "", "{port: 8080}": "", "": "",
		"{name: htpp, port: 8080}": `f.yaml:6: warning: EndpointSlice default/web-1: ports: no port of Service web (f.yaml:1) has the name "htpp" (did you mean "http"?)`,
	} {
		checkFinding(t, slice(ports), want, IST0101)
	}
	unnamed := `f.yaml:6: warning: EndpointSlice default/web-1: ports: the port without a name, 8080, has no effect, since those of Service web (f.yaml:1) have names: for port 80 the addresses are asked at 80`
	checkFinding(t, slice("{port: 8080}"), unnamed, ISM0001)
	checkFinding(t, slice("{port: 80}"), "", ISM0001)
	checkFinding(t, strings.Replace(slice("{port: 8080}"), "name: http, ", "", 1), "", ISM0001)
}

// TestLint_Orphans: addresses of a Service that no file defines are named, once for each.
func TestLint_Orphans(t *testing.T) {
	set := func(slice, endpoints string) string {
		return `apiVersion: v1
kind: Service
metadata: {name: web, namespace: prod}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s-1, namespace: prod, labels: {kubernetes.io/service-name: ` + slice + `}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}]
---
apiVersion: v1
kind: Endpoints
metadata: {name: ` + endpoints + `, namespace: prod}
subsets: [{addresses: [{ip: 10.0.0.3}], ports: [{port: 80}]}]
`
	}
	checkFinding(t, set("web", "web"), "", ISM0059)
	checkFinding(t, set("wbe", "web"), `f.yaml:6: warning: EndpointSlice prod/s-1: metadata.labels: no file defines a Service wbe in namespace prod (did you mean "web"?), so addresses that are given for it (2) get no traffic`, ISM0059)
	checkFinding(t, set("web", "order"), `f.yaml:13: warning: Endpoints prod/order: metadata.name: no file defines a Service order in namespace prod, so addresses that are given for it (1) get`, ISM0059)
	checkFinding(t, strings.ReplaceAll(set("web", "web"), "endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}]", "endpoints: []"), "", ISM0059)
}

// TestRead_ServiceProtocol: a port's protocol is that of transport.
func TestRead_ServiceProtocol(t *testing.T) {
	text := func(protocol string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selector: {app: a}, ports: [{port: 80, protocol: " + protocol + "}]}\n"
	}
	checkFinding(t, text("TCP"), "", ISM0001)
	checkFinding(t, text("HTTP"), `f.yaml:4: warning: Service default/a: spec.ports[0].protocol: "HTTP" is none of TCP, UDP, SCTP`, ISM0001)
	checkFinding(t, text("UDP"), "", ISM0001) // --strict refuses none for it
	checkFinding(t, text("UDP"), "f.yaml:4: info: Service default/a: spec.ports: none is of TCP", ISM0002)
	checkFinding(t, strings.Replace(text("UDP"), "[{port: 80, protocol: UDP}]", "[]", 1), "warning: Service default/a: spec.ports: without a port", ISM0001)
}

// TestRead_TakenByIstio: what Istio takes and does nothing with is taken, and said.
func TestRead_TakenByIstio(t *testing.T) {
	resource := func(kind, spec string) string {
		return "apiVersion: networking.istio.io/v1\nkind: " + kind + "\nmetadata: {name: a}\nspec: " + spec + "\n"
	}
	for _, tt := range []struct{ name, text, want string }{
		{"a client's certificate in mode SIMPLE", resource("DestinationRule", "{host: a.test, trafficPolicy: {tls: {mode: SIMPLE, clientCertificate: /c, privateKey: /k}}}"), "trafficPolicy.tls.clientCertificate: is not shown in mode SIMPLE"},
		{"a selector outside the mesh", resource("ServiceEntry", "{hosts: [a.test], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], workloadSelector: {labels: {app: a}}}"), "workloadSelector: is meant for location: MESH_INTERNAL"},
		{"a selector within the mesh", resource("ServiceEntry", "{hosts: [a.test], location: MESH_INTERNAL, resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], workloadSelector: {labels: {app: a}}}"), ""},
		{"endpoints that the application would choose", resource("DestinationRule", "{host: a.test, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}}"), "loadBalancer.simple: PASSTHROUGH sends to the address"},
		{"no port", resource("ServiceEntry", "{hosts: [a.test], resolution: DNS}"), "ports: is missing: without a port the service gets no traffic"},
		{"a UNIX socket", resource("ServiceEntry", "{hosts: [a.test], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: 'unix:///run/a.sock'}]}"), "endpoints[0].address: is a UNIX socket, to which nothing is sent"},
		{"a workload's UNIX socket", resource("WorkloadEntry", "{address: 'unix:///run/a.sock'}"), "address: is a UNIX socket, to which nothing is sent"},
		{"a workload of another network", resource("WorkloadEntry", "{network: other, labels: {app: a}}"), "address: is missing, so nothing is sent there"},
	} {
		t.Run(tt.name, func(t *testing.T) { checkFinding(t, tt.text, tt.want, ISM0001) })
	}
}

// TestLint_BlanksOfOthers: templates within kinds that are not read are their readers'.
func TestLint_BlanksOfOthers(t *testing.T) {
	checkFinding(t, "apiVersion: spire.spiffe.io/v1alpha1\nkind: ClusterSPIFFEID\nmetadata: {name: a}\nspec: {spiffeIDTemplate: \"spiffe://{{ .TrustDomain }}\"}\n", "", ISM0071)
	checkFinding(t, "apiVersion: v1\nkind: Service\nmetadata: {name: \"{{ .Name }}\"}\nspec: {ports: [{port: 80}]}\n", "f.yaml:3: warning: Service default/{{ .Name }}: metadata.name: has {{ .Name }}", ISM0071)
}

// TestLint_RetriesWithoutEnd: however many retries there are, what they come to is said
// at once, and is no negative time.
func TestLint_RetriesWithoutEnd(t *testing.T) {
	route := func(more string) string {
		return "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec:\n  hosts: [a.test]\n  http:\n  - retries: {attempts: 2147483647, perTryTimeout: 10s, retryOn: connect-failure}\n    " + more + "route: [{destination: {host: a.test}}]\n"
	}
	begin := time.Now()
	checkFinding(t, route(""), "2147483648 of up to 10s each take up to 7", ISM0050)
	checkFinding(t, route("timeout: 20s\n    "), "1 + 2147483647 of up to 10s each take 6", ISM0049)
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("it took %v", d)
	}
}
