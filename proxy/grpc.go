package proxy

import (
	"bytes"
	"strconv"
	"time"

	"isthmus/accesslog"
	"isthmus/http1"
	"isthmus/mesh"
)

// dialect is which kind of gRPC a request speaks.
type dialect uint8

const (
	notGRPC     dialect = iota
	plainGRPC           // gRPC over HTTP/2
	grpcWeb             // whose trailers are the end of the body
	grpcWebText         // the same in base64
)

var typeGRPC = []byte("application/grpc")

// dialectOf finds it by the content-type: application/grpc, -web or -web-text
// behind that, and then nothing, or "+" or ";" and more (gRPC over HTTP/2,
// Requests; gRPC-Web, Protocol differences).
func dialectOf(contentType []byte) dialect {
	rest, ok := bytes.CutPrefix(contentType, typeGRPC)
	if !ok {
		return notGRPC
	}
	d := plainGRPC
	if rest, ok = bytes.CutPrefix(rest, []byte("-web")); ok {
		d = grpcWeb
		if rest, ok = bytes.CutPrefix(rest, []byte("-text")); ok {
			d = grpcWebText
		}
	}
	if len(rest) > 0 && rest[0] != '+' && rest[0] != ';' {
		return notGRPC
	}
	return d
}

// grpcCode is a status of gRPC, noted of an exchange.
type grpcCode uint8

const (
	noGRPC grpcCode = iota // the exchange is none of gRPC
	untold                 // its reply has told no status
	told                   // this and more: a status, and told
)

// value is the status, accesslog.Unknown where there is none.
func (c grpcCode) value() int {
	if c < told {
		return accesslog.Unknown
	}
	return int(c - told)
}

// meant is the status of the reply to the client as HTTP has it.
func (x *exchange) meant() int {
	if c := x.tally.grpc; c >= told {
		return mesh.GRPCCode(c - told).HTTPStatus()
	}
	return x.status
}

// readDialect notes in which dialect of gRPC a request speaks.
func (x *exchange) readDialect() {
	x.dialect, x.tally.grpc = notGRPC, noGRPC
	if v, ok := x.req.Get(http1.ContentType); ok {
		if x.dialect = dialectOf(v); x.dialect != notGRPC {
			x.tally.grpc = untold
		}
	}
}

// noteGRPC notes the status that is among the fields of a reply's head, or its
// trailers.
func (x *exchange) noteGRPC(fields []http1.Field) {
	if code, ok := grpcStatusOf(fields); ok {
		x.tally.grpc = told + grpcCode(code)
	}
}

// grpcCodeOf reads a status. Numbers that gRPC gives no meaning to are UNKNOWN (gRPC:
// Status codes).
func grpcCodeOf[T string | []byte](text T) mesh.GRPCCode {
	n, err := strconv.ParseUint(string(text), 10, 8)
	if err != nil || mesh.GRPCCode(n) > mesh.GRPCUnauthenticated {
		return mesh.GRPCUnknown
	}
	return mesh.GRPCCode(n)
}

// grpcStatusOf finds grpc-status among fields.
func grpcStatusOf(fields []http1.Field) (mesh.GRPCCode, bool) {
	for i := range fields {
		if fields[i].ID == http1.GRPCStatus {
			return grpcCodeOf(fields[i].Value), true
		}
	}
	return 0, false
}

// meaning is the status by which a reply is judged: that of HTTP, or what means
// the same as the status that gRPC has told before any message (Envoy does so as
// well).
func (x *exchange) meaning() int {
	if x.dialect != notGRPC {
		if code, ok := grpcStatusOf(x.res.Fields); ok {
			return code.HTTPStatus()
		}
	}
	return x.res.Status
}

// grpcGrace is how long, once messages have begun to come, both ends may take to
// end a call by themselves whose deadline has passed: they know of it, too, and
// say so in their own words.
const grpcGrace = instant(200 * time.Millisecond)

// replyDeadline is when a reply whose head has come has to be over.
func (x *exchange) replyDeadline() instant {
	return x.graceful(x.deadline)
}

// callDeadline is when a call of gRPC has to be over whose body is still coming.
func (x *exchange) callDeadline() instant { return x.graceful(x.ends) }

func (x *exchange) graceful(deadline instant) instant {
	if x.dialect != notGRPC && deadline != 0 {
		return deadline + grpcGrace
	}
	return deadline
}

// calleesLead is by how much a callee may be ahead of us with a deadline: it has
// been told whole milliseconds, and takes its own time.
const calleesLead = instant(5 * time.Millisecond)

// late reports whether a call of gRPC that the upstream has broken off is one
// whose deadline has passed: servers reset such streams.
func (x *exchange) late() bool {
	return x.dialect != notGRPC && x.deadline != 0 && x.clock >= x.deadline-calleesLead
}

// endGRPC ends a reply to a call of gRPC, whose deadline has passed, with the
// status that says so, where that can be done amid a message: gRPC-Web has it in
// the body, where it is understood only if there is nothing before it.
func (x *exchange) endGRPC() bool {
	plain := x.dialect == plainGRPC && x.conn.h2 != nil
	if !plain && !(x.webReply && x.tally.replyBody == 0) {
		return false
	}
	x.tally.grpc = told + grpcCode(mesh.GRPCDeadlineExceeded)
	x.out = x.out[:0]
	return x.finish(x.conn.h2 == nil && x.req.Minor > 0, []http1.Field{
		{Name: nameGRPCStatus, Value: strconv.AppendInt(nil, int64(mesh.GRPCDeadlineExceeded), 10)},
		{Name: nameGRPCMessage, Value: appendGRPCMessage(nil, answers[Timeout].body)},
	}) == NoError
}

// grpcStatus is the status for a failure that the proxy answers itself: our
// time-outs are the deadline, and the rest goes by the status of HTTP (Envoy:
// Grpc::Utility::httpToGrpcStatus).
func grpcStatus(k Kind, status int) mesh.GRPCCode {
	switch k {
	case Timeout, TryTimeout, RequestTimeout:
		return mesh.GRPCDeadlineExceeded
	}
	switch status {
	case 400:
		return mesh.GRPCInternal
	case 401:
		return mesh.GRPCUnauthenticated
	case 403:
		return mesh.GRPCPermissionDenied
	case 404:
		return mesh.GRPCUnimplemented
	case 429, 502, 503, 504:
		return mesh.GRPCUnavailable
	}
	return mesh.GRPCUnknown
}

// replyType is the content-type of a reply of our own: the caller's, but for
// what it says of the message's encoding, which there is none of.
func (x *exchange) replyType() []byte {
	v, _ := x.req.Get(http1.ContentType)
	v, _, _ = bytes.Cut(v, []byte(";"))
	return bytes.TrimRight(v, " \t")
}

// appendGRPCMessage writes a text as grpc-message has it: percent-encoded, but
// for what ASCII can show (gRPC over HTTP/2, Responses).
func appendGRPCMessage[T string | []byte](dst []byte, text T) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '%' {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}
