package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// TestAuthorize_Custom: an authorization service decides, and changes what goes on.
func TestAuthorize_Custom(t *testing.T) {
	tr := newTrust(t)
	web := tr.identity("prod", "web")
	var asked atomic.Int32
	service := newAuthorizer(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("x-ticket") == "good" {
			w.Header().Set("x-user", "alice")
			return
		}
		w.Header().Set("x-why", "no ticket")
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, "show a ticket to "+r.URL.Path)
	})
	application := capturing(t, okReply)
	callee := sidecarOfWeb(t, web, application.address, meshSettings(
		"pathNormalization: {normalization: MERGE_SLASHES}",
		"extensionProviders: ["+service.provider("tickets", "pathPrefix: /check, includeRequestHeadersInCheck: [x-ticket], headersToUpstreamOnAllow: [x-user], headersToDownstreamOnDeny: [x-why], timeout: 5s")+"]")+
		authorization("prod", "tickets", `action: CUSTOM, provider: {name: tickets}, rules: [{to: [{operation: {paths: ["/api/*"]}}]}]`)+
		authorization("prod", "no", `action: DENY, rules: [{to: [{operation: {paths: ["/api/never"]}}]}]`))
	for _, tt := range []struct{ name, path, ticket, want string }{
		{"with a ticket", "/api/x", "good", "200"},
		{"without one", "/api/x", "", "401"},
		{"where nobody asks", "/open", "", "200"},
		{"with a ticket, where it is forbidden", "/api/never", "good", "403"},
		{"without one, where it is forbidden", "/api/never", "", "401"},
		{"with a ticket, where it is forbidden, by two slashes", "//api//never", "good", "403"},
	} {
		request := "GET " + tt.path + " HTTP/1.1\r\nHost: web.prod\r\nx-user: mallory\r\nx-ticket: " + tt.ticket + "\r\n\r\n"
		got := exchangeRaw(t, callee.address("inbound"), request, whole(1))
		if status(got) != tt.want {
			t.Errorf("%s: %q", tt.name, got)
		}
		if tt.want == "401" && (!strings.HasSuffix(got, "show a ticket to /check"+tt.path) || !strings.Contains(got, "\r\nx-why: no ticket\r\n")) {
			t.Errorf("%s: %q", tt.name, got)
		}
		if tt.name == "with a ticket" && field(application.last(), "x-user") != "alice" {
			t.Errorf("the application got %q", application.last())
		}
	}
	if n := asked.Load(); n != 5 {
		t.Errorf("asked %d times, want 5", n)
	}
	service.Close()
	if got := exchangeRaw(t, callee.address("inbound"), "GET /api/x HTTP/1.1\r\nHost: web.prod\r\nx-ticket: good\r\n\r\n", whole(1)); status(got) != "403" {
		t.Errorf("without an answer: %q", got)
	}
}

// TestAuthorize_CustomBeforeToken: an authorization service is asked before the
// token is judged, sees it, and may bring it. Whether it is asked may depend on
// what the token says.
func TestAuthorize_CustomBeforeToken(t *testing.T) {
	tr, i := newTrust(t), newTokenIssuer(t)
	good := i.token(map[string]any{"groups": []string{"users"}})
	var seen atomic.Value
	service := newAuthorizer(t, func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.Header.Get("authorization"))
		if c, err := r.Cookie("session"); err == nil && c.Value == "alice" {
			w.Header().Set("authorization", "Bearer "+good)
			return
		}
		w.Header().Set("location", "/login")
		w.WriteHeader(http.StatusFound)
	})
	application := capturing(t, okReply)
	callee := sidecarOfWeb(t, tr.identity("prod", "web"), application.address, tokensOf(i, "web")+
		meshSettings("extensionProviders: ["+service.provider("login", "includeRequestHeadersInCheck: [authorization, cookie], headersToUpstreamOnAllow: [authorization], headersToDownstreamOnDeny: [location]")+"]")+
		authorization("prod", "login", `action: CUSTOM, provider: {name: login}, rules: [{from: [{source: {notRequestPrincipals: ["*"]}}]}]`)+
		authorization("prod", "users", `rules: [{when: [{key: "request.auth.claims[groups]", values: [users]}]}]`))
	for _, tt := range []struct{ name, fields, want, asked string }{
		{"without anything", "", "302", ""},
		{"a session", "Cookie: session=alice\r\n", "200", ""},
		{"an old token", "Authorization: Bearer nonsense\r\n", "302", "Bearer nonsense"},
		{"an old token and a session", "Authorization: Bearer nonsense\r\nCookie: session=alice\r\n", "200", "Bearer nonsense"},
		{"a good token", "Authorization: Bearer " + good + "\r\n", "200", "nobody"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seen.Store("nobody")
			got := exchangeRaw(t, callee.address("inbound"), "GET / HTTP/1.1\r\nHost: web.prod\r\n"+tt.fields+"\r\n", whole(1))
			if status(got) != tt.want {
				t.Errorf("got %q, want %s", got, tt.want)
			}
			if asked := seen.Load(); asked != tt.asked {
				t.Errorf("the service was asked with %q, want %q", asked, tt.asked)
			}
			if head := application.last(); tt.want == "200" && (field(head, "x-user") != "alice" || strings.Contains(strings.ToLower(head), "authorization:")) {
				t.Errorf("the application got %q", head)
			}
		})
	}
}

// TestAuthorize_CustomAfterDeadline: a body that an authorization service is to be asked
// with is waited for, whatever deadline the request before had.
func TestAuthorize_CustomAfterDeadline(t *testing.T) {
	service := newAuthorizer(t, func(http.ResponseWriter, *http.Request) {})
	callee := sidecarOfWeb(t, newTrust(t).identity("prod", "web"), capturing(t, okReply).address, service.asked("prod", "timeout: 5s"))
	r := dialRaw(t, callee.address("inbound"))
	head := []string{"bare", ":method", "POST", ":scheme", "http", ":authority", "web.prod", ":path", "/"}
	r.ask(1, true, append(head, "x-envoy-expected-rq-timeout-ms", "500")...)
	if got := r.status(1); got != "200" {
		t.Fatal(got)
	}
	time.Sleep(510 * time.Millisecond)
	r.ask(3, false, append(head, "content-length", "4")...)
	r.out.Flush()
	time.Sleep(10 * time.Millisecond)
	r.WriteData(3, true, []byte("body"))
	if got := r.status(3); got != "200" {
		t.Error(got)
	}
}

// TestAuthorize_CustomClientGone: a service that does not answer is asked for no longer than
// the client is there, and what holds without an answer does not hold then.
func TestAuthorize_CustomClientGone(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, p *Proxy, asked <-chan struct{}){
		"reset": func(t *testing.T, p *Proxy, asked <-chan struct{}) {
			c := dial(t, p.address("gateway:80"))
			c.send(get("s.test"))
			await(t, "the question", asked)
			c.Conn.(*net.TCPConn).SetLinger(0)
			c.Close()
		},
		"closed": func(t *testing.T, p *Proxy, asked <-chan struct{}) {
			c := dial(t, p.address("gateway:80"))
			c.send(get("s.test"))
			await(t, "the question", asked)
			c.Close()
		},
		"a stream": func(t *testing.T, p *Proxy, asked <-chan struct{}) {
			c := dialFrames(t, p.address("gateway:80"))
			c.open(true, ":method", "GET", ":scheme", "http", ":authority", "s.test", ":path", "/")
			await(t, "the question", asked)
			c.f.WriteRSTStream(c.stream, xhttp2.ErrCodeCancel)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked, told := make(chan struct{}, 1), make(chan struct{}, 1)
			service := newAuthorizer(t, func(_ http.ResponseWriter, r *http.Request) {
				asked <- struct{}{}
				<-r.Context().Done()
				told <- struct{}{}
			})
			up := replying(t, okReply)
			p := serve(t, atEdge(), entry("s.test", up.address)+edge("s.test")+service.asked("istio-system", "failOpen: true"))
			leave(t, p, asked)
			await(t, "the service to be told", told)
			awaitCounted(t, p, "0 DC 1")
			if n := up.requests(); n != 0 {
				t.Errorf("the upstream got %d requests", n)
			}
		})
	}
}

// TestAuthorize_CustomRefusal: what a service says as it refuses stands in the reply once,
// beside or in the place of what the proxy says itself.
func TestAuthorize_CustomRefusal(t *testing.T) {
	fields := http.Header{}
	service := newAuthorizer(t, func(w http.ResponseWriter, r *http.Request) {
		for name, values := range fields {
			w.Header()[name] = values
		}
		w.Header().Set("X-Request-Id", "theirs")
		w.Header().Set("Date", "Thu, 01 Jan 1970 00:00:00 GMT")
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, "no ticket")
	})
	p := serve(t, atEdge(), entry("s.test", refusing(t))+edge("s.test")+service.asked("istio-system", "timeout: 20s"))
	for _, tt := range []struct {
		name         string
		fields       http.Header
		code, phrase string // of gRPC
	}{
		{"nothing of gRPC", http.Header{"Set-Cookie": {"a=1", "b=2"}}, "16", "no ticket"},
		{"a status", http.Header{"Grpc-Status": {"7"}}, "7", "no ticket"},
		{"a status and a message", http.Header{"Grpc-Status": {"8"}, "Grpc-Message": {"too many"}}, "8", "too many"},
		{"a status that is none", http.Header{"Grpc-Status": {"OK"}}, "2", "no ticket"},
		{"no failure", http.Header{"Grpc-Status": {"0"}}, "16", "no ticket"},
	} {
		fields = tt.fields
		for name, c := range map[string]*http.Client{"HTTP/1.1": h1Client(t, p, "gateway:80"), "HTTP/2": h2Client(t, p, "gateway:80")} {
			plain, err := c.Get("http://s.test/")
			if err != nil {
				t.Fatal(err)
			}
			plain.Body.Close()
			grpc := call(t, c)
			for _, h := range []http.Header{plain.Header, grpc.Header} {
				if len(h["Date"]) != 1 || len(h["X-Request-Id"]) != 1 || strings.Contains(fmt.Sprint(h), "theirs") || len(h["Set-Cookie"]) != len(tt.fields["Set-Cookie"]) {
					t.Errorf("%s, %s: %v", tt.name, name, h)
				}
			}
			if plain.StatusCode != 401 || !slices.Equal(grpc.Header["Grpc-Status"], []string{tt.code}) || !slices.Equal(grpc.Header["Grpc-Message"], []string{tt.phrase}) {
				t.Errorf("%s, %s: status %d, and %v, want 401, %s and %q", tt.name, name, plain.StatusCode, grpc.Header, tt.code, tt.phrase)
			}
		}
	}
}

// TestAuthorize_CustomOnce: a service is asked once about a request, however many policies
// want that.
func TestAuthorize_CustomOnce(t *testing.T) {
	var asked atomic.Int32
	service := newAuthorizer(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("set-cookie", "session=1")
	})
	policy := func(name, provider, path string) string {
		return authorization("istio-system", name, `action: CUSTOM, provider: {name: `+provider+`}, rules: [{to: [{operation: {paths: ["`+path+`"]}}]}]`)
	}
	const fields = "timeout: 20s, headersToDownstreamOnAllow: [set-cookie]"
	p := serve(t, atEdge(), entry("s.test", replying(t, okReply).address)+edge("s.test")+
		meshSettings("extensionProviders: ["+service.provider("a", fields)+", "+service.provider("b", fields)+"]")+
		policy("all", "a", "/*")+policy("some", "a", "/api/*")+policy("other", "b", "/both"))
	for path, want := range map[string]int32{"/": 1, "/api/x": 1, "/both": 2} {
		asked.Store(0)
		got := exchangeRaw(t, p.address("gateway:80"), "GET "+path+" HTTP/1.1\r\nHost: s.test\r\n\r\n", whole(1))
		if n := asked.Load(); status(got) != "200" || n != want || strings.Count(got, "session=1") != int(want) {
			t.Errorf("%s: asked %d times, want %d; the client got %q", path, n, want, got)
		}
	}
}
