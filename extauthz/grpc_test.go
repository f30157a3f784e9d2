package extauthz

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"isthmus/mesh"
)

type checkFunc func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error)

// Check makes it an authv3.AuthorizationServer.
func (f checkFunc) Check(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return f(ctx, r)
}

func allowCheck(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{Status: &rpcstatus.Status{}}, nil
}

func startGRPC(t testing.TB, f checkFunc) (address string, stop func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, f)
	ended := make(chan struct{})
	go func() { s.Serve(l); close(ended) }() // until stop
	stop = func() { s.Stop(); <-ended }
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func grpcServer(t testing.TB, f checkFunc) *place {
	address, _ := startGRPC(t, f)
	return newPlace(address)
}

func TestGRPCRequest(t *testing.T) {
	checkLeaks(t)
	var got *authv3.AttributeContext
	var authority []string
	at := grpcServer(t, func(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		got, authority = r.Attributes, md[":authority"]
		return allowCheck(ctx, r)
	})
	a := newTestAsker(t, &mesh.AuthorizationProvider{GRPC: true, Body: 5, BodyPartial: true}, at)
	c := getCall("/a%2Fb?q=1", "X-User", "a", "x-user", "b\xff\xfe!", "Cookie", "a=1", "cookie", "b=2", "Content-Length", "9", "connection", "x", "transfer-encoding", "chunked",
		"host", "evil.test", "x-isthmus-destination", "a:1", "X-Forwarded-Client-Cert", "By=x", "x-envoy-auth-partial-body", "lie")
	c.Method, c.Body, c.Scheme = []byte("POST"), []byte("he\xffloooo"), "https"
	c.Principal, c.OwnPrincipal = "spiffe://td/ns/a/sa/b", "spiffe://td/ns/c/sa/d"
	c.Source, c.Destination = netip.MustParseAddrPort("[::ffff:10.0.0.1]:1"), netip.MustParseAddrPort("[fd00::2]:65535")
	c.SNI, c.RequestID = "sni.test", "id-1"
	if v := mustAsk(t, a, c); !v.Allowed {
		t.Fatalf("%+v", v)
	}
	if at := got.Request.Time.AsTime(); time.Since(at) > patience || time.Until(at) > 0 {
		t.Errorf("time %v", at)
	}
	got.Request.Time = nil
	address := func(a string, port uint32) *corev3.Address {
		return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: a, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}}}}
	}
	want := &authv3.AttributeContext{
		Source:      &authv3.AttributeContext_Peer{Address: address("10.0.0.1", 1), Principal: "spiffe://td/ns/a/sa/b"},
		Destination: &authv3.AttributeContext_Peer{Address: address("fd00::2", 65535), Principal: "spiffe://td/ns/c/sa/d"},
		TlsSession:  &authv3.AttributeContext_TLSSession{Sni: "sni.test"},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Id: "id-1", Method: "POST", Path: "/a%2Fb?q=1", Host: "app.test", Scheme: "https", Size: 9, Protocol: "HTTP/1.1", Body: "he!lo",
			Headers: map[string]string{
				"x-user": "a,b!!!", "cookie": "a=1; b=2", "content-length": "9", "x-forwarded-client-cert": "By=x", "x-envoy-auth-partial-body": "true",
				":method": "POST", ":path": "/a%2Fb?q=1", ":authority": "app.test", ":scheme": "https",
			},
		}},
	}
	if !proto.Equal(got, want) {
		t.Errorf("asked\n%v\nwant\n%v", got, want)
	}
	if len(authority) != 1 || authority[0] != "authz.test:9000" {
		t.Errorf("authority %q", authority)
	}
}

func TestGRPCBody(t *testing.T) {
	checkLeaks(t)
	var got *authv3.AttributeContext_HttpRequest
	at := grpcServer(t, func(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		got = r.Attributes.Request.Http
		return allowCheck(ctx, r)
	})
	for _, tt := range []struct {
		p                  mesh.AuthorizationProvider
		body               string
		more               bool
		text, raw, partial string
		size               int64
	}{
		{mesh.AuthorizationProvider{}, "hello", true, "", "", "", -1},
		{mesh.AuthorizationProvider{Body: 5}, "h\xff", false, "h!", "", "false", 2},
		{mesh.AuthorizationProvider{Body: 5, BodyAsBytes: true}, "h\xff", false, "", "h\xff", "false", 2},
		{mesh.AuthorizationProvider{Body: 5, BodyAsBytes: true, BodyPartial: true}, "hello", true, "", "hello", "true", -1},
	} {
		tt.p.GRPC = true
		a := newTestAsker(t, &tt.p, at)
		c := getCall("/", partialBody, "lie")
		c.Method, c.Body, c.BodyPartial = []byte("POST"), []byte(tt.body), tt.more
		mustAsk(t, a, c)
		if got.Body != tt.text || string(got.RawBody) != tt.raw || got.Headers[partialBody] != tt.partial || got.Size != tt.size {
			t.Errorf("%+v, %q: %v", tt.p, tt.body, got)
		}
	}
}

// TestGRPCFails: what is no answer.
func TestGRPCFails(t *testing.T) {
	checkLeaks(t)
	for name, f := range map[string]checkFunc{
		"unavailable": func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
			return nil, status.Error(codes.Unavailable, "no")
		},
		"denied as RPC": func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
			return nil, status.Error(codes.PermissionDenied, "no")
		},
		"too long a head": func(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
			grpc.SetHeader(ctx, metadata.Pairs("a", strings.Repeat("x", 100<<10)))
			return allowCheck(ctx, r)
		},
		"too large": func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
			return okSetting(option("a", strings.Repeat("x", 1<<20))), nil
		},
	} {
		a := newTestAsker(t, &mesh.AuthorizationProvider{GRPC: true}, grpcServer(t, f))
		if v, err := a.Ask(context.Background(), getCall("/")); err == nil {
			t.Errorf("%s: %+v", name, v)
		}
	}
	// A server without the service.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	go s.Serve(l) // until Stop
	t.Cleanup(s.Stop)
	a := newTestAsker(t, &mesh.AuthorizationProvider{GRPC: true}, newPlace(l.Addr().String()))
	if v, err := a.Ask(context.Background(), getCall("/")); err == nil || !strings.Contains(err.Error(), `gRPC status "12"`) {
		t.Errorf("no such service: %+v, %v", v, err)
	}
}

// TestAskTooMany: a thousand calls at once, and no line behind them.
func TestAskTooMany(t *testing.T) {
	checkLeaks(t)
	began, release := make(chan struct{}), make(chan struct{})
	at := grpcServer(t, func(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		began <- struct{}{}
		<-release
		return allowCheck(ctx, r)
	})
	a := newTestAsker(t, &mesh.AuthorizationProvider{GRPC: true}, at)
	var calls sync.WaitGroup
	failed := make(chan string, maxCalls)
	for range maxCalls {
		calls.Go(func() { // until release
			if v, err := a.Ask(context.Background(), getCall("/")); err != nil || !v.Allowed {
				failed <- fmt.Sprint(v, err)
			}
		})
	}
	for range maxCalls {
		<-began
	}
	if v, err := a.Ask(context.Background(), getCall("/")); !errors.Is(err, ErrTooMany) {
		t.Errorf("Ask = %+v, %v", v, err)
	}
	close(release)
	calls.Wait()
	close(failed)
	for f := range failed {
		t.Error(f)
	}
	go func() { <-began }() // until the next call
	if v := mustAsk(t, a, getCall("/")); !v.Allowed {
		t.Errorf("Ask after it = %+v", v)
	}
}
