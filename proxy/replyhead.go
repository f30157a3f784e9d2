package proxy

import (
	"slices"

	"isthmus/http1"
)

// buildReply writes the head that goes to the client into x.out.
func (x *exchange) buildReply(d *destination, chunked bool) {
	if x.body.awaited && !x.pumping.begun.Load() {
		x.keep = false // nobody knows whether the client still sends its body
	}
	fields := x.res.Fields
	if h, dh := x.route.headers, d.headers; h != nil || dh != nil {
		fields = x.changeReply(h, dh)
	}
	if p := x.route.cors; p != nil {
		fields = x.crossOrigin(p, fields)
	}
	if x.added.Set != nil || x.added.Add != nil {
		fields = change(slices.Clone(fields), &x.added)
	}
	to := x.conn.format()
	out := to.status(x.out[:0], x.res.Status, x.res.Reason)
	dated := false
	for i := range fields {
		f := &fields[i]
		dated = dated || f.ID == http1.Date
		if x.withheld(f) || f.ID == http1.WebSocketAccept && x.upgrade.websocket || x.webReply && f.ID == http1.Trailer {
			continue
		}
		value := f.Value
		if x.webReply && f.ID == http1.ContentType {
			x.value = x.appendWebType(x.value[:0], value)
			value = x.value
		}
		out = to.field(out, f.Name, value)
	}
	switch {
	case chunked:
		out = to.field(out, nameTransfer, valueChunked)
	case x.res.ContentLength >= 0 && x.res.Status >= 200 && x.res.Status != 204:
		// With a body, or in the place of one for HEAD and 304.
		out = to.number(out, nameContentLength, x.res.ContentLength)
	}
	if x.cookie != nil {
		out = to.field(out, nameSetCookie, x.cookie)
	}
	if !dated {
		out = to.field(out, nameDate, dateOf(x.clock))
	}
	x.endHead(out, to)
	x.keepReply(fields)
}

// endHead ends the head of a reply. HTTP/1.1 tells the client whether the
// connection is kept, where the version does not say it already.
func (x *exchange) endHead(out []byte, to headFormat) {
	if to == asHTTP1 {
		if x.conn.leaves() || x.upgrade.protocol != nil && x.overtaken() {
			x.keep = false
		}
		switch {
		case x.upgrade.agreed:
			out = x.appendSwitch(out)
		case !x.keep:
			out = to.field(out, nameConnection, valueClose)
		case x.req.Minor == 0:
			out = to.field(out, nameConnection, valueKeepAlive)
		}
	}
	x.out = to.end(out)
	x.headLen = len(x.out)
	x.tally.replyHead = x.headLen
}

// withheld reports whether a field of the reply, or of an interim one, is not for the client:
// about the upstream's connection only, or a word among proxies.
func (x *exchange) withheld(f *http1.Field) bool {
	return hopByHop(f.ID) || f.ID == http1.IsthmusUnsent || x.res.Hop && x.res.Listed(f.Name) ||
		x.conn.kind == gateway && f.ID == http1.Unknown && ownWord(f.Name)
}

// hopByHop reports whether a field is about one connection only, or about the
// framing, which is ours to write.
func hopByHop(id http1.FieldID) bool {
	switch id {
	case http1.Connection, http1.KeepAlive, http1.ProxyConnection, http1.TransferEncoding, http1.ContentLength, http1.Upgrade, http1.TE:
		return true
	}
	return false
}
