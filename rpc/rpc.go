// Package rpc calls methods of gRPC services and serves them, one message each
// way, over the HTTP/2 of net/http. The messages are few and small: grpc-go and
// generated types would be some 6 MiB of memory in every proxy, whether it asks
// anybody or not.
package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

// MaxFields bounds the head of an answer, in bytes.
const MaxFields = 64 << 10

// ErrMessage is a message that is none.
var ErrMessage = errors.New("malformed gRPC message")

// StatusError is that a call has been answered by something else than a message.
type StatusError struct {
	HTTP    int    // the status of a reply that is none of gRPC; 0: it is one
	Code    string // of gRPC, as it was sent; "": there was none
	Text    string
	Details string // grpc-status-details-bin, as it was sent
}

// Error is one line.
func (e *StatusError) Error() string {
	if e.HTTP != 0 {
		return fmt.Sprintf("HTTP status %d", e.HTTP)
	}
	return fmt.Sprintf("gRPC status %.20q: %.200s", e.Code, e.Text)
}

// Client calls one service over one kept connection. Its methods may be called
// by any goroutine.
type Client struct {
	transport *http.Transport
	authority string
	maxAnswer int
	last      atomic.Pointer[heardConn]
	closed    atomic.Bool
}

// NewClient makes a client that connects by dial, at the first call. authority
// is what :authority says; an answer of more than maxAnswer bytes is an error.
func NewClient(authority string, maxAnswer int, dial func(context.Context) (net.Conn, error)) *Client {
	c := &Client{authority: authority, maxAnswer: maxAnswer}
	c.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { // which secures
			conn, err := dial(ctx)
			if err != nil {
				return nil, err
			}
			heard := &heardConn{Conn: conn}
			c.last.Store(heard)
			if c.closed.Load() { // meanwhile: net/http goes on dialling for a call that has ended
				conn.Close()
				return nil, net.ErrClosed
			}
			return heard, nil
		},
		DisableCompression:     true,
		MaxResponseHeaderBytes: MaxFields,
		Protocols:              &http.Protocols{},
	}
	c.transport.Protocols.SetUnencryptedHTTP2(true)
	return c
}

// heardConn knows when something was last heard on it.
type heardConn struct {
	net.Conn
	heard atomic.Int64 // Unix time in ns; 0: nothing yet
}

func (c *heardConn) Read(b []byte) (n int, err error) {
	n, err = c.Conn.Read(b)
	if n > 0 {
		c.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

// Call sends a message to a method, "/package.Service/Method", and returns the
// answer's.
func (c *Client) Call(ctx context.Context, method string, message []byte) ([]byte, error) {
	req := (&http.Request{
		Method: http.MethodPost, URL: &url.URL{Scheme: "http", Host: c.authority, Path: method}, Host: c.authority,
		Header: http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {"isthmus"}},
	}).WithContext(ctx)
	framed := frame(message)
	req.ContentLength, req.Body = int64(len(framed)), io.NopCloser(bytes.NewReader(framed))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(framed)), nil }
	res, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, &StatusError{HTTP: res.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, int64(c.maxAnswer)+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > c.maxAnswer:
		return nil, fmt.Errorf("the answer has more than %d bytes", c.maxAnswer)
	}
	said := res.Trailer
	if said.Get("Grpc-Status") == "" { // a reply of trailers only
		said = res.Header
	}
	if code := said.Get("Grpc-Status"); code != statusOK {
		return nil, &StatusError{Code: code, Text: said.Get("Grpc-Message"), Details: said.Get("Grpc-Status-Details-Bin")}
	}
	return unframe(body)
}

// Drop closes the connection if nothing has been heard on it since began: it
// would be kept until the kernel gives up, which takes a quarter of an hour.
func (c *Client) Drop(began time.Time) {
	if conn := c.last.Load(); conn != nil && conn.heard.Load() < began.UnixNano() {
		conn.Close()
	}
}

// Close ends the connection, when no call is under way and none is to come.
func (c *Client) Close() {
	c.closed.Store(true)
	c.transport.CloseIdleConnections()
	if conn := c.last.Load(); conn != nil {
		conn.Close()
	}
}

// frame puts the head before a message that every gRPC message has, without
// compression.
func frame(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// unframe takes it off the only message of an answer.
func unframe(b []byte) ([]byte, error) {
	if len(b) < 5 || b[0] != 0 || int64(binary.BigEndian.Uint32(b[1:])) != int64(len(b)-5) {
		return nil, ErrMessage
	}
	return b[5:], nil
}
