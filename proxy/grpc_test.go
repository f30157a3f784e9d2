package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	isthmush2 "isthmus/http2"
)

// call makes a call of gRPC with one message, and returns the reply when it is
// over.
func call(t *testing.T, c *http.Client, fields ...string) *http.Response {
	t.Helper()
	return callAt(t, c, "/a.B/C", fields...)
}

func callAt(t *testing.T, c *http.Client, path string, fields ...string) *http.Response {
	t.Helper()
	r, _ := http.NewRequest("POST", "http://s.test"+path, strings.NewReader("\x00\x00\x00\x00\x00"))
	r.Header.Set("content-type", "application/grpc+proto")
	r.Header.Set("te", "trailers")
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil {
		t.Fatalf("%v after %q", err, body)
	}
	return res
}

// grpcServer answers calls with trailers-only replies of the status that handle
// returns; below 0: it answers by itself.
func grpcServer(t *testing.T, handle func(http.ResponseWriter, *http.Request) int) string {
	return h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("content-type", "application/grpc+proto")
		if code := handle(w, r); code >= 0 {
			w.Header().Set("grpc-status", fmt.Sprint(code))
		}
	})
}

// routed is a rule for s.test, in YAML on one line.
func routed(rule string) string {
	return `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: routed}
spec:
  hosts: [s.test]
  http: [{` + rule + `}]
`
}

// TestGRPC_OwnAnswers: what the proxy says itself is gRPC to callers of gRPC,
// and HTTP to others.
func TestGRPC_OwnAnswers(t *testing.T) {
	slow := grpcServer(t, func(w http.ResponseWriter, r *http.Request) int {
		<-r.Context().Done()
		return 0
	})
	toService := `route: [{destination: {host: s.test}}]`
	for _, tt := range []struct {
		name, yaml  string
		fields      []string
		status      int
		code, words string
	}{
		{"no such host", "", nil, 404, "12", ""},
		{"no connection", entry("s.test", refusing(t)), nil, 503, "14", "upstream connect error or disconnect/reset before headers. reset reason: connection failure"},
		{"the route's timeout", entry("s.test", slow) + routed(toService+`, timeout: 20ms`), nil, 504, "4", "upstream request timeout"},
		{"the caller's deadline", entry("s.test", slow), []string{"grpc-timeout", "20m"}, 504, "4", "upstream request timeout"},
		{"direct response", entry("s.test", slow) + routed(`directResponse: {status: 403, body: {string: "née 50%"}}`), nil, 403, "7", "n%C3%A9e 50%25"},
		{"fault by HTTP's status", entry("s.test", slow) + routed(`fault: {abort: {percentage: {value: 100}, httpStatus: 401}}, `+toService), nil, 401, "16", "fault filter abort"},
		{"fault by gRPC's status", entry("s.test", slow) + routed(`fault: {abort: {percentage: {value: 100}, grpcStatus: ABORTED}}, `+toService), nil, 409, "10", "fault filter abort"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := serve(t, Options{}, overHTTP2(tt.yaml))
			for name, c := range map[string]*http.Client{"HTTP/1.1": h1Client(t, p, "outbound"), "HTTP/2": h2Client(t, p, "outbound")} {
				res := call(t, c, tt.fields...)
				h := res.Header
				if res.StatusCode != 200 || h.Get("grpc-status") != tt.code || h.Get("grpc-message") != tt.words ||
					len(h["Content-Type"]) != 1 || h.Get("content-type") != "application/grpc+proto" || h.Get("x-request-id") == "" {
					t.Errorf("%s: status %d, %v, want 200, grpc-status %s and message %q", name, res.StatusCode, h, tt.code, tt.words)
				}
				if res := call(t, c, append([]string{"content-type", "application/json"}, tt.fields...)...); res.StatusCode != tt.status || res.Header.Get("grpc-status") != "" {
					t.Errorf("%s, not gRPC: status %d, %v, want %d", name, res.StatusCode, res.Header, tt.status)
				}
			}
		})
	}
}

// TestGRPC_TrailersOnly: a reply of our own ends with its head.
func TestGRPC_TrailersOnly(t *testing.T) {
	p := serve(t, Options{}, "")
	res := call(t, h2Client(t, p, "outbound"))
	if res.ContentLength != 0 || len(res.Trailer) > 0 || res.Header.Get("content-length") != "" {
		t.Errorf("length %d, %v, trailers %v", res.ContentLength, res.Header, res.Trailer)
	}
}

// TestGRPC_Retries: the words for gRPC go by the status in a reply's head.
func TestGRPC_Retries(t *testing.T) {
	const trailers = -1
	for _, tt := range []struct {
		name    string
		code    int
		retries string
		calls   int32
	}{
		{"default, unavailable", 14, "", 3},
		{"default, cancelled", 1, "", 3},
		{"default, internal", 13, "", 1},
		{"default, ok", 0, "", 1},
		{"default, in trailers", trailers, "", 1},
		{"cancelled", 1, "cancelled", 2},
		{"deadline-exceeded", 4, "deadline-exceeded", 2},
		{"internal", 13, "internal", 2},
		{"resource-exhausted", 8, "resource-exhausted", 2},
		{"unavailable", 14, "unavailable", 2},
		{"another one", 14, "cancelled,deadline-exceeded,internal,resource-exhausted", 1},
		{"5xx is for HTTP", 14, "5xx", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var calls atomic.Int32
			address := grpcServer(t, func(w http.ResponseWriter, r *http.Request) int {
				calls.Add(1)
				if tt.code == trailers {
					w.Header().Set("trailer", "grpc-status")
					w.Write([]byte("\x00\x00\x00\x00\x00"))
					w.Header().Set("grpc-status", "14")
				}
				return tt.code
			})
			yaml := overHTTP2(entry("s.test", address))
			if tt.retries != "" {
				yaml += routed(`route: [{destination: {host: s.test}}], retries: {attempts: 1, retryOn: "` + tt.retries + `"}`)
			}
			p := serve(t, Options{}, yaml)
			res := call(t, h2Client(t, p, "outbound"))
			want := fmt.Sprint(max(tt.code, 0))
			got := res.Header.Get("grpc-status")
			if tt.code == trailers {
				want, got = "14", res.Trailer.Get("grpc-status")
			}
			if calls.Load() != tt.calls || got != want {
				t.Errorf("%d calls, grpc-status %q; want %d, %s", calls.Load(), got, tt.calls, want)
			}
		})
	}
}

// TestGRPC_Told: a call that fails by gRPC's status is told as a failure of the link
// and in traces, though HTTP has nothing to say of it.
func TestGRPC_Told(t *testing.T) {
	for _, tt := range []struct {
		code   int
		failed uint64
	}{{0, 0}, {5, 0}, {13, 1}} {
		t.Run(fmt.Sprint(tt.code), func(t *testing.T) {
			z := newZipkin(t)
			address := grpcServer(t, func(http.ResponseWriter, *http.Request) int { return tt.code })
			p := serve(t, Options{Tracing: z.tracing(100)}, overHTTP2(entry("s.test", address)))
			c := h2Client(t, p, "outbound")
			call(t, c)
			awaitGone(p, c)
			if l := p.Links().List(); len(l) != 1 || l[0].Failed != tt.failed || l[0].Succeeded != 1-tt.failed {
				t.Errorf("links %+v", l)
			}
			p.Close()
			for _, s := range z.wait(t, 2) {
				if failed := s.Tags["error"] == "true"; failed != (tt.failed == 1) {
					t.Errorf("%+v", s)
				}
			}
		})
	}
}

// TestGRPC_Outliers: a status in a reply's head counts as what it means in HTTP.
func TestGRPC_Outliers(t *testing.T) {
	var bad, good atomic.Int32
	yaml := overHTTP2(entry("s.test",
		grpcServer(t, func(http.ResponseWriter, *http.Request) int { bad.Add(1); return 14 }),
		grpcServer(t, func(http.ResponseWriter, *http.Request) int { good.Add(1); return 5 }),
	)) + routed(`route: [{destination: {host: s.test}}], retries: {attempts: 0}`) + `
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: s}
spec: {host: s.test, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 2, maxEjectionPercent: 100}}}
`
	p := serve(t, Options{}, yaml)
	c := h2Client(t, p, "outbound")
	for range 20 {
		call(t, c)
	}
	if bad.Load() != 2 || good.Load() != 18 {
		t.Errorf("%d calls to the one that says UNAVAILABLE, %d to the one that says NOT_FOUND; want 2, 18", bad.Load(), good.Load())
	}
}

// TestGRPC_Deadline: the callee hears how much is left of the caller's deadline.
func TestGRPC_Deadline(t *testing.T) {
	heard := make(chan string, 1)
	p := serve(t, Options{}, overHTTP2(entry("s.test", grpcServer(t, func(_ http.ResponseWriter, r *http.Request) int {
		heard <- r.Header.Get("grpc-timeout")
		return 0
	}))))
	call(t, h2Client(t, p, "outbound"), "grpc-timeout", "5S")
	d, ok := grpcTimeout([]byte(<-heard))
	if !ok || d > instant(5*time.Second) || d < instant(4*time.Second) {
		t.Errorf("the callee hears of %v, %v", time.Duration(d), ok)
	}
}

// TestGRPC_DeadlineAmid: a call whose deadline passes while messages come ends
// with the status that says so, if nobody else ends it.
func TestGRPC_DeadlineAmid(t *testing.T) {
	p := serve(t, Options{}, overHTTP2(entry("s.test", grpcServer(t, func(w http.ResponseWriter, r *http.Request) int {
		w.Write([]byte("\x00\x00\x00\x00\x00\x00")) // a message, and a part of one
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return -1
	}))))
	res := call(t, h2Client(t, p, "outbound"), "grpc-timeout", "50m")
	if res.Header.Get("grpc-status") != "" || res.Trailer.Get("grpc-status") != "4" || res.Trailer.Get("grpc-message") == "" {
		t.Errorf("%v, trailers %v", res.Header, res.Trailer)
	}
}

// TestHTTP2_HeadThatEnds: a head that has ended its stream by the time that
// somebody looks for bytes is no end without a reply.
func TestHTTP2_HeadThatEnds(t *testing.T) {
	h := isthmush2.NewClient(isthmush2.Options{})
	defer h.Close(nil)
	var s stream
	s.lend(h.Open(0), nil, stallTimeout)
	if _, err := s.h2.Start(nil, nil, true); err != nil {
		t.Fatal(err)
	}
	var in bytes.Buffer
	f := http2.NewFramer(&in, nil)
	f.WriteSettings()
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true}) // :status 200
	if _, err := h.Receive(in.Bytes()); err != nil {
		t.Fatal(err)
	}
	if n, err := s.fill(); n != 0 || err != nil {
		t.Errorf("got %d, %v; want to be told of the head", n, err)
	}
}

func TestDialectOf(t *testing.T) {
	for contentType, want := range map[string]dialect{
		"":                               notGRPC,
		"application/json":               notGRPC,
		"application/grp":                notGRPC,
		"application/grpc":               plainGRPC,
		"application/grpc+proto":         plainGRPC,
		"application/grpc;charset=utf-8": plainGRPC,
		"application/grpcx":              notGRPC,
		"application/grpc-web":           grpcWeb,
		"application/grpc-web+json":      grpcWeb,
		"application/grpc-webs":          notGRPC,
		"application/grpc-web-text":      grpcWebText,
		"application/grpc-web-text+p":    grpcWebText,
		"application/grpc-web-texts":     notGRPC,
	} {
		if got := dialectOf([]byte(contentType)); got != want {
			t.Errorf("%q is %d, want %d", contentType, got, want)
		}
	}
}

// TestGRPC_RetriesStreamed: a call whose message comes behind its head is made again as well,
// with all of it, if that is no more than what is held of a whole one; wherever it has got
// when the first try fails.
func TestGRPC_RetriesStreamed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		parts []int // of the message, one after another
		reads int   // how much of it the first try reads; -1: all
		reset bool  // the first try ends with a reset
		calls int32
	}{
		{"small", []int{5}, -1, false, 2},
		{"in parts", []int{5, 1000, 20_000, 30_000}, -1, false, 2},
		{"a large one", []int{64 << 10}, -1, false, 2},
		{"too large", []int{5, 64 << 10}, -1, false, 1},
		{"before it has come", []int{5, 1000, 20_000}, 0, false, 2},
		{"amid it", []int{5, 1000, 20_000}, 7, false, 2},
		{"by a reset", []int{5, 1000}, -1, true, 2},
		{"by a reset amid it", []int{5, 1000}, 7, true, 2},
	} {
		for _, port := range []string{"GRPC", "HTTP"} {
			t.Run(tt.name+", "+port, func(t *testing.T) {
				if port == "HTTP" && tt.reads >= 0 {
					t.Skip("net/http reads on before it answers")
				}
				t.Parallel()
				size := 0
				for _, n := range tt.parts {
					size += n
				}
				var calls atomic.Int32
				up := h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("content-type", "application/grpc+proto")
					if calls.Add(1) > 1 {
						n, err := io.Copy(io.Discard, r.Body)
						w.Header().Set("trailer", "grpc-status")
						fmt.Fprint(w, n, err)
						w.Header().Set("grpc-status", "0")
						return
					}
					if tt.reads < 0 {
						io.Copy(io.Discard, r.Body)
					} else {
						io.CopyN(io.Discard, r.Body, int64(tt.reads))
					}
					if tt.reset {
						panic(http.ErrAbortHandler)
					}
					w.Header().Set("grpc-status", "14")
				})
				yaml := strings.ReplaceAll(entry("s.test", up), "protocol: HTTP}", "protocol: "+port+"}")
				p := serve(t, Options{}, yaml+routed(`route: [{destination: {host: s.test}}], retries: {attempts: 1, retryOn: "unavailable,reset"}`))
				body, message := io.Pipe()
				r, _ := http.NewRequest("POST", "http://s.test/a.B/C", body)
				r.Header.Set("content-type", "application/grpc+proto")
				r.Header.Set("te", "trailers")
				go func() { // ends with the message
					for _, n := range tt.parts {
						time.Sleep(20 * time.Millisecond) // for what comes before to be under way
						message.Write(make([]byte, n))
					}
					message.Close()
				}()
				res, err := h2Client(t, p, "outbound").Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				got, err := io.ReadAll(res.Body)
				want := fmt.Sprint(size, error(nil))
				if tt.calls == 1 {
					want = ""
				}
				if calls.Load() != tt.calls || string(got) != want || err != nil {
					t.Errorf("%d calls, the last one's message %q, %v; want %d, %q", calls.Load(), got, err, tt.calls, want)
				}
			})
		}
	}
}
