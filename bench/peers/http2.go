package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What these are about is HTTP/2: who takes it, in plain text or over TLS,
// and hands it on in HTTP/1.1; and who hands it on as it is, calls of gRPC at
// that.

// reverseProxy is net/http's, which most proxies in Go are made of.
var reverseProxy = peer{
	name: "net/http", version: []string{"go", "version"},
	files: map[string]string{"args": "-reverse\n127.0.0.1:@PORT@\n-upstream\nhttp://127.0.0.1:@UPSTREAM@\n"},
	args:  reverseArgs,
}

// reverseArgs runs this program as net/http's reverse proxy, with the arguments
// that its file has.
func reverseArgs(s site) []string {
	self, _ := os.Executable() // which has been found out before
	b, _ := os.ReadFile(filepath.Join(s.home, "args"))
	return append([]string{self}, strings.Fields(string(b))...)
}

// changed is a peer with other files and a load that speaks HTTP/2.
func (p peer) changed(replace ...string) peer {
	r, files := strings.NewReplacer(replace...), map[string]string{}
	for name, text := range p.files {
		files[name] = r.Replace(text)
	}
	p.files, p.h2 = files, true
	return p
}

// overHTTP2 is everybody who takes HTTP/2 in plain text, by prior knowledge.
func overHTTP2(all []peer) []peer {
	return []peer{
		all[0].changed(),
		haproxy.changed("bind 127.0.0.1:@PORT@", "bind 127.0.0.1:@PORT@ proto h2"),
		nginx.changed("@PORT@ backlog=4096", "@PORT@ http2 backlog=4096"),
		reverseProxy.changed(),
	}
}

// overHTTP2AndTLS is the same with TLS before it.
func overHTTP2AndTLS(all []peer) []peer {
	list := []peer{
		all[0].changed(`protocol: HTTP}, hosts: ["*"]`, `protocol: HTTPS}, hosts: ["*"], tls: {mode: SIMPLE, serverCertificate: @HOME@/tls.crt, privateKey: @HOME@/tls.key}`),
		haproxy.changed("bind 127.0.0.1:@PORT@", "bind 127.0.0.1:@PORT@ ssl crt @HOME@/both.pem alpn h2"),
		nginx.changed("@PORT@ backlog=4096;", "@PORT@ ssl http2 backlog=4096; ssl_certificate @HOME@/tls.crt; ssl_certificate_key @HOME@/tls.key;"),
		reverseProxy.changed("-upstream", "-certificate\n@HOME@/both.pem\n-upstream"),
	}
	for i := range list {
		list[i].tls = true
	}
	return list
}

// handingOnHTTP2 is everybody who hands HTTP/2 on as HTTP/2.
func handingOnHTTP2(all []peer) []peer {
	list := []peer{
		all[0].changed("{number: 80, name: http, protocol: HTTP}]", "{number: 80, name: grpc, protocol: GRPC}]", "ports: {http:", "ports: {grpc:", "@UPSTREAM@", "@GRPC@"),
		haproxy.changed("bind 127.0.0.1:@PORT@", "bind 127.0.0.1:@PORT@ proto h2", "@UPSTREAM@", "@GRPC@ proto h2"),
		nginx.changed("@PORT@ backlog=4096", "@PORT@ http2 backlog=4096", "proxy_pass http://out", "grpc_pass grpc://out", "@UPSTREAM@", "@GRPC@",
			"proxy_set_header", "grpc_set_header", `grpc_set_header Connection "";`, "", "proxy_hide_header", "grpc_hide_header", "proxy_http_version 1.1;", "", "proxy_buffers 16 16k;", ""),
		reverseProxy.changed("-upstream", "-grpc\n-upstream", "@UPSTREAM@", "@GRPC@"),
	}
	if slices.ContainsFunc(all, func(p peer) bool { return p.name == traefik.name }) {
		list = append(list, traefik.changed("http://127.0.0.1:@UPSTREAM@", "h2c://127.0.0.1:@GRPC@"))
	}
	return list
}

// shared is load over HTTP/2: 8 connections with 32 requests at a time each.
func shared(path string, args ...string) func(b *bench, p peer) (values, error) {
	return func(b *bench, p peer) (v values, err error) {
		err = b.with(p, path, func(t target) error {
			if _, err := b.h2load(t, path, 1, args); err != nil {
				return err
			}
			before := t.proc.cpu()
			r, err := b.h2load(t, path, b.seconds, args)
			if err != nil {
				return err
			}
			v = values{"cpu": (t.proc.cpu() - before) / float64(r.requests) * 1e6, "rps": r.rps, "p50": r.p50, "p99": r.p99, lost: float64(r.lost)}
			return nil
		})
		return v, err
	}
}

// steady is load over HTTP/2 of so many requests a second, 8 connections sharing
// them: less than any of the peers can do.
func steady(path string, rate int) func(b *bench, p peer) (values, error) {
	return shared(path, "--rps", strconv.Itoa(rate/8))
}

// h2load sends requests for so many seconds.
func (b *bench) h2load(t target, path string, seconds int, more []string) (loadResult, error) {
	times := filepath.Join(b.dir, "times")
	os.Remove(times) // it would be appended to
	args := []string{"h2load", "-c", "8", "-m", "32", "-t", "1", "-D", strconv.Itoa(seconds), "--log-file", times}
	for _, h := range usualHeaders {
		args = append(args, "-H", h)
	}
	if path == grpcPath {
		body := filepath.Join(b.dir, "call")
		if err := os.WriteFile(body, grpcMessage, 0o644); err != nil {
			return loadResult{}, err
		}
		args = append(args, "-d", body, "-H", "content-type: application/grpc", "-H", "te: trailers")
	}
	out, err := pinned(b.ctx, loadCPU, append(append(args, more...), t.url(path))).CombinedOutput()
	if err != nil {
		return loadResult{}, fmt.Errorf("h2load: %w\n%s", err, out)
	}
	r, err := parseH2load(string(out))
	if err == nil {
		r.p50, r.p99, err = quantiles(times)
	}
	return r, err
}

var (
	h2loadRate  = regexp.MustCompile(`finished in [\d.]+m?s, ([\d.]+) req/s`)
	h2loadCount = regexp.MustCompile(`requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)
	h2loadGood  = regexp.MustCompile(`status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx`)
)

// parseH2load reads the output, all but the times. Replies that are not good
// make it an error; see parseWrk.
func parseH2load(text string) (r loadResult, err error) {
	rate, count, good := h2loadRate.FindStringSubmatch(text), h2loadCount.FindStringSubmatch(text), h2loadGood.FindStringSubmatch(text)
	if rate == nil || count == nil || good == nil || count[1] == "0" {
		return r, fmt.Errorf("no result of h2load:\n%s", text)
	}
	if good[2] != "0" || good[3] != "0" || good[4] != "0" {
		return r, fmt.Errorf("not all replies were good:\n%s", text)
	}
	r.requests, _ = strconv.Atoi(count[1]) // digits, by the patterns
	r.rps, _ = strconv.ParseFloat(rate[1], 64)
	for _, n := range count[2:] {
		v, _ := strconv.Atoi(n)
		r.lost += v
	}
	return r, nil
}

// quantiles reads h2load's log: when a request began, its status, and how many
// microseconds it took.
func quantiles(name string) (p50, p99 float64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	var times []float64
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) == 3 {
			if v, err := strconv.ParseFloat(fields[2], 64); err == nil {
				times = append(times, v)
			}
		}
	}
	if len(times) == 0 {
		return 0, 0, errors.New("h2load has logged no times")
	}
	slices.Sort(times)
	return times[len(times)/2], times[len(times)*99/100], nil
}

const grpcPath = "/bench.Echo/Call"

// grpcMessage is a message of 100 bytes, as gRPC frames it.
var grpcMessage = append([]byte{0, 0, 0, 0, 100}, strings.Repeat("x", 100)...)

// grpcUpstream answers calls with the message that they bring, and other requests
// as upstream does.
func grpcUpstream(address string) error {
	replies := map[string][]byte{}
	for path, size := range bodies {
		replies[path] = bytes.Repeat([]byte("x"), size)
	}
	s := &http.Server{Addr: address, Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == holdPath {
			<-r.Context().Done()
			return
		}
		w.Header().Set("X-Powered-By", "bench")
		if body, ok := replies[r.URL.Path]; ok {
			w.Header().Set("Content-Type", "text/plain")
			w.Write(body)
			return
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		io.Copy(w, r.Body)
		w.Header().Set("Grpc-Status", "0")
	})}
	s.Protocols.SetHTTP1(true) // for who waits until it is there
	s.Protocols.SetUnencryptedHTTP2(true)
	return s.ListenAndServe()
}

// serveReverse is net/http's reverse proxy.
func serveReverse(address, upstream, certificate string, grpc bool) error {
	to, err := url.Parse(upstream)
	if err != nil {
		return err
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 2048, DisableCompression: true, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!grpc)
	transport.Protocols.SetUnencryptedHTTP2(grpc)
	p := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.SetXForwarded()
			r.Out.Header.Set("X-Route", "stable")
		},
		ModifyResponse: func(r *http.Response) error { r.Header.Del("X-Powered-By"); return nil },
	}
	s := &http.Server{Addr: address, Handler: p, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	if certificate != "" {
		return s.ListenAndServeTLS(certificate, certificate)
	}
	return s.ListenAndServe()
}

// askHTTP2Once checks the reply to one request, or call; see askOnce.
func askHTTP2Once(address, path string, secure bool) error {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	}
	tr := &http.Transport{DialContext: dial, DisableCompression: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP2(secure)
	tr.Protocols.SetUnencryptedHTTP2(!secure)
	defer tr.CloseIdleConnections()
	scheme, method, body := "http://", "GET", ""
	if secure {
		scheme = "https://"
	}
	size := bodies[path]
	if path == grpcPath {
		method, body, size = "POST", string(grpcMessage), len(grpcMessage)
	}
	r, err := http.NewRequest(method, scheme+address+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	if path == grpcPath {
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("TE", "trailers")
	}
	res, err := (&http.Client{Transport: tr, Timeout: 5 * time.Second}).Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case res.StatusCode != 200 || res.ProtoMajor != 2 || len(got) != size:
		return fmt.Errorf("%s: %s %s, %d bytes: %.200s", path, res.Proto, res.Status, len(got), got)
	case res.Header.Get("X-Powered-By") != "":
		return fmt.Errorf("%s: the rule that removes X-Powered-By has no effect", path)
	case path == grpcPath && res.Trailer.Get("Grpc-Status") != "0":
		return fmt.Errorf("%s: no grpc-status", path)
	}
	return nil
}
