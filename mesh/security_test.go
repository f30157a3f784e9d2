package mesh

import (
	"crypto/sha256"
	"crypto/x509"
	"net"
	"net/url"
	"strings"
	"testing"
)

// TestPeerModeOf: the workload's own policy wins over the root namespace's for such
// workloads, that over the namespace's, and that over the mesh's, where it says something.
func TestPeerModeOf(t *testing.T) {
	web := map[string]string{"app": "web"}
	policy := func(namespace string, selector map[string]string, mode MTLSMode, line int, ports ...uint32) *PeerAuthentication {
		p := &PeerAuthentication{Meta: Meta{Namespace: namespace, Source: Source{"f", line}}, Selector: selector, Mode: mode, Ports: map[uint32]MTLSMode{}}
		for _, port := range ports {
			p.Ports[port] = MTLSDisable
		}
		return p
	}
	unset := policy("prod", web, MTLSUnset, 9)
	unset.Ports = map[uint32]MTLSMode{80: MTLSUnset, 81: MTLSStrict}
	for _, tt := range []struct {
		name       string
		policies   []*PeerAuthentication
		mode       MTLSMode
		line       int      // of the policy that says so; 0: none does
		port       MTLSMode // for 81
		portLine   int
		everywhere bool
	}{
		{"none", nil, MTLSPermissive, 0, MTLSPermissive, 0, false},
		{"the mesh's", []*PeerAuthentication{policy("root", nil, MTLSStrict, 1)}, MTLSStrict, 1, MTLSStrict, 1, true},
		{"the namespace's before it", []*PeerAuthentication{policy("prod", nil, MTLSDisable, 2), policy("root", nil, MTLSStrict, 1)}, MTLSDisable, 2, MTLSDisable, 2, false},
		{"the root namespace's for such workloads before that", []*PeerAuthentication{policy("root", web, MTLSStrict, 3), policy("prod", nil, MTLSDisable, 2)}, MTLSStrict, 3, MTLSStrict, 3, true},
		{"the workload's before that", []*PeerAuthentication{policy("prod", web, MTLSPermissive, 4), policy("root", web, MTLSStrict, 3)}, MTLSPermissive, 4, MTLSPermissive, 4, false},
		{"another namespace's", []*PeerAuthentication{policy("shop", nil, MTLSStrict, 1), policy("shop", web, MTLSStrict, 2)}, MTLSPermissive, 0, MTLSPermissive, 0, false},
		{"another workload's", []*PeerAuthentication{policy("prod", map[string]string{"app": "x"}, MTLSStrict, 1), policy("root", map[string]string{"app": "x"}, MTLSStrict, 2)}, MTLSPermissive, 0, MTLSPermissive, 0, false},
		{"two of one level", []*PeerAuthentication{policy("prod", nil, MTLSDisable, 6), policy("prod", nil, MTLSStrict, 5)}, MTLSStrict, 5, MTLSStrict, 5, true},
		{"two of one level, in order", []*PeerAuthentication{policy("prod", nil, MTLSStrict, 5), policy("prod", nil, MTLSDisable, 6)}, MTLSStrict, 5, MTLSStrict, 5, true},
		{"one that inherits", []*PeerAuthentication{policy("root", nil, MTLSStrict, 1), policy("prod", nil, MTLSUnset, 2)}, MTLSStrict, 1, MTLSStrict, 1, true},
		{"a port", []*PeerAuthentication{policy("prod", web, MTLSStrict, 4, 81)}, MTLSStrict, 4, MTLSDisable, 4, false},
		{"another port", []*PeerAuthentication{policy("prod", web, MTLSStrict, 4, 82)}, MTLSStrict, 4, MTLSStrict, 4, false},
		{"a port of a namespace is none", []*PeerAuthentication{policy("prod", nil, MTLSStrict, 4, 81)}, MTLSStrict, 4, MTLSStrict, 4, true},
		{"a port of the mesh is none", []*PeerAuthentication{policy("root", nil, MTLSStrict, 4, 81)}, MTLSStrict, 4, MTLSStrict, 4, true},
		{"ports of two levels: the workload's", []*PeerAuthentication{policy("root", web, MTLSStrict, 3, 81), policy("prod", web, MTLSStrict, 4)}, MTLSStrict, 4, MTLSStrict, 4, true},
		{"ports alone", []*PeerAuthentication{unset}, MTLSPermissive, 0, MTLSStrict, 9, false},
		{"ports over the mesh's mode", []*PeerAuthentication{unset, policy("root", nil, MTLSStrict, 1)}, MTLSStrict, 1, MTLSStrict, 9, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := PeerModeOf(tt.policies, "root", "prod", map[string]string{"app": "web", "version": "v1"})
			if m.Mode != tt.mode || m.Source.Line != tt.line {
				t.Errorf("%v by line %d, want %v by line %d", m.Mode, m.Source.Line, tt.mode, tt.line)
			}
			if mode, source := m.Port(81); mode != tt.port || source.Line != tt.portLine {
				t.Errorf("port 81: %v by line %d, want %v by line %d", mode, source.Line, tt.port, tt.portLine)
			}
			if got := m.StrictEverywhere(); got != tt.everywhere {
				t.Errorf("mTLS everywhere: %v", got)
			}
			strict := tt.mode == MTLSStrict && tt.line != 0
			if got := m.Strict(Source{"f", tt.line}); got != strict {
				t.Errorf("line %d asks for mTLS: %v", tt.line, got)
			}
			if got := m.Strict(Source{"f", 9}); got != (tt.portLine == 9) {
				t.Errorf("line 9 asks for mTLS: %v", got)
			}
		})
	}
	if m := PeerModeOf([]*PeerAuthentication{unset}, "root", "prod", web); !m.Varies() {
		t.Error("a port has a mode of its own")
	}
	if m := PeerModeOf(nil, "root", "prod", web); m.Varies() {
		t.Error("no port has a mode of its own")
	}
}

// TestNode_AppliesTo: policies are for the node's namespace or for all, and for whom they
// select; they come in order of their source.
func TestNode_AppliesTo(t *testing.T) {
	n := node()
	n.Labels = map[string]string{"app": "web"}
	web, other := map[string]string{"app": "web"}, map[string]string{"app": "x"}
	meta := func(name, namespace string, line int) Meta {
		return Meta{Name: name, Namespace: namespace, Source: Source{"f", line}}
	}
	var policies []*AuthorizationPolicy
	var tokens []*RequestAuthentication
	for i, p := range []struct {
		name, namespace string
		selector        map[string]string
	}{
		{"root's", n.RootNamespace, nil}, {"own", n.Namespace, nil}, {"selecting", n.Namespace, web}, {"root's, selecting", n.RootNamespace, web},
		{"others'", n.Namespace, other}, {"root's for others", n.RootNamespace, other}, {"of another namespace", "shop", nil}, {"of another namespace, selecting", "shop", web},
	} {
		m := meta(p.name, p.namespace, 10-i)
		policies = append(policies, &AuthorizationPolicy{Meta: m, Selector: p.selector})
		tokens = append(tokens, &RequestAuthentication{Meta: m, Selector: p.selector, Rules: []*TokenRule{
			{Source: m.Source, Issuer: p.name + " 2"}, {Source: m.Source, Issuer: p.name + " 1"},
		}})
	}
	var got []string
	for _, p := range AuthorizationOf(n, policies) {
		got = append(got, p.Name)
	}
	if want := "root's, selecting; selecting; own; root's"; strings.Join(got, "; ") != want {
		t.Errorf("policies %q, want %s", got, want)
	}
	got = nil
	for _, r := range TokenRulesOf(n, tokens) {
		got = append(got, r.Issuer)
	}
	if want := "root's, selecting 1; root's, selecting 2; selecting 1; selecting 2; own 1; own 2; root's 1; root's 2"; strings.Join(got, "; ") != want {
		t.Errorf("rules of %q, want %s", got, want)
	}
}

// TestServerTLS_Admits: a client's certificate has one of the names, and one of the sums.
func TestServerTLS_Admits(t *testing.T) {
	uri, err := url.Parse("spiffe://a.test/ns/n/sa/s")
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		Raw: []byte("whole"), RawSubjectPublicKeyInfo: []byte("key"), DNSNames: []string{"a.test"}, EmailAddresses: []string{"a@a.test"},
		URIs: []*url.URL{uri}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 7)},
	}
	sum := func(s string) [][]byte {
		b := sha256.Sum256([]byte(s))
		return [][]byte{make([]byte, len(b)), b[:]}
	}
	for _, tt := range []struct {
		name string
		s    ServerTLS
		want bool
	}{
		{"anybody", ServerTLS{}, true},
		{"a host", ServerTLS{SubjectAltNames: []string{"b.test", "a.test"}}, true},
		{"an address", ServerTLS{SubjectAltNames: []string{"10.0.0.7"}}, true},
		{"an e-mail address", ServerTLS{SubjectAltNames: []string{"a@a.test"}}, true},
		{"an identity", ServerTLS{SubjectAltNames: []string{uri.String()}}, true},
		{"another host", ServerTLS{SubjectAltNames: []string{"b.test", "*.test", "A.test", "a.test."}}, false},
		{"another identity", ServerTLS{SubjectAltNames: []string{uri.String() + "2", "spiffe://a.test/ns/n/sa/"}}, false},
		{"its key", ServerTLS{KeySums: sum("key")}, true},
		{"itself", ServerTLS{CertificateSums: sum("whole")}, true},
		{"another key, or itself", ServerTLS{KeySums: sum("x"), CertificateSums: sum("whole")}, true},
		{"its key, or another", ServerTLS{KeySums: sum("key"), CertificateSums: sum("x")}, true},
		{"another key", ServerTLS{KeySums: sum("whole")}, false},
		{"another", ServerTLS{CertificateSums: sum("key")}, false},
		{"a host, and another key", ServerTLS{SubjectAltNames: []string{"a.test"}, KeySums: sum("x")}, false},
		{"another host, and its key", ServerTLS{SubjectAltNames: []string{"b.test"}, KeySums: sum("key")}, false},
	} {
		if err := tt.s.Admits(leaf); (err == nil) != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestVisibleTo: what a resource is exported to.
func TestVisibleTo(t *testing.T) {
	for _, tt := range []struct {
		name     string
		exportTo []string
		client   string
		want     bool
	}{
		{"not said", nil, "b", true},
		{"everybody", []string{"*"}, "b", true},
		{"its own", []string{"."}, "a", true},
		{"its own, to another", []string{"."}, "b", false},
		{"a name", []string{"c", "b"}, "b", true},
		{"another name", []string{"c"}, "b", false},
		{"a name, to its own", []string{"b"}, "a", false},
		{"nobody", []string{"~"}, "a", false},
	} {
		if got := VisibleTo(tt.exportTo, "a", tt.client); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// TestMatchHost: a wildcard is for what lies under it, and not for what it lies under.
func TestMatchHost(t *testing.T) {
	for _, tt := range []struct {
		pattern, host string
		want          bool
	}{
		{"a.test", "a.test", true}, {"a.test", "b.test", false}, {"*", "a.test", true}, {"*.test", "a.test", true}, {"*.test", "b.a.test", true},
		{"*.test", ".test", false}, {"*.test", "test", false}, {"*.test", "atest", false}, {"*.test", "a.test.evil", false}, {"*", "", false},
	} {
		if got := MatchHost(tt.pattern, tt.host); got != tt.want {
			t.Errorf("%s matches %s: %v", tt.pattern, tt.host, got)
		}
	}
}

func TestCheckTrustDomain(t *testing.T) {
	for _, good := range []string{"a", "cluster.local", "az09.-_", strings.Repeat("a", 255)} {
		if err := CheckTrustDomain(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "A", "a/b", "a:1", "a b", "`", "{", ":", "é", strings.Repeat("a", 256)} {
		if CheckTrustDomain(bad) == nil {
			t.Errorf("%q is one", bad)
		}
	}
}
