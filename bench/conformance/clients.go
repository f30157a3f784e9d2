package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// beforeHello starts an edge before a small server of our own, which speaks
// HTTP/1.1.
func (o *options) beforeHello(dir string, tls bool) (*edge, *proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	go http.Serve(l, http.HandlerFunc(hello)) // ends with the program
	e := &edge{isthmus: o.isthmus, dir: dir, upstream: l.Addr().(*net.TCPAddr).Port}
	if tls {
		if err := e.secure(); err != nil {
			return nil, nil, err
		}
	}
	p, err := e.start()
	return e, p, err
}

// hello answers with what it was sent, or with a page that fetches another one
// and shows by which protocol both have come.
func hello(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/page":
		w.Header().Set("content-type", "text/html")
		io.WriteString(w, `<!doctype html><title>page</title><script>
fetch("/data", {method: "POST", body: "x".repeat(200000)}).then(r => r.text()).then(t => {
  const by = performance.getEntriesByType("resource")[0].nextHopProtocol
  document.title = "done"
  document.body.append(t.length + " bytes by " + by + " in " + performance.getEntriesByType("navigation")[0].nextHopProtocol)
})</script><body>`)
	case "/data":
		all, _ := io.ReadAll(r.Body) // net/http reads no more when it has begun to write
		w.Write(all)
	default:
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "hello, world\n")
	}
}

// clients has programs of others fetch over HTTP/2.
func clients(o *options, dir string, r *result) error {
	plain, p, err := o.beforeHello(dir+"/plain", false)
	if err != nil {
		return err
	}
	defer p.stop()
	secure, p, err := o.beforeHello(dir+"/tls", true)
	if err != nil {
		return err
	}
	defer p.stop()
	h2c := fmt.Sprintf("http://127.0.0.1:%d", plain.port)
	h2 := fmt.Sprintf("https://localhost:%d", secure.port)
	ca := dir + "/tls/ca.crt"
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"curl --http2-prior-knowledge", []string{"curl", "-sS", "--http2-prior-knowledge", "-w", "%{http_version} %{http_code}", h2c + "/"}, "hello, world\n2 200"},
		{"curl --http2 over TLS", []string{"curl", "-sS", "--http2", "--cacert", ca, "-w", "%{http_version} %{http_code}", h2 + "/"}, "hello, world\n2 200"},
		{"curl: 300 kB up and down", []string{"sh", "-c", "head -c 300000 /dev/zero | curl -sS --http2-prior-knowledge --data-binary @- " + h2c + "/data | wc -c"}, "300000"},
		{"nghttp, h2c", []string{"nghttp", "-ns", h2c + "/", h2c + "/page"}, " 200 "},
		{"nghttp over TLS", []string{"nghttp", "-ns", h2 + "/", h2 + "/page"}, " 200 "},
		{"nghttp, upgrade refused", []string{"nghttp", "-nu", h2c + "/"}, ""},
		{"h2load, h2c: 2,000 requests, 4 x 32 at a time", []string{"h2load", "-n", "2000", "-c", "4", "-m", "32", h2c + "/"}, "2000 succeeded, 0 failed"},
		{"h2load over TLS", []string{"h2load", "-n", "2000", "-c", "4", "-m", "32", h2 + "/"}, "2000 succeeded, 0 failed"},
		{"Chromium: a page that posts 200 kB", []string{
			"chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=" + dir + "/chromium",
			"--ignore-certificate-errors", "--virtual-time-budget=20000", "--timeout=60000", "--dump-dom", h2 + "/page",
		}, "200000 bytes by h2 in h2"},
	} {
		out, err := o.output(2*time.Minute, c.args[0], c.args[1:]...)
		switch {
		case err != nil:
			r.failed = append(r.failed, c.name+": "+err.Error()+": "+lastLine(out))
		case !strings.Contains(out, c.want):
			r.failed = append(r.failed, c.name+": got "+strconv.Quote(lastLine(out)))
		default:
			r.passed++
		}
	}
	return nil
}
