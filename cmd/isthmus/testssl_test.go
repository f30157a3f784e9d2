package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSecurity_Testssl: testssl.sh has nothing to say against a gateway: protocols,
// kinds of suites, vulnerabilities. ISTHMUS_TESTSSL names the program; make testssl
// does. It takes half a minute.
func TestSecurity_Testssl(t *testing.T) {
	testssl := os.Getenv("ISTHMUS_TESTSSL")
	if testssl == "" {
		t.Skip("ISTHMUS_TESTSSL does not name testssl.sh")
	}
	at := addresses(t, 2)
	m := newIdentityMesh(t, "")
	m.write("mesh.yaml", strings.ReplaceAll(`apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: istio-system}
spec:
  servers:
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: ["*"], tls: {mode: SIMPLE, serverCertificate: DIR/edge.crt, privateKey: DIR/edge.key}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: istio-system}
spec: {hosts: ["*"], gateways: [edge], http: [{directResponse: {status: 200, body: {string: hello}}}]}
`, "DIR", m.dir))
	_, port, _ := strings.Cut(at[0], ":")
	m.run("edge", "istio-system", at[1], fmt.Sprintf("node: {namespace: istio-system, serviceAccount: edge}\nlisteners: {outbound: \"\", inbound: \"\", admin: %q, metrics: \"\", gateway: {bind: 127.0.0.1, ports: {443: %s}}}\n", at[1], port))
	file := filepath.Join(m.dir, "findings.json")
	out, err := exec.Command(testssl, "--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none", "-p", "-s", "-U", "--jsonfile", file, at[0]).CombinedOutput()
	data, readErr := os.ReadFile(file)
	if readErr != nil {
		t.Fatalf("%v: %v\n%s", err, readErr, out)
	}
	var findings []struct{ ID, Severity, Finding string }
	if err := json.Unmarshal(data, &findings); err != nil {
		t.Fatal(err)
	}
	said := 0
	for _, f := range findings {
		if slices.Contains([]string{"OK", "INFO", "LOW"}, f.Severity) {
			said++
			continue
		}
		t.Errorf("%s: %s: %s", f.Severity, f.ID, f.Finding)
	}
	if said < 20 {
		t.Errorf("%d findings are too few to believe in\n%s", said, out)
	}
	t.Logf("%d findings, none above LOW", said)
}
