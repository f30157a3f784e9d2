package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"isthmus/admin"
	"isthmus/ratelimit"
)

// What rate limits hold under load, with the real rate limit service, and over
// parted clusters, "make limits-measured" shows.

// limitGateway runs the built binary as the gateway of the example's rate limits,
// which answers by itself, and returns where its listeners are.
func limitGateway(t *testing.T, limits string) map[string]string {
	t.Helper()
	example, err := os.ReadFile("../../deploy/examples/multicluster/08-rate-limits.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"limits.yaml": limits,
		"bootstrap.yaml": `node: {name: gw, namespace: istio-system, address: 127.0.0.1, labels: {istio: ingressgateway}}
listeners: {outbound: "", inbound: "", metrics: "", admin: "127.0.0.1:0", gateway: {bind: 127.0.0.1, ports: {80: 0}}}
rateLimits: {config: limits.yaml, serve: "127.0.0.1:0"}
`,
		"mesh.yaml": string(example) + `
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: [web.test], gateways: [gw], http: [{directResponse: {status: 200}}]}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "run", "--bootstrap", "bootstrap.yaml", "--config", "mesh.yaml")
	log := &lockedBuffer{}
	cmd.Dir, cmd.Stderr = dir, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGKILL)
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s", log)
		}
	})
	addresses := map[string]string{}
	eventually(t, "the proxy is ready", func() bool {
		_, text, ok := strings.Cut(log.String(), "isthmus ready: ")
		text, _, whole := strings.Cut(text, "\n")
		if !ok || !whole {
			return false
		}
		for one := range strings.SplitSeq(text, ", ") {
			name, address, _ := strings.Cut(one, " ")
			addresses[name] = address
		}
		return true
	})
	return addresses
}

// lockedBuffer is a bytes.Buffer for a process to write and a test to read.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// TestLimits_Command: limits that proxies keep together and serve, looked at by
// "isthmus limits".
func TestLimits_Command(t *testing.T) {
	at := limitGateway(t, "domain: production\ndescriptors:\n- {key: generic_key, value: default, rate_limit: {unit: day, requests_per_unit: 3}}\n")
	send := func() int {
		status, _ := page("http://"+at["gateway:80"]+"/", "web.test")
		return status
	}
	got := []int{send(), send(), send()}
	client := ratelimit.NewService("s", "s", func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", at["ratelimit"])
	})
	defer client.Close()
	var d ratelimit.Descriptors
	d.Add("generic_key", []byte("default"))
	d.End(1)
	if v, err := client.Ask(10*time.Second, "production", &d); err != nil || !v.Over {
		t.Errorf("by the protocol: %+v, %v; want it over the limit", v, err)
	}
	if got = append(got, send()); fmt.Sprint(got) != "[200 200 200 429]" {
		t.Errorf("%v, want three let in", got)
	}
	out, err := exec.Command(program, "limits", "--admin", at["admin"], "-o", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []admin.Limit
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].Kind != "shared" || list[0].Allowed != 3 || list[0].Refused != 1 || list[1].Kind != "rule" || list[1].Allowed != 3 || list[1].Refused != 2 {
		t.Errorf("shown: %s", out)
	}
}
