package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"isthmus/admin"
	"isthmus/canary"
)

// callee is a server of gRPC over HTTP/2 in plain text whose every call ends with
// a status, all of them with 200 in HTTP.
func callee(t *testing.T, status int) (port int) {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", fmt.Sprint(status))
		w.Write([]byte{0, 0, 0, 0, 0}) // an empty message
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).Port
}

// TestCanary_TakenBackByGRPC: a candidate whose calls end as INTERNAL is taken
// back, although every one of them is a 200 in HTTP.
func TestCanary_TakenBackByGRPC(t *testing.T) {
	const resources = `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: s}
spec:
  hosts: [s.test]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: grpc, protocol: GRPC}]
  endpoints: [{address: 127.0.0.1, ports: {grpc: %d}, labels: {version: good}}, {address: 127.0.0.1, ports: {grpc: %d}, labels: {version: bad}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: s}
spec: {host: s.test, subsets: [{name: good, labels: {version: good}}, {name: bad, labels: {version: bad}}]}
`
	p := runProxy(t, "canary: {paths: [candidate], shadow: 0s, steps: [20], step: 1h}\n", map[string]string{
		"mesh/service.yaml": fmt.Sprintf(resources, callee(t, 0), callee(t, 13)), "mesh/route.yaml": to("good"),
	})
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	calls := &http.Transport{Protocols: protocols}
	t.Cleanup(calls.CloseIdleConnections)
	stop, done := make(chan struct{}), make(chan struct{})
	var good, internal, other atomic.Int64
	go func() { // ends with stop
		defer close(done)
		pour(300, stop, func(client *http.Client, _ int) {
			req, _ := http.NewRequest("POST", "http://"+p.outbound+"/s.S/Call", strings.NewReader("\x00\x00\x00\x00\x00"))
			req.Host = "s.test"
			req.Header.Set("Content-Type", "application/grpc")
			req.Header.Set("TE", "trailers")
			res, err := (&http.Client{Transport: calls, Timeout: client.Timeout}).Do(req)
			if err != nil {
				other.Add(1)
				return
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			switch status := res.Trailer.Get("Grpc-Status"); {
			case res.StatusCode == 200 && status == "0":
				good.Add(1)
			case res.StatusCode == 200 && status == "13":
				internal.Add(1)
			default:
				other.Add(1)
			}
		})
	}()
	eventually(t, "calls", func() bool { return good.Load() > 100 })
	if n := internal.Load(); n > 0 {
		t.Errorf("%d calls failed before there was a candidate", n)
	}
	p.write(t, "candidate/route.yaml", to("bad"))
	state := func() admin.Canary { return fetch[admin.Canary](t, p, "GET", "/config/canary") }
	eventually(t, "the candidate is taken back", func() bool { return state().State == canary.Returned })
	damage, at := internal.Load(), good.Load()
	eventually(t, "more calls", func() bool { return good.Load() > at+500 })
	close(stop)
	<-done
	c := state()
	t.Logf("%s; %d calls failed of %d", c.Why, damage, at)
	if late := internal.Load() - damage; damage == 0 || late > 8 || other.Load() > 0 { // one for each sender may have been under way
		t.Errorf("%d calls failed before it was taken back and %d after, %d otherwise", damage, late, other.Load())
	}
	if c.Candidate.Failed == 0 || !strings.Contains(c.Why, "fail") {
		t.Errorf("taken back for %q with %+v", c.Why, c.Candidate)
	}
}
