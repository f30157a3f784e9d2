package extauthz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"isthmus/http1"
	"isthmus/mesh"
)

// toRemove is the field in which the service names those that the request loses
// (Envoy: OkHttpResponse.headers_to_remove).
const toRemove = "x-envoy-auth-headers-to-remove"

// Of kept connections: as many as calls that come in a burst can use again, for
// less time than servers commonly keep them, 75 s (nginx).
const (
	maxIdle     = 100
	idleTimeout = 60 * time.Second
)

// httpService asks by HTTP/1.1 (Envoy: HttpService). Authorization it is told always, beside the
// fields that are asked for (Envoy: CheckRequestUtils::toRequestMatchers).
type httpService struct {
	host      string // of the service; the request has the client's
	prefix    string
	added     []mesh.NameValue
	transport *http.Transport
	broken    error // the provider cannot be asked as it says

	request, upstream, denied, allowed patterns
	body                               bool
}

func newHTTPService(p *mesh.AuthorizationProvider, dial func(context.Context) (net.Conn, error)) *httpService {
	s := &httpService{
		host:     "authorization.invalid", // never sent, never resolved: dial knows where to
		prefix:   p.PathPrefix,
		request:  newPatterns(p.RequestHeaders),
		upstream: newPatterns(p.UpstreamOnAllow),
		denied:   newPatterns(p.DownstreamOnDeny),
		allowed:  newPatterns(p.DownstreamOnAllow),
		body:     p.Body > 0,
	}
	if s.prefix != "" && (s.prefix[0] != '/' || !isTarget([]byte(s.prefix)) || strings.Contains(s.prefix, "?")) {
		s.broken = fmt.Errorf("pathPrefix %q is none", s.prefix)
	}
	var checked answer
	for _, nv := range p.AddedHeaders {
		if nv, ok := checked.field(nv.Name, nv.Value); ok {
			s.added = append(s.added, nv)
		}
	}
	if checked.fault != nil {
		s.broken = fmt.Errorf("includeAdditionalHeadersInCheck: %w", checked.fault)
	}
	s.transport = &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		Protocols:              &http.Protocols{},
		DisableCompression:     true, // the client gets the body as it is
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxAnswerFields,
	}
	s.transport.Protocols.SetHTTP1(true)
	return s
}

// drop gives up all idle connections; net/http has closed those of calls that
// were late.
func (s *httpService) drop(time.Time) { s.transport.CloseIdleConnections() }

func (s *httpService) close() { s.transport.CloseIdleConnections() }

func (s *httpService) check(ctx context.Context, c *Call) (*Verdict, error) {
	if s.broken != nil {
		return refuse(http.StatusInternalServerError, s.broken), nil
	}
	req, err := s.newRequest(c)
	if err != nil {
		return refuse(http.StatusBadRequest, err), nil
	}
	res, err := s.transport.RoundTrip(req.WithContext(ctx)) // follows no redirect
	var malformed textproto.ProtocolError
	switch {
	case errors.As(err, &malformed): // a field of the answer is
		return refuse(http.StatusInternalServerError, malformed), nil
	case err != nil:
		return nil, err
	}
	defer res.Body.Close()
	if !isFinal(res.StatusCode) {
		return s.deny(res.StatusCode, nil, nil), nil // of a 101 the body would be another protocol
	}
	// Read to its end, so that the connection is kept.
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBody))
	switch {
	case res.StatusCode/100 == 5:
		return nil, fmt.Errorf("status %d", res.StatusCode) // Istio: failOpen
	case res.StatusCode == http.StatusOK && err != nil:
		return nil, err
	case res.StatusCode == http.StatusOK:
		return s.allow(res.Header), nil
	case err != nil:
		body = nil // that it is refused stands already
	}
	return s.deny(res.StatusCode, res.Header, body), nil
}

// newRequest makes what the service is asked. An error is the client's fault.
func (s *httpService) newRequest(c *Call) (*http.Request, error) {
	target, err := s.target(c)
	switch {
	case err != nil:
		return nil, err
	case !http1.ValidName(c.Method) || string(c.Method) == http.MethodConnect:
		return nil, fmt.Errorf("method %.20q has no path to ask about", c.Method)
	case len(c.Host) == 0 || !httpguts.ValidHostHeader(string(c.Host)) || bytes.ContainsFunc(c.Host, notHost):
		return nil, errors.New("no host to ask about")
	}
	header := http.Header{
		"User-Agent": nil, // net/http would make up one
		// An empty list lets net/http repeat any method on another connection,
		// when the service has closed a kept one, without sending this field. To
		// ask twice does no harm.
		"X-Idempotency-Key": nil,
	}
	for _, f := range c.Fields {
		name := strings.ToLower(string(f.Name))
		switch {
		case !http1.ValidName(f.Name) || !http1.ValidValue(f.Value):
			return nil, fmt.Errorf("field %.100q is none", f.Name)
		case f.ID != http1.Authorization && !s.request.match(name) || withheld(name, f.ID):
			continue
		}
		key := http.CanonicalHeaderKey(name)
		if had := header[key]; len(had) > 0 {
			had[0] = joinValues(f.ID, had[0], string(f.Value))
		} else {
			header[key] = []string{string(f.Value)}
		}
	}
	for _, nv := range s.added {
		header[http.CanonicalHeaderKey(nv.Name)] = []string{nv.Value}
	}
	req := &http.Request{Method: string(c.Method), URL: target, Host: string(c.Host), Header: header}
	if s.body {
		header.Set(partialBody, strconv.FormatBool(c.BodyPartial))
	}
	if len(c.Body) > 0 {
		// net/http may still read it when the call has returned.
		body := bytes.Clone(c.Body)
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		req.Body, _ = req.GetBody()
		req.ContentLength = int64(len(body))
	}
	return req, nil
}

// notHost tells bytes that net/http would send otherwise than they are: those of
// an international name, and of an IPv6 zone.
func notHost(r rune) bool { return r >= 0x80 || r == '%' }

// joinValues makes one value of two fields of a name, as Envoy does (RFC 9110
// 5.3), but for cookies (RFC 9113 8.2.3).
func joinValues(id http1.FieldID, first, second string) string {
	if id == http1.Cookie {
		return first + "; " + second
	}
	return first + "," + second
}

// target is the prefix and the request's own target, byte for byte.
func (s *httpService) target(c *Call) (*url.URL, error) {
	path := string(c.Path)
	if path != "*" && !strings.HasPrefix(path, "/") || !isTarget(c.Path) || strings.Contains(path, "?") || !isTarget(c.Query) {
		return nil, errors.New("no path to ask about")
	}
	path = s.prefix + path
	u := &url.URL{Scheme: "http", Host: s.host, Opaque: path, ForceQuery: c.HasQuery}
	if c.HasQuery {
		u.RawQuery = string(c.Query)
	}
	if strings.HasPrefix(path, "//") {
		// In Opaque that would be an authority. As a path net/http sends it as it
		// is if nothing in it ought to be escaped.
		var err error
		u.Opaque, u.RawPath = "", escapePath(path)
		if u.Path, err = url.PathUnescape(u.RawPath); err != nil || u.EscapedPath() != u.RawPath {
			return nil, errors.New("no path to ask about")
		}
	}
	return u, nil
}

// isTarget reports whether all bytes can be in a request line's target.
func isTarget(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c <= ' ' || c >= 0x7f || c == '#' })
}

// escapePath escapes what RFC 3986 3.3 has in no path but browsers send.
func escapePath(path string) string {
	out := make([]byte, 0, len(path)+8)
	for _, c := range []byte(path) {
		if strings.IndexByte("\"<>\\^`{|}", c) >= 0 {
			out = fmt.Appendf(out, "%%%02X", c)
		} else {
			out = append(out, c)
		}
	}
	return string(out)
}

// allow reads a 200. A field of the answer replaces the request's, and further
// ones of its name are added; cookies for the client are added all, since each
// is one of its own (RFC 6265 3).
func (s *httpService) allow(h http.Header) *Verdict {
	v, a := &Verdict{Allowed: true}, &answer{}
	each(h, func(name, value string, again bool) {
		up, down := s.upstream.match(name), s.allowed.match(name)
		if !up && !down || name == toRemove {
			return
		}
		nv, ok := a.field(name, value)
		switch {
		case !ok:
			return
		case up && again:
			v.Add = append(v.Add, nv)
		case up:
			v.Set = append(v.Set, nv)
		}
		if down && (again || name == "set-cookie") {
			v.Downstream = append(v.Downstream, nv)
		} else if down {
			v.DownstreamSet = append(v.DownstreamSet, nv)
		}
	})
	for _, list := range h.Values(toRemove) {
		for name := range strings.SplitSeq(list, ",") {
			if name = strings.Trim(name, " \t"); name == "" {
				continue // RFC 9110 5.6.1: an empty element is none
			}
			if name, ok := a.name(name); ok {
				v.remove(name)
			}
		}
	}
	return a.finish(v)
}

// deny reads any other status. Without a list the client gets all fields of the
// answer; with one, also those that its status is nothing without (Istio:
// headersToDownstreamOnDeny).
func (s *httpService) deny(status int, h http.Header, body []byte) *Verdict {
	v, a := &Verdict{Status: status, Body: body}, &answer{}
	each(h, func(name, value string, _ bool) {
		if len(s.denied) > 0 && !s.denied.match(name) && name != "www-authenticate" && name != "location" {
			return
		}
		if nv, ok := a.field(name, value); ok {
			v.Downstream = append(v.Downstream, nv)
		}
	})
	return a.finish(v)
}

// each goes through fields by name, but for those that Connection names as
// hop-by-hop, which net/http hides if it also says "close". It tells the first of
// a name from those that follow.
func each(h http.Header, do func(lower, value string, again bool)) {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if httpguts.HeaderValuesContainsToken(h["Connection"], name) {
			continue
		}
		for i, value := range h[name] {
			do(strings.ToLower(name), value, i > 0)
		}
	}
}
