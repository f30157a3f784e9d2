package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// uploader is a client that sends bodies as fast as its windows let it, over a
// long way.
type uploader struct {
	*rawClient

	mu      sync.Mutex // guards the Framer's writing, and what is below
	more    sync.Cond
	last    uint32           // the stream that was opened last
	initial int64            // a stream's window
	whole   int64            // the connection's
	windows map[uint32]int64 // streams', less the initial one
	answers map[uint32]string
	over    error // why the connection has ended
}

// distance is how long the answers to PINGs take.
const distance = 30 * time.Millisecond

func newUploader(t *testing.T, address string) *uploader {
	u := &uploader{rawClient: dialRaw(t, address), initial: 65535, whole: 65535, windows: map[uint32]int64{}, answers: map[uint32]string{}}
	u.more.L = &u.mu
	u.out.Flush()
	go u.listen() // ends with the connection
	return u
}

func (u *uploader) listen() {
	for {
		f, err := u.ReadFrame()
		u.mu.Lock()
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
				u.initial = int64(v)
			}
			if !f.IsAck() {
				u.WriteSettingsAck()
				u.out.Flush()
			}
		case *http2.PingFrame:
			data, ack := f.Data, f.IsAck()
			time.AfterFunc(distance, func() {
				u.mu.Lock()
				defer u.mu.Unlock()
				u.WritePing(!ack, data)
				u.out.Flush()
			})
		case *http2.WindowUpdateFrame:
			if f.StreamID == 0 {
				u.whole += int64(f.Increment)
			} else {
				u.windows[f.StreamID] += int64(f.Increment)
			}
		case *http2.MetaHeadersFrame:
			u.answers[f.StreamID] = f.PseudoValue("status")
		case *http2.RSTStreamFrame:
			u.answers[f.StreamID] = "reset " + f.ErrCode.String()
		case *http2.GoAwayFrame:
			u.t.Errorf("GOAWAY: %v %s", f.ErrCode, f.DebugData())
		}
		u.over = err
		u.more.Broadcast()
		u.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// window is a stream's window.
func (u *uploader) window() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.initial
}

// send sends a request with a body of n bytes, until it is answered, and returns
// how. A body that is not sent whole goes on until the connection's end.
func (u *uploader) send(path string, n int) string {
	piece := make([]byte, 16<<10)
	u.mu.Lock()
	defer u.mu.Unlock()
	id := max(u.last+2, 3)
	u.last = id
	u.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true,
		BlockFragment: u.block("bare", ":method", "POST", ":scheme", "http", ":authority", "s.test", ":path", path, "content-length", fmt.Sprint(n))})
	for n > 0 && u.over == nil && u.answers[id] == "" {
		m := min(int64(n), u.whole, u.initial+u.windows[id], int64(len(piece)))
		if m <= 0 {
			u.more.Wait()
			continue
		}
		u.whole -= m
		u.windows[id] -= m
		n -= int(m)
		u.WriteData(id, n == 0, piece[:m])
		u.out.Flush()
		u.mu.Unlock() // others' turn
		u.mu.Lock()
	}
	for u.over == nil && u.answers[id] == "" {
		u.more.Wait()
	}
	return u.answers[id]
}

// TestHTTP2_StalledUploads: uploads that their upstream does not read hold up no
// others on their connection, however wide its windows have become.
func TestHTTP2_StalledUploads(t *testing.T) {
	const size = 16 << 20
	release := make(chan struct{})
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		if strings.HasPrefix(head, "POST /stuck") {
			<-release
			return false
		}
		if _, err := io.CopyN(io.Discard, r, size); err != nil {
			return false
		}
		io.WriteString(c, okReply)
		return true
	})
	p := serve(t, Options{}, entry("s.test", up.address))
	u := newUploader(t, p.address("outbound"))
	for range 100 { // until the windows are as wide as they get
		if got := u.send("/", size); got != "200" {
			t.Fatalf("one alone is answered %q", got)
		}
		if u.window() == 4<<20 {
			break
		}
	}
	t.Logf("a stream's window is %d", u.window())
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() { u.send("/stuck", size) }) // ends with the connection
	}
	for range 2 {
		if got := u.send("/", size); got != "200" {
			t.Errorf("beside those that are stuck, one is answered %q", got)
		}
	}
	u.conn.Close()
	wait.Wait()
	close(release)
}
