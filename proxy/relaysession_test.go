package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestRelay_ServerFirst: on a port of TCP the server may speak first, and the
// ends of both sides are passed on.
func TestRelay_ServerFirst(t *testing.T) {
	up := byteServer(t, func(c net.Conn) {
		io.WriteString(c, "220 hello\r\n")
		b, _ := io.ReadAll(c)
		fmt.Fprintf(c, "you said %q", b)
	})
	p := serve(t, atEdge(), passEntry("db.up", overTCPPort, up)+tcpGateway(toDB))
	c := dialTCP(t, p.address("gateway:80"))
	b := make([]byte, 11)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "220 hello\r\n" {
		t.Fatalf("%q, %v", b, err)
	}
	io.WriteString(c, "QUIT")
	c.CloseWrite()
	if rest, err := io.ReadAll(c); err != nil || string(rest) != `you said "QUIT"` {
		t.Errorf("%q, %v", rest, err)
	}
	awaitRelayed(t, p, "opened 1 sent 26 received 4 closed map[-:1]")
}

// TestRelay_BothWays: much both ways at once arrives as it was sent.
func TestRelay_BothWays(t *testing.T) {
	const n = 8 << 20
	pattern := make([]byte, n)
	for i := range pattern {
		pattern[i] = byte(i ^ i>>8 ^ i>>16)
	}
	up := byteServer(t, func(c net.Conn) { io.Copy(c, c); c.(*net.TCPConn).CloseWrite() })
	p := serve(t, atEdge(), passEntry("db.up", overTCPPort, up)+tcpGateway(toDB))
	var done sync.WaitGroup
	for range 4 {
		c := dialTCP(t, p.address("gateway:80"))
		done.Go(func() { c.Write(pattern); c.CloseWrite() })
		done.Go(func() {
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, pattern) {
				t.Errorf("%d bytes of %d, equal %v, %v", len(got), n, bytes.Equal(got, pattern), err)
			}
		})
	}
	done.Wait()
	awaitRelayed(t, p, fmt.Sprintf("opened 4 sent %v received %v closed map[-:4]", float64(4*n), float64(4*n)))
	if held := pipeCount.Load(); held != 0 {
		t.Errorf("%d pipes are still taken", held)
	}
}

// TestRelay_Resets: a reset of one side is one to the other.
func TestRelay_Resets(t *testing.T) {
	heard := make(chan error, 1)
	up := byteServer(t, func(c net.Conn) {
		b := make([]byte, 5)
		io.ReadFull(c, b)
		if string(b) == "reset" {
			c.(*net.TCPConn).SetLinger(0)
			return
		}
		_, err := c.Read(b)
		heard <- err
	})
	p := serve(t, atEdge(), passEntry("db.up", overTCPPort, up)+tcpGateway(toDB))
	c := dialTCP(t, p.address("gateway:80"))
	io.WriteString(c, "reset")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server resets: the client gets %v", err)
	}
	c = dialTCP(t, p.address("gateway:80"))
	io.WriteString(c, "hello")
	awaitRelayed(t, p, "opened 2 sent 0 received 10 closed map[UC:1]")
	c.SetLinger(0)
	c.Close()
	if err := await(t, "the end at the server", heard); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client resets: the server gets %v", err)
	}
	awaitRelayed(t, p, "opened 2 sent 0 received 10 closed map[DC:1 UC:1]")
}

// TestRelay_ResetWithMuch: a server that resets amid much is the one that is
// said to have.
func TestRelay_ResetWithMuch(t *testing.T) {
	much := make([]byte, 4<<20)
	up := byteServer(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, 1))
		c.Write(much)
		c.(*net.TCPConn).SetLinger(0)
	})
	p := serve(t, atEdge(), passEntry("db.up", overTCPPort, up)+tcpGateway(toDB))
	const n = 50
	for range n {
		c := dialTCP(t, p.address("gateway:80"))
		io.WriteString(c, "x")
		io.Copy(io.Discard, c)
		c.Close()
	}
	for range 5000 {
		if strings.HasSuffix(relayed(t, p), fmt.Sprintf("closed map[UC:%d]", n)) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("counted %s, want %d ended by their upstream", relayed(t, p), n)
}

// TestRelay_DurationWithoutReader: maxConnectionDuration ends a connection whose
// client has ended its side and takes nothing.
func TestRelay_DurationWithoutReader(t *testing.T) {
	ended := make(chan error, 1)
	up := byteServer(t, func(c net.Conn) {
		for b := make([]byte, 1<<20); ; {
			if _, err := c.Write(b); err != nil {
				ended <- err
				return
			}
		}
	})
	p := serve(t, atEdge(), passEntry("db.up", overTCPPort, up)+tcpGateway(toDB)+
		policyOf("{connectionPool: {tcp: {maxConnectionDuration: 0.2s, idleTimeout: 0s}}}"))
	c := dialTCP(t, p.address("gateway:80"))
	c.CloseWrite()
	await(t, "the end at the server", ended)
}

// TestRelay_Ends: what ends a connection that neither side ends.
func TestRelay_Ends(t *testing.T) {
	up := byteServer(t, func(c net.Conn) { io.Copy(c, c) })
	for name, tt := range map[string]struct{ policy, closed string }{
		"idle":     {"{connectionPool: {tcp: {idleTimeout: 1s}}}", "-"},
		"duration": {"{connectionPool: {tcp: {maxConnectionDuration: 1s, idleTimeout: 0s}}}", "DT"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := serve(t, atEdge(), passEntry("db.up", overTCPPort, up)+tcpGateway(toDB)+policyOf(tt.policy))
			c := dialTCP(t, p.address("gateway:80"))
			io.WriteString(c, "x")
			if got, err := io.ReadAll(c); err != nil || string(got) != "x" {
				t.Errorf("%q, %v, want x and an end in order", got, err)
			}
			awaitRelayed(t, p, "opened 1 sent 1 received 1 closed map["+tt.closed+":1]")
		})
	}
}

// TestRelay_Idle: a connection on which something moves one way is not idle.
func TestRelay_Idle(t *testing.T) {
	t.Parallel()
	up := byteServer(t, func(c net.Conn) { io.Copy(io.Discard, c); io.WriteString(c, "end") })
	p := serve(t, atEdge(), passEntry("db.up", overTCPPort, up)+tcpGateway(toDB)+policyOf("{connectionPool: {tcp: {idleTimeout: 2s}}}"))
	c := dialTCP(t, p.address("gateway:80"))
	for range 25 {
		io.WriteString(c, "x")
		time.Sleep(100 * time.Millisecond)
	}
	c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "end" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestRelay_Panic: what breaks in the client's direction is not passed on to who gives both
// streams back before the other direction has let go of them.
func TestRelay_Panic(t *testing.T) {
	ends := func() (ours *stream, theirs *net.TCPConn) {
		theirs, server := connected(t)
		ours, err := newStream(server)
		if err != nil {
			t.Fatal(err)
		}
		return ours, theirs
	}
	down, client := ends()
	up, server := ends()
	busy, broken, over := make(chan struct{}), make(chan struct{}), false
	s := &relaySession{
		client: &conn{stream: down}, upstream: &upstreamConn{stream: up}, over: func() {},
		sent: func(int) {
			close(busy)
			<-broken
			time.Sleep(50 * time.Millisecond) // for who has broken to be ahead
			over = true
		},
		received: func(int) {
			<-busy
			close(broken)
			panic("broken")
		},
	}
	io.WriteString(server, "a reply")
	io.WriteString(client, "a request")
	defer func() {
		if r := recover(); r != "broken" || !over {
			t.Errorf("recovered %v, the other direction is over: %v", r, over)
		}
	}()
	s.run(0)
}
