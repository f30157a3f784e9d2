package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
)

// collector starts a Zipkin beside the load, and returns its address. It lives as
// long as the measurement; its CPU time is not that of the proxy.
var collector = sync.OnceValue(func() string {
	self, err := os.Executable()
	if err != nil {
		log.Fatal(err)
	}
	cmd := pinned(context.Background(), loadCPU, []string{self, "-collect"})
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		log.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		log.Fatal(err)
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		log.Fatal("the collector of spans: ", err)
	}
	return strings.TrimSpace(address)
})

// collect is a Zipkin that takes everything and keeps nothing. It says its address,
// and serves until it is ended.
func collect() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusAccepted)
	}))
}

// logName is the access log's, in the proxy's home.
const logName = "access.log"

// observed is the same proxy with everything on that tells of requests beside the
// metrics, which always count: a line of JSON for each in a file, and traces of
// one in a hundred.
func observed(p peer) peer {
	return configured(p, "isthmus, log and traces on", "accessLog: {path: "+logName+", format: json}\n"+tracesOf(1))
}

// traced is the same proxy with traces of all requests.
func traced(p peer) peer { return configured(p, "isthmus, traces of all", tracesOf(100)) }

// tracesOf is what a bootstrap file says of traces of so many percent.
func tracesOf(percent int) string {
	return fmt.Sprintf("tracing: {sampling: %d, zipkin: {address: '%s'}}\n", percent, collector())
}

// configured is the same proxy with more in its bootstrap file.
func configured(p peer, name, more string) peer {
	p.name = name
	files := maps.Clone(p.files)
	files["node.yaml"] += more
	p.files = files
	return p
}
