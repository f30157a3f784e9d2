package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// requestCrowd is many connections of HTTP/2 with as many requests each as they may have,
// to an application that answers none.
type requestCrowd struct {
	conns []net.Conn

	mu      sync.Mutex // guards what is below
	answers map[string]int
}

func (c *requestCrowd) count(answer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers[answer]++
}

// refused is how many requests were: with a reply, or with less.
func (c *requestCrowd) refused() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answers["503"] + c.answers["REFUSED_STREAM"]
}

// newRequestCrowd opens connections and requests. It stops where one is refused.
func newRequestCrowd(t *testing.T, address, host string, conns, requests int) *requestCrowd {
	t.Helper()
	c := &requestCrowd{answers: map[string]int{}}
	t.Cleanup(c.leave)
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	enc.SetMaxDynamicTableSize(0)
	for _, f := range []string{":method GET", ":scheme http", ":authority " + host, ":path /"} {
		name, value, _ := strings.Cut(f[1:], " ")
		enc.WriteField(hpack.HeaderField{Name: ":" + name, Value: value})
	}
	for range conns {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		c.conns = append(c.conns, conn)
		var out bytes.Buffer
		out.WriteString(http2.ClientPreface)
		f := http2.NewFramer(&out, conn)
		f.WriteSettings()
		for i := range requests {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: head.Bytes(), EndHeaders: true, EndStream: true})
		}
		if _, err := conn.Write(out.Bytes()); err != nil {
			c.count("refused")
			continue
		}
		go func() { // ends with the connection
			f := http2.NewFramer(nil, conn)
			f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
			for {
				frame, err := f.ReadFrame()
				if err != nil {
					return
				}
				switch f := frame.(type) {
				case *http2.MetaHeadersFrame:
					c.count(f.PseudoValue("status"))
				case *http2.RSTStreamFrame:
					c.count(f.ErrCode.String())
				}
			}
		}()
	}
	return c
}

func (c *requestCrowd) leave() {
	for _, conn := range c.conns {
		conn.Close()
	}
}

// TestOverload: more requests at a time than there is memory for are refused, and
// those that come when they are gone are served; the process never has much more
// than it may.
func TestOverload(t *testing.T) {
	release := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer slow.Close()
	fast := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer fast.Close()
	r := runProxy(t, "overload: {memory: 64Mi}\n", map[string]string{
		"mesh/mesh.yaml": service(t, "slow.test", slow.URL) + service(t, "fast.test", fast.URL),
	})
	status := func() int { s, _ := page("http://"+r.outbound+"/", "fast.test"); return s }
	metric := func(name string) float64 {
		_, text := page("http://"+r.admin+"/stats/prometheus", "")
		for line := range strings.Lines(text) {
			var v float64
			if rest, ok := strings.CutPrefix(line, name+" "); ok {
				if _, err := fmt.Sscan(rest, &v); err != nil {
					t.Fatal(line, err)
				}
				return v
			}
		}
		t.Fatalf("no %s", name)
		return 0
	}
	if s := status(); s != 200 {
		t.Fatalf("before: %d", s)
	}
	crowd := newRequestCrowd(t, r.outbound, "slow.test", 40, 250)
	eventually(t, "requests are refused", func() bool { return crowd.refused() > 0 })
	limit := metric("isthmus_memory_limit_bytes")
	if most := metric("process_resident_memory_bytes"); limit != 48<<20 || most > 64<<20 {
		t.Errorf("%.0f MiB are resident, %.0f MiB may be held", most/(1<<20), limit/(1<<20))
	} else {
		t.Logf("%.0f MiB resident, %.0f MiB held, %d requests refused", most/(1<<20), metric("isthmus_memory_held_bytes")/(1<<20), crowd.refused())
	}
	close(release)
	crowd.leave()
	// The memory of the last that leave may have it refuse once more.
	eventually(t, "requests are served again", func() bool { return status() == 200 && metric("isthmus_overload_refusing") == 0 })
	if metric(`isthmus_overload_shed_total{what="request"}`) < float64(crowd.refused()) {
		t.Error("the metrics say something else")
	}
}
