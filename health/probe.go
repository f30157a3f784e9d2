package health

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"isthmus/mesh"
)

// Subject is what is looked at. Two jobs of one subject are one.
type Subject struct {
	// Group is the WorkloadGroup, "namespace/name", whose probe it is; "" for a
	// look at an endpoint.
	Group string

	// Address is where: of a group's workload, with port 0, since its probe says
	// which; of an endpoint with its port.
	Address netip.AddrPort
	Own     bool // it is the application beside this proxy: the probe may name another host

	// Service and Port are what an endpoint that is another Isthmus's inbound
	// listener is asked for, so that its proxy answers for what is behind it; ""
	// if it is none. Secure asks it by mTLS, and Plain without, where that fails.
	Service string
	Port    uint32
	Secure  bool
	Plain   bool
}

// Job is a subject and how to look at it.
type Job struct {
	Subject Subject
	Probe   *mesh.Probe
}

// Found is the outcome of one look. Err has a text that does not vary with the
// same fault: it is announced, and every other text is news for all proxies.
type Found struct {
	Err      error // nil: a success
	Degraded bool  // the reply says so by x-envoy-degraded
}

// Looker does what jobs say.
type Looker struct {
	// Mesh returns how other proxies are spoken to by mTLS; nil if no subject is
	// Secure.
	Mesh func() (*tls.Config, error)
}

// Look does what a job says, once, until ctx ends at its time-out.
func (l Looker) Look(ctx context.Context, j Job) Found {
	host, port := j.Subject.Address.Addr().String(), uint32(j.Subject.Address.Port())
	if port == 0 {
		port = j.Probe.Port
	}
	if j.Subject.Own && j.Probe.Host != "" {
		host = j.Probe.Host
	}
	address := net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))
	var f Found
	switch {
	case j.Subject.Service != "":
		f.Err = l.lookThrough(ctx, address, j.Subject)
	case j.Probe.Kind == mesh.ProbeHTTP:
		f = lookHTTP(ctx, address, j.Probe)
	case j.Probe.Kind == mesh.ProbeTCP:
		f.Err = lookTCP(ctx, address)
	case j.Probe.Kind == mesh.ProbeGRPC:
		f.Err = lookGRPC(ctx, address, j.Probe.Service)
	case j.Probe.Kind == mesh.ProbeExec:
		f.Err = lookExec(ctx, j.Probe.Command)
	}
	return f
}

// lookTCP makes a connection.
func lookTCP(ctx context.Context, address string) error {
	d := net.Dialer{KeepAlive: -1}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("tcp %s: %w", address, plain(ctx, err))
	}
	return c.Close()
}

// Limits of Kubernetes' kubelet (pkg/probe/http): how much of a body is read,
// how many redirects are followed.
const (
	maxProbeBody = 10 << 10
	maxRedirects = 10
)

// lookHTTP sends a GET as Kubernetes' kubelet does: redirects to another host
// are not followed but are a success, and nobody's certificate is verified.
func lookHTTP(ctx context.Context, address string, p *mesh.Probe) Found {
	scheme := "http"
	if p.TLS {
		scheme = "https"
	}
	u, err := url.ParseRequestURI(p.Path)
	if err != nil {
		return Found{Err: err}
	}
	u.Scheme, u.Host = scheme, address
	what := "GET " + u.Path // without the query, which may hold a secret
	header := http.Header{}
	for _, h := range p.Headers {
		header.Add(h.Name, h.Value)
	}
	for name, value := range map[string]string{"User-Agent": "isthmus-probe", "Accept": "*/*"} {
		if _, ok := header[name]; !ok {
			header.Set(name, value)
		}
	}
	res, err := get(ctx, u, header, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return Found{Err: fmt.Errorf("%s: %w", what, plain(ctx, err))}
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, maxProbeBody)); err != nil {
		return Found{Err: fmt.Errorf("%s: %w", what, plain(ctx, err))}
	}
	if res.StatusCode < 200 || res.StatusCode > 399 {
		return Found{Err: fmt.Errorf("%s: %d", what, res.StatusCode)}
	}
	_, degraded := res.Header["X-Envoy-Degraded"]
	return Found{Degraded: degraded}
}

// get sends one request over a connection of its own.
func get(ctx context.Context, u *url.URL, header http.Header, config *tls.Config) (*http.Response, error) {
	t := &http.Transport{
		TLSClientConfig:        config,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	c := http.Client{Transport: t, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		switch {
		case next.URL.Hostname() != via[0].URL.Hostname():
			return http.ErrUseLastResponse
		case len(via) >= maxRedirects:
			return errors.New("too many redirects")
		}
		return nil
	}}
	req := (&http.Request{Method: "GET", URL: u, Header: header, Host: header.Get("Host")}).WithContext(ctx)
	return c.Do(req)
}

// lookThrough asks another Isthmus whether what is behind it can serve: see
// proxy/probe.go for its answer.
func (l Looker) lookThrough(ctx context.Context, address string, s Subject) error {
	if s.Secure {
		if err := l.ask(ctx, address, s, true); err == nil || !s.Plain {
			return err
		}
	}
	return l.ask(ctx, address, s, false)
}

// ask asks once, by mTLS or not.
func (l Looker) ask(ctx context.Context, address string, s Subject, secure bool) error {
	header := http.Header{}
	header.Set("X-Isthmus-Destination", s.Service+":"+strconv.FormatUint(uint64(s.Port), 10))
	header.Set("X-Isthmus-Probe", "1")
	u, config := &url.URL{Scheme: "http", Host: address, Path: "/"}, (*tls.Config)(nil)
	if secure {
		var err error
		if config, err = l.Mesh(); err != nil {
			return err
		}
		u.Scheme = "https"
	}
	res, err := get(ctx, u, header, config)
	if err != nil {
		return plain(ctx, err)
	}
	defer res.Body.Close()
	reason, err := io.ReadAll(io.LimitReader(res.Body, maxReason))
	switch {
	case err != nil:
		return plain(ctx, err)
	case res.StatusCode == http.StatusOK:
		return nil
	case res.Header.Get("X-Isthmus-Probe") != "":
		return errors.New(string(reason))
	}
	return fmt.Errorf("status %d", res.StatusCode)
}

// execGrace is how long the output of a command may stay open after its end,
// in children that it has left behind.
const execGrace = 100 * time.Millisecond

// lookExec runs a command with the proxy's own rights and environment. At the
// time-out it is killed with all processes of its group.
func lookExec(ctx context.Context, command []string) error {
	c := exec.CommandContext(ctx, command[0], command[1:]...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = execGrace
	if err := c.Run(); err != nil {
		return fmt.Errorf("exec %s: %w", command[0], plain(ctx, err))
	}
	return nil
}

// errSilent is what a look ends with that got no answer in time.
var errSilent = errors.New("no answer in time")

// plain takes out of an error what varies: addresses, ports of our own side.
func plain(ctx context.Context, err error) error {
	var errno syscall.Errno
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		return errSilent
	case errors.As(err, &errno):
		return errno
	case errors.As(err, &dns):
		return errors.New(cmp.Or(dns.Err, "DNS failed"))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return err
}

// maxReason bounds the bytes of a reason, which gossip carries to everybody.
const maxReason = 200

// reasonOf makes a reason of an error that anybody's words may be in.
func reasonOf(err error) string {
	text := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, err.Error())
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "")
	}
	return cmp.Or(strings.TrimSpace(text), "failed")
}
