package proxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestHTTP2_OwnReplies: whatever becomes of the requests around it, each has its own
// head, body and trailers at the upstream, and gets its own reply.
func TestHTTP2_OwnReplies(t *testing.T) {
	up := h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/early":
			w.WriteHeader(413)
			return
		case "/breaks":
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/talks":
			http.NewResponseController(w).EnableFullDuplex()
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set(http.TrailerPrefix+"x-trail", fmt.Sprint(r.Trailer.Get("x-own")))
		if r.URL.Path != "/talks" {
			w.Header().Set("x-own", r.Header.Get("x-own"))
			w.Header().Set("x-cookie", r.Header.Get("cookie"))
		}
		w.Write(body)
	})
	for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(version, func(t *testing.T) {
			yaml := entry("s.test", up)
			if version == "HTTP/2" {
				yaml = overHTTP2(yaml)
			}
			yaml += edge("s.test")
			p := serve(t, atEdge(), yaml)
			var clients sync.WaitGroup
			until := time.Now().Add(time.Second)
			for client := range 4 {
				clients.Go(func() {
					for n := 0; time.Now().Before(until) && !t.Failed(); n++ {
						ownRequests(t, dialRaw(t, p.address([]string{"outbound", "gateway:80"}[n%2])), fmt.Sprint(client, "-", n), version)
					}
				})
			}
			clients.Wait()
		})
	}
}

// ownRequests makes some requests over a connection, of which it gives some up.
func ownRequests(t *testing.T, r *rawClient, name, version string) {
	defer r.conn.Close()
	type asked struct {
		own, path, body, trailer string
		status, got, head        string
		trail                    string
		gone, over               bool
	}
	all := map[uint32]*asked{}
	open := 0
	for i := range 10 {
		id := uint32(2*i + 1)
		a := &asked{own: fmt.Sprint(name, "/", id), path: []string{"/late", "/late", "/talks", "/early", "/breaks"}[rand.N(5)]}
		all[id] = a
		a.body = strings.Repeat(a.own+" ", rand.N(800))
		head := []string{"bare", ":method", "POST", ":scheme", "http", ":authority", "s.test", ":path", a.path, "x-own", a.own, "cookie", "a=" + a.own, "cookie", "b=" + a.own, "trailer", "x-own"}
		kind := rand.N(10)
		switch kind {
		case 0:
			head = append(head, "content-length", fmt.Sprint(len(a.body)))
		case 1:
			head = append(head, "content-length", fmt.Sprint(len(a.body)+1)) // which is malformed
			a.gone = true
		case 2:
			head = append(head, "x-large", strings.Repeat("l", 70_000))
			a.gone = true
		case 3:
			head = append(head, "expect", "100-continue")
		case 4:
			head = append(head, "content-type", "application/grpc")
		}
		block := r.block(head...)
		first := min(len(block), 16<<10)
		r.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:first], EndHeaders: first == len(block)})
		for block = block[first:]; len(block) > 0; block = block[first:] {
			first = min(len(block), 16<<10)
			r.WriteContinuation(id, first == len(block), block[:first])
		}
		pause := func() {
			if rand.N(3) == 0 {
				r.out.Flush()
				time.Sleep(rand.N(time.Millisecond))
			}
		}
		pause()
		half := len(a.body) / 2
		r.WriteData(id, false, []byte(a.body[:half]))
		pause()
		if rand.N(5) == 0 {
			a.gone = true
			r.WriteRSTStream(id, http2.ErrCodeCancel)
			continue
		}
		// net/http's server ends a connection for trailers that meet its reset.
		if rand.N(2) == 0 && a.path != "/early" && a.path != "/breaks" {
			if kind != 0 || version == "HTTP/2" {
				a.trailer = a.own
			}
			r.WriteData(id, false, []byte(a.body[half:]))
			pause()
			r.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: r.block("bare", "x-own", a.own), EndHeaders: true, EndStream: true})
		} else {
			r.WriteData(id, true, []byte(a.body[half:]))
		}
		if !a.gone {
			open++
		}
	}
	r.until(func(f http2.Frame) bool {
		a := all[f.Header().StreamID]
		if a == nil {
			return false
		}
		ended := false
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			switch s := f.PseudoValue("status"); s {
			case "100":
			case "":
			default:
				a.status = s
			}
			for _, h := range f.RegularFields() {
				switch h.Name {
				case "x-own", "x-cookie":
					a.head += h.Value + " "
				case "x-trail":
					a.trail = h.Value
				}
			}
			ended = f.StreamEnded()
		case *http2.DataFrame:
			a.got += string(f.Data())
			ended = f.StreamEnded()
		case *http2.RSTStreamFrame:
			if !a.over && !a.gone && a.path != "/breaks" && a.path != "/early" {
				t.Errorf("%s %s was reset with %v", a.path, a.own, f.ErrCode)
			}
			if !a.over && !a.gone {
				open--
			}
			a.over = true
		}
		if ended && !a.over {
			a.over = true
			if !a.gone {
				open--
			}
		}
		return open == 0
	})
	if open != 0 {
		t.Errorf("%s: the connection has ended before %d replies", name, open)
	}
	for _, a := range all {
		if a.gone || !a.over {
			continue
		}
		switch a.path {
		case "/late":
			if a.status != "200" || a.got != a.body || a.head != fmt.Sprintf("%s a=%s; b=%s ", a.own, a.own, a.own) && a.head != fmt.Sprintf("a=%s; b=%s %s ", a.own, a.own, a.own) || a.trail != a.trailer {
				t.Errorf("%s: %s, %q, %d bytes %.40q of %d, trailer %q, want %q", a.own, a.status, a.head, len(a.got), a.got, len(a.body), a.trail, a.trailer)
			}
		case "/talks":
			if a.status != "200" || a.got != a.body || a.trail != a.trailer {
				t.Errorf("%s talks: %s, %d bytes %.40q of %d, trailer %q, want %q", a.own, a.status, len(a.got), a.got, len(a.body), a.trail, a.trailer)
			}
		}
	}
}
