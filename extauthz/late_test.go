package extauthz

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"testing"

	"isthmus/mesh"
)

// lateConn sends more than the head of a request only when it may.
type lateConn struct {
	net.Conn
	may  chan struct{}
	sent chan byte // each byte of the body
}

func (c *lateConn) Write(b []byte) (int, error) {
	body := b
	if head := bytes.Index(b, []byte("\r\n\r\n")); head >= 0 {
		body = b[head+4:]
	} else {
		<-c.may
	}
	for _, x := range body {
		c.sent <- x
	}
	return len(b), c.write(b)
}

// write ignores that the connection may be closed by now: what counts is what
// would have been sent.
func (c *lateConn) write(b []byte) error { c.Conn.Write(b); return nil }

// longBody is more than net/http copies at once, 32 KiB.
const longBody = 128 << 10

// TestHTTPBodyAfterAsk: the body is the caller's again when Ask returns, though
// net/http still sends it, to a service that has answered already.
func TestHTTPBodyAfterAsk(t *testing.T) {
	checkLeaks(t)
	at := rawServer(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
		io.Copy(io.Discard, c)
	})
	late := &lateConn{may: make(chan struct{}), sent: make(chan byte, longBody)}
	a := NewAsker(&mesh.AuthorizationProvider{Body: longBody, Timeout: patience}, func(ctx context.Context) (c net.Conn, err error) {
		late.Conn, err = at.dial(ctx)
		return late, err
	})
	t.Cleanup(a.Close)
	c := getCall("/")
	c.Method, c.Body = []byte("POST"), bytes.Repeat([]byte("x"), longBody)
	if v := mustAsk(t, a, c); v.Status != http.StatusForbidden {
		t.Errorf("%+v", v)
	}
	clear(c.Body)
	close(late.may)
	for i := range longBody {
		if x := <-late.sent; x != 'x' {
			t.Fatalf("byte %d is what the caller wrote over it", i)
		}
	}
}
