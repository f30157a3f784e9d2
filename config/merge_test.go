package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"isthmus/mesh"
)

// mergedRoutes is a VirtualService whose second and third rule bring in parts of
// the first and of an anchor of their own.
const mergedRoutes = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: &meta
  name: v
  labels: &labels {app: a, tier: web}
spec:
  hosts: [a.test]
  http:
  - &first
    timeout: 5s
    retries: &retries {attempts: 3, perTryTimeout: 1s, retryOn: gateway-error}
    match: [{uri: {exact: /a}}]
    route: &to [{destination: {host: web.test}}]
  - <<: *first
    timeout: 7s
    match: [{uri: {exact: /b}}]
  - match: [{uri: {exact: /c}}]
    route: *to
    retries:
      <<: [{attempts: 1}, *retries]
---
`

func virtualServices(t *testing.T, text string) []*mesh.VirtualService {
	t.Helper()
	r := Read([]File{{Name: "v.yaml", Data: []byte(text + webEntry)}}, nil)
	if r.HasErrors() {
		t.Fatal(r.Findings)
	}
	return r.Config.VirtualServices
}

// TestRead_MergeKeys: what << names is there as if it had been written, a mapping's
// own keys win, and of a list the earlier mapping does.
func TestRead_MergeKeys(t *testing.T) {
	rules := virtualServices(t, mergedRoutes)[0].HTTP
	if len(rules) != 3 {
		t.Fatalf("%d rules, want 3", len(rules))
	}
	for i, want := range []string{"5s 3 1s /a", "7s 3 1s /b", "0s 1 1s /c"} {
		r := rules[i]
		got := fmt.Sprintf("%s %d %s %s", r.Timeout, r.Retries.Attempts, r.Retries.PerTryTimeout, r.Match[0].URI.Value)
		if got != want || len(r.Route) != 1 {
			t.Errorf("rule %d is %s, want %s", i, got, want)
		}
	}
}

// TestRead_MergeKeysAnywhere: of metadata, of a List, of a Kubernetes kind, of what
// Istio's schema says nothing of, and of what is merged itself.
func TestRead_MergeKeysAnywhere(t *testing.T) {
	r := Read([]File{{Name: "v.yaml", Data: []byte(`apiVersion: v1
kind: List
items:
- &a
  apiVersion: v1
  kind: Service
  metadata: &meta {name: a, namespace: prod, labels: {app: a}}
  spec: &spec
    selector: {app: a}
    ports: [&port {name: http, port: 80}]
- <<: *a
  metadata: {<<: *meta, name: b}
- &c
  <<: *a
  metadata: &metaC {<<: *meta, name: c}
  spec:
    <<: *spec
    ports: [{<<: *port, port: 81}]
- {<<: *c, metadata: {<<: *metaC, name: d}}
`)}}, nil)
	var got []string
	for _, s := range r.Config.Services {
		got = append(got, fmt.Sprintf("%s/%s %s %s:%d", s.Namespace, s.Name, s.Labels["app"], s.Ports[0].Name, s.Ports[0].Number))
	}
	want := "prod/a a http:80, prod/b a http:80, prod/c a http:81, prod/d a http:81"
	if strings.Join(got, ", ") != want || r.HasErrors() {
		t.Errorf("%v, want %s; findings %v", got, want, r.Findings)
	}
}

// TestRead_MergeKeyOvertaken: where kubectl's library would read something else,
// that is said.
func TestRead_MergeKeyOvertaken(t *testing.T) {
	text := strings.Replace(mergedRoutes, "  - <<: *first\n    timeout: 7s\n", "  - timeout: 7s\n    <<: *first\n", 1)
	r := Read([]File{{Name: "v.yaml", Data: []byte(text + webEntry)}}, nil)
	if got := r.Config.VirtualServices[0].HTTP[1].Timeout.String(); got != "7s" || r.HasErrors() {
		t.Errorf("the time-out is %s, want 7s; findings %v", got, r.Findings)
	}
	want := "v.yaml:14: info: timeout: stands before << and wins over what that brings from line 10"
	if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return strings.HasPrefix(f.String(), want) }) {
		t.Errorf("findings %v, want %q", r.Findings, want)
	}
}

// TestRead_AliasOfAnotherDocument: kubectl knows none.
func TestRead_AliasOfAnotherDocument(t *testing.T) {
	service := func(name, selector string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\nspec: {ports: [{port: 80}], selector: " + selector + "}\n---\n"
	}
	one := service("a", "&s {app: a}")
	checkFinding(t, one, "", ISM0002)
	checkFinding(t, one+service("b", "*s"), "f.yaml:9: info: *s names what another document has in line 4", ISM0002)
	checkFinding(t, one+service("b", "{<<: *s}"), "f.yaml:9: info: *s names what another document has in line 4", ISM0002)
}

// TestMergeKeys_Elsewhere: the bootstrap file and limits are read in the same way.
func TestMergeKeys_Elsewhere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "isthmus.yaml")
	if err := os.WriteFile(file, []byte("node: {name: a, labels: &l {app: a, tier: b}}\ndomains: {<<: *l, tier: c}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, _, err := LoadBootstrap(file, nil)
	if err != nil || b.Domains["app"] != "a" || b.Domains["tier"] != "c" {
		t.Errorf("bootstrap %+v with error %v", b, err)
	}
	domains, _, err := readLimits("limits.yaml", []byte("domain: a\ndescriptors:\n- &one {key: b, rate_limit: {unit: day, requests_per_unit: 1}}\n- {<<: *one, value: c}\n"))
	if err != nil || len(domains) != 1 || len(domains[0].Descriptors) != 2 {
		t.Errorf("limits %+v with error %v", domains, err)
	}
}

// bombs are documents that would be huge, or endless, with all that they name.
var bombs = func() map[string]string {
	doubled := func(level func(n int) string) string {
		out := "a0: &a0 {k: v}\n"
		for n := 1; n < 40; n++ {
			out += level(n)
		}
		return out
	}
	wide := "spec: &wide {"
	for n := range 3000 {
		wide += fmt.Sprintf("k%d: v, ", n)
	}
	wide += "}\nhttp:\n" + strings.Repeat("- {<<: *wide}\n", 3000)
	return map[string]string{
		"merged twice at each level": doubled(func(n int) string {
			return fmt.Sprintf("a%d: &a%d {<<: [*a%d, *a%d]}\n", n, n, n-1, n-1)
		}),
		"merged beside at each level": doubled(func(n int) string {
			return fmt.Sprintf("a%d: &a%d {<<: *a%d, x: *a%d}\n", n, n, n-1, n-1)
		}),
		"a wide mapping merged often":  wide,
		"a mapping that merges itself": "a: &a {<<: *a}\n",
		"a mapping merged within":      "a: &a\n  b: {<<: *a}\n",
	}
}()

// TestRead_MergeBombs: what merging would make too large is refused before.
func TestRead_MergeBombs(t *testing.T) {
	for name, text := range bombs {
		t.Run(name, func(t *testing.T) {
			for _, whole := range []string{text, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    " + strings.ReplaceAll(text, "\n", "\n    ") + "\n"} {
				r := Read([]File{{Name: "v.yaml", Data: []byte(whole)}}, nil)
				if !r.HasErrors() || !strings.Contains(r.Findings[0].Message, "alias") || r.Findings[0].Line == 0 {
					t.Errorf("findings %v, want one that names aliases, with its line", r.Findings)
				}
			}
		})
	}
}
