package extauthz

import (
	"context"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"isthmus/http1"
	"isthmus/mesh"
	"isthmus/rpc"
)

// maxAnswer bounds a message, in bytes: its fields, its body, and as much again
// for metadata, which nobody reads.
const maxAnswer = 2 * (maxAnswerFields + maxAnswerBody)

// grpcService asks by envoy.service.auth.v3.Authorization.
type grpcService struct {
	client   *rpc.Client
	withBody bool
	asBytes  bool
}

func newGRPCService(p *mesh.AuthorizationProvider, dial func(context.Context) (net.Conn, error)) *grpcService {
	host := p.Service[strings.LastIndexByte(p.Service, '/')+1:]
	authority := net.JoinHostPort(host, strconv.FormatUint(uint64(p.Port), 10))
	return &grpcService{client: rpc.NewClient(authority, maxAnswer, dial), withBody: p.Body > 0, asBytes: p.BodyAsBytes}
}

func (s *grpcService) drop(began time.Time) { s.client.Drop(began) }
func (s *grpcService) close()               { s.client.Close() }

func (s *grpcService) check(ctx context.Context, c *Call) (*Verdict, error) {
	body, err := s.client.Call(ctx, "/envoy.service.auth.v3.Authorization/Check", s.newRequest(c).marshal())
	if err != nil {
		return nil, err
	}
	answer, err := parseCheckResponse(body)
	if err != nil {
		return nil, err
	}
	return readCheck(answer, c.Fields), nil
}

// newRequest makes the message. Texts in it are UTF-8, or it would be none, which
// is nothing that a client may bring about.
func (s *grpcService) newRequest(c *Call) *checkRequest {
	target := sanitise(c.Path)
	if c.HasQuery {
		target += "?" + sanitise(c.Query)
	}
	r := &checkRequest{
		source: c.Source, destination: c.Destination, principal: sanitise([]byte(c.Principal)), ownPrincipal: sanitise([]byte(c.OwnPrincipal)),
		time:   time.Now(),
		id:     sanitise([]byte(c.RequestID)),
		method: sanitise(c.Method),
		path:   target,
		host:   sanitise(c.Host),
		scheme: sanitise([]byte(c.Scheme)),
		size:   sizeOf(c, s.withBody),
		// The message model of the proxy is HTTP/1.1, whatever brought it.
		protocol: "HTTP/1.1",
		sni:      sanitise([]byte(c.SNI)),
	}
	r.headers = headersOf(c.Fields)
	// Envoy's own map has these, and policies look for them there.
	r.headers[":method"], r.headers[":path"], r.headers[":authority"], r.headers[":scheme"] = r.method, r.path, r.host, r.scheme
	if s.withBody {
		r.headers[partialBody] = strconv.FormatBool(c.BodyPartial)
	}
	if s.asBytes {
		r.rawBody = c.Body
	} else {
		r.body = sanitise(c.Body)
	}
	return r
}

// headersOf makes a map of fields, in lower case, those of one name together.
// Content-Length is among them, the other fields of the proxy's own are not.
func headersOf(fields []http1.Field) map[string]string {
	m := make(map[string]string, len(fields)+5) // and those that newRequest adds
	for _, f := range fields {
		name := strings.ToLower(sanitise(f.Name))
		if withheld(name, f.ID) && f.ID != http1.ContentLength {
			continue
		}
		value := sanitise(f.Value)
		if had, ok := m[name]; ok {
			value = joinValues(f.ID, had, value)
		}
		m[name] = value
	}
	return m
}

// sizeOf is the length of the request's body, -1 if it is not known
// (AttributeContext.HttpRequest.size).
func sizeOf(c *Call, withBody bool) int64 {
	for _, f := range c.Fields {
		if f.ID == http1.ContentLength {
			if n, err := strconv.ParseInt(string(f.Value), 10, 64); err == nil {
				return n
			}
		}
	}
	if withBody && !c.BodyPartial {
		return int64(len(c.Body))
	}
	return -1
}

// sanitise makes UTF-8 of a text, with "!" for each byte that is none
// (AttributeContext.HttpRequest.headers).
func sanitise(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			out = append(out, '!')
		} else {
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	return string(out)
}
