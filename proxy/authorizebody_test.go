package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// inParts is a body that comes in parts, the first of them after the head.
type inParts struct {
	left string
	part int
}

func (s *inParts) Read(p []byte) (int, error) {
	time.Sleep(5 * time.Millisecond)
	n := copy(p, s.left[:min(s.part, len(s.left))])
	if s.left = s.left[n:]; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// TestAuthorize_CustomBody: an authorization service gets as much of a body as it asks for,
// however that comes, and the upstream gets all of it.
func TestAuthorize_CustomBody(t *testing.T) {
	asked := make(chan string, 9)
	service := newAuthorizer(t, func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		asked <- fmt.Sprint(string(body), r.Header.Get("x-envoy-auth-partial-body"), err)
	})
	type got struct{ body, trailer string }
	arrived := make(chan got, 9)
	up := h2Upstream(t, func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		arrived <- got{string(body), r.Trailer.Get("x-sum")}
	})
	long := strings.Repeat("0123456789abcdef", 200<<10/16)
	for _, tt := range []struct {
		name, limit string // includeRequestBodyInCheck
		body        string
		part        int
		fields      string // in the test's own words
		asked       string // with false or true behind it: of a part of the body; "": nobody is
	}{
		{"short", "maxRequestBytes: 10", "hello", 2, "", "hellofalse"},
		{"of a known length", "maxRequestBytes: 10", "hello", 2, "length", "hellofalse"},
		{"empty", "maxRequestBytes: 10", "", 2, "", "false"},
		{"as long as may be", "maxRequestBytes: 10", "0123456789", 4, "", "0123456789false"},
		{"longer", "maxRequestBytes: 10", "0123456789a", 4, "", ""},
		{"longer, and it says so", "maxRequestBytes: 10", "0123456789a", 4, "length expect", ""},
		{"longer, in part", "maxRequestBytes: 10, allowPartialMessage: true", "0123456789a", 4, "", "0123456789true"},
		{"short, where a part will do", "maxRequestBytes: 10, allowPartialMessage: true", "hello", 2, "", "hellofalse"},
		{"much longer", "maxRequestBytes: 10, allowPartialMessage: true", long, 3000, "", "0123456789true"},
		{"much longer, of a known length", "maxRequestBytes: 10, allowPartialMessage: true", long, 3000, "length", "0123456789true"},
		{"more than is held", "maxRequestBytes: 100000, allowPartialMessage: true", long, 30000, "", long[:replayLimit] + "true"},
		{"more than is held, of a known length", "maxRequestBytes: 100000, allowPartialMessage: true", long, 30000, "length", long[:replayLimit] + "true"},
		{"held back", "maxRequestBytes: 10", "hello", 2, "length expect", "hellofalse"},
		{"held back, of no known length", "maxRequestBytes: 10", "hello", 2, "expect", "hellofalse"},
		{"held back, in part", "maxRequestBytes: 10, allowPartialMessage: true", long, 30000, "length expect", "0123456789true"},
		{"with trailers", "maxRequestBytes: 10", "hello", 2, "trailer", "hellofalse"},
		{"in part, with trailers", "maxRequestBytes: 10, allowPartialMessage: true", long, 30000, "trailer", "0123456789true"},
	} {
		for _, upstream := range []string{"HTTP/1.1", "HTTP/2"} {
			yaml := entry("s.test", up)
			if upstream == "HTTP/2" {
				yaml = overHTTP2(yaml)
			}
			p := serve(t, atEdge(), yaml+edge("s.test")+service.asked("istio-system", "timeout: 20s, includeRequestBodyInCheck: {"+tt.limit+"}"))
			for client, c := range map[string]*http.Client{"HTTP/1.1": h1Client(t, p, "gateway:80"), "HTTP/2": h2Client(t, p, "gateway:80")} {
				t.Run(tt.name+", "+client+" to "+upstream, func(t *testing.T) {
					c.Transport.(*http.Transport).ExpectContinueTimeout = 10 * time.Second
					r, err := http.NewRequest("POST", "http://s.test/", &inParts{tt.body, tt.part})
					if err != nil {
						t.Fatal(err)
					}
					if strings.Contains(tt.fields, "length") {
						r.ContentLength = int64(len(tt.body))
					}
					if strings.Contains(tt.fields, "expect") {
						r.Header.Set("expect", "100-continue")
					}
					want := got{body: tt.body}
					if strings.Contains(tt.fields, "trailer") {
						want.trailer = "1"
						r.Trailer = http.Header{"X-Sum": {"1"}}
					}
					res, err := c.Do(r)
					if err != nil {
						t.Fatal(err)
					}
					res.Body.Close()
					if tt.asked == "" {
						if res.StatusCode != 413 || len(asked)+len(arrived) > 0 {
							t.Errorf("status %d, want 413; %d asked, %d arrived", res.StatusCode, len(asked), len(arrived))
						}
						return
					}
					if res.StatusCode != 200 {
						t.Fatalf("status %d", res.StatusCode)
					}
					if got := <-asked; got != tt.asked+"<nil>" {
						t.Errorf("asked with %d bytes, %.40q, want %d", len(got), got, len(tt.asked))
					}
					if got := <-arrived; got != want {
						t.Errorf("the upstream got %d bytes and %q, want %d and %q; they begin to differ at %d", len(got.body), got.trailer,
							len(want.body), want.trailer, differ(got.body, want.body))
					}
				})
			}
		}
	}
}

// differ is where two texts begin to.
func differ(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}
