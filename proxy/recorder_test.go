package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
)

// recorder is an upstream that keeps every byte it gets: the oracle of what a
// client got past the proxy.
type recorder struct {
	address string
	mu      sync.Mutex // guards bytes
	bytes   bytes.Buffer
}

// record runs a recorder that answers every request with reply.
func record(t testing.TB, reply string) *recorder {
	t.Helper()
	rec := &recorder{}
	rec.address = byteServer(t, func(c net.Conn) {
		r := bufio.NewReader(io.TeeReader(c, rec))
		for {
			head, err := readHead(r)
			if err != nil {
				return
			}
			skipBody(head, r)
			if _, err := io.WriteString(c, reply); err != nil {
				return
			}
		}
	})
	return rec
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes.Write(p)
}

// seen returns everything that has come so far.
func (r *recorder) seen() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes.String()
}
