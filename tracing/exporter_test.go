package tracing

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"isthmus/rpc"
)

// collector is one that does what a test wants.
type collector struct {
	mu     sync.Mutex
	spans  int
	sends  int
	broken bool
	silent bool
	refuse int           // so many times more
	after  time.Duration // it asks for that then
	asked  []time.Time

	takesNot int // spans of each message
	says     string
}

func (c *collector) send(ctx context.Context, message []byte) (partial, error) {
	c.mu.Lock()
	silent := c.silent
	c.sends++
	c.asked = append(c.asked, time.Now())
	c.mu.Unlock()
	if silent {
		<-ctx.Done()
		return partial{}, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		return partial{}, errors.New("out of order")
	}
	if c.refuse > 0 {
		c.refuse--
		return partial{}, &refusal{errors.New("later"), c.after}
	}
	c.spans += len(message) / countedSize
	return partial{lost: c.takesNot, why: c.says}, nil
}

func (c *collector) close() {}

func (c *collector) set(broken, silent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken, c.silent = broken, silent
}

func (c *collector) got() (spans, sends int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spans, c.sends
}

// counted is an encoding in which all spans are of the same size.
type counted struct{}

const countedSize = 1 << 10

func (counted) room() int { return 0 }
func (counted) appendSpan(dst []byte, _ *Span) []byte {
	return append(dst, make([]byte, countedSize)...)
}
func (counted) message(b []byte) []byte { return b }

func exporterTo(c *collector) *Exporter {
	return newExporter(Options{Logger: slog.New(slog.DiscardHandler)}, &Counts{}, counted{}, c)
}

// encode makes the message of some spans.
func encode(c encoding, spans []Span) []byte {
	b := make([]byte, c.room())
	for i := range spans {
		b = c.appendSpan(b, &spans[i])
	}
	return c.message(b)
}

func exchange(n int) []Span { return make([]Span, n) }

// TestExporter_Gathers: spans are sent together.
func TestExporter_Gathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &collector{}
		e := exporterTo(c)
		for range 10 {
			e.Offer(exchange(2))
		}
		time.Sleep(sendEvery / 2)
		if spans, _ := c.got(); spans != 0 {
			t.Errorf("%d spans at once", spans)
		}
		time.Sleep(sendEvery)
		if spans, sends := c.got(); spans != 20 || sends != 1 {
			t.Errorf("%d spans in %d, want 20 in 1", spans, sends)
		}
		for range sendFrom / countedSize {
			e.Offer(exchange(1))
		}
		synctest.Wait()
		if spans, sends := c.got(); spans != 20+sendFrom/countedSize || sends != 2 {
			t.Errorf("%d spans in %d", spans, sends)
		}
		e.Offer(exchange(3))
		e.Close()
		if spans, _ := c.got(); spans != 23+sendFrom/countedSize {
			t.Errorf("%d spans at the end", spans)
		}
		e.Offer(exchange(1))
		if sent, lost := e.counts.Sent.Load(), e.counts.Lost.Load(); sent != 23+sendFrom/countedSize || lost != 1 {
			t.Errorf("%d sent, %d lost", sent, lost)
		}
	})
}

// TestExporter_CollectorDown: nobody waits, little is tried, what is lost is
// counted, and it goes on when the collector is back.
func TestExporter_CollectorDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &collector{broken: true}
		e := exporterTo(c)
		began := time.Now()
		for range 60 {
			for range 100 {
				e.Offer(exchange(1))
			}
			time.Sleep(time.Second)
		}
		if waited := time.Since(began); waited != time.Minute {
			t.Errorf("a minute took %v", waited)
		}
		if _, sends := c.got(); sends > 10 {
			t.Errorf("tried %d times in a minute", sends)
		}
		c.set(false, false)
		time.Sleep(2 * longestPause)
		if spans, _ := c.got(); spans == 0 {
			t.Error("nothing is sent after the collector came back")
		}
		e.Close()
		spans, _ := c.got()
		if lost := e.counts.Lost.Load(); spans+int(lost) != 6000 {
			t.Errorf("%d sent and %d lost of 6000", spans, lost)
		}
	})
}

// TestExporter_Full: what waits is bounded, what comes on top is lost and counted,
// and what waited is sent when the collector is back.
func TestExporter_Full(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &collector{silent: true}
		e := exporterTo(c)
		e.Offer(exchange(1))
		time.Sleep(2 * sendEvery) // it is being sent now
		const room = maxQueued / countedSize
		for range room + 7 {
			e.Offer(exchange(1))
		}
		if lost := e.counts.Lost.Load(); lost != 7 {
			t.Errorf("%d lost, want 7", lost)
		}
		c.set(false, false)
		time.Sleep(2 * longestPause)
		if spans, _ := c.got(); spans != room {
			t.Errorf("%d sent, want %d", spans, room)
		}
		e.Close()
	})
}

// TestExporter_Refused: what a collector does not take for now it gets again, when it has said
// or later and later, before what has come meanwhile, and once more at the end.
func TestExporter_Refused(t *testing.T) {
	for _, tt := range []struct {
		name       string
		refuse     int
		after      time.Duration
		sent, lost uint64
		least      []time.Duration // between sends
	}{
		{"once", 1, 0, 5, 0, []time.Duration{sendEvery}},
		{"again and again", 4, 0, 5, 0, []time.Duration{sendEvery, 2 * sendEvery, 4 * sendEvery, 8 * sendEvery}},
		{"as it asks", 2, 40 * time.Second, 5, 0, []time.Duration{40 * time.Second, 40 * time.Second}},
		{"as it asks, within reason", 1, time.Hour, 5, 0, []time.Duration{longestAsked}},
		{"for too long", 1000, time.Minute, 0, 5, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &collector{refuse: tt.refuse, after: tt.after}
				e := exporterTo(c)
				e.Offer(exchange(2))
				time.Sleep(sendEvery + sendEvery/2)
				e.Offer(exchange(3))
				time.Sleep(2 * (keptFor + longestAsked))
				if sent, lost := e.counts.Sent.Load(), e.counts.Lost.Load(); sent != tt.sent || lost != tt.lost {
					t.Errorf("%d sent, %d lost, want %d, %d", sent, lost, tt.sent, tt.lost)
				}
				for i, least := range tt.least {
					if took := c.asked[i+1].Sub(c.asked[i]); took < least || took > least+least/4 {
						t.Errorf("sent again after %v, want %v", took, least)
					}
				}
				if len(tt.least) > 0 && c.asked[len(tt.least)+1].Sub(c.asked[len(tt.least)]) > sendEvery {
					t.Error("what has come meanwhile had to wait")
				}
				e.Close()
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		c := &collector{refuse: 1, after: time.Hour}
		e := exporterTo(c)
		e.Offer(exchange(2))
		time.Sleep(2 * sendEvery)
		e.Offer(exchange(3))
		e.Close()
		if sent, lost := e.counts.Sent.Load(), e.counts.Lost.Load(); sent != 5 || lost != 0 {
			t.Errorf("%d sent, %d lost at the end, want 5, 0", sent, lost)
		}
	})
}

// TestExporter_RefusedFull: spans that wait to be sent again are the first that are lost.
func TestExporter_RefusedFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &collector{refuse: 1, after: time.Minute}
		e := exporterTo(c)
		e.Offer(exchange(5))
		time.Sleep(2 * sendEvery)
		const room = maxQueued / countedSize
		for range 2*room + 3 {
			e.Offer(exchange(1))
		}
		if lost := e.counts.Lost.Load(); lost != 5+room {
			t.Errorf("%d lost, want the oldest %d", lost, 5+room)
		}
		e.mu.Lock()
		if held := len(e.kept.bytes) + len(e.queued.bytes); held > 2*maxQueued {
			t.Errorf("%d bytes are held", held)
		}
		e.mu.Unlock()
		time.Sleep(2 * time.Minute)
		if sent := e.counts.Sent.Load(); sent != room+3 {
			t.Errorf("%d sent, want %d", sent, room+3)
		}
		e.Close()
	})
}

// TestExporter_Partial: what a collector says that it has not taken is lost, and told once.
func TestExporter_Partial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		c := &collector{takesNot: 2, says: "too old"}
		e := newExporter(Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, &Counts{}, counted{}, c)
		for range 3 {
			e.Offer(exchange(5))
			time.Sleep(2 * sendEvery)
		}
		e.Offer(exchange(1))
		e.Close()
		if sent, lost := e.counts.Sent.Load(), e.counts.Lost.Load(); sent != 9 || lost != 7 {
			t.Errorf("%d sent, %d lost, want 9, 7", sent, lost)
		}
		if text := log.String(); strings.Count(text, "too old") != 1 {
			t.Errorf("logged %q", text)
		}
	})
}

// TestSenders_Partial: what OTLP's collectors say of spans that they have not taken.
func TestSenders_Partial(t *testing.T) {
	answer := rpc.AppendMessage(nil, 1, rpc.AppendText(rpc.AppendNumber(nil, 1, 3), 2, "too old"))
	for _, tt := range []struct {
		name, mediaType string
		answer          []byte
		want            partial
	}{
		{"all taken", "application/x-protobuf", nil, partial{}},
		{"some not", "application/x-protobuf", answer, partial{3, "too old"}},
		{"more than there can be", "application/x-protobuf", rpc.AppendMessage(nil, 1, rpc.AppendNumber(nil, 1, 1<<63)), partial{1<<31 - 1, ""}},
		{"no message", "application/x-protobuf", []byte("\xff"), partial{}},
		{"a page", "text/plain", answer, partial{}},
		{"gRPC, all taken", "application/grpc", nil, partial{}},
		{"gRPC, some not", "application/grpc", answer, partial{3, "too old"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var server *http.Server
			if tt.mediaType == "application/grpc" {
				server = rpc.NewServer(map[string]rpc.Method{"/opentelemetry.proto.collector.trace.v1.TraceService/Export": func([]byte) ([]byte, error) { return tt.answer, nil }})
			} else {
				server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", tt.mediaType)
					w.Write(tt.answer)
				})}
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			go server.Serve(l) // ends with server.Close
			defer server.Close()
			o := &Options{Authority: "collector:1", Dial: func(ctx context.Context) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
			}}
			var s sender = newHTTPSender(o, "/v1/traces", "application/x-protobuf")
			if tt.mediaType == "application/grpc" {
				s = newGRPCSender(o)
			}
			defer s.close()
			if got, err := s.send(t.Context(), []byte("spans")); err != nil || got != tt.want {
				t.Errorf("%v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

// TestExporter_CollectorSilent: Close does not wait for one that does not answer.
func TestExporter_CollectorSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &collector{silent: true}
		e := exporterTo(c)
		e.Offer(exchange(1))
		time.Sleep(2 * sendEvery)
		began := time.Now()
		e.Close()
		if waited := time.Since(began); waited > closeWithin {
			t.Errorf("Close took %v", waited)
		}
		if lost := e.counts.Lost.Load(); lost != 1 {
			t.Errorf("%d lost", lost)
		}
	})
}

func someSpan() Span {
	return Span{
		Trace: TraceID{0x4b, 15: 0x36}, ID: own, Parent: SpanID{8}, Kind: Server, Name: "web.prod:80/*", State: "a=b",
		Start: time.Unix(1700000000, 123000), End: time.Unix(1700000000, 5123000), Failed: true, Tags: []Tag{{"component", "proxy"}, {"http.status_code", "503"}},
	}
}

var someResource = Resource{Service: "web.prod", Address: "10.0.0.1", Tags: []Tag{{"node_id", "n1"}}}

// TestSenders: each protocol brings what it should to where it should.
func TestSenders(t *testing.T) {
	type request struct {
		path, mediaType string
		body            []byte
	}
	requests := make(chan request, 1)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		requests <- request{r.URL.Path, r.Header.Get("Content-Type"), b}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer page.Close()
	server := rpc.NewServer(map[string]rpc.Method{"/opentelemetry.proto.collector.trace.v1.TraceService/Export": func(m []byte) ([]byte, error) {
		requests <- request{"", "", bytes.Clone(m)}
		return nil, nil
	}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l) // ends with server.Close
	defer server.Close()
	for _, tt := range []struct {
		name            string
		protocol        Protocol
		address         string
		path, mediaType string
	}{
		{"otlp over http", OTLPHTTP, page.Listener.Addr().String(), "/v1/traces", "application/x-protobuf"},
		{"otlp over grpc", OTLPGRPC, l.Addr().String(), "", ""},
		{"zipkin", Zipkin, page.Listener.Addr().String(), "/api/v2/spans", "application/json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var counts Counts
			e := NewExporter(Options{
				Protocol: tt.protocol, Authority: "collector:1", Resource: someResource, Logger: slog.New(slog.DiscardHandler),
				Dial: func(ctx context.Context) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, "tcp", tt.address)
				},
			}, &counts)
			e.Offer([]Span{someSpan()})
			e.Close()
			r := <-requests
			if r.path != tt.path || r.mediaType != tt.mediaType || counts.Sent.Load() != 1 {
				t.Errorf("%s %s, %d sent", r.path, r.mediaType, counts.Sent.Load())
			}
			if tt.protocol != Zipkin && !bytes.Equal(r.body, encode(newOTLP(&someResource), []Span{someSpan()})) {
				t.Errorf("%x", r.body)
			}
		})
	}
}

// TestSenders_Refused: which answers of a collector let spans be sent again, and when.
func TestSenders_Refused(t *testing.T) {
	retryInfo := func(delay []byte) string {
		detail := rpc.AppendText(nil, 1, "type.googleapis.com/google.rpc.RetryInfo")
		detail = rpc.AppendMessage(detail, 2, rpc.AppendMessage(nil, 1, delay))
		other := rpc.AppendText(nil, 1, "type.googleapis.com/google.rpc.DebugInfo")
		status := rpc.AppendNumber(nil, 1, 8)
		return base64.RawStdEncoding.EncodeToString(rpc.AppendMessage(rpc.AppendMessage(status, 3, other), 3, detail))
	}
	seven := retryInfo(rpc.AppendNumber(rpc.AppendNumber(nil, 1, 7), 2, 5e8))
	for _, tt := range []struct {
		name    string
		status  int
		headers []string // name, value, ...
		again   bool
		after   time.Duration
	}{
		{"400", 400, nil, false, 0},
		{"500", 500, []string{"Retry-After", "1"}, false, 0},
		{"429", 429, nil, true, 0},
		{"429 for a time", 429, []string{"Retry-After", "17"}, true, 17 * time.Second},
		{"503 until some past moment", 503, []string{"Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT"}, true, 0},
		{"503 and nonsense", 503, []string{"Retry-After", "soon"}, true, 0},
		{"502", 502, nil, true, 0},
		{"504", 504, nil, true, 0},
		{"gRPC, UNAVAILABLE", 200, []string{"Grpc-Status", "14"}, true, 0},
		{"gRPC, UNAVAILABLE for a time", 200, []string{"Grpc-Status", "14", "Grpc-Status-Details-Bin", seven}, true, 7500 * time.Millisecond},
		{"gRPC, RESOURCE_EXHAUSTED", 200, []string{"Grpc-Status", "8"}, false, 0},
		{"gRPC, RESOURCE_EXHAUSTED for a time", 200, []string{"Grpc-Status", "8", "Grpc-Status-Details-Bin", seven + "="}, true, 7500 * time.Millisecond},
		{"gRPC, RESOURCE_EXHAUSTED and nonsense", 200, []string{"Grpc-Status", "8", "Grpc-Status-Details-Bin", "!"}, false, 0},
		{"gRPC, INVALID_ARGUMENT", 200, []string{"Grpc-Status", "3", "Grpc-Status-Details-Bin", seven}, false, 0},
		{"gRPC, no status", 200, nil, false, 0},
		{"gRPC, 503", 503, []string{"gRPC", ""}, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for i := 0; i < len(tt.headers); i += 2 {
					w.Header().Set(tt.headers[i], tt.headers[i+1])
				}
				w.WriteHeader(tt.status)
			}))
			server.Config.Protocols = &http.Protocols{}
			server.Config.Protocols.SetHTTP1(true)
			server.Config.Protocols.SetUnencryptedHTTP2(true)
			server.Start()
			defer server.Close()
			o := &Options{Authority: "collector:1", Dial: func(ctx context.Context) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
			}}
			var s sender = newHTTPSender(o, "/v1/traces", "application/x-protobuf")
			if strings.HasPrefix(tt.name, "gRPC") {
				s = newGRPCSender(o)
			}
			defer s.close()
			_, err := s.send(t.Context(), []byte("spans"))
			refused, again := err.(*refusal)
			if err == nil || again != tt.again {
				t.Fatalf("%v, again %v, want %v", err, again, tt.again)
			}
			if again && refused.after != tt.after {
				t.Errorf("after %v, want %v", refused.after, tt.after)
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		s := newHTTPSender(&Options{Authority: "collector:1", Dial: func(context.Context) (net.Conn, error) { return nil, net.ErrClosed }}, "/", "")
		if _, err := s.send(t.Context(), nil); !errors.As(err, new(*refusal)) {
			t.Errorf("%v is final", err)
		}
	})
}

func TestZipkinJSON(t *testing.T) {
	var got []map[string]any
	if err := json.Unmarshal(encode(newZipkin(&someResource), []Span{someSpan()}), &got); err != nil {
		t.Fatal(err)
	}
	b, _ := json.Marshal(got[0])
	want := `{"duration":5000,"id":"0102030405060708","kind":"SERVER","localEndpoint":{"ipv4":"10.0.0.1","serviceName":"web.prod"},"name":"web.prod:80/*","parentId":"0800000000000000",` +
		`"tags":{"component":"proxy","error":"true","http.status_code":"503"},"timestamp":1700000000000123,"traceId":"4b000000000000000000000000000036"}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}

// TestZipkinJSON_Texts: whatever requests hold is JSON, and has each name once.
func TestZipkinJSON_Texts(t *testing.T) {
	odd := "a\"\\\x00\n\u00e9\xff"
	spans := []Span{{Name: odd, Tags: []Tag{{odd, odd}, {"a", "2"}, {"error", "x"}}}, {}, {Failed: true, Tags: []Tag{{"error", "x"}}}}
	for _, address := range []string{"", "2001:db8::1"} {
		var got []struct {
			Name          string
			Tags          map[string]string
			LocalEndpoint map[string]string
		}
		if err := json.Unmarshal(encode(newZipkin(&Resource{Service: odd, Address: address}), spans), &got); err != nil {
			t.Fatal(err)
		}
		want := "a\"\\\x00\n\u00e9\ufffd"
		if len(got) != 3 || got[0].Name != want || got[0].Tags[want] != want || got[0].Tags["a"] != "2" || got[0].Tags["error"] != "x" || len(got[1].Tags) != 0 || got[2].Tags["error"] != "true" {
			t.Errorf("%q", got)
		}
		if e := got[0].LocalEndpoint; e["serviceName"] != want || e["ipv6"] != address || e["ipv4"] != "" {
			t.Errorf("%q", e)
		}
	}
}

// BenchmarkAppendSpan is of the two spans of an exchange with one try, as a proxy of
// the mesh tells it.
func BenchmarkAppendSpan(b *testing.B) {
	s := someSpan()
	for i := range 12 {
		s.Tags = append(s.Tags, Tag{"some.key." + strconv.Itoa(i), "outbound|80||web.prod.svc.cluster.local"})
	}
	for _, tt := range []struct {
		name     string
		encoding encoding
	}{{"otlp", newOTLP(&someResource)}, {"zipkin", newZipkin(&someResource)}} {
		b.Run(tt.name, func(b *testing.B) {
			var out []byte
			b.ReportAllocs()
			for b.Loop() {
				out = tt.encoding.appendSpan(tt.encoding.appendSpan(out[:0], &s), &s)
			}
		})
	}
}

// TestOTLPRequest walks the message by the numbers of the protocol's fields.
func TestOTLPRequest(t *testing.T) {
	texts := map[string]string{}
	var walk func(path string, b []byte)
	nested := map[string]bool{"/1": true, "/1/1": true, "/1/1/1": true, "/1/1/1/2": true, "/1/2": true, "/1/2/1": true, "/1/2/2": true, "/1/2/2/9": true, "/1/2/2/9/2": true, "/1/2/2/15": true}
	walk = func(path string, b []byte) {
		err := rpc.EachField(b, func(field protowire.Number, b []byte) error {
			at := path + "/" + strconv.Itoa(int(field))
			if nested[at] {
				walk(at, b)
			} else {
				texts[at] += string(b) + ";"
			}
			return nil
		}, func(field protowire.Number, v uint64) {
			texts[path+"/"+strconv.Itoa(int(field))] = strconv.Itoa(int(v))
		})
		if err != nil {
			t.Fatal(path, err)
		}
	}
	walk("", encode(newOTLP(&someResource), []Span{someSpan()}))
	s := someSpan()
	for at, want := range map[string]string{
		"/1/1/1/1": "service.name;node_id;", "/1/1/1/2/1": "web.prod;n1;", "/1/2/1/1": "isthmus;",
		"/1/2/2/1": string(s.Trace[:]) + ";", "/1/2/2/2": string(s.ID[:]) + ";", "/1/2/2/3": "a=b;", "/1/2/2/4": string(s.Parent[:]) + ";", "/1/2/2/5": "web.prod:80/*;", "/1/2/2/6": "2",
		"/1/2/2/9/1": "component;http.status_code;", "/1/2/2/9/2/1": "proxy;503;", "/1/2/2/15/3": "2",
	} {
		if texts[at] != want {
			t.Errorf("%s: %q, want %q", at, texts[at], want)
		}
	}
	if strings.Contains(texts["/1/2/2/7"], ";") {
		t.Error("the start is no number")
	}
}

// TestOTLPTag: tags of any length are read as they were, about where lengths begin
// to take two bytes in particular.
func TestOTLPTag(t *testing.T) {
	for n := range 300 {
		want := Tag{strings.Repeat("k", n/3), strings.Repeat("v", n-n/3)}
		var got Tag
		read := func(into *string) func(protowire.Number, []byte) error {
			return func(_ protowire.Number, b []byte) error {
				*into = string(b)
				return nil
			}
		}
		err := rpc.EachField(otlpTag(nil, 9, want), func(field protowire.Number, b []byte) error {
			if field != 9 {
				t.Errorf("field %d", field)
			}
			return rpc.EachField(b, func(field protowire.Number, b []byte) error {
				if field == 1 {
					return read(&got.Key)(field, b)
				}
				return rpc.EachField(b, read(&got.Value), nil)
			}, nil)
		}, nil)
		if err != nil || got != want {
			t.Errorf("%d bytes: %q, %v", n, got, err)
		}
	}
}
