package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
)

// TestClient_CloseWhileDialling: a connection that is there only after the client was
// closed, since the call that wanted it has ended before, does not stay.
func TestClient_CloseWhileDialling(t *testing.T) {
	here, there := net.Pipe()
	dialled, dial := make(chan struct{}), make(chan struct{})
	c := NewClient("service", 100, func(context.Context) (net.Conn, error) {
		close(dialled)
		<-dial
		return here, nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-dialled; cancel() }()
	if _, err := c.Call(ctx, "/a/B", nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("Call: %v", err)
	}
	c.Close()
	close(dial)
	if b, err := io.ReadAll(io.LimitReader(there, 1)); len(b) > 0 || err != nil {
		t.Errorf("read %q, %v; want the end of the connection", b, err)
	}
	there.Close()
}
