package auth

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"isthmus/http1"
	"isthmus/mesh"
)

func dialTo(address string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	}
}

func callFor(path string, fields ...string) *Call {
	c := &Call{
		Method: []byte("POST"), Path: []byte(path), Query: []byte("q=1"), HasQuery: true, Host: []byte("web.prod"), Scheme: "http", Body: []byte("0123456789"),
		Principal: alice, Source: netip.MustParseAddrPort("10.0.0.1:1"), Destination: netip.MustParseAddrPort("10.0.0.2:80"), RequestID: "id",
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		c.Fields = append(c.Fields, http1.Field{Name: []byte(name), Value: []byte(value), ID: http1.LookupField([]byte(name))})
	}
	return c
}

// TestAsker_HTTP: what is sent, and what each answer means.
func TestAsker_HTTP(t *testing.T) {
	var seen *http.Request
	var body string
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		seen, body = r, string(b)
		w.Header().Set("x-user", "alice")
		w.Header().Set("x-other", "o")
		w.Header().Set("x-isthmus-destination", "evil")
		switch {
		case strings.HasSuffix(r.URL.Path, "/no"):
			w.WriteHeader(http.StatusTeapot)
			io.WriteString(w, "no tea")
		case strings.HasSuffix(r.URL.Path, "/broken"):
			w.WriteHeader(http.StatusBadGateway)
		case strings.HasSuffix(r.URL.Path, "/moved"):
			http.Redirect(w, r, "/yes", http.StatusFound)
		}
	}))
	defer service.Close()
	p := &mesh.AuthorizationProvider{
		Name: "p", Timeout: 5 * time.Second, PathPrefix: "/check", RequestHeaders: []string{"x-ticket", "x-a-*"}, AddedHeaders: []mesh.NameValue{{Name: "x-added", Value: "1"}},
		UpstreamOnAllow: []string{"x-user", "x-isthmus-*"}, DownstreamOnDeny: []string{"x-user"}, Body: 4, BodyPartial: true,
	}
	a := NewAsker(p, dialTo(service.Listener.Addr().String()))
	defer a.Close()

	v, err := a.Ask(t.Context(), callFor("/yes", "x-ticket: t", "X-A-One: 1", "x-secret: s"))
	if err != nil || !v.Allowed {
		t.Fatalf("verdict %+v, %v", v, err)
	}
	if !slices.Equal(v.Set, []mesh.NameValue{{Name: "x-user", Value: "alice"}}) {
		t.Errorf("the request gets %v", v.Set)
	}
	if seen.Method != "POST" || seen.URL.Path != "/check/yes" || seen.URL.RawQuery != "q=1" || seen.Host != "web.prod" || body != "0123" {
		t.Errorf("asked %s %s %s with body %q", seen.Method, seen.URL, seen.Host, body)
	}
	for name, want := range map[string]string{"X-Ticket": "t", "X-A-One": "1", "X-Added": "1", "X-Secret": ""} {
		if got := seen.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	v, err = a.Ask(t.Context(), callFor("/no"))
	if err != nil || v.Allowed || v.Status != http.StatusTeapot || string(v.Body) != "no tea" || !slices.ContainsFunc(v.Downstream, func(nv mesh.NameValue) bool { return nv.Name == "x-user" }) {
		t.Errorf("refused: %+v, %v", v, err)
	}
	if v, err = a.Ask(t.Context(), callFor("/moved")); err != nil || v.Allowed || v.Status != http.StatusFound {
		t.Errorf("a redirect: %+v, %v", v, err)
	}
	if _, err = a.Ask(t.Context(), callFor("/broken")); err == nil {
		t.Error("a 502 is an answer")
	}
	p.BodyPartial = false
	if v, err = a.Ask(t.Context(), callFor("/yes")); err != nil || v.Allowed || v.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("a body too large: %+v, %v", v, err)
	}
}

// TestAsker_NoAnswer: who is away, slow or garbled is an error, and what holds
// then is the provider's choice.
func TestAsker_NoAnswer(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	garbled := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, _ := http.NewResponseController(w).Hijack()
		io.WriteString(c, "nonsense\r\n\r\n")
		c.Close()
	}))
	defer garbled.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	for name, address := range map[string]string{"silent": silent.Addr().String(), "garbled": garbled.Listener.Addr().String(), "gone": gone.Listener.Addr().String()} {
		for _, overGRPC := range []bool{false, true} {
			a := NewAsker(&mesh.AuthorizationProvider{Name: "p", Timeout: 100 * time.Millisecond, GRPC: overGRPC}, dialTo(address))
			if v, err := a.Ask(t.Context(), callFor("/")); err == nil {
				t.Errorf("%s, gRPC %v: %+v", name, overGRPC, v)
			}
			a.Close()
			if _, err := a.Ask(t.Context(), callFor("/")); !errors.Is(err, ErrClosed) {
				t.Errorf("after the end: %v", err)
			}
		}
	}
	for _, tt := range []struct {
		p       mesh.AuthorizationProvider
		allowed bool
		status  int
	}{{mesh.AuthorizationProvider{}, false, 403}, {mesh.AuthorizationProvider{StatusOnError: 503}, false, 503}, {mesh.AuthorizationProvider{FailOpen: true}, true, 0}} {
		a := NewAsker(&tt.p, dialTo(""))
		if v := a.OnError(); v.Allowed != tt.allowed || v.Status != tt.status {
			t.Errorf("%+v: %+v", tt.p, v)
		}
		a.Close()
	}
}

// checker is an authorization service over gRPC.
type checker struct {
	authv3.UnimplementedAuthorizationServer
	answer func(*authv3.CheckRequest) *authv3.CheckResponse
}

func (c checker) Check(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return c.answer(r), nil
}

func option(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}}
}

func TestAsker_GRPC(t *testing.T) {
	var seen *authv3.CheckRequest
	answers := map[string]*authv3.CheckResponse{
		"/yes": {Status: &status.Status{Code: int32(codes.OK)}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers: []*corev3.HeaderValueOption{option("X-User", "alice"), option("x-isthmus-probe", "1"), option(":path", "/admin"), option("host", "evil")}, HeadersToRemove: []string{"x-gone", "host"},
		}}},
		"/bare": {Status: &status.Status{Code: int32(codes.OK)}},
		"/no": {Status: &status.Status{Code: int32(codes.PermissionDenied)}, HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: typev3.StatusCode_Unauthorized}, Body: "who?", Headers: []*corev3.HeaderValueOption{option("www-authenticate", "Basic")},
		}}},
		"/plainly-no": {Status: &status.Status{Code: int32(codes.PermissionDenied)}},
		"/injects": {Status: &status.Status{Code: int32(codes.OK)}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers: []*corev3.HeaderValueOption{option("x-a", "1\r\nx-b: 2")},
		}}},
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, checker{answer: func(r *authv3.CheckRequest) *authv3.CheckResponse {
		seen = r
		path, _, _ := strings.Cut(r.Attributes.Request.Http.Path, "?")
		return answers[path]
	}})
	go server.Serve(l) // ends with Stop
	defer server.Stop()
	a := NewAsker(&mesh.AuthorizationProvider{Name: "p", GRPC: true, Timeout: 5 * time.Second}, dialTo(l.Addr().String()))
	defer a.Close()

	v, err := a.Ask(t.Context(), callFor("/yes", "X-Ticket: t"))
	if err != nil || !v.Allowed || !slices.Equal(v.Set, []mesh.NameValue{{Name: "x-user", Value: "alice"}}) || !slices.Equal(v.Remove, []string{"x-gone"}) {
		t.Errorf("allowed: %+v, %v", v, err)
	}
	h := seen.Attributes.Request.Http
	if h.Method != "POST" || h.Path != "/yes?q=1" || h.Host != "web.prod" || h.Headers["x-ticket"] != "t" || h.Body != "" || seen.Attributes.Source.Principal != alice {
		t.Errorf("asked %+v", seen)
	}
	if v, err := a.Ask(t.Context(), callFor("/bare")); err != nil || !v.Allowed {
		t.Errorf("a bare OK: %+v, %v", v, err)
	}
	if v, err := a.Ask(t.Context(), callFor("/no")); err != nil || v.Allowed || v.Status != 401 || string(v.Body) != "who?" || len(v.Downstream) != 1 {
		t.Errorf("refused: %+v, %v", v, err)
	}
	if v, err := a.Ask(t.Context(), callFor("/plainly-no")); err != nil || v.Allowed || v.Status != 403 {
		t.Errorf("refused plainly: %+v, %v", v, err)
	}
	if v, err := a.Ask(t.Context(), callFor("/injects")); err != nil || v.Allowed || v.Status != 500 || v.Fault == nil {
		t.Errorf("an answer that would split a head: %+v, %v", v, err)
	}
}

// TestAsker_TooMany: there is no line for a service that does not answer.
func TestAsker_TooMany(t *testing.T) {
	a := NewAsker(&mesh.AuthorizationProvider{Name: "p"}, dialTo(""))
	for range cap(a.slots) {
		a.slots <- struct{}{}
	}
	if _, err := a.Ask(t.Context(), callFor("/")); !errors.Is(err, ErrTooMany) {
		t.Errorf("error %v", err)
	}
	for range cap(a.slots) {
		<-a.slots
	}
	a.Close()
}

// FuzzVerdict: no field of an answer frames a message, names a proxy's own field,
// or has a line end in it.
func FuzzVerdict(f *testing.F) {
	f.Add("x-user", "alice")
	f.Add("Host", "evil")
	f.Add("x-a", "1\r\nx-b: 2")
	f.Add("transfer-encoding", "chunked")
	f.Add("X-Isthmus-Probe", "1")
	f.Fuzz(func(t *testing.T, name, value string) {
		v := readCheck(&authv3.CheckResponse{Status: &status.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers: []*corev3.HeaderValueOption{option(name, value)}, ResponseHeadersToAdd: []*corev3.HeaderValueOption{option(name, value)},
		}}}, nil)
		for _, nv := range slices.Concat(v.Set, v.Add, v.Downstream, v.DownstreamSet) {
			if reserved(nv.Name) || strings.ToLower(nv.Name) != nv.Name || !http1.ValidName([]byte(nv.Name)) || strings.ContainsAny(nv.Value, "\r\n\x00") {
				t.Errorf("%q: %q is sent on", nv.Name, nv.Value)
			}
		}
	})
}

func BenchmarkAsk_HTTP(b *testing.B) {
	service := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer service.Close()
	a := NewAsker(&mesh.AuthorizationProvider{Name: "p", Timeout: time.Second}, dialTo(service.Listener.Addr().String()))
	defer a.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Ask(b.Context(), callFor("/")); err != nil {
			b.Fatal(err)
		}
	}
}
