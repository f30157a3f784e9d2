package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	meshconfig "istio.io/api/mesh/v1alpha1"

	"isthmus/mesh"
)

func meshConfigMap(text string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    " + strings.ReplaceAll(text, "\n", "\n    ") + "\n"
}

// TestMeshConfig_Defaults: what the mesh configuration says holds where resources do not
// say it, block by block.
func TestMeshConfig_Defaults(t *testing.T) {
	text := meshConfigMap("connectTimeout: 3s\nlocalityLbSetting: {failover: [{from: a, to: b}]}\ndefaultHttpRetryPolicy: {attempts: 1, retryOn: reset}\ndefaultServiceExportTo: [\".\"]\ndefaultVirtualServiceExportTo: [x]\ndefaultDestinationRuleExportTo: [\"*\"]") + `---
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {selector: {app: s}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: said, annotations: {networking.istio.io/exportTo: "y"}}
spec: {selector: {app: s}, ports: [{port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec: {hosts: [v.test], http: [{directResponse: {status: 200}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d}
spec:
  host: d.test
  trafficPolicy:
    loadBalancer: {simple: RANDOM}
    connectionPool: {tcp: {maxConnections: 5}}
    portLevelSettings: [{port: {number: 81}, connectionPool: {tcp: {connectTimeout: 1s}}}]
  subsets: [{name: v1, labels: {v: "1"}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {enabled: false}}}}]
`
	r := Read([]File{{Name: "f.yaml", Data: []byte(text)}}, nil)
	if r.HasErrors() {
		t.Fatal(r.Findings)
	}
	c := r.Config
	if got := fmt.Sprint(c.Services[0].ExportTo, c.Services[1].ExportTo, c.VirtualServices[0].ExportTo, c.DestinationRules[0].ExportTo); got != "[.] [y] [x] [*]" {
		t.Errorf("exported to %s", got)
	}
	if c.Retries == nil || c.Retries.Attempts != 1 || c.Retries.On != mesh.RetryReset {
		t.Errorf("retries %+v", c.Retries)
	}
	rules := mesh.NewRules(&mesh.Node{Namespace: "default"}, c.DestinationRules)
	for _, tt := range []struct {
		host    string
		port    uint32
		subset  string
		kind    mesh.LoadBalancerKind
		timeout time.Duration
		off     bool // locality
	}{
		{"other.test", 80, "", mesh.LeastRequest, 3 * time.Second, false},
		{"d.test", 80, "", mesh.Random, 3 * time.Second, false},
		{"d.test", 81, "", mesh.LeastRequest, time.Second, false},
		{"d.test", 80, "v1", mesh.RoundRobin, 3 * time.Second, true},
	} {
		p := rules.Find(tt.host, "", tt.port, tt.subset)
		if p.LoadBalancer == nil || p.LoadBalancer.Locality == nil || p.ConnectionPool == nil {
			t.Fatalf("%s:%d %s: %+v", tt.host, tt.port, tt.subset, p)
		}
		if l := p.LoadBalancer; l.Kind != tt.kind || l.Locality.Disabled != tt.off || !tt.off && len(l.Locality.Failover) != 1 || p.ConnectionPool.ConnectTimeout != tt.timeout {
			t.Errorf("%s:%d %s: %+v with %+v, connect within %v", tt.host, tt.port, tt.subset, l, l.Locality, p.ConnectionPool.ConnectTimeout)
		}
	}
}

// TestMeshConfig_Last: what holds for every host stands behind all that DestinationRules
// say, wherever they stand and whosever they are.
func TestMeshConfig_Last(t *testing.T) {
	for _, namespace := range []string{"default", "istio-system", "other"} {
		rule := "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d, namespace: " + namespace + "}\nspec: {host: '*', trafficPolicy: {loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {maxConnections: 7}}}}\n"
		r := Read([]File{{Name: "a.yaml", Data: []byte(meshConfigMap("connectTimeout: 3s\nlocalityLbSetting: {enabled: false}"))}, {Name: "b.yaml", Data: []byte(rule)}}, nil)
		p := mesh.NewRules(&mesh.Node{Namespace: "default", RootNamespace: "istio-system"}, r.Config.DestinationRules).Find("a.test", "", 80, "")
		if p.LoadBalancer.Kind != mesh.Random || !p.LoadBalancer.Locality.Disabled || p.ConnectionPool.MaxConnections != 7 || p.ConnectionPool.ConnectTimeout != 3*time.Second {
			t.Errorf("a rule of %s: %+v, %+v", namespace, p.LoadBalancer, p.ConnectionPool)
		}
	}
}

// TestMeshConfig_Several: of several mesh configurations all hold, and the last of what
// several say; what is empty says nothing.
func TestMeshConfig_Several(t *testing.T) {
	first := "connectTimeout: 3s\ndefaultServiceExportTo: ['*']\ndefaultHttpRetryPolicy: {attempts: 4}"
	second := "localityLbSetting: {enabled: false}\nconnectTimeout:\ndefaultServiceExportTo: ['.']\ndefaultHttpRetryPolicy:"
	const service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {app: s}, ports: [{port: 80}]}\n"
	r := Read([]File{{Name: "f.yaml", Data: []byte(meshConfigMap(first) + "---\n" + strings.Replace(meshConfigMap(second), "name: istio,", "name: istio-two,", 1) + "---\n" + service)}}, nil)
	p := mesh.NewRules(&mesh.Node{}, r.Config.DestinationRules).Find("a.test", "", 80, "")
	if p.ConnectionPool == nil || p.ConnectionPool.ConnectTimeout != 3*time.Second || p.LoadBalancer == nil || !p.LoadBalancer.Locality.Disabled {
		t.Errorf("for every host: %+v, %+v", p.LoadBalancer, p.ConnectionPool)
	}
	if got := r.Config.Services[0].ExportTo; !slices.Equal(got, []string{"."}) || r.Config.Retries == nil || r.Config.Retries.Attempts != 4 {
		t.Errorf("exported to %v, retries %+v", got, r.Config.Retries)
	}
	if r := Read([]File{{Name: "f.yaml", Data: []byte(meshConfigMap("defaultServiceExportTo: '.'"))}}, nil); !r.HasErrors() {
		t.Errorf("a word in the place of a list: findings %v", r.Findings)
	}
}

// TestMeshConfig_Others: what an application's own ConfigMap has under the key is no default
// of the mesh, nor is it one if it is no mapping.
func TestMeshConfig_Others(t *testing.T) {
	const service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {app: s}, ports: [{port: 80}]}\n"
	others := strings.Replace(meshConfigMap("defaultServiceExportTo: ['~']\nconnectTimeout: soon\ncolour: red"), "name: istio,", "name: painter,", 1)
	for _, text := range []string{others, meshConfigMap("- a\n- {b: c}"), meshConfigMap("words")} {
		r := Read([]File{{Name: "f.yaml", Data: []byte(text + service)}}, nil)
		if r.Count(Warning)+r.Count(Error) > 0 || len(r.Config.Services[0].ExportTo) > 0 {
			t.Errorf("exported to %v; findings %v", r.Config.Services[0].ExportTo, r.Findings)
		}
	}
}

// TestMeshConfig_NotYAML: a text under the key that is no YAML keeps the configuration out if it is
// Istio's; an application's is its own business, and named.
func TestMeshConfig_NotYAML(t *testing.T) {
	for _, text := range []string{"listen: 80; # {\n{{ range .Values }}", "[a"} {
		istios := meshConfigMap(text)
		if r := Read([]File{{Name: "f.yaml", Data: []byte(istios)}}, nil); !r.HasErrors() {
			t.Errorf("Istio's own: %q is taken; findings %v", text, r.Findings)
		}
		checkWarnings(t, strings.Replace(istios, "name: istio,", "name: painter,", 1), "warning: ConfigMap istio-system/painter: data.mesh: is not read as the mesh configuration: ")
	}
}

// TestMeshConfig_Effect: what of the mesh configuration has no effect is named; what Istio
// installs by default is not.
func TestMeshConfig_Effect(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"defaultConfig: {discoveryAddress: istiod.istio-system.svc:15012}\ndefaultProviders: {metrics: [prometheus]}\nenablePrometheusMerge: true\nrootNamespace: istio-system\ntrustDomain: cluster.local", ""},
		{"outboundTrafficPolicy: {mode: REGISTRY_ONLY}\nenableAutoMtls: true", ""},
		{"outboundTrafficPolicy: {mode: ALLOW_ANY}", "f.yaml:6: warning: ConfigMap istio-system/istio: data.mesh.outboundTrafficPolicy: has no effect yet: requests to unknown hosts get 404"},
		{"enableAutoMtls: false", "data.mesh.enableAutoMtls: has no effect yet"},
		{"trustDomain: td.test", "data.mesh.trustDomain: has no effect yet: trustDomain of the bootstrap file says it"},
		{"defaultConfig:\n  gatewayTopology: {numTrustedProxies: 1}", "f.yaml:7: warning: ConfigMap istio-system/istio: data.mesh.defaultConfig.gatewayTopology: has no effect"},
	} {
		checkFinding(t, meshConfigMap(tt.text), tt.want, ISM0003)
	}
	own := &mesh.Node{TrustDomain: "td.test", RootNamespace: "mesh-root"}
	for text, want := range map[string]string{
		"rootNamespace: mesh-root\ntrustDomain: td.test": "",
		"rootNamespace: istio-system":                    "data.mesh.rootNamespace: has no effect yet: rootNamespace of the bootstrap file says it",
		"trustDomain: cluster.local":                     "data.mesh.trustDomain: has no effect yet",
	} {
		r := Read([]File{{Name: "f.yaml", Data: []byte(meshConfigMap(text))}}, own)
		if n := r.Count(Warning); want == "" && n > 0 || want != "" && (n != 1 || !slices.ContainsFunc(r.Findings, func(f Finding) bool { return strings.Contains(f.String(), want) })) {
			t.Errorf("%s, beside a bootstrap file: %v, want %q", text, r.Findings, want)
		}
	}
	checkFinding(t, meshConfigMap("outboundTraficPolicy: {}"), `data.mesh.outboundTraficPolicy: unknown field, which has no effect (did you mean "outboundTrafficPolicy"?)`, ISM0001)
	names := jsonNames((&meshconfig.MeshConfig{}).ProtoReflect().Descriptor().Fields())
	for _, name := range append(slices.Collect(maps.Keys(meshEffect)), meshSilent...) {
		if !slices.Contains(names, name) {
			t.Errorf("the mesh configuration has no %q", name)
		}
	}
}
