package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// outbound is where applications reach the mesh.
const outbound = "127.0.0.1:15001"

// client sends requests from within a pod to its proxy. It never sends one
// twice, which net/http's Transport does for requests on connections that
// break, and which would hide what the proxy does to them.
type client struct {
	ns      *namespace
	address string
	opening chan struct{} // a place for each connection being opened: each holds a thread

	mu   sync.Mutex // guards idle
	idle []*clientConn
}

type clientConn struct {
	net.Conn
	in *bufio.Reader
}

// replyTimeout is longer than any time-out of the configurations that are
// measured: who has no reply by then will not get one.
const replyTimeout = 30 * time.Second

func newClient(n *namespace, address string) *client {
	return &client{ns: n, address: address, opening: make(chan struct{}, 32)}
}

// reply is what became of one request.
type reply struct {
	due    time.Duration // when it was to be sent, from the start of the load
	took   time.Duration // from then until the last byte of the reply
	status int           // 0: none, see err
	err    string
	by     string // the pod that served it
	header http.Header
}

// end is when the reply was there, from the start of the load.
func (r reply) end() time.Duration { return r.due + r.took }

// failed reports whether the client did not get what it asked for.
func (r reply) failed() bool { return r.status != http.StatusOK }

// outcome is the status, or what went wrong.
func (r reply) outcome() string {
	if r.err != "" {
		return r.err
	}
	return strconv.Itoa(r.status)
}

// get sends a GET and reads the reply whole. Due and took are the caller's.
func (c *client) get(host string, header ...string) reply {
	conn, err := c.take()
	if err != nil {
		return reply{err: "connect to the proxy: " + err.Error()}
	}
	conn.SetDeadline(time.Now().Add(replyTimeout))
	request := "GET / HTTP/1.1\r\nHost: " + host + "\r\n"
	for i := 0; i+1 < len(header); i += 2 {
		request += header[i] + ": " + header[i+1] + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		conn.Close()
		return reply{err: "send: " + err.Error()}
	}
	res, err := http.ReadResponse(conn.in, nil)
	if err != nil {
		conn.Close()
		return reply{err: "no reply: " + err.Error()}
	}
	_, err = io.Copy(io.Discard, res.Body)
	if err != nil {
		conn.Close()
		return reply{err: fmt.Sprintf("reply of status %d broke off: %v", res.StatusCode, err)}
	}
	if res.Close {
		conn.Close()
	} else {
		c.put(conn)
	}
	return reply{status: res.StatusCode, by: res.Header.Get("x-served-by"), header: res.Header}
}

// timed is get, and how long it took from now.
func (c *client) timed(host string, header ...string) reply {
	begin := time.Now()
	r := c.get(host, header...)
	r.took = time.Since(begin)
	return r
}

func (c *client) take() (*clientConn, error) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		conn := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		return conn, nil
	}
	c.mu.Unlock()
	c.opening <- struct{}{}
	defer func() { <-c.opening }()
	conn, err := c.ns.dial(context.Background(), c.address)
	if err != nil {
		return nil, err
	}
	return &clientConn{conn, bufio.NewReaderSize(conn, 4096)}, nil
}

func (c *client) put(conn *clientConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, conn)
}

// close ends the connections that are not in use.
func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.idle {
		conn.Close()
	}
	c.idle = nil
}
