package proxy

import (
	"bufio"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"isthmus/explain"
)

// TestAdaptive_ShedsLeastImportant: with as many requests under way as a service
// is given room for, the next is refused; the least important earlier.
func TestAdaptive_ShedsLeastImportant(t *testing.T) {
	arrived, finish := make(chan struct{}), make(chan struct{})
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		arrived <- struct{}{}
		<-finish
		_, err := io.WriteString(c, okReply)
		return err == nil
	})
	p := serve(t, Options{}, entry("s.test", up.address)+`apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d, annotations: {isthmus.io/adaptive-concurrency: "true"}}
spec: {host: s.test}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v, annotations: {isthmus.io/priority: P3}}
spec: {hosts: [s.test], http: [{route: [{destination: {host: s.test}}]}]}
`)
	const room = 20 // of a service of which nothing is known yet
	done := make(chan string)
	send := func(fields string) {
		go func() { // ends with the reply
			done <- exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.test\r\n"+fields+"\r\n", whole(1))
		}()
	}
	refused := func(fields string) {
		t.Helper()
		send(fields)
		if got := <-done; status(got) != "503" || !strings.Contains(got, "x-envoy-overloaded: true\r\n") {
			t.Errorf("%q: %q, want a refusal", fields, got)
		}
	}
	n := 0
	fill := func(to int, fields string) {
		for ; n < to; n++ {
			send(fields)
			<-arrived
		}
	}
	fill(room/2, "x-isthmus-priority: P4\r\n")
	refused("x-isthmus-priority: P4\r\n")
	fill(room*3/4, "") // as the route says
	refused("")
	fill(room*9/10, "x-isthmus-priority: P2\r\n")
	refused("x-isthmus-priority: p2\r\n")
	fill(room, "x-isthmus-priority: P1\r\n")
	refused("x-isthmus-priority: P1\r\n")
	send("x-isthmus-priority: P1\r\n")
	if why := strings.Join(askWhy(t, p, <-done).Why, "\n"); !strings.Contains(why, "503 UO because more requests were under way than adaptive concurrency has room for") || strings.Contains(why, "connectionPool") {
		t.Errorf("told why: %s", why)
	}
	got, err := p.Explain(explain.Question{URL: "http://s.test/"})
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(got.Destinations[0].Policies, func(p explain.Policy) bool { return p.Block == "adaptiveConcurrency" }); i < 0 || !strings.HasPrefix(got.Destinations[0].Policies[i].Source, "test.yaml:") {
		t.Errorf("explained: %+v", got.Destinations[0].Policies)
	}
	close(finish)
	for range n {
		if got := <-done; status(got) != "200" {
			t.Errorf("%q", got)
		}
	}
	if l := p.Limits(); len(l) != 1 || l[0].Kind != "concurrency" || l[0].Enforced != 5 {
		t.Errorf("shown: %+v", l)
	}
}
