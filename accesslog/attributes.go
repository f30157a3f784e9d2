package accesslog

import (
	"bytes"
	"net/netip"
	"slices"
)

// attribute is one thing that an expression may ask for.
type attribute struct {
	kind kind
	get  func(*Entry) value
}

// attributes are Envoy's names of what an entry knows.
var attributes = map[string]attribute{
	"request.path":       {kindText, func(e *Entry) value { return some(e.wholePath()) }},
	"request.url_path":   {kindText, func(e *Entry) value { return some(e.Request.Path) }},
	"request.query":      {kindText, func(e *Entry) value { return bytesOf(e.Request.Query, len(e.Request.Method) > 0) }},
	"request.method":     {kindText, func(e *Entry) value { return some(e.Request.Method) }},
	"request.host":       {kindText, func(e *Entry) value { return some(e.Request.Authority) }},
	"request.scheme":     {kindText, func(e *Entry) value { return some(e.Scheme) }},
	"request.id":         {kindText, func(e *Entry) value { return some(e.RequestID) }},
	"request.protocol":   {kindText, func(e *Entry) value { return text(e.Protocol) }},
	"request.useragent":  {kindText, func(e *Entry) value { return e.field(&userAgent) }},
	"request.referer":    {kindText, func(e *Entry) value { return e.field(&referer) }},
	"request.duration":   {kindDuration, func(e *Entry) value { return value{kind: kindDuration, number: int64(e.Duration)} }},
	"request.size":       {kindInt, func(e *Entry) value { return value{kind: kindInt, number: e.RequestBody} }},
	"request.total_size": {kindInt, func(e *Entry) value { return value{kind: kindInt, number: e.RequestBytes} }},

	"response.code": {kindInt, func(e *Entry) value {
		if e.Status == 0 {
			return value{} // nothing was answered
		}
		return value{kind: kindInt, number: int64(e.Status)}
	}},
	"response.code_details": {kindText, func(e *Entry) value { return text(e.Details) }},
	"response.flags":        {kindText, func(e *Entry) value { return text(e.Flags) }},
	"response.size":         {kindInt, func(e *Entry) value { return value{kind: kindInt, number: e.ReplyBody} }},
	"response.total_size":   {kindInt, func(e *Entry) value { return value{kind: kindInt, number: e.ReplyBytes} }},
	"response.grpc_status": {kindInt, func(e *Entry) value {
		if e.GRPCStatus == Unknown {
			return value{}
		}
		return value{kind: kindInt, number: int64(e.GRPCStatus)}
	}},
	"response.backend_latency": {kindDuration, func(e *Entry) value {
		if e.ServiceTime == Unknown {
			return value{}
		}
		return value{kind: kindDuration, number: int64(e.ServiceTime)}
	}},

	"connection.mtls":                     {kindBool, func(e *Entry) value { return boolean(e.Client.Peer != "") }},
	"connection.requested_server_name":    {kindText, func(e *Entry) value { return value{kind: kindText, text: e.Client.ServerName} }},
	"connection.uri_san_peer_certificate": {kindText, func(e *Entry) value { return text(e.Client.Peer) }},
	"connection.termination_details":      {kindText, func(e *Entry) value { return text(e.Termination) }},
	"source.port":                         {kindInt, func(e *Entry) value { return value{kind: kindInt, number: int64(e.Client.Remote.Port())} }},
	"destination.port":                    {kindInt, func(e *Entry) value { return value{kind: kindInt, number: int64(e.Client.Local.Port())} }},
	"source.address":                      {kindText, func(e *Entry) value { return address(e.Client.Remote) }},
	"destination.address":                 {kindText, func(e *Entry) value { return address(e.Client.Local) }},
	"upstream.address":                    {kindText, func(e *Entry) value { return address(e.Upstream.Host) }},
	"upstream.local_address":              {kindText, func(e *Entry) value { return address(e.Upstream.Local) }},
	"upstream.port": {kindInt, func(e *Entry) value {
		if !e.Upstream.Host.IsValid() {
			return value{}
		}
		return value{kind: kindInt, number: int64(e.Upstream.Host.Port())}
	}},
	"upstream.request_attempt_count":    {kindInt, func(e *Entry) value { return value{kind: kindInt, number: int64(e.Attempts)} }},
	"upstream.transport_failure_reason": {kindText, func(e *Entry) value { return value{kind: kindText, text: e.Failure} }},

	"xds.cluster_name": {kindText, func(e *Entry) value { return text(e.Upstream.Name) }},
	"xds.route_name":   {kindText, func(e *Entry) value { return text(e.Route) }},
}

// wholePath is the path with its query, as Envoy's :path is: as a rule the end of
// what was received, and else a copy.
func (e *Entry) wholePath() []byte {
	r := e.Request
	if !r.HasQuery {
		return r.Path
	}
	n := len(r.Path)
	if t := r.Target[max(0, len(r.Target)-n-1-len(r.Query)):]; len(t) == n+1+len(r.Query) &&
		t[n] == '?' && bytes.Equal(t[:n], r.Path) && bytes.Equal(t[n+1:], r.Query) {
		return t
	}
	return slices.Concat(r.Path, []byte("?"), r.Query)
}

// some is a text, unless it is empty: of a connection that is passed on nothing is
// known of a request.
func some(b []byte) value { return bytesOf(b, len(b) > 0) }

func address(a netip.AddrPort) value {
	if !a.IsValid() {
		return value{}
	}
	return text(a.String())
}

var userAgent, referer = newField("user-agent"), newField("referer")

// field is one of the request's.
func (e *Entry) field(f *field) value {
	if e.Outside && f.inner {
		return value{}
	}
	return bytesOf(f.of(&e.Request.Header))
}
