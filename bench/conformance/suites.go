package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// suite is one to run. It notes in r what it finds; an error says that it could
// not.
type suite struct {
	name, how string
	run       func(o *options, dir string, r *result) error
}

var suites = []suite{
	{"h2spec h2c", "generic, http2 and hpack with --strict, at a gateway in plain text", func(o *options, dir string, r *result) error { return h2spec(o, dir, r, false) }},
	{"h2spec TLS", "the same over TLS", func(o *options, dir string, r *result) error { return h2spec(o, dir, r, true) }},
	{"interop h2c", "grpc-go's interop client to its interop server, in plain text", func(o *options, dir string, r *result) error { return interop(o, dir, r, false) }},
	{"interop TLS", "the same over TLS", func(o *options, dir string, r *result) error { return interop(o, dir, r, true) }},
	{"connect same", "Connect, gRPC and gRPC-Web over HTTP/1.1 and HTTP/2, in plain text, TLS and mTLS; to the server by the client's HTTP version", func(o *options, dir string, r *result) error {
		return connect(o, dir, r, "referenceserver,same", []int{1, 2}, []string{"CONNECT", "GRPC", "GRPC_WEB"})
	}},
	{"connect 2 to 1", "Connect and gRPC-Web, HTTP/2 from the client and HTTP/1.1 to the server", func(o *options, dir string, r *result) error {
		return connect(o, dir, r, "referenceserver,h1", []int{2}, []string{"CONNECT", "GRPC_WEB"})
	}},
	{"connect 1 to 2", "the same, HTTP/1.1 from the client and HTTP/2 to the server; gRPC-Web becomes gRPC", func(o *options, dir string, r *result) error {
		return connect(o, dir, r, "referenceserver,h2", []int{1}, []string{"CONNECT", "GRPC_WEB"})
	}},
	{"connect grpc-go", "gRPC and gRPC-Web, over HTTP/1.1 and HTTP/2, to a server by grpc-go that knows gRPC alone", func(o *options, dir string, r *result) error {
		return connect(o, dir, r, "grpcserver,h2", []int{1, 2}, []string{"GRPC", "GRPC_WEB"})
	}},
	{"clients", "curl, nghttp, h2load and Chromium fetch by HTTP/2", clients},
}

// output runs a command and returns what it says.
func (o *options) output(limit time.Duration, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	late := time.AfterFunc(limit, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	if !late.Stop() {
		err = fmt.Errorf("%s has not ended within %v", filepath.Base(name), limit)
	}
	if o.verbose {
		os.Stdout.Write(out.Bytes())
	}
	return out.String(), err
}

// secure gives an edge a certificate for localhost.
func (e *edge) secure() error {
	for _, args := range [][]string{{"certs", "init", "--dir", e.dir}, {"certs", "issue", "--dir", e.dir, "--dns", "localhost"}} {
		if out, err := exec.Command(e.isthmus, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	var err error
	if e.cert, err = os.ReadFile(filepath.Join(e.dir, "tls.crt")); err != nil {
		return err
	}
	e.key, err = os.ReadFile(filepath.Join(e.dir, "tls.key"))
	return err
}

var h2specTotals = regexp.MustCompile(`(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed`)
var h2specFailed = regexp.MustCompile(`(?m)^\s*× (.*)$`)

func h2spec(o *options, dir string, r *result, tls bool) error {
	e, p, err := o.beforeHello(dir, tls)
	if err != nil {
		return err
	}
	defer p.stop()
	args := []string{"generic", "http2", "hpack", "--strict", "-h", "127.0.0.1", "-p", strconv.Itoa(e.port), "-o", "5"}
	if tls {
		args = append(args, "-t", "-k")
	}
	out, _ := o.output(5*time.Minute, filepath.Join(o.tools, "h2spec"), args...)
	totals := h2specTotals.FindStringSubmatch(out)
	if totals == nil {
		return errors.New("h2spec has not come to its end")
	}
	r.passed, _ = strconv.Atoi(totals[2])
	for _, m := range h2specFailed.FindAllStringSubmatch(out, -1) {
		r.failed = append(r.failed, m[1])
	}
	if totals[3] != "0" || totals[4] != strconv.Itoa(len(r.failed)) {
		return fmt.Errorf("%s", totals[0])
	}
	return nil
}

// interopCases are all of the client's that want no cloud's credentials and that
// this server knows: not those of ORCA, nor pick_first_unary, which ask for what
// it does not say.
var interopCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream", "timeout_on_sleeping_server",
	"cancel_after_begin", "cancel_after_first_response", "status_code_and_message", "special_status_message", "custom_metadata",
	"unimplemented_method", "unimplemented_service",
}

func interop(o *options, dir string, r *result, tls bool) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	server := exec.Command(filepath.Join(o.tools, "interop-server"), "--port", strconv.Itoa(port))
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := server.Start(); err != nil {
		return err
	}
	defer server.Wait()
	defer server.Process.Kill()
	if err := awaitPort(port); err != nil {
		return err
	}
	e := &edge{isthmus: o.isthmus, dir: dir, upstream: port, http2: true}
	if tls {
		if err := e.secure(); err != nil {
			return err
		}
	}
	p, err := e.start()
	if err != nil {
		return err
	}
	defer p.stop()
	for _, name := range interopCases {
		args := []string{"--server_host", "localhost", "--server_port", strconv.Itoa(e.port), "--test_case", name}
		if tls {
			args = append(args, "--use_tls", "--use_test_ca", "--ca_file", filepath.Join(dir, "ca.crt"))
		}
		if out, err := o.output(time.Minute, filepath.Join(o.tools, "interop-client"), args...); err != nil {
			r.failed = append(r.failed, name+": "+lastLine(out))
		} else {
			r.passed++
		}
	}
	return nil
}

// knownOfGRPCGo are cases that grpc-go's server fails whatever is before it: where
// a call that takes one message has none, or several, it says INTERNAL, and the
// suite wants UNIMPLEMENTED. The suite's own list for that server has them, too.
var knownOfGRPCGo = []string{"**/unary/multiple-requests", "**/unary/no-request", "**/server-stream/multiple-requests", "**/server-stream/no-request"}

var connectTotals = regexp.MustCompile(`Total cases: (\d+)\s+(\d+) passed, (\d+) failed`)
var connectFailed = regexp.MustCompile(`(?m)^FAILED: (.*):\s*$`)

// connect runs Connect's suite. server says which one is behind Isthmus, and how
// it is spoken to.
func connect(o *options, dir string, r *result, server string, versions []int, protocols []string) error {
	var b strings.Builder
	b.WriteString("features:\n  versions:\n")
	for _, v := range versions {
		fmt.Fprintf(&b, "  - HTTP_VERSION_%d\n", v)
	}
	b.WriteString("  protocols:\n")
	for _, p := range protocols {
		fmt.Fprintf(&b, "  - PROTOCOL_%s\n", p)
	}
	if strings.HasSuffix(server, ",h1") {
		// Over HTTP/1.1, a server has the whole request before it replies.
		b.WriteString("  streamTypes: [STREAM_TYPE_UNARY, STREAM_TYPE_CLIENT_STREAM, STREAM_TYPE_SERVER_STREAM, STREAM_TYPE_HALF_DUPLEX_BIDI_STREAM]\n")
	}
	b.WriteString("  codecs: [CODEC_PROTO")
	if strings.HasPrefix(server, "reference") {
		b.WriteString(", CODEC_JSON]\n  compressions: [COMPRESSION_IDENTITY, COMPRESSION_GZIP, COMPRESSION_BR, COMPRESSION_ZSTD, COMPRESSION_DEFLATE, COMPRESSION_SNAPPY]\n")
	} else {
		b.WriteString("]\n  compressions: [COMPRESSION_IDENTITY, COMPRESSION_GZIP]\n  supportsConnectGet: false\n")
	}
	b.WriteString("  supportsTlsClientCerts: true\n  supportsHalfDuplexBidiOverHttp1: true\n")
	if err := write(dir, map[string][]byte{"suite.yaml": []byte(b.String())}); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"--mode", "server", "--conf", filepath.Join(dir, "suite.yaml")}
	if strings.HasPrefix(server, "grpcserver") {
		for _, k := range knownOfGRPCGo {
			args = append(args, "--known-failing", k)
		}
	}
	args = append(args, "--", self, "-isthmus", o.isthmus, "-tools", o.tools, "-connect", server)
	out, err := o.output(10*time.Minute, filepath.Join(o.tools, "connectconformance"), args...)
	totals := connectTotals.FindStringSubmatch(out)
	if totals == nil {
		return fmt.Errorf("%w: %s", err, lastLine(out))
	}
	r.passed, _ = strconv.Atoi(totals[2])
	for _, m := range connectFailed.FindAllStringSubmatch(out, -1) {
		r.failed = append(r.failed, m[1])
	}
	if failed, _ := strconv.Atoi(totals[3]); failed != len(r.failed) {
		return errors.New(totals[0])
	}
	return nil
}

func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// awaitPort waits until somebody listens.
func awaitPort(port int) error {
	end := time.Now().Add(readyTime)
	for {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}
