package extauthz

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"
	"time"

	"isthmus/mesh"
)

func allowHTTP(http.ResponseWriter, *http.Request) {}

func startHTTP(t testing.TB, h http.HandlerFunc) (address string, stop func()) {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), func() { s.CloseClientConnections(); s.Close() }
}

func httpServer(t testing.TB, h http.HandlerFunc) *place {
	address, _ := startHTTP(t, h)
	return newPlace(address)
}

// TestHTTPTarget: the service sees the client's target, byte for byte, and the
// client's host and method.
func TestHTTPTarget(t *testing.T) {
	checkLeaks(t)
	var got *http.Request
	at := httpServer(t, func(_ http.ResponseWriter, r *http.Request) { got = r })
	for _, tt := range []struct{ method, prefix, path, want string }{
		{"GET", "", "/", "/"},
		{"GET", "/check", "/admin", "/check/admin"},
		{"GET", "/check/", "/admin", "/check//admin"},
		{"HEAD", "", "/a%2Fb/%61;x=1?q=%20&&?", "/a%2Fb/%61;x=1?q=%20&&?"},
		{"POST", "", "/a?", "/a?"},
		{"PROPFIND", "", "//evil.test/a%2fb[]@:", "//evil.test/a%2fb[]@:"},
		{"GET", "", "//evil.test?x=//y", "//evil.test?x=//y"},
		{"GET", "", "//a{b}|c", "//a%7Bb%7D%7Cc"},
		{"GET", "", "/a{b}|c^`\\", "/a{b}|c^`\\"},
		{"GET", "/", "/x", "//x"},
		{"GET", "", "/http://other.test/", "/http://other.test/"},
		{"OPTIONS", "", "*", "*"},
	} {
		a := newTestAsker(t, &mesh.AuthorizationProvider{PathPrefix: tt.prefix}, at)
		c := getCall(tt.path)
		c.Method, c.Host = []byte(tt.method), []byte("App.test:8443")
		got = nil
		if tt.path == "*" { // net/http's server answers itself
			if v := mustAsk(t, a, c); !v.Allowed {
				t.Errorf("OPTIONS *: %+v", v)
			}
			continue
		}
		if v := mustAsk(t, a, c); !v.Allowed || got == nil {
			t.Errorf("%s %s: %+v, not asked: %v", tt.method, tt.path, v, got == nil)
			continue
		}
		if got.RequestURI != tt.want || got.Method != tt.method || got.Host != "App.test:8443" {
			t.Errorf("%s %s: asked %s %s of host %s", tt.method, tt.path, got.Method, got.RequestURI, got.Host)
		}
	}
}

// TestHTTPUntold: what the service cannot be told of is refused, though FailOpen
// is set: a client could bring it about.
func TestHTTPUntold(t *testing.T) {
	checkLeaks(t)
	at := httpServer(t, allowHTTP)
	a := newTestAsker(t, &mesh.AuthorizationProvider{FailOpen: true, RequestHeaders: []string{"*"}}, at)
	for name, change := range map[string]func(c *Call){
		"method":        func(c *Call) { c.Method = []byte("GE T") },
		"no method":     func(c *Call) { c.Method = nil },
		"CONNECT":       func(c *Call) { c.Method, c.Path = []byte("CONNECT"), nil },
		"CONNECT path":  func(c *Call) { c.Method = []byte("CONNECT") },
		"no path":       func(c *Call) { c.Path = nil },
		"relative":      func(c *Call) { c.Path = []byte("admin") },
		"path SP":       func(c *Call) { c.Path = []byte("/a b") },
		"path CRLF":     func(c *Call) { c.Path = []byte("/a HTTP/1.1\r\nx: y") },
		"path ?":        func(c *Call) { c.Path = []byte("/a?b") },
		"path #":        func(c *Call) { c.Path = []byte("/a#b") },
		"path UTF-8":    func(c *Call) { c.Path = []byte("/ä") },
		"slashes %":     func(c *Call) { c.Path = []byte("//a%zz") },
		"query #":       func(c *Call) { c.Query, c.HasQuery = []byte("a#b"), true },
		"query CRLF":    func(c *Call) { c.Query, c.HasQuery = []byte("a\r\nb"), true },
		"no host":       func(c *Call) { c.Host = nil },
		"host CRLF":     func(c *Call) { c.Host = []byte("a\r\nx: y") },
		"host /":        func(c *Call) { c.Host = []byte("a/b") },
		"host IDN":      func(c *Call) { c.Host = []byte("ä.test") },
		"host zone":     func(c *Call) { c.Host = []byte("[fe80::1%25en0]") },
		"field name":    func(c *Call) { c.Fields = fieldsOf("a b", "c") },
		"field value":   func(c *Call) { c.Fields = fieldsOf("a", "b\nc: d") },
		"field control": func(c *Call) { c.Fields = fieldsOf("a", "b\x00c") },
	} {
		c := getCall("/")
		change(c)
		v, err := a.Ask(context.Background(), c)
		if err != nil || v.Allowed || v.Status != 400 || v.Fault == nil {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
	if n := at.dials.Load(); n > 0 {
		t.Errorf("%d connections", n)
	}
}

// TestHTTPFields: which of the client's fields the service sees.
func TestHTTPFields(t *testing.T) {
	checkLeaks(t)
	var got http.Header
	at := httpServer(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Header })
	for name, tt := range map[string]struct {
		p    mesh.AuthorizationProvider
		want http.Header
	}{
		"none but one": {mesh.AuthorizationProvider{}, http.Header{"Authorization": {"Bearer t"}}},
		"exact, prefix, suffix": {
			mesh.AuthorizationProvider{RequestHeaders: []string{"AUTHORIZATION", "x-u*", "*-Id"}},
			http.Header{"Authorization": {"Bearer t"}, "X-User": {"a,b"}, "X-Trace-Id": {"7"}},
		},
		"all": {
			mesh.AuthorizationProvider{RequestHeaders: []string{"*"}},
			http.Header{"Authorization": {"Bearer t"}, "X-User": {"a,b"}, "X-Trace-Id": {"7"}, "Cookie": {"a=1; b=2"}, "User-Agent": {"curl"}, "X-Forwarded-Client-Cert": {"By=x"}},
		},
		"added": {
			mesh.AuthorizationProvider{RequestHeaders: []string{"x-user"}, AddedHeaders: []mesh.NameValue{
				{Name: "x-USER", Value: "fixed"}, {Name: "x-new", Value: "1"}, {Name: "host", Value: "evil"}, {Name: "content-length", Value: "7"}, {Name: "x-isthmus-destination", Value: "x:1"},
			}},
			http.Header{"Authorization": {"Bearer t"}, "X-User": {"fixed"}, "X-New": {"1"}},
		},
	} {
		a := newTestAsker(t, &tt.p, at)
		mustAsk(t, a, getCall("/", "Authorization", "Bearer t", "X-User", "a", "x-user", "b", "x-trace-id", "7", "cookie", "a=1", "Cookie", "b=2",
			"user-agent", "curl", "host", "evil.test", "content-length", "5", "transfer-encoding", "chunked", "connection", "x-user", "te", "trailers",
			"expect", "100-continue", "upgrade", "h2c", "x-isthmus-destination", "a:1", "X-Forwarded-Client-Cert", "By=x", "x-envoy-auth-partial-body", "false"))
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestHTTPBody(t *testing.T) {
	checkLeaks(t)
	type seen struct {
		body, partial string
		length        int64
	}
	var got seen
	at := httpServer(t, func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = seen{string(b), r.Header.Get(partialBody), r.ContentLength}
	})
	for _, tt := range []struct {
		limit   uint32
		partial bool
		body    string
		more    bool
		want    seen
	}{
		{0, false, "hello", true, seen{"", "", 0}},
		{5, false, "hello", false, seen{"hello", "false", 5}},
		{5, true, "", false, seen{"", "false", 0}},
		{5, true, "hello", true, seen{"hello", "true", 5}},
		{4, true, "hello", false, seen{"hell", "true", 4}},
	} {
		a := newTestAsker(t, &mesh.AuthorizationProvider{Body: tt.limit, BodyPartial: tt.partial, RequestHeaders: []string{"*"}}, at)
		for _, method := range []string{"POST", "GET"} {
			c := getCall("/", partialBody, "lie")
			c.Method, c.Body, c.BodyPartial = []byte(method), []byte(tt.body), tt.more
			mustAsk(t, a, c)
			if got != tt.want {
				t.Errorf("%d bytes, %s %q: %+v", tt.limit, method, tt.body, got)
			}
		}
	}
}

// TestHTTPStaleConnection: a kept connection that the service has closed is no
// fault, whatever the method.
func TestHTTPStaleConnection(t *testing.T) {
	checkLeaks(t)
	at := rawServer(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for i := range 2 {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if i == 1 {
				return // closes after it has read another request
			}
			io.Copy(io.Discard, req.Body)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	a := newTestAsker(t, &mesh.AuthorizationProvider{Body: 10}, at)
	for range 3 {
		c := getCall("/")
		c.Method, c.Body = []byte("POST"), []byte("hello")
		if v := mustAsk(t, a, c); !v.Allowed {
			t.Fatalf("%+v", v)
		}
	}
	if n := at.dials.Load(); n != 3 {
		t.Errorf("%d connections", n)
	}
}

func TestHTTPKeepsConnections(t *testing.T) {
	checkLeaks(t)
	at := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			http.Error(w, "no", http.StatusForbidden)
		}
	})
	a := newTestAsker(t, &mesh.AuthorizationProvider{}, at)
	for i := range 20 {
		mustAsk(t, a, getCall([]string{"/", "/no"}[i%2]))
	}
	if n := at.dials.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestHTTPSlowBody: an answer counts when it is whole, a refusal before that.
func TestHTTPSlowBody(t *testing.T) {
	checkLeaks(t)
	at := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		status := 200
		fmt.Sscanf(r.URL.Path, "/%d", &status)
		w.WriteHeader(status)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	a := newTestAsker(t, &mesh.AuthorizationProvider{Timeout: time.Second}, at)
	if v, err := a.Ask(context.Background(), getCall("/200")); !errors.Is(err, errLate) {
		t.Errorf("200: %+v, %v", v, err)
	}
	if v, err := a.Ask(context.Background(), getCall("/403")); err != nil || v.Allowed || v.Status != 403 {
		t.Errorf("403: %+v, %v", v, err)
	}
}

// TestHTTPSwitched: a 101 has no body that could be waited for.
func TestHTTPSwitched(t *testing.T) {
	checkLeaks(t)
	at := rawServer(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
		io.Copy(io.Discard, c)
	})
	a := newTestAsker(t, &mesh.AuthorizationProvider{Timeout: time.Hour}, at)
	if v := mustAsk(t, a, getCall("/")); v.Allowed || v.Status != 500 {
		t.Errorf("%+v", v)
	}
}

// TestHTTPBrokenProvider: a provider that cannot be asked refuses, though
// FailOpen is set.
func TestHTTPBrokenProvider(t *testing.T) {
	checkLeaks(t)
	for name, p := range map[string]mesh.AuthorizationProvider{
		"prefix":       {PathPrefix: "check"},
		"prefix CRLF":  {PathPrefix: "/check\r\n"},
		"prefix query": {PathPrefix: "/check?x="},
		"field name":   {AddedHeaders: nv("a b", "c")},
		"field value":  {AddedHeaders: nv("a", "b\r\nc: d")},
	} {
		p.FailOpen = true
		a := newTestAsker(t, &p, closedPort(t))
		if v, err := a.Ask(context.Background(), getCall("/")); err != nil || v.Allowed || v.Status != 500 || v.Fault == nil {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}
