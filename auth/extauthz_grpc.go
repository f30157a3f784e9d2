package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/timestamppb"

	"isthmus/http1"
	"isthmus/mesh"
)

// maxAnswer bounds a message, in bytes: its fields, its body, and as much again
// for metadata, which nobody reads.
const maxAnswer = 2 * (maxAnswerFields + maxAnswerBody)

// reconnect is how long it takes until a service that was down is tried again.
// gRPC's own default grows to two minutes, in which nothing is allowed.
var reconnect = backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}

// grpcService asks by envoy.service.auth.v3.Authorization.
type grpcService struct {
	connection *grpc.ClientConn
	client     authv3.AuthorizationClient
	broken     error // there is no client
	last       atomic.Pointer[heardConn]
	withBody   bool
	asBytes    bool
}

func newGRPCService(p *mesh.AuthorizationProvider, dial func(context.Context) (net.Conn, error)) *grpcService {
	s := &grpcService{withBody: p.Body > 0, asBytes: p.BodyAsBytes}
	host := p.Service[strings.LastIndexByte(p.Service, '/')+1:]
	s.connection, s.broken = grpc.NewClient("passthrough:///authorization",
		grpc.WithAuthority(net.JoinHostPort(host, strconv.FormatUint(uint64(p.Port), 10))),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // dial secures
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			c, err := dial(ctx)
			if err != nil {
				return nil, err
			}
			heard := &heardConn{Conn: c}
			s.last.Store(heard)
			return heard, nil
		}),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: dialTimeout}),
		grpc.WithMaxHeaderListSize(maxAnswerFields),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(false), grpc.MaxCallRecvMsgSize(maxAnswer)),
	)
	if s.broken == nil {
		s.client = authv3.NewAuthorizationClient(s.connection)
	}
	return s
}

// heardConn knows when something was last heard on it.
type heardConn struct {
	net.Conn
	heard atomic.Int64 // Unix time in ns; 0: nothing yet
}

func (c *heardConn) Read(b []byte) (n int, err error) {
	n, err = c.Conn.Read(b)
	if n > 0 {
		c.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

// drop closes the connection if nothing has been heard on it: grpc-go would keep
// it until the kernel gives up, which takes a quarter of an hour.
func (s *grpcService) drop(began time.Time) {
	if c := s.last.Load(); c != nil && c.heard.Load() < began.UnixNano() {
		c.Close()
	}
}

func (s *grpcService) close() {
	if s.connection != nil {
		s.connection.Close()
	}
}

func (s *grpcService) check(ctx context.Context, c *Call) (*Verdict, error) {
	if s.broken != nil {
		return refuse(http.StatusInternalServerError, s.broken), nil
	}
	res, err := s.client.Check(ctx, s.newRequest(c))
	if err != nil {
		return nil, err
	}
	return readCheck(res, c.Fields), nil
}

// newRequest makes the message. Texts in it are UTF-8, or it could not be sent,
// which is nothing that a client may bring about.
func (s *grpcService) newRequest(c *Call) *authv3.CheckRequest {
	target := sanitise(c.Path)
	if c.HasQuery {
		target += "?" + sanitise(c.Query)
	}
	r := &authv3.AttributeContext_HttpRequest{
		Id:     sanitise([]byte(c.RequestID)),
		Method: sanitise(c.Method),
		Path:   target,
		Host:   sanitise(c.Host),
		Scheme: sanitise([]byte(c.Scheme)),
		Size:   sizeOf(c, s.withBody),
		// The message model of the proxy is HTTP/1.1, whatever brought it.
		Protocol: "HTTP/1.1",
	}
	r.Headers = headersOf(c.Fields)
	// Envoy's own map has these, and policies look for them there.
	r.Headers[":method"], r.Headers[":path"], r.Headers[":authority"], r.Headers[":scheme"] = r.Method, r.Path, r.Host, r.Scheme
	if s.withBody {
		r.Headers[partialBody] = strconv.FormatBool(c.BodyPartial)
	}
	if s.asBytes {
		r.RawBody = c.Body
	} else {
		r.Body = sanitise(c.Body)
	}
	attributes := &authv3.AttributeContext{
		Source:      peer(c.Source, c.Principal),
		Destination: peer(c.Destination, c.OwnPrincipal),
		Request:     &authv3.AttributeContext_Request{Time: timestamppb.Now(), Http: r},
	}
	if c.SNI != "" {
		attributes.TlsSession = &authv3.AttributeContext_TLSSession{Sni: sanitise([]byte(c.SNI))}
	}
	return &authv3.CheckRequest{Attributes: attributes}
}

// headersOf makes a map of fields, in lower case, those of one name together.
// Content-Length is among them, the other fields of the proxy's own are not.
func headersOf(fields []http1.Field) map[string]string {
	m := make(map[string]string, len(fields)+5) // and those that newRequest adds
	for _, f := range fields {
		name := strings.ToLower(sanitise(f.Name))
		if name == partialBody || reserved(name) && f.ID != http1.ContentLength && f.ID != http1.XForwardedClientCert {
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

func peer(at netip.AddrPort, principal string) *authv3.AttributeContext_Peer {
	p := &authv3.AttributeContext_Peer{Principal: sanitise([]byte(principal))}
	if at.IsValid() {
		p.Address = &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address:       at.Addr().Unmap().String(),
			PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(at.Port())},
		}}}
	}
	return p
}

// readCheck reads an answer. It allows what Envoy allows, but nothing that also
// holds a denied_response, nor an empty message, which anything could be that
// is not of this protocol: those are refused with 403.
func readCheck(res *authv3.CheckResponse, fields []http1.Field) *Verdict {
	denied := res.GetDeniedResponse()
	if denied == nil && codes.Code(res.GetStatus().GetCode()) == codes.OK && (res.GetStatus() != nil || res.GetOkResponse() != nil) {
		return readAllowed(res.GetOkResponse(), fields)
	}
	v, a := &Verdict{Status: http.StatusForbidden, Body: []byte(denied.GetBody())}, &answer{}
	if code := denied.GetStatus().GetCode(); code != 0 {
		v.Status = int(code)
	}
	// Envoy adds them all to a reply of its own, whatever their append says.
	for _, o := range denied.GetHeaders() {
		if nv, ok := a.option(o); ok {
			v.Downstream = append(v.Downstream, nv)
		}
	}
	return a.finish(v)
}

// readAllowed reads an ok_response, which may be nil. An answer that asks for
// more than a Verdict can say is a fault: the request was allowed with that.
func readAllowed(ok *authv3.OkHttpResponse, fields []http1.Field) *Verdict {
	v, a := &Verdict{Allowed: true}, &answer{}
	if len(ok.GetQueryParametersToSet())+len(ok.GetQueryParametersToRemove()) > 0 {
		a.spoil(errors.New("the answer changes query parameters, which is not supported"))
	}
	for _, o := range ok.GetHeaders() {
		if nv, ok := a.option(o); ok {
			a.change(v, o, nv, fields)
		}
	}
	for _, o := range ok.GetResponseHeadersToAdd() {
		nv, ok := a.option(o)
		said, appends := appendOf(o)
		switch {
		case !ok:
		case said && !appends, !said && o.AppendAction == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
			if i := indexName(v.DownstreamSet, nv.Name); i >= 0 {
				v.DownstreamSet[i] = nv
			} else {
				v.DownstreamSet = append(v.DownstreamSet, nv)
			}
		case said, o.AppendAction == corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
			v.Downstream = append(v.Downstream, nv)
		default:
			a.spoil(fmt.Errorf("the answer has append_action %s for a reply, which is not supported", o.AppendAction))
		}
	}
	for _, name := range ok.GetHeadersToRemove() {
		if name, ok := a.name(name); ok {
			v.remove(name)
		}
	}
	return a.finish(v)
}

// option checks a field of an answer.
func (a *answer) option(o *corev3.HeaderValueOption) (nv mesh.NameValue, ok bool) {
	h := o.GetHeader()
	value := h.GetValue()
	if value == "" {
		value = string(h.GetRawValue())
	}
	return a.field(h.GetKey(), value)
}

// appendOf returns what the older of two fields says, which services still set.
func appendOf(o *corev3.HeaderValueOption) (said, appends bool) {
	//lint:ignore SA1019 it wins over append_action where it is set
	b := o.GetAppend()
	return b != nil, b.GetValue()
}

// change does with a field of the request what append says or, without it,
// append_action. Without both, which looks like APPEND_IF_EXISTS_OR_ADD, the
// field is set (OkHttpResponse.headers: append defaults to false), so that none
// of the client's stays beside it.
func (a *answer) change(v *Verdict, o *corev3.HeaderValueOption, nv mesh.NameValue, fields []http1.Field) {
	switch said, appends := appendOf(o); {
	case appends:
		v.Add = append(v.Add, nv)
		return
	case said:
		v.set(nv)
		return
	}
	exists := indexName(v.Set, nv.Name) >= 0 || indexName(v.Add, nv.Name) >= 0
	for i := 0; i < len(fields) && !exists; i++ {
		exists = bytes.EqualFold(fields[i].Name, []byte(nv.Name))
	}
	switch o.AppendAction {
	case corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
		v.set(nv)
	case corev3.HeaderValueOption_ADD_IF_ABSENT:
		if !exists {
			v.set(nv)
		}
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
		if exists {
			v.set(nv)
		}
	default:
		a.spoil(fmt.Errorf("the answer has append_action %d, which is none", o.AppendAction))
	}
}
