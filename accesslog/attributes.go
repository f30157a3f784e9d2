package accesslog

// attribute is one thing that an expression may ask for.
type attribute struct {
	kind kind
	get  func(*Entry) value
}

// attributes are Envoy's names of what an entry knows.
var attributes = map[string]attribute{
	"request.path":       {kindText, func(e *Entry) value { return bytesOf(e.Request.Path, true) }},
	"request.url_path":   {kindText, func(e *Entry) value { return bytesOf(e.Request.Path, true) }},
	"request.query":      {kindText, func(e *Entry) value { return bytesOf(e.Request.Query, e.Request.HasQuery) }},
	"request.method":     {kindText, func(e *Entry) value { return bytesOf(e.Request.Method, true) }},
	"request.host":       {kindText, func(e *Entry) value { return bytesOf(e.Request.Authority, true) }},
	"request.scheme":     {kindText, func(e *Entry) value { return bytesOf(e.Scheme, true) }},
	"request.id":         {kindText, func(e *Entry) value { return bytesOf(e.RequestID, len(e.RequestID) > 0) }},
	"request.protocol":   {kindText, func(e *Entry) value { return text(e.Protocol) }},
	"request.useragent":  {kindText, func(e *Entry) value { return e.field(&userAgent) }},
	"request.referer":    {kindText, func(e *Entry) value { return e.field(&referer) }},
	"request.duration":   {kindDuration, func(e *Entry) value { return value{kind: kindDuration, number: int64(e.Duration)} }},
	"request.size":       {kindInt, func(e *Entry) value { return value{kind: kindInt, number: e.RequestBody} }},
	"request.total_size": {kindInt, func(e *Entry) value { return value{kind: kindInt, number: e.RequestBytes} }},

	"response.code":         {kindInt, func(e *Entry) value { return value{kind: kindInt, number: int64(e.Status)} }},
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
	"connection.requested_server_name":    {kindText, func(e *Entry) value { return text(e.Client.ServerName) }},
	"connection.uri_san_peer_certificate": {kindText, func(e *Entry) value { return text(e.Client.Peer) }},
	"connection.termination_details":      {kindText, func(e *Entry) value { return text(e.Termination) }},
	"source.port":                         {kindInt, func(e *Entry) value { return value{kind: kindInt, number: int64(e.Client.Remote.Port())} }},
	"destination.port":                    {kindInt, func(e *Entry) value { return value{kind: kindInt, number: int64(e.Client.Local.Port())} }},
	"source.address": {kindText, func(e *Entry) value {
		if !e.Client.Remote.IsValid() {
			return value{}
		}
		return text(e.Client.Remote.String())
	}},
	"upstream.address": {kindText, func(e *Entry) value {
		if !e.Upstream.Host.IsValid() {
			return value{}
		}
		return text(e.Upstream.Host.String())
	}},
	"xds.cluster_name": {kindText, func(e *Entry) value { return text(e.Upstream.Name) }},
	"xds.route_name":   {kindText, func(e *Entry) value { return text(e.Route) }},
}

var userAgent, referer = newField("user-agent"), newField("referer")

// field is one of the request's.
func (e *Entry) field(f *field) value { return bytesOf(f.of(&e.Request.Header)) }
