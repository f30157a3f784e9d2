// Package http1 reads and writes HTTP/1.1 (RFC 9112) and holds the one message
// model of the proxy: a [Request] and a [Response] are what routes, policies
// and header rules work on, whatever protocol brought them.
//
// It does no I/O and starts no goroutine. [Request.Parse] and [Response.Parse]
// are given the bytes that have come so far and say how many of them are the
// head; [ChunkReader] takes chunked bodies apart; the Append functions write.
// Parsed fields point into the buffer that was given, so they hold as long as
// its bytes do, and a message that is parsed into the same struct again
// allocates nothing.
//
// The parser is strict. Whatever two readers could understand in two ways is
// refused: an intermediary that lets it pass is how requests are smuggled. Each
// refusal is an [Error] with the status that the client gets.
package http1

// Framing says how the end of a body is found (RFC 9112 6.3).
type Framing uint8

// The framings.
const (
	NoBody     Framing = iota // the message ends with its head
	Length                    // ContentLength bytes follow
	Chunked                   // a ChunkReader finds the end
	UntilClose                // the end of the connection is that of the body (replies only), or the end of the HTTP/2 stream
)

// Limits bound a head. Zero fields stand for those of [DefaultLimits].
type Limits struct {
	HeadBytes   int // of the whole head, with its empty line
	Fields      int
	TargetBytes int
}

// DefaultLimits are Envoy's: 60 KiB of head, 100 fields. The target may take 8
// KiB of it, as in nginx; RFC 9112 3 asks for 8000 bytes at least.
var DefaultLimits = Limits{HeadBytes: 60 << 10, Fields: 100, TargetBytes: 8 << 10}

func (l Limits) orDefault() Limits {
	if l.HeadBytes == 0 {
		l.HeadBytes = DefaultLimits.HeadBytes
	}
	if l.Fields == 0 {
		l.Fields = DefaultLimits.Fields
	}
	if l.TargetBytes == 0 {
		l.TargetBytes = DefaultLimits.TargetBytes
	}
	return l
}

// Request is a request's head.
type Request struct {
	Method []byte
	Target []byte // as received; of HTTP/2's, :path, or :authority with CONNECT

	// Path and Query are those of the target. Query is without its "?", which
	// HasQuery reports; Path is "*" for OPTIONS of the whole server, and nil for
	// CONNECT.
	Path, Query []byte
	HasQuery    bool

	Scheme    []byte // of a target in absolute form or an HTTP/2 request, as received; else nil
	Authority []byte // of such a target or request, else Host, as received; nil in HTTP/1.0 without Host

	Header
	ContentLength int64 // of Framing Length, 0 included; else 0
	Expect100     bool  // the client waits for 100 (Continue) before it sends the body
	Trailers      bool  // "TE: trailers": the client reads the trailers of a reply
}

// Response is a reply's head.
type Response struct {
	Status int
	Reason []byte

	Header
	ContentLength int64 // -1 where the head gives none; HEAD and 304 may give one without a body
}

// Header is what requests and replies have in common.
type Header struct {
	Fields  []Field // in the order received
	Minor   int     // of the version: HTTP/1.Minor; HTTP/2 counts as HTTP/1.1
	Framing Framing
	Close   bool   // the connection ends with this message
	Hop     bool   // there is a Connection field, which may name others; see StripListed
	Upgrade []byte // the Upgrade field, if Connection lists it; :protocol of HTTP/2's extended CONNECT
	HeadLen int    // bytes of the head, with its empty line

	// Underscore reports that a field's name has an underscore in it. Servers
	// that turn names into variables (CGI, WSGI) take x_forwarded_for for
	// x-forwarded-for, so an edge refuses such requests; inside the mesh, where
	// applications may use such names, they pass.
	Underscore bool

	scan int  // how far the end of the head has been looked for; 0: not at all
	line bool // the first line is whole, as far as that look went
	facts
}

// facts is what a head's fields say about framing and the connection, taken
// down as they are read. The zero value is a head without any.
type facts struct {
	host          []byte
	upgrade       []byte
	length        int64
	hosts         uint8 // 0, 1, or 2 for more
	options       uint8 // how many Connection names
	hasLength     bool
	coded         bool // there is a Transfer-Encoding
	chunked       bool // and it is chunked; else one that nobody here knows
	closes        bool // Connection: close
	keepAlive     bool // Connection: keep-alive
	upgradeListed bool // Connection: upgrade
	trailers      bool // TE: trailers
	expects100    bool
}

// Reset makes the request ready for another message.
func (r *Request) Reset() {
	fields := r.Fields
	clear(fields)
	*r = Request{Header: Header{Fields: fields[:0]}}
}

// Reset makes the reply ready for another message.
func (r *Response) Reset() {
	fields := r.Fields
	clear(fields)
	*r = Response{Header: Header{Fields: fields[:0]}}
}
