package proxy

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"isthmus/auth"
	"isthmus/http1"
	"isthmus/mesh"
)

// refuse answers in the place of an upstream.
func (x *exchange) refuse(k Kind) {
	x.kind = k
	if k == ClientGone || k == PlainText {
		x.keep = false
		if k == PlainText {
			x.conn.tellMode(mesh.Source{})
		}
		return
	}
	a := &answers[k]
	x.unsent = a.unsent && x.conn.kind == inbound
	x.overloaded = k == Overflow || k == Overloaded
	switch k {
	case BadRequest, RequestTimeout, BodyTooLarge, Overloaded:
		x.keep = false
	case Unauthorized:
		x.refuseToken(x.badToken)
		return
	case Forbidden:
		if x.conn.kind == inbound && x.conn.identity != "" {
			// Whoever has proved to be of the mesh may know what is missing.
			x.local(a.status, []byte(a.body), "x-isthmus-refusal", x.refusal.Error())
			return
		}
	case Denied:
		var fields []string
		for _, nv := range x.verdict.Downstream {
			if nv.Name != "date" && nv.Name != "x-request-id" { // which the proxy's own replies have
				fields = append(fields, nv.Name, nv.Value)
			}
		}
		x.local(x.verdict.Status, x.verdict.Body, fields...)
		return
	case RateLimited, GloballyLimited, LimitUnknown:
		x.refuseLimited(x.limited)
		return
	}
	body := a.body
	if x.trail.why() == errText {
		body = errText.Error()
	}
	x.answer(a.status, []byte(body))
}

// refuseToken answers a request whose token is not to be believed.
func (x *exchange) refuseToken(bad *auth.TokenError) {
	body := bad.Body
	switch {
	case bad.Status == 503:
		if x.conn.kind != gateway { // whose clients need not know what the mesh asks
			body = bad.Error()
		}
		x.local(bad.Status, []byte(body))
	case bad.Challenge != "":
		x.local(bad.Status, []byte(body), "www-authenticate", bad.Challenge)
	default:
		x.local(bad.Status, []byte(body))
	}
}

// sendGRPC sends a caller of gRPC a status, as local does. The reply is no more
// than a head (gRPC over HTTP/2, Trailers-Only). A failure among the fields, of an
// authorization service say, takes the place of the code, and a message that of ours.
func (x *exchange) sendGRPC(code mesh.GRPCCode, message []byte, fields ...string) {
	own := []string{"content-type", string(x.replyType())}
	described := len(message) == 0
	for i := 0; i < len(fields); i += 2 {
		switch fields[i] {
		case "content-type":
			continue
		case "grpc-status":
			if c := grpcCodeOf(fields[i+1]); c != 0 {
				code = c
			}
			continue
		case "grpc-message":
			described = true
		}
		own = append(own, fields[i], fields[i+1])
	}
	own = append(own, "grpc-status", strconv.Itoa(int(code)))
	if !described {
		own = append(own, "grpc-message", string(appendGRPCMessage(nil, message)))
	}
	x.tally.grpc = told + grpcCode(code)
	x.write(200, nil, own)
}

// answer sends a reply of our own.
func (x *exchange) answer(status int, body []byte) {
	x.local(status, body)
}

// local sends a reply of our own with more fields: name, value, name, value.
// Callers of gRPC are told of a failure in its terms.
func (x *exchange) local(status int, body []byte, fields ...string) {
	if status >= 400 && x.dialect != notGRPC {
		x.sendGRPC(grpcStatus(x.kind, status), body, fields...)
		return
	}
	x.write(status, body, fields)
}

// write writes a reply of our own. A request body that has not been read whole
// ends the connection, after the reply.
func (x *exchange) write(status int, body []byte, fields []string) {
	if !x.bodyRead() {
		x.keep = false
	}
	x.status, x.clock = status, now()
	to := x.conn.format()
	out := to.status(x.out[:0], status, nil)
	if len(body) > 0 && !slices.Contains(fields, "content-type") {
		out = to.field(out, nameContentType, valuePlain)
	}
	if x.sized(to, status) {
		out = to.number(out, nameContentLength, int64(len(body)))
	}
	for i := 0; i < len(fields); i += 2 {
		out = to.text(out, []byte(fields[i]), fields[i+1])
	}
	if x.route != nil && x.route.cors != nil {
		for _, f := range x.crossOrigin(x.route.cors, nil) {
			out = to.field(out, f.Name, f.Value)
		}
	}
	if x.overloaded {
		out = to.field(out, nameOverloaded, valueTrue)
	}
	if x.kind != NoError || x.meant() >= 400 {
		out = to.field(out, nameRequestID, x.requestIDText())
	}
	if x.unsent {
		out = to.field(out, nameUnsent, valueTrue)
	}
	out = to.field(out, nameDate, dateOf(x.clock))
	x.endHead(out, to)
	x.keepAnswer(body, fields)
	x.tally.replyBody = 0
	if string(x.req.Method) != "HEAD" && status != 204 && status != 304 {
		x.out = append(x.out, body...)
		x.tally.replyBody = int64(len(body))
	}
	if x.flush(true) != NoError {
		x.keep = false
	}
}

// sized reports whether a reply of our own tells its length.
func (x *exchange) sized(to headFormat, status int) bool {
	return status >= 200 && status != 204 && status != 304 && (to == asHTTP1 || x.dialect == notGRPC)
}

// bodyRead reports whether nothing of the request is left to be read.
func (x *exchange) bodyRead() bool {
	return x.req.Framing == http1.NoBody || x.body.framing == x.req.Framing && x.body.whole
}

// say answers as a route says by itself, its header rules included (Istio:
// translateRoute).
func (x *exchange) say(status int, body []byte, fields ...string) {
	if h := x.route.headers; h != nil && !h.said.Response.Empty() {
		if len(body) > 0 {
			fields = append(fields, "content-type", string(valuePlain))
		}
		var list []http1.Field
		for i := 0; i < len(fields); i += 2 {
			list = append(list, newField(mesh.NameValue{Name: fields[i], Value: fields[i+1]}))
		}
		fields = fields[:0]
		for _, f := range h.response.apply(list) {
			if !hopByHop(f.ID) {
				fields = append(fields, string(f.Name), string(f.Value))
			}
		}
	}
	x.local(status, body, fields...)
}

// redirect answers as a route's redirect says.
func (x *exchange) redirect(r *mesh.Redirect) {
	x.say(r.Code, nil, "location", x.location(r))
}

// location is where a redirect leads (Istio HTTPRedirect).
func (x *exchange) location(r *mesh.Redirect) string {
	scheme := r.Scheme
	if scheme == "" {
		scheme = string(x.scheme())
	}
	host, port := mesh.SplitHostPort(cmp.Or(r.Authority, string(x.req.Authority)))
	switch {
	case r.Port != 0:
		port = strconv.Itoa(int(r.Port))
	case r.RequestPort:
		port = strconv.Itoa(int(x.host.port))
	case r.Authority != "": // a port in it is meant
	case r.ProtocolPort, scheme != string(x.scheme()):
		port = ""
	}
	if scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		port = ""
	}
	url := scheme + "://" + host
	if port != "" {
		url += ":" + port
	}
	switch {
	case r.PrefixURI != "" && x.matched != nil && x.matched.uri != nil && x.matched.uri.Kind == mesh.MatchPrefix:
		url += r.PrefixURI + string(x.req.Path[len(x.matched.uri.Value):])
	case r.URI != "":
		url += r.URI
	default:
		url += string(x.req.Path)
	}
	if x.req.HasQuery && !strings.Contains(r.URI, "?") { // whose query takes the place of the request's
		url += "?" + string(x.req.Query)
	}
	return url
}
