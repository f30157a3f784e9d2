package main

import (
	"bytes"
	"fmt"
	"net"
	"strings"
)

// bodies are what the upstream serves, by path.
var bodies = map[string]int{"/1k": 1 << 10, "/64k": 64 << 10, "/1m": 1 << 20}

// upstream answers as fast as it can. It may listen on all addresses, which
// makes all of 127/8 reach it; others than this machine are sent away.
func upstream(address string) error {
	replies := map[string][]byte{}
	for path, size := range bodies {
		replies[path] = reply("200 OK", size)
	}
	l, err := net.Listen("tcp4", address)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		if from, ok := c.RemoteAddr().(*net.TCPAddr); !ok || !from.IP.IsLoopback() {
			c.Close()
			continue
		}
		go answer(c, replies) // ends with the connection
	}
}

// reply is a whole reply. X-Powered-By is there to be removed.
func reply(status string, size int) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nServer: upstream\r\nX-Powered-By: bench\r\nContent-Length: %d\r\n\r\n%s",
		status, size, strings.Repeat("x", size))
}

// answer serves one connection. Requests have no bodies and come one by one.
func answer(c net.Conn, replies map[string][]byte) {
	defer c.Close()
	notFound := reply("404 Not Found", 0)
	buf := make([]byte, 4<<10) // little, because there may be 10,000 connections
	for n := 0; n < len(buf); {
		m, err := c.Read(buf[n:])
		if err != nil {
			return
		}
		n += m
		if !bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
			continue
		}
		out, ok := replies[requestPath(buf[:n])]
		if !ok {
			out = notFound
		}
		n = 0
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// requestPath is the second word of a request's head.
func requestPath(head []byte) string {
	_, rest, _ := bytes.Cut(head, []byte(" "))
	path, _, _ := bytes.Cut(rest, []byte(" "))
	return string(path)
}
