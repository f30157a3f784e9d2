package health

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"isthmus/mesh"
)

// own is the application beside the proxy.
var own = Subject{Group: "default/g", Address: netip.MustParseAddrPort("127.0.0.1:0"), Own: true}

func look(t *testing.T, j Job) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), j.Probe.Timeout)
	defer cancel()
	f := Looker{}.Look(ctx, j)
	switch {
	case f.Err != nil:
		return f.Err.Error()
	case f.Degraded:
		return "degraded"
	}
	return "ok"
}

func portOf(address string) uint32 { return uint32(netip.MustParseAddrPort(address).Port()) }

// closedPort is one that nobody listens on.
func closedPort(t *testing.T) uint32 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return portOf(l.Addr().String())
}

func TestLook_HTTP(t *testing.T) {
	handle := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok", "/elsewhere":
		case "/no-content":
			w.WriteHeader(204)
		case "/not-modified":
			w.WriteHeader(304)
		case "/down":
			w.WriteHeader(503)
			io.WriteString(w, "why")
		case "/redirect":
			http.Redirect(w, r, "/down", http.StatusFound)
		case "/to-another-host":
			http.Redirect(w, r, "http://192.0.2.1/down", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/degraded":
			w.Header().Set("x-envoy-degraded", "true")
		case "/headers":
			if r.Host != "app.test" || strings.Join(r.Header["X-A"], ",") != "1,2" || r.URL.RawQuery != "q=1" {
				w.WriteHeader(400)
			}
		case "/kubelet":
			if r.Header.Get("user-agent") != "isthmus-probe" || r.Header.Get("accept") != "*/*" || r.Header.Get("accept-encoding") != "" {
				w.WriteHeader(400)
			}
		case "/breaks":
			panic(http.ErrAbortHandler)
		case "/hangs":
			<-r.Context().Done()
		default:
			w.WriteHeader(404)
		}
	})
	plain := httptest.NewServer(handle)
	defer plain.Close()
	secure := httptest.NewUnstartedServer(handle)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	for _, tt := range []struct {
		path, want string
		headers    []mesh.NameValue
	}{
		{"/ok", "ok", nil},
		{"/no-content", "ok", nil},
		{"/not-modified", "ok", nil},
		{"/down", "GET /down: 503", nil},
		{"/missing", "GET /missing: 404", nil},
		{"/redirect", "GET /redirect: 503", nil},
		{"/to-another-host", "ok", nil},
		{"/loop", "GET /loop: too many redirects", nil},
		{"/degraded", "degraded", nil},
		{"/headers?q=1", "ok", []mesh.NameValue{{Name: "X-A", Value: "1"}, {Name: "x-a", Value: "2"}, {Name: "host", Value: "app.test"}}},
		{"/headers?q=secret", "GET /headers: 400", nil},
		{"/kubelet", "ok", nil},
		{"/breaks", "GET /breaks: unexpected EOF", nil},
		{"/hangs", "GET /hangs: no answer in time", nil},
	} {
		for name, s := range map[string]*httptest.Server{"HTTP": plain, "HTTPS": secure} {
			t.Run(name+tt.path, func(t *testing.T) {
				p := probing()
				p.Path, p.Headers, p.TLS, p.Port = tt.path, tt.headers, s == secure, portOf(s.Listener.Addr().String())
				if tt.path == "/hangs" {
					p.Timeout = 100 * time.Millisecond
				} else {
					p.Timeout = 20 * time.Second
				}
				if got := look(t, Job{own, p}); got != tt.want {
					t.Errorf("%s, want %s", got, tt.want)
				}
			})
		}
	}
	t.Run("nobody listens", func(t *testing.T) {
		p := probing()
		p.Port = closedPort(t)
		if got := look(t, Job{own, p}); got != "GET /: connection refused" {
			t.Error(got)
		}
	})
	t.Run("not HTTP", func(t *testing.T) {
		p := probing()
		p.Port = portOf(secure.Listener.Addr().String())
		p.Path = "/ok"
		if got := look(t, Job{own, p}); got != "GET /ok: 400" {
			t.Error(got)
		}
	})
}

func TestLook_TCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := portOf(l.Addr().String())
	probe := func(host string) *mesh.Probe {
		p := probing()
		p.Kind, p.Port, p.Host = mesh.ProbeTCP, port, host
		return p
	}
	other := Subject{Group: own.Group, Address: netip.MustParseAddrPort("127.0.0.2:0")}
	endpoint := Subject{Address: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), uint16(port))}
	for _, tt := range []struct {
		name string
		job  Job
		ok   bool
	}{
		{"where nobody listens", Job{own, probe("")}, false},
		{"a host of its own", Job{own, probe("127.0.0.2")}, true},
		{"another workload", Job{other, probe("")}, true},
		{"another workload, and a host meant for the own", Job{other, probe("192.0.2.1")}, true},
		{"an endpoint, which has a port", Job{endpoint, &mesh.Probe{Kind: mesh.ProbeTCP, Timeout: time.Second}}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := look(t, tt.job); (got == "ok") != tt.ok {
				t.Error(got)
			}
		})
	}
}

func TestLook_GRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	h := grpchealth.NewServer()
	h.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	h.SetServingStatus("a.Up", healthpb.HealthCheckResponse_SERVING)
	h.SetServingStatus("a.Down", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(s, h)
	go s.Serve(l) // ends with Stop
	defer s.Stop()
	for _, tt := range []struct {
		service, want string
		port          uint32
	}{
		{"", "ok", portOf(l.Addr().String())},
		{"a.Up", "ok", portOf(l.Addr().String())},
		{"a.Down", "grpc a.Down: NOT_SERVING", portOf(l.Addr().String())},
		{"a.Nobody", "grpc a.Nobody: NOT_FOUND", portOf(l.Addr().String())},
		{"", "grpc: connection refused", closedPort(t)},
	} {
		p := probing()
		p.Kind, p.Port, p.Service, p.Timeout = mesh.ProbeGRPC, tt.port, tt.service, 20*time.Second
		if got := look(t, Job{own, p}); got != tt.want {
			t.Errorf("%q at %d: %s, want %s", tt.service, tt.port, got, tt.want)
		}
	}
}

func TestLook_Exec(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "mark")
	for _, tt := range []struct {
		name    string
		command []string
		want    string
	}{
		{"succeeds", []string{"true"}, "ok"},
		{"fails", []string{"sh", "-c", "exit 3"}, "exec sh: exit status 3"},
		{"is not there", []string{"/nowhere/at/all"}, "exec /nowhere/at/all: no such file or directory"},
		{"takes too long, with its children", []string{"sh", "-c", "sleep 600 & echo $! >" + mark + "; wait"}, "exec sh: no answer in time"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := probing()
			p.Kind, p.Command = mesh.ProbeExec, tt.command
			if p.Timeout = 20 * time.Second; strings.HasPrefix(tt.name, "takes") {
				p.Timeout = time.Second
			}
			if got := look(t, Job{own, p}); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
	pid, err := os.ReadFile(mark)
	if err != nil {
		t.Skip("the command was killed before it had a child")
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			break // gone, or for somebody else to bury
		}
		if time.Now().After(deadline) {
			t.Fatal("a child of a command that was killed lives on")
		}
	}
}

// TestLook_Through asks another proxy for what is behind it.
func TestLook_Through(t *testing.T) {
	var status int
	var answers bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("x-isthmus-destination") != "web.default:80" || r.Header.Get("x-isthmus-probe") != "1" {
			t.Errorf("asked with %v", r.Header)
		}
		if answers {
			w.Header().Set("x-isthmus-probe", "1")
		}
		w.WriteHeader(status)
		io.WriteString(w, "probe: GET /: 500")
	}))
	defer s.Close()
	job := Job{Subject{Address: netip.MustParseAddrPort(s.Listener.Addr().String()), Service: "web.default", Port: 80}, &mesh.Probe{Kind: mesh.ProbeTCP, Timeout: 20 * time.Second}}
	for _, tt := range []struct {
		status  int
		answers bool
		want    string
	}{
		{200, true, "ok"},
		{503, true, "probe: GET /: 500"},
		{404, false, "status 404"},
	} {
		status, answers = tt.status, tt.answers
		if got := look(t, job); got != tt.want {
			t.Errorf("%d: %s, want %s", tt.status, got, tt.want)
		}
	}
}

// TestLook_ThroughPlain: whom mTLS does not reach is asked in plain text, if requests are sent so.
func TestLook_ThroughPlain(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, plain := range []bool{false, true} {
		subject := Subject{Address: netip.MustParseAddrPort(s.Listener.Addr().String()), Service: "web.default", Port: 80, Secure: true, Plain: plain}
		l := Looker{Mesh: func() (*tls.Config, error) { return &tls.Config{}, nil }}
		if f := l.Look(ctx, Job{subject, &mesh.Probe{Kind: mesh.ProbeTCP}}); (f.Err == nil) != plain {
			t.Errorf("plain text %v: %v", plain, f.Err)
		}
	}
}

// TestReasonOf: what others say is shown and announced, so it is made safe.
func TestReasonOf(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"GET /: 503", "GET /: 503"},
		{"a\nb\x1b[2Jc\xff", "a b [2Jc\ufffd"},
		{" \r\n", "failed"},
		{strings.Repeat("ü", 150), strings.Repeat("ü", 100)},
	} {
		if got := reasonOf(errors.New(tt.text)); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
}
