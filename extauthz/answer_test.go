package extauthz

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"isthmus/mesh"
)

// answering is a server that answers each request with the bytes given, then
// closes.
func answering(t *testing.T, reply string) *place {
	return rawServer(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, reply)
		}
	})
}

func nv(pairs ...string) (list []mesh.NameValue) {
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, mesh.NameValue{Name: pairs[i], Value: pairs[i+1]})
	}
	return list
}

func TestHTTPAnswers(t *testing.T) {
	const all = "Content-Length: 2\r\nConnection: X-Hop\r\nHost: evil.test\r\nKeep-Alive: 5\r\nX-Hop: 1\r\nX-Isthmus-Unsent: 1\r\nX-Forwarded-Client-Cert: By=evil\r\n"
	for name, tt := range map[string]struct {
		reply string
		p     mesh.AuthorizationProvider
		want  *Verdict // nil: an error
	}{
		"200": {"200 OK\r\n" + all + "X-User: a\r\n\r\nok", mesh.AuthorizationProvider{}, &Verdict{Allowed: true}},
		"200 with changes": {
			"200 OK\r\n" + all + "X-User: a\r\nX-Role: r1\r\nX-Role: r2\r\nX-Other: o\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Empty:\r\n\r\nok",
			mesh.AuthorizationProvider{UpstreamOnAllow: []string{"X-USER", "x-r*", "x-empty"}, DownstreamOnAllow: []string{"*-cookie", "x-other", "x-role"}, DownstreamOnDeny: []string{"x-user"}},
			&Verdict{
				Allowed: true, Set: nv("x-empty", "", "x-role", "r1", "x-user", "a"), Add: nv("x-role", "r2"),
				DownstreamSet: nv("x-other", "o", "x-role", "r1"), Downstream: nv("set-cookie", "a=1", "set-cookie", "b=2", "x-role", "r2"),
			},
		},
		"200, all fields wanted": {
			"200 OK\r\n" + all + "X-User: a\r\n\r\nok", mesh.AuthorizationProvider{UpstreamOnAllow: []string{"*"}, DownstreamOnAllow: []string{"*"}},
			&Verdict{Allowed: true, Set: nv("x-user", "a"), DownstreamSet: nv("x-user", "a")},
		},
		"200 removes": {
			"200 OK\r\n" + all + "X-User: a\r\nX-Envoy-Auth-Headers-To-Remove: Authorization, host,:path, ,x-user,cookie\r\nX-Envoy-Auth-Headers-To-Remove: x-isthmus-destination, authorization\r\n\r\nok",
			mesh.AuthorizationProvider{UpstreamOnAllow: []string{"*"}},
			&Verdict{Allowed: true, Set: []mesh.NameValue{}, Remove: []string{"authorization", "x-user", "cookie"}},
		},
		"200 removes no name":  {"200 OK\r\nX-Envoy-Auth-Headers-To-Remove: a b\r\n\r\n", mesh.AuthorizationProvider{FailOpen: true}, &Verdict{Status: 500}},
		"200, body cut off":    {"200 OK\r\nContent-Length: 10\r\n\r\nok", mesh.AuthorizationProvider{}, nil},
		"200, body too long":   {"200 OK\r\n\r\n" + strings.Repeat("x", 100<<10), mesh.AuthorizationProvider{}, &Verdict{Allowed: true}},
		"200, head too long":   {"200 OK\r\nX: " + strings.Repeat("x", 100<<10) + "\r\n\r\n", mesh.AuthorizationProvider{}, nil},
		"200, field with NUL":  {"200 OK\r\nX-A: a\x00b\r\n\r\n", mesh.AuthorizationProvider{UpstreamOnAllow: []string{"*"}, FailOpen: true}, &Verdict{Status: 500}},
		"200, field with DEL":  {"200 OK\r\nX-A: a\x7fb\r\n\r\n", mesh.AuthorizationProvider{UpstreamOnAllow: []string{"*"}, FailOpen: true}, &Verdict{Status: 500}},
		"200, field with CR":   {"200 OK\r\nX-A: a\rb: c\r\n\r\n", mesh.AuthorizationProvider{UpstreamOnAllow: []string{"*"}, FailOpen: true}, &Verdict{Status: 500}},
		"200, name with space": {"200 OK\r\nX A: a\r\n\r\n", mesh.AuthorizationProvider{UpstreamOnAllow: []string{"*"}, FailOpen: true}, &Verdict{Status: 500}},
		"401 with all": {
			"401 No\r\n" + all + "WWW-Authenticate: Basic\r\nX-Why: w\r\nContent-Type: text/html\r\n\r\nno", mesh.AuthorizationProvider{},
			&Verdict{Status: 401, Body: []byte("no"), Downstream: nv("content-type", "text/html", "www-authenticate", "Basic", "x-why", "w")},
		},
		"302 with a list": {
			"302 Found\r\n" + all + "Location: /login\r\nWWW-Authenticate: Basic\r\nX-Why: w\r\nX-Why: v\r\nX-User: u\r\nX-Isthmus-A: b\r\n\r\nno",
			mesh.AuthorizationProvider{DownstreamOnDeny: []string{"x-w*", "x-isthmus-a"}, UpstreamOnAllow: []string{"*"}, DownstreamOnAllow: []string{"*"}},
			&Verdict{Status: 302, Body: []byte("no"), Downstream: nv("location", "/login", "www-authenticate", "Basic", "x-why", "w", "x-why", "v")},
		},
		"201":                   {"201 Created\r\nContent-Length: 2\r\n\r\nno", mesh.AuthorizationProvider{}, &Verdict{Status: 201, Body: []byte("no")}},
		"204":                   {"204 No Content\r\n\r\n", mesh.AuthorizationProvider{}, &Verdict{Status: 204}},
		"429":                   {"429 Slow\r\nContent-Length: 0\r\n\r\n", mesh.AuthorizationProvider{FailOpen: true}, &Verdict{Status: 429, Body: []byte{}}},
		"500":                   {"500 No\r\nContent-Length: 2\r\n\r\nno", mesh.AuthorizationProvider{}, nil},
		"503":                   {"503 No\r\n\r\n", mesh.AuthorizationProvider{}, nil},
		"101":                   {"101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", mesh.AuthorizationProvider{}, &Verdict{Status: 500}},
		"600":                   {"600 What\r\nContent-Length: 0\r\n\r\n", mesh.AuthorizationProvider{}, &Verdict{Status: 500}},
		"100 and 200":           {"100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", mesh.AuthorizationProvider{}, &Verdict{Allowed: true}},
		"403, body cut off":     {"403 No\r\nContent-Length: 10\r\n\r\nno", mesh.AuthorizationProvider{FailOpen: true}, &Verdict{Status: 403}},
		"403, body too long":    {"403 No\r\n\r\n" + strings.Repeat("x", 100<<10), mesh.AuthorizationProvider{}, &Verdict{Status: 403, Body: []byte(strings.Repeat("x", 64<<10))}},
		"403, field with DEL":   {"403 No\r\nX-A: a\x7fb\r\n\r\n", mesh.AuthorizationProvider{FailOpen: true}, &Verdict{Status: 500}},
		"no answer":             {"", mesh.AuthorizationProvider{}, nil},
		"two lengths":           {"200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", mesh.AuthorizationProvider{}, nil},
		"HTTP/1.1 alone":        {"\r\n\r\n", mesh.AuthorizationProvider{}, nil},
		"a broken chunked body": {"200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", mesh.AuthorizationProvider{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			a := newTestAsker(t, &tt.p, answering(t, "HTTP/1.1 "+tt.reply))
			v, err := a.Ask(context.Background(), getCall("/"))
			if (v == nil) != (tt.want == nil) || (v == nil) != (err != nil) {
				t.Fatalf("Ask = %+v, %v", v, err)
			}
			if tt.want == nil {
				return
			}
			if faulty := tt.want.Status == 500; faulty != (v.Fault != nil) {
				t.Errorf("fault: %v", v.Fault)
			}
			if v.Fault = nil; !reflect.DeepEqual(v, tt.want) {
				t.Errorf("Ask = %+v\nwant  %+v", v, tt.want)
			}
		})
	}
}
