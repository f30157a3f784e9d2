package proxy

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"slices"

	"isthmus/http1"
)

// buildRequest writes the head that goes to the upstream into x.out. Nothing of the framing that was received is sent on.
// Identity and forwarding fields of clients are taken off, and ours put on; of the latter, rules have the last word.
func (x *exchange) buildRequest(to headFormat, scheme []byte, m *member, d *destination) {
	fields, authority, told := x.req.Fields, x.req.Authority, false
	x.value = x.value[:0]
	if x.req.Hop {
		x.req.StripListed()
		fields = x.req.Fields
	}
	if h, dh := x.route.headers, d.headers; h != nil || dh != nil {
		fields, authority, told = x.changeRequest(h, dh)
	}
	path, rw := x.req.Path, x.route.rewrite
	if rw != nil {
		path = x.rewritePath(rw)
		if rw.Authority != "" {
			authority = []byte(rw.Authority)
		}
	}

	out := to.request(x.out[:0], &x.req, path, authority, scheme, x.upgrade.protocol)
	var forwarded, proto, id, attempt, cert []byte
	deadline, within := x.tryDeadline(), instant(0)
	if x.pending {
		within = x.within()
	}
	edge, grpc := x.outside(), false
	for i := range fields {
		f := &fields[i]
		switch f.ID {
		case http1.Host, http1.ContentLength, http1.TransferEncoding, http1.Connection, http1.KeepAlive,
			http1.ProxyConnection, http1.Upgrade, http1.TE, http1.Expect,
			http1.IsthmusDestination, http1.IsthmusSource, http1.IsthmusProbe, http1.EnvoyUpstreamTimeout:
			continue
		case http1.WebSocketKey:
			if x.upgrade.websocket {
				continue
			}
		case http1.XForwardedClientCert:
			if x.told || x.believesCert() {
				cert = appendList(cert, f.Value)
			}
			continue
		case http1.EnvoyExpectedTimeout:
			if edge || deadline != 0 || within != 0 {
				continue
			}
		case http1.GRPCTimeout:
			if deadline != 0 {
				grpc = true
				continue
			}
		case http1.EnvoyRateLimited, http1.EnvoyOverloaded, http1.IsthmusUnsent:
			if edge {
				continue
			}
		case http1.XForwardedHost:
			if edge && x.conn.proxy.trusted == 0 {
				continue
			}
		case http1.XForwardedFor:
			if told {
				break
			}
			if forwarded != nil {
				forwarded = bytes.Join([][]byte{forwarded, f.Value}, []byte(", "))
			} else {
				forwarded = f.Value
			}
			continue
		case http1.EnvoyAttemptCount:
			if x.conn.kind == inbound {
				attempt = f.Value
			}
			continue
		case http1.XForwardedProto:
			if told {
				break
			}
			proto = f.Value
			continue
		case http1.XRequestID:
			id = f.Value
		case http1.Traceparent, http1.B3, http1.B3TraceID, http1.B3SpanID, http1.B3ParentSpanID, http1.B3Sampled, http1.B3Flags:
			if x.traced.replaces() {
				continue
			}
		case http1.ContentType:
			if x.bridged {
				n := len(x.value)
				x.value = appendPlainType(x.value, f.Value)
				out = to.field(out, f.Name, x.value[n:])
				continue
			}
		case http1.Unknown:
			if x.traced.orphans(f.Name) || rw != nil && replaces(rw, f.Name) {
				continue
			}
			if edge && (reserved(f.Name) || x.conn.proxy.trusted == 0 && forwarding(f.Name)) {
				continue
			}
		}
		out = to.field(out, f.Name, f.Value)
	}

	value := x.value[:0]
	if !told {
		value = x.appendForwarded(value, forwarded)
		out = to.field(out, nameForwardedFor, value)
		if proto == nil || edge && x.conn.proxy.trusted == 0 {
			proto = x.scheme()
		}
		out = to.field(out, nameProto, proto)
		if id == nil {
			out = to.field(out, nameRequestID, x.requestID())
		}
	}
	if attempt != nil { // the tries are the calling proxy's
		out = to.field(out, nameAttempt, attempt)
	} else {
		out = to.number(out, nameAttempt, int64(x.attempts))
	}
	if x.told && cert != nil {
		out = to.field(out, nameClientCert, cert)
	} else if x.conn.clientCert != nil {
		value = x.appendCert(value[:0], cert)
		out = to.field(out, nameClientCert, value)
	}
	x.value = value
	if rw != nil {
		out = x.appendOriginal(out, to, rw)
	}
	out = x.appendDeadline(out, to, deadline, within, grpc)
	if d := m.destination; d != "" {
		out = to.text(out, nameDestination, d)
	}
	if x.upgrade.protocol != nil && to == asHTTP1 {
		out = x.appendOffer(out)
	}
	if (x.req.Trailers || x.bridged) && to == asHTTP2 {
		out = to.field(out, nameTE, valueTrailers) // gRPC wants to see it
	}
	if x.traced.formats != 0 {
		out = x.appendTrace(out, to)
	}
	if x.introduce {
		out = to.field(out, nameSource, x.conn.proxy.introduction)
	}
	switch b := &x.body; {
	case b.framing == http1.NoBody, x.upgrade.protocol != nil, x.bridged && x.dialect == grpcWebText:
	case b.framing == http1.Length:
		out = to.number(out, nameContentLength, b.length)
	case b.whole && len(x.requestTrailers()) == 0:
		out = to.number(out, nameContentLength, int64(len(b.data)))
	case to == asHTTP1:
		out = to.field(out, nameTransfer, valueChunked)
	}
	if x.body.awaited {
		out = to.field(out, nameExpect, valueContinue)
	}
	x.out = to.end(out)
}

// appendForwarded writes x-forwarded-for: where the request has come by before, and
// who has brought it here.
func (x *exchange) appendForwarded(dst, before []byte) []byte {
	dst = append(dst, before...)
	if len(before) > 0 {
		dst = append(dst, ", "...)
	}
	return append(dst, x.conn.peer...)
}

// believesCert reports whether x-forwarded-client-cert of the request is believed: whoever has
// proved to be one of the mesh's proxies is.
func (x *exchange) believesCert() bool { return x.conn.kind == inbound && x.conn.identity != "" }

// appendCert writes x-forwarded-client-cert of a client that has shown a certificate: those
// before it, and its own.
func (x *exchange) appendCert(dst, before []byte) []byte {
	if before != nil {
		dst = append(append(dst, before...), ',')
	}
	return append(dst, x.conn.clientCert...)
}

// tellOrigin has the request itself say what it will say on the way out of its scheme, its id
// and its client's certificate, and no longer what nobody is believed, before somebody judges
// it by that. The addresses stay those that have come.
func (x *exchange) tellOrigin() {
	if x.told {
		return
	}
	x.told = true
	x.sanitize()
	if r := &x.req; r.Hop && (r.Listed(nameClientCert) || r.Listed(nameProto) || r.Listed(nameRequestID)) {
		r.StripListed() // which would take off ours later
	}
	var cert []byte
	proto, protos, id := x.scheme(), 0, false
	for i := range x.req.Fields {
		switch f := &x.req.Fields[i]; f.ID {
		case http1.XForwardedProto:
			proto, protos = f.Value, protos+1
		case http1.XRequestID:
			id = true
		case http1.XForwardedClientCert:
			if x.believesCert() {
				cert = appendList(cert, f.Value)
			}
		}
	}
	if x.conn.clientCert != nil {
		cert = x.appendCert(nil, cert)
	}
	fields := removeField(x.req.Fields, &http1.Field{ID: http1.XForwardedClientCert})
	if cert != nil {
		fields = append(fields, http1.Field{Name: nameClientCert, Value: cert, ID: http1.XForwardedClientCert})
	}
	if protos != 1 { // of several the last goes on
		fields = append(removeField(fields, &http1.Field{ID: http1.XForwardedProto}), http1.Field{Name: nameProto, Value: proto, ID: http1.XForwardedProto})
	}
	if !id {
		fields = append(fields, http1.Field{Name: nameRequestID, Value: x.requestID(), ID: http1.XRequestID})
	}
	x.req.Fields = fields
}

// introduceClient puts our words about where a request comes from among its fields, for rules
// that have others.
func (x *exchange) introduceClient(fields []http1.Field) []http1.Field {
	var before, proto []byte
	id := false
	for i := range fields {
		switch f := &fields[i]; f.ID {
		case http1.XForwardedFor:
			if before != nil {
				before = bytes.Join([][]byte{before, f.Value}, []byte(", "))
			} else {
				before = f.Value
			}
		case http1.XForwardedProto:
			proto = f.Value
		case http1.XRequestID:
			id = true
		}
	}
	x.value = x.appendForwarded(x.value[:0], before)
	fields = append(removeField(fields, &http1.Field{ID: http1.XForwardedFor}), http1.Field{Name: nameForwardedFor, Value: x.value, ID: http1.XForwardedFor})
	if proto == nil {
		proto = x.scheme()
	}
	fields = append(removeField(fields, &http1.Field{ID: http1.XForwardedProto}), http1.Field{Name: nameProto, Value: proto, ID: http1.XForwardedProto})
	if !id {
		fields = append(fields, http1.Field{Name: nameRequestID, Value: x.requestID(), ID: http1.XRequestID})
	}
	return fields
}

// sanitize takes off what a gateway does not believe its clients, before somebody of
// ours judges the request or adds to it: what is there afterwards is ours, and goes
// on. Requests that nobody looks at lose it on the way out.
func (x *exchange) sanitize() {
	if x.conn.kind != gateway || x.sanitized {
		return
	}
	x.sanitized = true
	untrusted := x.conn.proxy.trusted == 0
	x.req.Fields = slices.DeleteFunc(x.req.Fields, func(f http1.Field) bool {
		switch f.ID {
		case http1.XForwardedProto:
			return untrusted
		case http1.XForwardedClientCert, http1.IsthmusDestination, http1.IsthmusSource, http1.IsthmusProbe:
			return true
		}
		return doubtful(&f, untrusted)
	})
}

// outside reports whether the request is as a client outside the mesh has sent it, with what only
// proxies may say.
func (x *exchange) outside() bool { return x.conn.kind == gateway && !x.sanitized }

// doubtful reports whether a field is one that a client outside the mesh may not
// say, or, untrusted, a proxy before a gateway neither.
func doubtful(f *http1.Field, untrusted bool) bool {
	switch f.ID {
	case http1.EnvoyRateLimited, http1.EnvoyOverloaded, http1.EnvoyExpectedTimeout, http1.EnvoyUpstreamTimeout, http1.IsthmusUnsent:
		return true
	case http1.XForwardedHost:
		return untrusted
	case http1.Unknown:
		return reserved(f.Name) || untrusted && forwarding(f.Name)
	}
	return false
}

// appendList puts two values of a list together.
func appendList(a, b []byte) []byte {
	if a == nil {
		return b
	}
	return bytes.Join([][]byte{a, b}, []byte(","))
}

// reserved reports whether a field from outside the mesh speaks a language
// that only proxies may speak among themselves.
func reserved(name []byte) bool {
	return len(name) > 8 && name[1] == '-' && name[0]|0x20 == 'x' &&
		(equalFold(name[:8], "x-envoy-") || len(name) > 10 && equalFold(name[:10], "x-isthmus-"))
}

// ownWord reports whether a field is one that Isthmus's proxies say to each
// other alone.
func ownWord(name []byte) bool { return len(name) > 10 && equalFold(name[:10], "x-isthmus-") }

// forwarding reports whether a field claims where a request came from or went
// to, or what certificate its client has shown (RFC 9440), which only proxies
// before a gateway that it trusts may say.
func forwarding(name []byte) bool {
	switch len(name) {
	case 9:
		return equalFold(name, "forwarded") || equalFold(name, "x-real-ip")
	case 11:
		return equalFold(name, "client-cert")
	case 17:
		return equalFold(name, "client-cert-chain") || equalFold(name[:12], "x-forwarded-")
	}
	return len(name) > 12 && equalFold(name[:12], "x-forwarded-")
}

// uuidLength is that of a UUID's text.
const uuidLength = 36

// requestID returns the id of a request that has brought none: the same for
// every try, and for copies.
func (x *exchange) requestID() []byte {
	if !x.hasID {
		appendUUID(x.id[:0])
		x.hasID = true
	}
	return x.id[:]
}

// appendUUID writes a random UUID (RFC 9562, version 4).
func appendUUID(dst []byte) []byte {
	var u [16]byte
	for i := 0; i < 16; i += 8 {
		n := rand.Uint64()
		for j := range 8 {
			u[i+j] = byte(n >> (8 * j))
		}
	}
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	for i, part := range [...][2]int{{0, 4}, {4, 6}, {6, 8}, {8, 10}, {10, 16}} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, u[part[0]:part[1]])
	}
	return dst
}
