package main

import (
	"io"
	"log"
	"net"
	"net/http"
	"sync"
)

// collector is a Zipkin that takes everything and keeps nothing. It lives as long
// as the measurement; its CPU time is not that of the proxy.
var collector = sync.OnceValue(func() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // never ends
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusAccepted)
	}))
	return l.Addr().String()
})

// observed is the same proxy with everything on that tells of requests beside the
// metrics, which always count: a line of JSON for each in a file, and traces of
// one in a hundred.
func observed(p peer) peer {
	p.name = "isthmus, log and traces on"
	files := map[string]string{}
	for name, text := range p.files {
		files[name] = text
	}
	files["node.yaml"] += "accessLog: {path: access.log, format: json}\ntracing: {sampling: 1, zipkin: {address: '" + collector() + "'}}\n"
	p.files = files
	return p
}
