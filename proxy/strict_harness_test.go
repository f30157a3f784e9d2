package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// tape is an upstream that keeps every byte of every connection it gets.
type tape struct {
	listener net.Listener
	address  string
	mu       sync.Mutex // guards conns
	conns    []*tapeConn
	done     chan struct{}
}

// tapeConn is one connection of a tape. bytes may be read when ended is closed.
type tapeConn struct {
	from  string
	bytes bytes.Buffer
	ended chan struct{}
}

// newTape runs a tape that answers every request with reply.
func newTape(t testing.TB, reply string) *tape {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	u := &tape{listener: l, address: l.Addr().String(), done: make(chan struct{})}
	go func() { // ends when l is closed
		defer close(u.done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			tc := &tapeConn{from: c.RemoteAddr().String(), ended: make(chan struct{})}
			u.mu.Lock()
			u.conns = append(u.conns, tc)
			u.mu.Unlock()
			go tc.serve(c, reply)
		}
	}()
	return u
}

// serve answers requests as long as it understands them, and keeps everything
// in any case until the other side ends the connection.
func (tc *tapeConn) serve(c net.Conn, reply string) {
	defer close(tc.ended)
	defer c.Close()
	tee := io.TeeReader(c, &tc.bytes)
	r := bufio.NewReader(tee)
	for {
		head, err := readHead(r)
		if err != nil {
			break
		}
		skipBody(head, r)
		if _, err := io.WriteString(c, reply); err != nil {
			break
		}
	}
	io.Copy(io.Discard, tee)
}

// all ends the proxy and returns what each of its connections has brought, in
// the order in which they were made. A connection of our own comes behind all
// others, so none can be missing.
func (u *tape) all(t testing.TB, p *Proxy) []string {
	t.Helper()
	p.Close()
	c, err := net.Dial("tcp", u.address)
	if err != nil {
		t.Fatal(err)
	}
	last := c.LocalAddr().String()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, "GET /last HTTP/1.1\r\n\r\n")
	if _, err := readHead(bufio.NewReader(c)); err != nil {
		t.Fatal("the upstream does not answer: ", err)
	}
	c.Close()
	u.listener.Close()
	<-u.done
	var out []string
	for _, tc := range u.conns {
		await(t, "the proxy to end its connection to the upstream", tc.ended)
		if tc.from != last {
			out = append(out, tc.bytes.String())
		}
	}
	return out
}

// talk sends pieces one after the other and returns everything that comes back
// until the connection ends; clean is false if it ends with a reset.
func talk(t testing.TB, address string, pieces ...string) (got string, clean bool) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Error(err)
		return "", false
	}
	defer reset(c) // leaves no port behind that nobody may use for a minute
	c.SetDeadline(time.Now().Add(20 * time.Second))
	go func() { // ends with the connection
		for _, piece := range pieces {
			if _, err := io.WriteString(c, piece); err != nil {
				return
			}
		}
	}()
	return readAll(t, c)
}

// readAll reads until the connection ends. One that does not is a failure.
func readAll(t testing.TB, r io.Reader) (got string, clean bool) {
	t.Helper()
	b, err := io.ReadAll(r)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("the connection does not end after %.300q", b)
	}
	return string(b), err == nil
}

// await waits for something that has to happen.
func await[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(20 * time.Second):
		t.Fatal("still waiting for ", what)
	}
	return v
}

// replies counts the status lines in text, in whose bodies there are none.
func replies(text string) int { return strings.Count(text, "HTTP/1.1 ") }

var randomID = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// messages takes what came over a connection apart: of each message the start
// line, the fields in the order of their names, the body in brackets and the
// trailers in braces. How the body was framed is left out; what is no message
// is said to be broken.
func messages(stream string) []string {
	var out []string
	for stream != "" {
		head, rest, ok := strings.Cut(stream, "\r\n\r\n")
		if !ok {
			return append(out, "broken: "+stream)
		}
		lines := strings.Split(head, "\r\n")
		m, fields := lines[0]+"\n", []string{}
		length, chunked, framings := 0, false, 0
		for _, line := range lines[1:] {
			name, value, _ := strings.Cut(line, ": ")
			switch strings.ToLower(name) {
			case "content-length":
				framings++
				n, err := strconv.ParseUint(value, 10, 31)
				if length = int(n); err != nil {
					return append(out, "broken: "+stream)
				}
			case "transfer-encoding":
				framings++
				chunked = value == "chunked"
			default:
				fields = append(fields, randomID.ReplaceAllString(line, "ID"))
			}
		}
		if framings > 1 || length > len(rest) {
			return append(out, "broken: "+stream)
		}
		slices.SortStableFunc(fields, func(a, b string) int {
			a, _, _ = strings.Cut(strings.ToLower(a), ":")
			b, _, _ = strings.Cut(strings.ToLower(b), ":")
			return strings.Compare(a, b)
		})
		for _, f := range fields {
			m += f + "\n"
		}
		body, trailers := rest[:length], ""
		if rest = rest[length:]; chunked {
			if body, trailers, rest, ok = unchunk(rest); !ok {
				return append(out, "broken: "+stream)
			}
		}
		if body != "" {
			m += "[" + body + "]\n"
		}
		if trailers != "" {
			m += "{" + trailers + "}\n"
		}
		out, stream = append(out, m), rest
	}
	return out
}

// unchunk decodes a chunked body that has neither extensions nor anything else
// that is doubtful.
func unchunk(stream string) (body, trailers, rest string, ok bool) {
	for {
		line, after, found := strings.Cut(stream, "\r\n")
		n, err := strconv.ParseUint(line, 16, 31)
		if !found || err != nil {
			return
		}
		if n == 0 {
			trailers, rest, ok = strings.Cut("\r\n"+after, "\r\n\r\n")
			return body, strings.TrimPrefix(trailers, "\r\n"), rest, ok
		}
		if uint64(len(after)) < n+2 || after[n:n+2] != "\r\n" {
			return
		}
		body, stream = body+after[:n], after[n+2:]
	}
}

// strictProxy runs a proxy in front of up, as a sidecar and as a gateway, with
// one service, s.test. What is under /admin is forbidden.
func strictProxy(t testing.TB, up string, others ...string) *Proxy {
	t.Helper()
	return strictProxyTo(t, entry("s.test", up), others...)
}

// strictProxyHTTP2 is one whose upstream speaks HTTP/2.
func strictProxyHTTP2(t testing.TB, up string) *Proxy {
	t.Helper()
	return strictProxyTo(t, overHTTP2(entry("s.test", up)))
}

func strictProxyTo(t testing.TB, entry string, others ...string) *Proxy {
	t.Helper()
	yaml := entry + anyHost + `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s}
spec:
  hosts: [s.test]
  gateways: [gw, mesh]
  http:
  - {match: [{uri: {prefix: /admin}}], directResponse: {status: 403}}
  - {match: [{uri: {prefix: /moved}}], redirect: {uri: /}}
  - {route: [{destination: {host: s.test}}]}
---
` + strings.Join(others, "---\n")
	return serve(t, atEdge(), yaml)
}

// asGet is a GET with field lines behind its Host.
func asGet(lines ...string) string {
	return "GET / HTTP/1.1\r\nHost: s.test\r\n" + asLines(lines) + "\r\n"
}

// asPost is a POST of a body with field lines.
func asPost(body string, lines ...string) string {
	return "POST / HTTP/1.1\r\nHost: s.test\r\n" + asLines(lines) + "\r\n" + body
}

// asChunks is a POST of a chunked body, given as it is sent.
func asChunks(body string) string { return asPost(body, "Transfer-Encoding: chunked") }

// asLine is a GET with the given request line.
func asLine(line string) string { return line + "\r\nHost: s.test\r\n\r\n" }

func asLines(lines []string) string {
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%s\r\n", l)
	}
	return b.String()
}
