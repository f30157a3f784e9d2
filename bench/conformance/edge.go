package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// edge is Isthmus as a gateway before one server on this machine.
type edge struct {
	isthmus  string
	dir      string
	upstream int  // the server's port
	http2    bool // the server is spoken to by HTTP/2

	cert, key []byte // TLS is terminated by these; nil: plain text
	clientCA  []byte // clients have to show a certificate of this one

	port int // where it listens; set by start
}

const bootstrap = `node: {name: edge, address: 127.0.0.1, labels: {istio: edge}}
credentialDir: credentials
listeners:
  outbound: ""
  inbound: ""
  admin: 127.0.0.1:0
  metrics: ""
  gateway: {bind: 127.0.0.1, ports: {%d: %d}}
`

const resources = `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: edge}
  servers: [{%s, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: all}
spec: {hosts: ["*"], gateways: [edge], http: [{route: [{destination: {host: server.test}}]}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: server}
spec:
  hosts: [server.test]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: main, protocol: %s}]
  endpoints: [{address: 127.0.0.1, ports: {main: %d}}]
`

// proxy is a running one.
type proxy struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// readyTime is how long Isthmus may take to be ready; on a busy machine, that is
// more than it needs.
const readyTime = 20 * time.Second

// start writes the configuration and runs Isthmus until it is ready.
func (e *edge) start() (*proxy, error) {
	number, server := 80, "port: {number: 80, name: http, protocol: HTTP}"
	files := map[string][]byte{}
	if e.cert != nil {
		mode := "SIMPLE"
		files["credentials/edge/tls.crt"], files["credentials/edge/tls.key"] = e.cert, e.key
		if e.clientCA != nil {
			mode, files["credentials/edge/ca.crt"] = "MUTUAL", e.clientCA
		}
		number, server = 443, "port: {number: 443, name: https, protocol: HTTPS}, tls: {mode: "+mode+", credentialName: edge}"
	}
	protocol := "HTTP"
	if e.http2 {
		protocol = "HTTP2"
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	e.port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	files["node.yaml"] = fmt.Appendf(nil, bootstrap, number, e.port)
	files["mesh.yaml"] = fmt.Appendf(nil, resources, server, protocol, e.upstream)
	if err := write(e.dir, files); err != nil {
		return nil, err
	}

	cmd := exec.Command(e.isthmus, "run", "--bootstrap", filepath.Join(e.dir, "node.yaml"), "--config", filepath.Join(e.dir, "mesh.yaml"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &proxy{cmd, make(chan struct{})}
	ready := make(chan struct{})
	var heard []string // by the goroutine, until done is closed
	go func() {        // ends with the process
		defer close(p.done)
		for lines := bufio.NewScanner(said); lines.Scan(); {
			switch line := lines.Text(); {
			case strings.HasPrefix(line, "isthmus ready:"):
				close(ready)
			case strings.Contains(line, "level=INFO"):
			default:
				heard = append(heard, line)
				fmt.Fprintln(os.Stderr, "isthmus:", line)
			}
		}
		cmd.Wait()
	}()
	select {
	case <-ready:
		return p, nil
	case <-p.done:
		return nil, fmt.Errorf("isthmus ended: %s", strings.Join(heard, "; "))
	case <-time.After(readyTime):
		p.stop()
		return nil, errors.New("isthmus was not ready in time")
	}
}

func (p *proxy) stop() {
	p.cmd.Process.Kill()
	<-p.done
}
