package proxy

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"isthmus/accesslog"
	"isthmus/http1"
	"isthmus/mesh"
)

// tally is what of an exchange has been counted on the way, for whoever tells of
// it when it is over.
type tally struct {
	head      int          // bytes of the request's head
	pumped    atomic.Int64 // bytes of its body that were passed on without being kept; written beside the exchange
	received  instant      // when the last of it had come; 0: it has not
	replyHead int          // bytes of the reply's head
	replyBody int64
	asked     instant // when the request was sent, the last time
	grpc      grpcCode
	asks      messageCounter         // of gRPC, in the request
	tells     messageCounter         // in the reply
	upstream  *accesslog.UpstreamEnd // of the connection that the reply came by; nil: none has
}

// compileLogging says what is logged of the exchanges on each kind of listener.
func (c *compiler) compileLogging() {
	log := c.options.AccessLog
	if log == nil {
		return
	}
	list := mesh.TelemetryOf(c.node, c.snapshot.Config.Telemetries)
	for kind := range c.logging {
		side := mesh.ClientSide
		if listenerKind(kind) == inbound {
			side = mesh.ServerSide
		}
		rule, on := log.Rule()
		on = on || c.snapshot.Config.AccessLog.Path != ""
		if r := mesh.LoggingOf(list, side); r != nil {
			on = !r.Disabled
			if r.Filter != "" {
				rule.Filter, _ = accesslog.ParseFilter(r.Filter) // config has refused others
			}
		}
		if on {
			c.logging[kind] = &rule
		}
	}
}

// log writes the exchange's line.
func (x *exchange) log(r *accesslog.Rule, flag string, took time.Duration) {
	e := x.tellOf(flag, took)
	x.conn.proxy.options.AccessLog.Record(r, e)
	forget(e)
}

// logRelay writes the line of a connection that was relayed, or was to be: one for
// all that it carried, when it has ended. As Istio's, it has no status.
func (x *exchange) logRelay(k Kind) {
	r := x.table.logging[x.conn.kind]
	if r == nil {
		return
	}
	x.clock = now()
	e := x.tellOf(answers[k].flag, time.Duration(x.clock-x.start))
	e.Details, e.Request, e.Scheme = "", &noRequest, nil
	if k != NoError {
		e.Termination = answers[k].detail
	}
	x.conn.proxy.options.AccessLog.Record(r, e)
	forget(e)
}

// entries are all zero. One of them is used over and over, so that the processor's
// cache has it, other than what belongs to one exchange.
var entries = sync.Pool{New: func() any { return new(accesslog.Entry) }}

// forget gives an entry back that nobody looks at any more.
func forget(e *accesslog.Entry) {
	*e = accesslog.Entry{}
	entries.Put(e)
}

// noRequest is what is known of the request where there is none.
var noRequest http1.Request

// tellOf says what is known of the exchange, until that is forgotten.
func (x *exchange) tellOf(flag string, took time.Duration) *accesslog.Entry {
	c := x.conn
	e := entries.Get().(*accesslog.Entry)
	// It is all zero. Field by field, since a literal would be made elsewhere and copied.
	e.Start, e.Duration = wall(x.clock)-int64(took), took
	e.Received, e.FirstByte, e.ServiceTime = accesslog.Unknown, accesslog.Unknown, accesslog.Unknown
	e.Request, e.Scheme, e.Reply = &x.req, x.scheme(), &x.replyKept
	e.Outside = x.outside()
	e.Status, e.Flags, e.Details, e.GRPCStatus = x.status, flag, x.details(), int32(x.tally.grpc.value())
	e.RequestBody, e.ReplyBody, e.Attempts = x.requestBody(), x.tally.replyBody, int32(x.attempts)
	e.Client, e.Upstream = c.told(), x.upstreamEnd()
	e.RequestBytes, e.ReplyBytes = e.RequestBody+x.requestHead(), e.ReplyBody+int64(x.tally.replyHead)
	if len(x.req.Method) > 0 {
		e.Protocol = x.protocol()
	}
	if id, ok := x.req.Get(http1.XRequestID); ok {
		e.RequestID = id
	} else if x.hasID {
		e.RequestID = x.id[:]
	}
	e.Trace = x.traced.context.Trace
	if cause := x.trail.why(); cause != nil {
		e.Failure = cause.Error()
	}
	if x.tally.received != 0 {
		e.Received = max(time.Duration(x.tally.received-x.start), 0)
	}
	if x.trail.replied != 0 {
		e.FirstByte, e.ServiceTime = time.Duration(x.trail.replied-x.start), time.Duration(x.trail.replied-x.tally.asked)
	}
	if x.brokeOff() || x.kind == ClientGone || x.kind == Shed || x.kind == CutOff {
		e.Termination = detailOf(x.kind, x.brokeOff())
	}
	if x.route != nil {
		e.Route = x.routeName()
	}
	return e
}

// upstreamEnd is which end the exchange had at an upstream.
func (x *exchange) upstreamEnd() *accesslog.UpstreamEnd {
	if up := x.tally.upstream; up != nil {
		return up
	}
	if m := x.member; m != nil {
		return m.unconnected
	}
	if l := x.aim(); l != nil {
		return &l.unreachedEnd
	}
	return &noUpstream
}

// aim is the upstream of an exchange that has got no endpoint of it; nil: it should
// have got none.
func (x *exchange) aim() *live {
	if x.route == nil || len(x.route.destinations) == 0 {
		return nil
	}
	return x.upstream(x.route.destinations[0].target).live
}

// noUpstream is for exchanges without an upstream.
var noUpstream accesslog.UpstreamEnd

// protocol is what the request came in.
func (x *exchange) protocol() string {
	switch {
	case x.conn.h2 != nil:
		return "HTTP/2"
	case x.req.Minor == 0:
		return "HTTP/1.0"
	}
	return "HTTP/1.1"
}

// requestHead is how many bytes the request's head had; in HTTP/2, before it was
// compressed.
func (x *exchange) requestHead() int64 {
	if x.tally.head != 0 || x.conn.h2 == nil {
		return int64(x.tally.head)
	}
	n := len(x.req.Method) + len(x.req.Path) + len(x.req.Query) + len(x.req.Authority)
	for i := range x.req.Fields {
		n += len(x.req.Fields[i].Name) + len(x.req.Fields[i].Value)
	}
	return int64(n)
}

// requestBody is how many bytes of the request's body have come.
func (x *exchange) requestBody() int64 { return int64(len(x.body.data)) + x.tally.pumped.Load() }

// details says how the reply came about, as Envoy's response code details do.
func (x *exchange) details() string {
	switch {
	case x.kind == Forbidden && x.refusal != nil:
		return "rbac_access_denied_matched_policy[" + policyName(x.refusal.Policy, x.refusal.Rule, x.refusal.Field != "") + "]"
	case x.kind == Unauthorized && x.badToken != nil:
		return "jwt_authn_access_denied{" + strings.ReplaceAll(x.badToken.Body, " ", "_") + "}"
	case x.kind == NoError && x.member == nil:
		return "direct_response"
	}
	return detailOf(x.kind, x.brokeOff())
}

// brokeOff reports whether the exchange, which is over, has failed when the upstream's
// reply was on its way to the client.
func (x *exchange) brokeOff() bool { return x.kind != NoError && x.trail.replied != 0 }

// policyName is Envoy's name of the policy that has decided: "none" where none
// has allowed.
func policyName(p *mesh.AuthorizationPolicy, rule int, near bool) string {
	if p == nil || rule < 0 || near {
		return "none"
	}
	return fmt.Sprintf("ns[%s]-policy[%s]-rule[%d]", p.Namespace, p.Name, rule)
}

// keepReply keeps those fields of the reply that the log asks for, as the client gets
// them: the reply's buffer is gone when the exchange is over.
func (x *exchange) keepReply(sent []http1.Field) {
	x.replyKept.Fields, x.kept = x.replyKept.Fields[:0], x.kept[:0]
	if x.dialect != notGRPC {
		x.noteGRPC(x.res.Fields)
	}
	x.keepFields(sent)
}

// keepAnswer keeps those of a reply of our own, whose fields are name, value, name, value.
func (x *exchange) keepAnswer(body []byte, fields []string) {
	if x.table == nil || x.table.logging[x.conn.kind] == nil || len(x.conn.proxy.options.AccessLog.Format().ReplyFields()) == 0 {
		return
	}
	var list []http1.Field
	for i := 0; i < len(fields); i += 2 {
		list = append(list, newField(mesh.NameValue{Name: fields[i], Value: fields[i+1]}))
	}
	add := func(name, value []byte) { list = append(list, http1.Field{Name: name, Value: value}) }
	if len(body) > 0 {
		add(nameContentType, valuePlain) // behind one that is said
	}
	if x.sized(x.conn.format(), x.status) {
		add(nameContentLength, strconv.AppendInt(nil, int64(len(body)), 10))
	}
	if x.overloaded {
		add(nameOverloaded, valueTrue)
	}
	if x.kind != NoError || x.meant() >= 400 {
		add(nameRequestID, x.requestIDText())
	}
	add(nameDate, dateOf(x.clock))
	if x.route != nil && x.route.cors != nil {
		list = x.crossOrigin(x.route.cors, list)
	}
	x.replyKept.Fields, x.kept = x.replyKept.Fields[:0], x.kept[:0]
	x.keepFields(list)
}

// keepTrailers keeps those that come with the end of the body.
func (x *exchange) keepTrailers(list []http1.Field) {
	if x.dialect != notGRPC {
		x.noteGRPC(list)
	}
	x.keepFields(list)
}

func (x *exchange) keepFields(list []http1.Field) {
	if x.table.logging[x.conn.kind] == nil {
		return
	}
	log, h := x.conn.proxy.options.AccessLog, http1.Header{Fields: list}
	kept := x.kept
	for _, name := range log.Format().ReplyFields() {
		v, ok := h.Lookup(name)
		if !ok {
			continue
		}
		from := len(kept)
		kept = append(kept, v...)
		x.replyKept.Add(name, kept[from:])
	}
	x.kept = kept
}

// told is what lines say of the client's connection. The kernel is asked once where
// it has connected to: before there are streams that share it.
func (c *conn) told() *accesslog.ClientEnd {
	e := &c.end
	if !e.Remote.IsValid() {
		e.Remote, e.ServerName, e.Peer = c.remote, c.serverName, c.identity
		e.Local, _ = c.localAddrPort()
	}
	return e
}
