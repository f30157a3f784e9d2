package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestStrict_LocalAnswers, row 21: the body of a request that the proxy answers
// itself is read to its end or ends the connection. It is never a request.
func TestStrict_LocalAnswers(t *testing.T) {
	others := []string{`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: nowhere}
spec:
  hosts: [nowhere.test]
  http: [{route: [{destination: {host: unknown.test}}]}]
`, `
apiVersion: v1
kind: Service
metadata: {name: empty}
spec: {selector: {app: nobody}, ports: [{name: http, port: 80}]}
`, strings.TrimSuffix(entry("refused.test", deadAddress(t)), "---\n")}
	for _, tt := range []struct {
		name, line, host, status string
		reads                    bool // it may want a small body first
	}{
		{"no route", "POST /", "nobody.test", "404", false},
		{"no route, GET", "GET /", "nobody.test", "404", false},
		{"direct reply", "POST /admin", "s.test", "403", true},
		{"redirect", "PUT /moved", "s.test", "301", true},
		{"escaped dot segment", "POST /%2e%2e/a", "s.test", "400", false},
		{"unknown destination", "POST /", "nowhere.test", "503", true},
		{"no endpoint", "POST /", "empty", "503", true},
		{"connection refused", "POST /", "refused.test", "503", true},
	} {
		for _, body := range bodiesOf(strings.Repeat(inner, 20000)) {
			t.Run("row 21: "+tt.name+", "+body.name, func(t *testing.T) {
				if tt.reads && body.held {
					t.Skip("the body is read before the answer")
				}
				up := newTape(t, okReply)
				p := strictProxy(t, up.address, others...)
				c, err := net.Dial("tcp", p.address("outbound"))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				next := "GET /next HTTP/1.1\r\nHost: s.test\r\nConnection: close\r\n\r\n"
				first, second := tt.line+" HTTP/1.1\r\nHost: "+tt.host+"\r\n"+body.first, body.second+next
				if !body.late {
					first, second = first+second, ""
				}
				go io.WriteString(c, first) // ends with the connection
				r := bufio.NewReader(c)
				head, err := readHead(r)
				if err != nil || status(head) != tt.status {
					t.Errorf("answered %q, %v, want %s", head, err, tt.status)
				}
				go io.WriteString(c, second) // likewise
				got, _ := readAll(t, r)
				var seen, want []string
				for _, stream := range up.all(t, p) {
					seen = append(seen, messages(stream)...)
				}
				switch n := replies(got); {
				case n == 1 && strings.Contains(got, "HTTP/1.1 200 OK\r\n"):
					want = []string{sentOn("GET /next", "")}
				case n > 0:
					t.Errorf("and then answered %.500q", got)
				}
				if !slices.Equal(seen, want) {
					t.Errorf("the upstream saw %.500q, want %q", seen, want)
				}
			})
		}
	}
}

// framedBody is a body with the rest of the head before it. If late, second
// is sent when the answer has come; a body that fits in may be held until it
// is whole, so there may be none before.
type framedBody struct {
	name, first, second string
	late, held          bool
}

// bodiesOf frames data, and the beginning of it, in every way.
func bodiesOf(data string) []framedBody {
	var out []framedBody
	for name, data := range map[string]string{"small": data[:len(inner)], "large": data} {
		length := fmt.Sprintf("Content-Length: %d\r\n", len(data))
		chunk := fmt.Sprintf("%x\r\n%s\r\n", len(data), data)
		coding := "Transfer-Encoding: chunked\r\n"
		out = append(out,
			framedBody{name + " length", length + "\r\n" + data, "", false, false},
			framedBody{name + " chunks", coding + "\r\n" + chunk + end, "", false, false},
			framedBody{name + " length, late", length + "\r\n" + data[:10], data[10:], true, name == "small"},
			framedBody{name + " length, all of it late", length + "\r\n", data, true, name == "small"},
			framedBody{name + " length, expecting 100", length + "Expect: 100-continue\r\n\r\n", data, true, false},
			framedBody{name + " chunks, late", coding + "\r\n" + chunk[:10], chunk[10:] + end, true, false},
			framedBody{name + " chunks, the end late", coding + "\r\n" + chunk, end, true, false},
			framedBody{name + " chunks, expecting 100", coding + "Expect: 100-continue\r\n\r\n", chunk + end, true, false},
		)
	}
	return out
}

// TestStrict_Forbidden, row 48: a path is matched in the form in which it would
// be forwarded, so no spelling of it leads around a rule.
func TestStrict_Forbidden(t *testing.T) {
	for _, target := range []string{
		"/admin", "/admin/", "/admin/a", "/admin?a", "/admin/.", "/admin/a/..", "/admin/..a", "/admin%2f", "/./admin", "/a/../admin", "/../admin", "/a/b/../../admin",
		"/a/../../admin", "/a/./../admin", "/.\\admin", "/a\\..\\admin", "\x2fa/..\\admin", "/a%2fb/../admin", "http://s.test/admin", "http://s.test/a/../admin",
		"http://s.test/a\\..\\admin",
	} {
		t.Run("row 48: "+target, func(t *testing.T) {
			up := newTape(t, okReply)
			p := strictProxy(t, up.address)
			for _, at := range []string{"outbound", "gateway:80"} {
				if got := exchangeRaw(t, p.address(at), asLine("GET "+target+" HTTP/1.1"), whole(1)); status(got) != "403" {
					t.Errorf("%s: answered %q, want 403", at, got)
				}
			}
			if seen := up.all(t, p); len(seen) > 0 {
				t.Errorf("the upstream saw %q", seen)
			}
		})
	}
}
