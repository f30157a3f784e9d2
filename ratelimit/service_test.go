package ratelimit

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"isthmus/mesh"
)

type decide func(context.Context, *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error)

// ShouldRateLimit makes it an rlsv3.RateLimitServiceServer.
func (f decide) ShouldRateLimit(ctx context.Context, r *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	return f(ctx, r)
}

// asking starts a service by grpc-go and what asks it.
func asking(t testing.TB, f decide) *Service {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	rlsv3.RegisterRateLimitServiceServer(server, f)
	ended := make(chan struct{})
	go func() { server.Serve(l); close(ended) }() // until Stop
	t.Cleanup(func() { server.Stop(); <-ended })
	return to(t, l.Addr().String())
}

func to(t testing.TB, address string) *Service {
	s := NewService("rls", "rls.test", func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	})
	t.Cleanup(s.Close)
	return s
}

// TestService_Messages: what is asked, and what is understood of the answer, in
// the eyes of Envoy's own types.
func TestService_Messages(t *testing.T) {
	var got *rlsv3.RateLimitRequest
	s := asking(t, func(_ context.Context, r *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
		got = r
		header := func(k, v string) *corev3.HeaderValue { return &corev3.HeaderValue{Key: k, Value: v} }
		return &rlsv3.RateLimitResponse{
			OverallCode: rlsv3.RateLimitResponse_OVER_LIMIT,
			Statuses: []*rlsv3.RateLimitResponse_DescriptorStatus{
				{Code: rlsv3.RateLimitResponse_OK},
				{
					Code:           rlsv3.RateLimitResponse_OVER_LIMIT,
					CurrentLimit:   &rlsv3.RateLimitResponse_RateLimit{RequestsPerUnit: 5, Unit: rlsv3.RateLimitResponse_RateLimit_WEEK, Name: `n"x`},
					LimitRemaining: 3, DurationUntilReset: durationpb.New(1500 * time.Millisecond),
				},
			},
			ResponseHeadersToAdd: []*corev3.HeaderValue{header("X-A", "b"), header("content-length", "5"), header("bad name", "x"), header("x-isthmus-destination", "a:1")},
			RequestHeadersToAdd:  []*corev3.HeaderValue{{Key: "x-c", RawValue: []byte("d")}},
			RawBody:              []byte("slowly"),
		}, nil
	})
	d := descriptors([]string{"a", "b", "c", "\xff"}, []string{"remote_address", "::1"})
	d.Add("e", []byte("f"))
	d.End(7)
	v, err := s.Ask(10*time.Second, "domain", d)
	if err != nil {
		t.Fatal(err)
	}
	entry := func(k, v string) *ratelimitv3.RateLimitDescriptor_Entry {
		return &ratelimitv3.RateLimitDescriptor_Entry{Key: k, Value: v}
	}
	want := &rlsv3.RateLimitRequest{Domain: "domain", Descriptors: []*ratelimitv3.RateLimitDescriptor{
		{Entries: []*ratelimitv3.RateLimitDescriptor_Entry{entry("a", "b"), entry("c", "!")}},
		{Entries: []*ratelimitv3.RateLimitDescriptor_Entry{entry("remote_address", "::1")}},
		{Entries: []*ratelimitv3.RateLimitDescriptor_Entry{entry("e", "f")}, HitsAddend: wrapperspb.UInt64(7)},
	}}
	if !proto.Equal(got, want) {
		t.Errorf("asked\n%v\nwant\n%v", got, want)
	}
	if !v.Over || string(v.Body) != "slowly" || len(v.Response) != 1 || v.Response[0] != (mesh.NameValue{Name: "x-a", Value: "b"}) || len(v.Request) != 1 || v.Request[0].Value != "d" {
		t.Errorf("%+v", v)
	}
	if len(v.Statuses) != 2 || v.Statuses[0].Limited || v.Statuses[1].Limit.Unit != mesh.UnitWeek || v.Statuses[1].Reset != 1500*time.Millisecond {
		t.Errorf("%+v", v.Statuses)
	}
	var fields []string
	for _, nv := range v.Fields() {
		fields = append(fields, nv.Name+": "+nv.Value)
	}
	if got, want := strings.Join(fields, "\n"), "x-ratelimit-limit: 5, 5;w=604800;name=\"nx\"\nx-ratelimit-remaining: 3\nx-ratelimit-reset: 2"; got != want {
		t.Errorf("fields\n%s\nwant\n%s", got, want)
	}
}

// TestService_Failures: whatever a service does, there is an answer or an error
// in time; one that does not answer is left alone.
func TestService_Failures(t *testing.T) {
	hanging := func(ctx context.Context, _ *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for _, tt := range []struct {
		name string
		f    decide
		want string
	}{
		{"an error", func(context.Context, *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
			return nil, status.Error(codes.Internal, "no store")
		}, "no store"},
		{"no code", func(context.Context, *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
			return &rlsv3.RateLimitResponse{}, nil
		}, errCode.Error()},
		{"too long", func(context.Context, *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
			return &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK, RawBody: make([]byte, maxAnswer+1)}, nil
		}, "more than"},
		{"no answer", hanging, errLate.Error()},
	} {
		s := asking(t, tt.f)
		within := 10 * time.Second
		if tt.name == "no answer" {
			within = 50 * time.Millisecond
		}
		for range 3 {
			if _, err := s.Ask(within, "d", descriptors([]string{"a", "b"})); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: error %v, want %q in it", tt.name, err, tt.want)
			}
		}
		if _, err := s.Ask(50*time.Millisecond, "d", descriptors([]string{"a", "b"})); !errors.Is(err, ErrDown) {
			t.Errorf("%s: the fourth call's error is %v, want %v", tt.name, err, ErrDown)
		}
		if s.State() == "" {
			t.Errorf("%s: the service is shown as well", tt.name)
		}
	}
}

// TestService_Returns: a service that was down is asked again, and is well.
func TestService_Returns(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	s := to(t, address)
	d := descriptors([]string{"a", "b"})
	for range 4 {
		if _, err := s.Ask(time.Second, "d", d); err == nil {
			t.Fatal("an answer of nobody")
		}
	}
	if l, err = net.Listen("tcp", address); err != nil {
		t.Skip("the port has been taken")
	}
	server := grpc.NewServer()
	rlsv3.RegisterRateLimitServiceServer(server, decide(func(context.Context, *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
		return &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK}, nil
	}))
	go server.Serve(l) // until Stop
	defer server.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := s.Ask(time.Second, "d", d); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("still %v", err)
		}
	}
	if s.State() != "" {
		t.Errorf("shown as %q", s.State())
	}
}

// TestService_Close ends calls that are under way.
func TestService_Close(t *testing.T) {
	entered := make(chan struct{})
	s := asking(t, func(ctx context.Context, _ *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
		close(entered)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	ended := make(chan error)
	go func() { // until the answer, or Close
		_, err := s.Ask(time.Minute, "d", descriptors([]string{"a", "b"}))
		ended <- err
	}()
	<-entered
	go s.Close()
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("error %v, want %v", err, ErrClosed)
	}
	if _, err := s.Ask(time.Minute, "d", descriptors([]string{"a", "b"})); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v after that, want %v", err, ErrClosed)
	}
}

// FuzzResponse: whatever bytes a service sends, reading them ends, and fields of
// them can be sent on.
func FuzzResponse(f *testing.F) {
	for _, m := range []proto.Message{
		&rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK},
		&rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OVER_LIMIT, Statuses: []*rlsv3.RateLimitResponse_DescriptorStatus{{LimitRemaining: 1, CurrentLimit: &rlsv3.RateLimitResponse_RateLimit{RequestsPerUnit: 1, Unit: 1}}}, ResponseHeadersToAdd: []*corev3.HeaderValue{{Key: "a", Value: "b"}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := parseResponse(b)
		if err != nil {
			return
		}
		for _, nv := range append(v.Fields(), v.Response...) {
			if strings.ContainsAny(nv.Name+nv.Value, "\r\n\x00") {
				t.Errorf("a field %q: %q", nv.Name, nv.Value)
			}
		}
	})
}
