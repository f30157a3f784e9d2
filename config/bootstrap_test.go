package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func bootstrapFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "isthmus.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestLoadBootstrap_Defaults(t *testing.T) {
	b, warnings, err := LoadBootstrap("", nil)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	host, _ := os.Hostname()
	want := defaults()
	want.Node.Name, want.Node.Address = host, b.Node.Address
	if !reflect.DeepEqual(b, want) || b.Node.Address == "" {
		t.Errorf("got %+v\nwant %+v", b, want)
	}
	if b.Listeners.Outbound != "127.0.0.1:15001" || b.Listeners.Inbound != "0.0.0.0:15006" || b.Drain.Timeout != 30*time.Second || b.Gossip.Bind != "" {
		t.Errorf("defaults %+v", b)
	}
}

func TestLoadBootstrap_File(t *testing.T) {
	file := bootstrapFile(t, `
"node":
  'name': ${POD}
  labels: {app: web, literal: "$${POD}"}
  locality: r/z
listeners:
  inbound: ""
  gateway: {ports: {80: "${PORT}"}}
gossip:
  advertise: 10.0.0.5:7946
  keys: [keys/a, /etc/b]
clusters: {rls: "limits.infra:8081"}
tracing: {zipkin: {address: "zipkin.infra:9411"}}
`)
	b, _, err := LoadBootstrap(file, []string{"POD=pod-1", "PORT=8080", "ISTHMUS_NODE_SERVICE_ACCOUNT=sa", "ISTHMUS_NODE_CLUSTER=env", "ISTHMUS_DRAIN_TIMEOUT=5s", "ISTHMUS_LISTENERS_GATEWAY_BIND=127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ what, got, want string }{
		{"a variable", b.Node.Name, "pod-1"},
		{"an escaped variable", b.Node.Labels["literal"], "${POD}"},
		{"the environment", b.Node.ServiceAccount, "sa"},
		{"the environment over the default", b.Node.Cluster, "env"},
		{"a field within two sections", b.Listeners.Gateway.Bind, "127.0.0.1"},
		{"a listener that is off", b.Listeners.Inbound, ""},
		{"a listener that is not named", b.Listeners.Outbound, "127.0.0.1:15001"},
		{"gossip's port", b.Gossip.Bind, "0.0.0.0:7946"},
		{"the address from gossip.advertise", b.Node.Address, "10.0.0.5"},
		{"a relative path", b.Gossip.Keys[0], filepath.Join(filepath.Dir(file), "keys/a")},
		{"an absolute path", b.Gossip.Keys[1], "/etc/b"},
		{"a duration from the environment", b.Drain.Timeout.String(), "5s"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %q, want %q", tt.what, tt.got, tt.want)
		}
	}
	if asks := b.MeshNode().Asks; !slices.Equal(asks, []string{"limits.infra", "zipkin.infra"}) {
		t.Errorf("the proxy asks %v", asks)
	}
	if b.Listeners.Gateway.Ports[80] != 8080 {
		t.Errorf("ports %v", b.Listeners.Gateway.Ports)
	}
}

// TestLoadBootstrap_Zero: a duration of 0 needs no unit, in the file, from a variable and
// from the environment.
func TestLoadBootstrap_Zero(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.yaml")
	if err := os.WriteFile(file, []byte("probes: {remote: {interval: 0}}\nwhy: {slow: \"${NONE}\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, _, err := LoadBootstrap(file, []string{"NONE=0", "ISTHMUS_CANARY_SHADOW=0"})
	if err != nil {
		t.Fatal(err)
	}
	if b.Probes.Remote.Interval != 0 || b.Why.Slow != 0 || b.Canary.Shadow != 0 {
		t.Errorf("interval %v, slow %v, shadow %v", b.Probes.Remote.Interval, b.Why.Slow, b.Canary.Shadow)
	}
}

func TestLoadBootstrap_Refuses(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"gossip: {join: 10.0.0.6:7946}", `:1: gossip.join: must be a list, not "10.0.0.6:7946": write ["10.0.0.6:7946"]`},
		{"node:\n  labels: [a]", `:2: node.labels: must be a mapping, not a list`},
		{"node: {labels: {a: [b]}}", `:1: node.labels.a: must be a single value, not a list`},
		{"drain:\n  timeout: 30", ":2: drain.timeout: must be a duration such as 5s, 30ms or 1h, not 30: write 30s, if seconds are meant"},
		{"tracing: {sampling: 10%}", `:1: tracing.sampling: must be a number, not "10%"`},
		{"\noverload: {memory: much}", `:2: overload.memory: "much" must be a quantity of bytes such as 512Mi`},
		{"overload: {memory: 1Mi}", `:1: overload.memory: "1Mi" is too little: write 48Mi or more`},
		{"overload: {connections: -1}", ":1: overload.connections: must not be negative"},
		{"numTrustedProxies: one", `:1: numTrustedProxies: must be a whole number, not "one"`},
		{"probes: {allowExec: 1}", ":1: probes.allowExec: must be true or false, not 1"},
		{"listeners: 15001", ":1: listeners: must be a mapping, not 15001"},
		{"node:\n  name: a\n cluster: b", ":3: not YAML: did not find expected key"},
		{"node: {adress: 10.0.0.1}", ":1: node.adress: unknown field (did you mean \"address\"?)"},
		{"\nlistener: {}", ":2: listener: unknown field (did you mean \"listeners\"?)"},
		{"node:\n  cluster: a/b", ":2: node.cluster:"},
		{"node: {address: somewhere}", "node.address: \"somewhere\" is no IP address"},
		{"node: {locality: r//s}", "must be region/zone/subzone"},
		{"listeners: {outbound: 15001}", "must be an address and a port"},
		{"gossip: {advertise: 'fd00::1:7946'}", `gossip.advertise: "fd00::1:7946": an address of IPv6 stands in brackets: write [fd00::1]:7946`},
		{"listeners: {outbound: '127.0.0.1:99999'}", "must be a number from 0 to 65535"},
		{"listeners: {gateway: {ports: {80: 99999}}}", "is no pair of ports"},
		{"capture: redirect", "not supported yet"},
		{"gossip: {announce: onw}", "(did you mean \"own\"?)"},
		{"gossip: {join: [host]}", "gossip.join[0]"},
		{"gossip: {join: [host:gossip]}", `:1: gossip.join[0]: "host:gossip" must be a name or address and a port`},
		{"clusters: {limits: ':8081'}", `:1: clusters.limits: ":8081" must be a name or address and a port`},
		{"listeners:\n  gateway:\n    ports: {http: 8080}", `:3: listeners.gateway.ports.http: must be a whole number, not "http"`},
		{"\ntrustDomain: spiffe://a.test", `:2: trustDomain: "spiffe://a.test" is no trust domain`},
		{"trustDomainAliases: [a.test, B.test]", `:1: trustDomainAliases[1]: "B.test" is no trust domain`},
		{"drain: {timeout: soon}", "drain.timeout: must be a duration such as"},
		{"\ndownstream: {headTimeout: -1s}", ":2: downstream.headTimeout: must not be negative"},
		{"probes: {remote: {interval: 1ms}}", ":1: probes.remote.interval: must be 100ms or more, or 0 for none"},
		{"probes: {remote: {timeout: 0s}}", "probes.remote.timeout: must be more than 0"},
		{"downstream: {maxBody: -1}", "downstream.maxBody: must not be negative"},
		{"downstream: {maxbody: 1}", "(did you mean \"maxBody\"?)"},
		{"\naccessLog: {format: '%REQ%'}", ":2: accessLog.format: "},
		{"accessLog: {path: a, filter: 'response.code'}", "accessLog.filter: the expression is a number"},
		{"accessLog: {path: a, sampling: 101}", "accessLog.sampling: 101 is no percentage"},
		{"tracing: {sampling: -2}", "tracing.sampling: -2 is no percentage"},
		{"\ntracing: {otlp: {endpoint: 'ftp://a'}}", ":2: tracing.otlp.endpoint: "},
		{"tracing: {zipkin: {address: 'a:b'}}", "tracing.zipkin.address: "},
		{"node: {name: a, name: b}", "given twice"},
		{"node: [", "not YAML"},
		{"node: {name: a}\n---\nnode: {name: b}", ":3: a second document begins here"},
		{"node: {name: a}\n---\nnode: [", ":3: not YAML"},
		{"node: {name: \"${NOT_THERE}\"}", "the environment has no variable NOT_THERE"},
	} {
		_, _, err := LoadBootstrap(bootstrapFile(t, tt.text), nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "isthmus.yaml") {
			t.Errorf("%s: %v, want the file and %q", tt.text, err, tt.want)
		}
	}
	if _, _, err := LoadBootstrap(bootstrapFile(t, "node:\n  name: ${POD}\n"), []string{"POD=p\xff"}); err == nil || !strings.Contains(err.Error(), `isthmus.yaml:2: node.name: the environment's variable POD: "p\xff" is not UTF-8`) {
		t.Errorf("a variable that is no text: %v", err)
	}
	if _, _, err := LoadBootstrap("/nowhere/isthmus.yaml", nil); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a missing file: %v", err)
	}
}

// TestLoadBootstrap_ServiceLinks: what the kubelet tells of Services is no setting, by whichever
// name that a Service has.
func TestLoadBootstrap_ServiceLinks(t *testing.T) {
	links := func(service string) (out []string) {
		for _, v := range []string{"_SERVICE_HOST=10.96.0.7", "_SERVICE_PORT=80", "_SERVICE_PORT_HTTP=80", "_PORT=tcp://10.96.0.7:80", "_PORT_80_TCP=tcp://10.96.0.7:80", "_PORT_80_TCP_PROTO=tcp", "_PORT_80_TCP_PORT=80", "_PORT_80_TCP_ADDR=10.96.0.7"} {
			out = append(out, service+v)
		}
		return out
	}
	for _, tt := range []struct {
		name    string
		environ []string
		want    string // the only warning; "": none
	}{
		{"a gateway's", links("ISTHMUS_GATEWAY"), ""},
		{"the shortest", links("ISTHMUS"), ""},
		{"a name of such words", links("ISTHMUS_PORT_SERVICE_HOST"), ""},
		{"a field among them", append(links("ISTHMUS_NODE"), "ISTHMUS_NODE_NAMES=a"), "ISTHMUS_NODE_NAMES names no field"},
		{"no Service", []string{"ISTHMUS_GATEWAY_PORT=80"}, "ISTHMUS_GATEWAY_PORT names no field"},
		{"another word", append(links("ISTHMUS_GATEWAY"), "ISTHMUS_GATEWAY_PORTS=80"), "ISTHMUS_GATEWAY_PORTS names no field"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, warnings, err := LoadBootstrap("", tt.environ)
			if err != nil || tt.want == "" && len(warnings) > 0 || tt.want != "" && (len(warnings) != 1 || !strings.Contains(warnings[0], tt.want)) {
				t.Errorf("warnings %q, %v; want %q", warnings, err, tt.want)
			}
		})
	}
}

// TestLoadBootstrap_BlamesVariables: a value of the environment is not the file's fault.
func TestLoadBootstrap_BlamesVariables(t *testing.T) {
	for variable, want := range map[string]string{
		"ISTHMUS_DRAIN_TIMEOUT=soon":             `: must be a duration such as 5s, 30ms or 1h, not "soon"`,
		"ISTHMUS_DRAIN_TIMEOUT=30":               ": must be a duration such as 5s, 30ms or 1h, not 30: write 30s, if seconds are meant",
		"ISTHMUS_DRAIN_TIMEOUT=-1s":              ": must not be negative",
		"ISTHMUS_LISTENERS_OUTBOUND=foo":         `: "foo" must be an address and a port, such as 127.0.0.1:15001`,
		"ISTHMUS_PROBES_ALLOW_EXEC=maybe":        `: must be true or false, not "maybe"`,
		"ISTHMUS_NUM_TRUSTED_PROXIES=one":        `: must be a whole number, not "one"`,
		"ISTHMUS_TRACING_SAMPLING=":              ": is empty: give it a value, or unset it",
		"ISTHMUS_LISTENERS_GATEWAY_BIND=gateway": `: "gateway" is no IP address`,
		"ISTHMUS_NODE_CLUSTER=c\xff":             `: "c\xff" is not UTF-8`,
	} {
		_, _, err := LoadBootstrap(bootstrapFile(t, "drain: {timeout: 1s}\nlisteners: {outbound: 127.0.0.1:1}"), []string{variable})
		name, _, _ := strings.Cut(variable, "=")
		if err == nil || err.Error() != "environment variable "+name+want {
			t.Errorf("%s: %v, want %q", variable, err, want)
		}
	}
}

// TestLoadBootstrap_Documents: a document that says nothing is none.
func TestLoadBootstrap_Documents(t *testing.T) {
	for text, want := range map[string]string{"---\n---\nnode: {name: a}\n---\n": "a", "node: {name: a}\n---\n# that was it\n": "a", "# nothing\n": "host", "": "host"} {
		b, _, err := LoadBootstrap(bootstrapFile(t, text), []string{"ISTHMUS_NODE_NAMESPACE=n"})
		if err != nil || (b.Node.Name == "a") != (want == "a") {
			t.Errorf("%q: %v, want the name %s", text, err, want)
		}
	}
}

func TestLoadBootstrap_Warns(t *testing.T) {
	_, warnings, err := LoadBootstrap(bootstrapFile(t, "tracing: {sampling: 1}\naccessLog: {filter: response.code > 400}"), []string{"ISTHMUS_NODE_CLUSTR=x", "ISTHMUS_NODE_LABELS=app=x"})
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(warnings, "\n")
	for _, want := range []string{":2: accessLog.filter: has no effect", "ISTHMUS_NODE_CLUSTR names no field of the bootstrap file (did you mean \"ISTHMUS_NODE_CLUSTER\"?)", "ISTHMUS_NODE_LABELS has no effect: the field has more than one value"} {
		if !strings.Contains(all, want) {
			t.Errorf("warnings\n%s\nwant %q", all, want)
		}
	}
}

// TestLoadBootstrap_Elsewhere: who is told to others at an address at which it does not
// listen, for want of one in the file, is warned.
func TestLoadBootstrap_Elsewhere(t *testing.T) {
	for text, want := range map[string]int{
		"gossip: {bind: '127.0.0.1:1'}\nlisteners: {inbound: '127.0.0.1:2'}":                             2,
		"gossip: {bind: '127.0.0.1:1', announce: none}\nlisteners: {inbound: '127.0.0.1:2'}":             1,
		"gossip: {bind: '0.0.0.0:1'}\nlisteners: {inbound: '127.0.0.1:2'}":                               1,
		"gossip: {bind: '127.0.0.1:1'}\nnode: {address: 127.0.0.1}\nlisteners: {inbound: '127.0.0.1:2'}": 0,
		"gossip: {bind: '127.0.0.1:1', advertise: '10.0.0.1:1'}":                                         0,
		"gossip: {bind: '0.0.0.0:1'}":         0,
		"listeners: {inbound: '127.0.0.1:2'}": 0,
	} {
		b, warnings, err := LoadBootstrap(bootstrapFile(t, text), nil)
		if err != nil {
			t.Fatal(err)
		}
		if b.Node.Address == "127.0.0.1" && want > 0 {
			t.Skip("this machine has no address but loopback")
		}
		if len(warnings) != want || want > 0 && !strings.Contains(warnings[0], "others are told to come to "+b.Node.Address) {
			t.Errorf("%s: %q, want %d warnings", text, warnings, want)
		}
	}
}

// TestBootstrap_JSON: what is shown of a bootstrap file is what could be written there.
func TestBootstrap_JSON(t *testing.T) {
	b, _, err := LoadBootstrap(bootstrapFile(t, "node: {serviceAccount: sa}\nlisteners: {gateway: {ports: {80: 8080}}}\ndrain: {timeout: 90s}\ngossip: {join: ['a:1']}"), nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"serviceAccount":"sa"`, `"gateway":{"bind":"0.0.0.0","ports":{"80":8080}}`, `"drain":{"timeout":"1m30s"}`, `"join":["a:1"]`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s: no %s", text, want)
		}
	}
	again, _, err := LoadBootstrap(bootstrapFile(t, string(text)), nil)
	if err != nil || !reflect.DeepEqual(again.Drain, b.Drain) || !reflect.DeepEqual(again.Listeners, b.Listeners) {
		t.Errorf("read again: %+v, %v", again, err)
	}
}

// FuzzLoadBootstrap: whatever the text, loading ends with a bootstrap or an
// error.
func FuzzLoadBootstrap(f *testing.F) {
	for _, text := range []string{"", "node: {name: a}", "gossip: {keys: [a], join: ['b:1']}", "listeners: {outbound: \"${X}\"}", "a: &a [*a]", "node: &n {name: a, labels: &l {app: a}}\ndomains: {<<: *l, x: c}", "node: &n {<<: *n}", "node: {<<: [a]}", "node:\n\tname: a", "{\"drain\": {\"timeout\": \"1s\"}}"} {
		f.Add([]byte(text))
	}
	file := filepath.Join(f.TempDir(), "isthmus.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		b, _, err := LoadBootstrap(file, []string{"X=127.0.0.1:1"})
		if (b == nil) != (err != nil) {
			t.Errorf("bootstrap %v with error %v", b, err)
		}
	})
}
