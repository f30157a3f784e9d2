package proxy

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"

	"isthmus/http1"
	"isthmus/mesh"
)

// Browsers cannot speak gRPC: they get to see no trailers. gRPC-Web is what they
// speak instead, over any version of HTTP: the messages are the same, the trailers
// are one more of them at the end of the body, and in -text all of it is base64.
// A gateway translates for upstreams that speak HTTP/2, and a sidecar where the port is
// one for both; others get it as it is. (gRPC: PROTOCOL-WEB.md.)

// bridges reports whether a request over an upstream connection is translated.
func (x *exchange) bridges(c *upstreamConn) bool {
	return x.dialect > plainGRPC && c.h2 != nil &&
		(x.conn.kind == gateway || c.member.host.Endpoint().Port.Protocol == mesh.ProtocolGRPCWeb)
}

var (
	suffixWeb  = []byte("-web")
	suffixText = []byte("-text")
)

// appendPlainType writes the content-type of gRPC that is meant by one of
// gRPC-Web.
func appendPlainType(dst, web []byte) []byte {
	rest := bytes.TrimPrefix(web[len(typeGRPC):], suffixWeb)
	return append(append(dst, typeGRPC...), bytes.TrimPrefix(rest, suffixText)...)
}

// appendWebType does the reverse, in the dialect that the request has used.
func (x *exchange) appendWebType(dst, plain []byte) []byte {
	dst = append(append(dst, typeGRPC...), suffixWeb...)
	if x.dialect == grpcWebText {
		dst = append(dst, suffixText...)
	}
	return append(dst, plain[len(typeGRPC):]...)
}

// bridgeReply makes a reply whose head has come the beginning of one of gRPC-Web.
// One that is not of gRPC goes on as it is.
func (x *exchange) bridgeReply() {
	if v, _ := x.res.Get(http1.ContentType); dialectOf(v) != plainGRPC {
		x.webReply = false
		return
	}
	if x.res.Framing == http1.Length {
		x.res.Framing, x.res.ContentLength = http1.UntilClose, -1 // there will be more of it
	}
}

// trailerFrame is the flag of a frame that holds trailers.
const trailerFrame = 0x80

// appendTrailerFrame writes trailers as the last frame of a body: the flag, a
// length, and fields as HTTP/1.1 has them, in lower case.
func appendTrailerFrame(dst []byte, trailers []http1.Field) []byte {
	start := len(dst)
	dst = append(dst, trailerFrame, 0, 0, 0, 0)
	for i := range trailers {
		dst = http1.AppendField(dst, trailers[i].Name, trailers[i].Value)
	}
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-5))
	return dst
}

// appendText writes a part of a reply's body as text. Each part is padded by
// itself, so that nothing of a message waits for the next one; clients have to
// take that.
func appendText(dst, p []byte) []byte { return base64.StdEncoding.AppendEncode(dst, p) }

// textReader decodes a body that comes as text, padded or not wherever its sender
// has flushed.
type textReader struct {
	quad [4]byte // that has not come whole
	held int     // how much of it
	out  []byte
}

var errText = errors.New("body is not base64")

// next decodes what has come; last says that nothing follows. What it returns
// holds until the next call.
func (r *textReader) next(p []byte, last bool) ([]byte, error) {
	r.out = r.out[:0]
	var err error
	for len(p) > 0 && err == nil {
		if r.held > 0 || len(p) < len(r.quad) {
			n := copy(r.quad[r.held:], p)
			p = p[n:]
			if r.held += n; r.held == len(r.quad) {
				r.held = 0
				r.out, err = base64.StdEncoding.AppendDecode(r.out, r.quad[:])
			}
			continue
		}
		n := len(p) / 4 * 4
		if i := bytes.IndexByte(p[:n], '='); i >= 0 {
			n = i/4*4 + 4
		}
		r.out, err = base64.StdEncoding.AppendDecode(r.out, p[:n])
		p = p[n:]
	}
	if err != nil || last && r.held > 0 {
		return nil, errText
	}
	return r.out, nil
}

// writeUp sends a part of a request's body to the upstream, decoded if need be. It is for the
// goroutine that sends it.
func (x *exchange) writeUp(c *upstreamConn, p []byte, last bool) Kind {
	if x.bridged && x.dialect == grpcWebText {
		var err error
		if p, err = x.text.next(p, last); err != nil {
			x.pumping.cause = err
			return BadRequest
		}
	}
	if c.writeBody(p, last, now()) != nil {
		return Terminated
	}
	return NoError
}
