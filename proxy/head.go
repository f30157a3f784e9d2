package proxy

import (
	"strconv"

	"isthmus/http1"
	"isthmus/http2"
)

// headFormat is how a head is written: by HTTP/1.1 or by HTTP/2. Heads are
// appended to x.out, field by field, whatever reads them.
type headFormat bool

const (
	asHTTP1 headFormat = false
	asHTTP2 headFormat = true
)

// format is how the other end of a stream wants heads.
func (s *stream) format() headFormat { return headFormat(s.h2 != nil) }

// request begins the head of a request. scheme and the protocol of an upgrade are
// for HTTP/2, which says them here.
func (f headFormat) request(dst []byte, req *http1.Request, path, authority, scheme, protocol []byte) []byte {
	if f == asHTTP2 {
		if protocol != nil {
			dst = http2.AppendProtocol(http2.AppendMethod(dst, methodConnect), protocol)
		} else {
			dst = http2.AppendMethod(dst, req.Method)
		}
		dst = http2.AppendScheme(dst, scheme)
		dst = http2.AppendAuthority(dst, authority)
		return http2.AppendPath(dst, path, req.Query, req.HasQuery)
	}
	dst = append(dst, req.Method...)
	dst = append(dst, ' ')
	dst = append(dst, path...)
	if req.HasQuery {
		dst = append(dst, '?')
		dst = append(dst, req.Query...)
	}
	dst = append(dst, " HTTP/1.1\r\nhost: "...)
	dst = append(dst, authority...)
	return append(dst, "\r\n"...)
}

// status begins the head of a reply.
func (f headFormat) status(dst []byte, status int, reason []byte) []byte {
	switch {
	case f == asHTTP2:
		return http2.AppendStatus(dst, status)
	case len(reason) == 0:
		reason = []byte(http1.StatusText(status)) // HTTP/2 has none
	}
	return http1.AppendStatusLine(dst, status, reason)
}

// field writes one field.
func (f headFormat) field(dst, name, value []byte) []byte {
	if f == asHTTP2 {
		return http2.AppendField(dst, name, value)
	}
	return http1.AppendField(dst, name, value)
}

// number writes one field whose value is a number.
func (f headFormat) number(dst, name []byte, n int64) []byte {
	var room [20]byte
	return f.field(dst, name, strconv.AppendInt(room[:0], n, 10))
}

// text writes one field.
func (f headFormat) text(dst, name []byte, value string) []byte {
	return f.field(dst, name, []byte(value))
}

// end ends the head.
func (f headFormat) end(dst []byte) []byte {
	if f == asHTTP2 {
		return dst
	}
	return append(dst, "\r\n"...)
}

// Names of fields that are written.
var (
	nameAttempt         = []byte("x-envoy-attempt-count")
	nameClientCert      = []byte("x-forwarded-client-cert")
	nameConnection      = []byte("connection")
	nameContentLength   = []byte("content-length")
	nameContentType     = []byte("content-type")
	nameDate            = []byte("date")
	nameDestination     = []byte("x-isthmus-destination")
	nameExpect          = []byte("expect")
	nameExpectedTime    = []byte("x-envoy-expected-rq-timeout-ms")
	nameForwardedFor    = []byte("x-forwarded-for")
	nameGRPCMessage     = []byte("grpc-message")
	nameGRPCStatus      = []byte("grpc-status")
	nameGRPCTimeout     = []byte("grpc-timeout")
	nameOriginalHost    = []byte("x-envoy-original-host")
	nameOriginalPath    = []byte("x-envoy-original-path")
	nameOverloaded      = []byte("x-envoy-overloaded")
	nameProto           = []byte("x-forwarded-proto")
	nameRequestID       = []byte("x-request-id")
	nameSetCookie       = []byte("set-cookie")
	nameSource          = []byte("x-isthmus-source")
	nameTE              = []byte("te")
	nameTransfer        = []byte("transfer-encoding")
	nameUnsent          = []byte("x-isthmus-unsent")
	nameUpgrade         = []byte("upgrade")
	nameWebSocketAccept = []byte("sec-websocket-accept")
	nameWebSocketKey    = []byte("sec-websocket-key")

	valueChunked   = []byte("chunked")
	valueClose     = []byte("close")
	valueContinue  = []byte("100-continue")
	valueKeepAlive = []byte("keep-alive")
	valuePlain     = []byte("text/plain")
	valueTrailers  = []byte("trailers")
	valueTrue      = []byte("true")
)
