package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"isthmus/http2"
)

// holdPath is answered by the upstream of calls when the request is given up.
const holdPath = "/bench.Echo/Hold"

// holdStreams opens n connections of HTTP/2 with so many calls each that nobody
// answers. It says so by a line, waits for its input to end, and then says how
// many of the calls are still under way.
func holdStreams(target string, n, each int) error {
	var streams []*http2.Stream
	for i := range n {
		c, err := net.DialTimeout("tcp", target, 10*time.Second)
		if err != nil {
			return fmt.Errorf("after %d connections: %w", i, err)
		}
		h := http2.NewClient(http2.Options{})
		go h.Flush(func(p []byte) error { _, err := c.Write(p); return err }) // ends with the connection
		go func() {                                                           // likewise
			var have []byte
			piece := make([]byte, 4<<10)
			for {
				n, err := c.Read(piece)
				have = append(have, piece[:n]...)
				m, fault := h.Receive(have)
				if have = have[m:]; err != nil || fault != nil {
					h.Close(err)
					return
				}
			}
		}()
		block := http2.AppendMethod(nil, []byte("POST"))
		block = http2.AppendScheme(block, []byte("http"))
		block = http2.AppendAuthority(block, []byte(target))
		block = http2.AppendPath(block, []byte(holdPath), nil, false)
		block = http2.AppendField(block, []byte("content-type"), []byte("application/grpc"))
		for range each {
			s := h.Open(each)
			if s == nil {
				return fmt.Errorf("no room for %d streams on a connection", each)
			}
			if _, err := s.Start(block, nil, true); err != nil {
				return err
			}
			streams = append(streams, s)
		}
	}
	fmt.Println("open")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	open := 0
	for _, s := range streams {
		if s.Err() == nil && !s.Ended() {
			open++
		}
	}
	_, err := fmt.Println(open)
	return err
}

// streamMemory measures a peer with 1,000 connections of HTTP/2, without a
// request and with ten calls each that wait.
func (b *bench) streamMemory(p peer) (values, error) {
	const connections, each = 1_000, 10
	v := values{}
	for key, streams := range map[string]int{"conns": 0, "streams": each} {
		err := b.with(p, grpcPath, func(t target) (err error) {
			v[key], err = b.heldMemory(t, connections, connections*streams, "-streams", fmt.Sprint(streams))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return v, nil
}
