package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// The sidecar of a service of gRPC that refuses those whom the policy names, and
// lets so many calls pass.
const grpcSidecar = `apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: echo}, ports: [{name: grpc, port: 80, targetPort: %d}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-guests}
spec:
  selector: {matchLabels: {app: echo}}
  action: DENY
  rules: [{when: [{key: "request.headers[x-who]", values: [guest]}]}]
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: limit}
spec:
  workloadSelector: {labels: {app: echo}}
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.local_ratelimit
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          stat_prefix: x
          rate_limited_as_resource_exhausted: true
          filter_enabled: {default_value: {numerator: 100}}
          filter_enforced: {default_value: {numerator: 100}}
          token_bucket: {max_tokens: 3, tokens_per_fill: 1, fill_interval: 3600s}
`

// TestGRPC_Statuses: what a call by grpc-go ends with, the caller, the metrics and
// the access log say alike.
func TestGRPC_Statuses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	go server.Serve(l) // ends with Stop
	t.Cleanup(server.Stop)

	var ports [2]int
	if err := freePorts([]*int{&ports[0], &ports[1]}); err != nil {
		t.Fatal(err)
	}
	r := &running{dir: t.TempDir(), admin: fmt.Sprintf("127.0.0.1:%d", ports[1])}
	inbound := fmt.Sprintf("127.0.0.1:%d", ports[0])
	r.write(t, "node.yaml", fmt.Sprintf(`node: {name: n, address: 127.0.0.1, labels: {app: echo}}
listeners: {outbound: "", inbound: %q, admin: %q, metrics: ""}
accessLog: {path: log, format: "%%RESPONSE_CODE%% %%GRPC_STATUS%% %%GRPC_STATUS(NUMBER)%% %%RESPONSE_FLAGS%%"}
`, inbound, r.admin))
	r.write(t, "mesh/echo.yaml", fmt.Sprintf(grpcSidecar, l.Addr().(*net.TCPAddr).Port))
	var said strings.Builder
	cmd := exec.Command(program, "run", "--bootstrap", "node.yaml", "--config", "mesh")
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.dir, &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	eventually(t, "the proxy is ready", func() bool {
		status, _ := page("http://"+r.admin+"/ready", "")
		return status == 200
	})

	conn, err := grpc.NewClient(inbound, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("echo"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	call := func(who, service string) codes.Code {
		_, err := grpc_health_v1.NewHealthClient(conn).Check(metadata.AppendToOutgoingContext(ctx, "x-who", who),
			&grpc_health_v1.HealthCheckRequest{Service: service})
		return status.Code(err)
	}
	var lines []string
	for _, tt := range []struct {
		who, service string
		want         codes.Code
		line, metric string
	}{
		{"host", "", codes.OK, "200 OK 0 -", `grpc_response_status="0"`},
		{"host", "no-such", codes.NotFound, "200 NotFound 5 -", `grpc_response_status="5"`},
		{"guest", "", codes.PermissionDenied, "200 PermissionDenied 7 -", `grpc_response_status="7"`},
		{"host", "", codes.ResourceExhausted, "200 ResourceExhausted 8 RL", `grpc_response_status="8"`},
	} {
		got := call(tt.who, tt.service)
		if tt.want == codes.ResourceExhausted && got == codes.OK {
			got = call(tt.who, tt.service) // one whom the policy refuses may take no token
			lines = append(lines, "200 OK 0 -")
		}
		if got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
		lines = append(lines, tt.line)
		eventually(t, tt.metric+" is counted", func() bool {
			_, text := page("http://"+r.admin+"/stats/prometheus", "")
			return slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool {
				return strings.HasPrefix(line, "istio_requests_total{") && strings.Contains(line, tt.metric) && strings.Contains(line, `request_protocol="grpc"`)
			})
		})
	}
	eventually(t, "the log has its lines", func() bool {
		b, _ := os.ReadFile(filepath.Join(r.dir, "log"))
		return strings.Count(string(b), "\n") >= len(lines)
	})
	b, _ := os.ReadFile(filepath.Join(r.dir, "log"))
	if got := strings.Split(strings.TrimSpace(string(b)), "\n"); !slices.Equal(got, lines) {
		t.Errorf("the log has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
}
