package extauthz

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"isthmus/mesh"
)

// patience is how long a test waits for what has to come.
const patience = 10 * time.Second

// bothProtocols runs a test for both protocols.
func bothProtocols(t *testing.T, do func(t *testing.T, p *mesh.AuthorizationProvider)) {
	for _, grpc := range []bool{false, true} {
		name := "HTTP"
		if grpc {
			name = "GRPC"
		}
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			do(t, &mesh.AuthorizationProvider{GRPC: grpc})
		})
	}
}

func TestAskNoAnswer(t *testing.T) {
	t.Run("down", func(t *testing.T) {
		bothProtocols(t, func(t *testing.T, p *mesh.AuthorizationProvider) {
			a := newTestAsker(t, p, closedPort(t))
			if v, err := a.Ask(context.Background(), getCall("/")); err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("Ask = %+v, %v", v, err)
			}
		})
	})
	t.Run("hangs", func(t *testing.T) {
		bothProtocols(t, func(t *testing.T, p *mesh.AuthorizationProvider) {
			p.Timeout = 50 * time.Millisecond
			a := newTestAsker(t, p, silentServer(t))
			if v, err := a.Ask(context.Background(), getCall("/")); !errors.Is(err, errLate) {
				t.Errorf("Ask = %+v, %v", v, err)
			}
		})
	})
	t.Run("dial hangs", func(t *testing.T) {
		bothProtocols(t, func(t *testing.T, p *mesh.AuthorizationProvider) {
			p.Timeout = 50 * time.Millisecond
			a := NewAsker(p, func(ctx context.Context) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() })
			t.Cleanup(a.Close)
			if v, err := a.Ask(context.Background(), getCall("/")); !errors.Is(err, errLate) {
				t.Errorf("Ask = %+v, %v", v, err)
			}
		})
	})
	t.Run("caller leaves", func(t *testing.T) {
		bothProtocols(t, func(t *testing.T, p *mesh.AuthorizationProvider) {
			a := newTestAsker(t, p, silentServer(t))
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if v, err := a.Ask(ctx, getCall("/")); !errors.Is(err, context.Canceled) {
				t.Errorf("Ask = %+v, %v", v, err)
			}
		})
	})
	t.Run("garbage", func(t *testing.T) {
		bothProtocols(t, func(t *testing.T, p *mesh.AuthorizationProvider) {
			a := newTestAsker(t, p, rawServer(t, func(c net.Conn) {
				c.Read(make([]byte, 4096))
				c.Write([]byte("\x16\x03\x01 220 mail.test ESMTP\r\n\r\n"))
			}))
			p.Timeout = time.Second
			if v, err := a.Ask(context.Background(), getCall("/")); err == nil {
				t.Errorf("Ask = %+v", v)
			}
		})
	})
}

func TestOnError(t *testing.T) {
	for _, tt := range []struct {
		open          bool
		status, wants int // 0: allowed
	}{
		{false, 0, 403}, {false, 503, 503}, {true, 503, 0}, {true, 0, 0},
		{false, 100, 403}, {false, 700, 403}, {false, -1, 403},
	} {
		a := NewAsker(&mesh.AuthorizationProvider{FailOpen: tt.open, StatusOnError: tt.status}, nil)
		v := a.OnError()
		if v.Allowed != (tt.wants == 0) || v.Status != tt.wants {
			t.Errorf("failOpen %v, statusOnError %d: %+v", tt.open, tt.status, v)
		}
		a.Close()
	}
}

// TestAskBodyTooLong: 413 comes before any question, and FailOpen does not help.
func TestAskBodyTooLong(t *testing.T) {
	bothProtocols(t, func(t *testing.T, p *mesh.AuthorizationProvider) {
		p.FailOpen, p.Body = true, 4
		at := closedPort(t)
		a := newTestAsker(t, p, at)
		for _, c := range []*Call{
			{Body: []byte("12345")},
			{Body: []byte("1234"), BodyPartial: true},
		} {
			c.Method, c.Path, c.Host = []byte("POST"), []byte("/"), []byte("app.test")
			if v := mustAsk(t, a, c); v.Allowed || v.Status != 413 {
				t.Errorf("Ask = %+v", v)
			}
		}
		if n := at.dials.Load(); n > 0 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestCloseEndsCalls(t *testing.T) {
	bothProtocols(t, func(t *testing.T, p *mesh.AuthorizationProvider) {
		p.Timeout = time.Hour
		began := make(chan struct{}, 1)
		at := rawServer(t, func(c net.Conn) {
			began <- struct{}{}
			for b := make([]byte, 1024); ; {
				if _, err := c.Read(b); err != nil {
					return
				}
			}
		})
		a := newTestAsker(t, p, at)
		failed := make(chan error)
		go func() { // until Ask fails, which Close brings about
			_, err := a.Ask(context.Background(), getCall("/"))
			failed <- err
		}()
		<-began
		closed := make(chan struct{})
		go func() { a.Close(); close(closed) }()
		if err := <-failed; !errors.Is(err, ErrClosed) {
			t.Errorf("Ask = %v", err)
		}
		<-closed
		if _, err := a.Ask(context.Background(), getCall("/")); !errors.Is(err, ErrClosed) {
			t.Errorf("Ask after Close = %v", err)
		}
	})
}

// await waits until something holds, at most for patience.
func await(t *testing.T, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("it never came")
		}
	}
}

func untilAllowed(t *testing.T, a *Asker) {
	t.Helper()
	await(t, func() bool {
		v, err := a.Ask(context.Background(), getCall("/"))
		return err == nil && v.Allowed
	})
}

// TestAskFrozen: of a service that has gone without a word, one call is late,
// and the next one finds another connection.
func TestAskFrozen(t *testing.T) {
	bothProtocols(t, func(t *testing.T, p *mesh.AuthorizationProvider) {
		p.Timeout = time.Second
		at := allowAll(t, p.GRPC)
		a := newTestAsker(t, p, at)
		mustAsk(t, a, getCall("/"))
		at.freeze()
		if v, err := a.Ask(context.Background(), getCall("/")); !errors.Is(err, errLate) {
			t.Fatalf("Ask = %+v, %v", v, err)
		}
		untilAllowed(t, a)
		if n := at.dials.Load(); n != 2 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestAskRestart(t *testing.T) {
	bothProtocols(t, func(t *testing.T, p *mesh.AuthorizationProvider) {
		address, stop := startAllowing(t, p.GRPC)
		at := newPlace(address)
		a := newTestAsker(t, p, at)
		mustAsk(t, a, getCall("/"))
		stop()
		gone := at.dials.Load()
		await(t, func() bool { // it is tried again and again
			v, err := a.Ask(context.Background(), getCall("/"))
			if err == nil {
				t.Fatalf("Ask = %+v of a service that is gone", v)
			}
			return at.dials.Load() >= gone+4
		})
		address, _ = startAllowing(t, p.GRPC)
		at.move(address)
		untilAllowed(t, a)
	})
}

func allowAll(t testing.TB, grpc bool) *place {
	address, _ := startAllowing(t, grpc)
	return newPlace(address)
}

// startAllowing starts a service that allows everything.
func startAllowing(t testing.TB, grpc bool) (address string, stop func()) {
	if grpc {
		return startGRPC(t, allowCheck)
	}
	return startHTTP(t, allowHTTP)
}

// benchCall is a request as browsers send it.
func benchCall() *Call {
	c := getCall("/api/v1/items?page=2", "accept", "application/json", "authorization", "Bearer "+strings.Repeat("x", 600),
		"user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0)", "accept-language", "en-GB,en;q=0.5", "cookie", "session="+strings.Repeat("y", 100))
	c.Principal, c.OwnPrincipal = "spiffe://cluster.local/ns/a/sa/client", "spiffe://cluster.local/ns/b/sa/server"
	c.Source, c.Destination = netip.MustParseAddrPort("10.0.0.1:40000"), netip.MustParseAddrPort("10.0.0.2:8080")
	return c
}

func benchmarkAsk(b *testing.B, p *mesh.AuthorizationProvider) {
	a := newTestAsker(b, p, allowAll(b, p.GRPC))
	c := benchCall()
	mustAsk(b, a, c)
	b.ReportAllocs()
	for b.Loop() {
		if v, err := a.Ask(context.Background(), c); err != nil || !v.Allowed {
			b.Fatal(v, err)
		}
	}
}

func BenchmarkAsk_HTTP(b *testing.B) {
	benchmarkAsk(b, &mesh.AuthorizationProvider{RequestHeaders: []string{"authorization", "cookie", "x-*"}})
}

func BenchmarkAsk_GRPC(b *testing.B) { benchmarkAsk(b, &mesh.AuthorizationProvider{GRPC: true}) }
