package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

// TestMessages: however a body is cut into pieces, its messages are the same.
func TestMessages(t *testing.T) {
	body := []byte("\x00\x00\x00\x00\x03abc" + "\x01\x00\x00\x00\x00" + "\x00\x00\x00\x01\x00" + fmt.Sprintf("%256d", 1) + "\x80\x00\x00\x00\x02ab")
	for size := 1; size <= len(body); size++ {
		var m messageCounter
		for rest := body; len(rest) > 0; {
			n := min(size, len(rest))
			m.next(rest[:n])
			rest = rest[n:]
		}
		if m.count != 3 || m.read != 0 || m.left != 0 {
			t.Errorf("in pieces of %d: %+v", size, m)
		}
	}
}

// TestMessages_Counted: in metrics, as they go either way, whatever carries them.
func TestMessages_Counted(t *testing.T) {
	body := bytes.Repeat(append([]byte{0, 0, 0, 0x30, 0}, make([]byte, 0x3000)...), 20) // more than is held
	for down, contentType := range map[string]string{"HTTP/1.1": "application/grpc-web+proto", "HTTP/2": "application/grpc"} {
		for _, known := range []bool{true, false} {
			p := strictProxyHTTP2(t, echoGRPC(t))
			c := h2Client(t, p, "gateway:80")
			if down == "HTTP/1.1" {
				c = h1Client(t, p, "gateway:80")
			}
			var reader io.Reader = bytes.NewReader(body)
			if !known {
				reader = io.MultiReader(reader)
			}
			r, _ := http.NewRequest("POST", "http://s.test/echo", reader)
			r.Header.Set("content-type", contentType)
			res, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			var asked, told float64
			for range 5000 {
				asked, told = 0, 0
				for _, s := range samples(t, p.Requests()) {
					switch s.name {
					case "istio_request_messages_total":
						asked += s.value
					case "istio_response_messages_total":
						told += s.value
					}
				}
				if asked != 0 {
					break
				}
				time.Sleep(time.Millisecond) // it is counted when it is over, which the client is told before
			}
			if asked != 20 || told != 20 {
				t.Errorf("%s, length known %v: %v messages asked, %v told", down, known, asked, told)
			}
		}
	}
}
