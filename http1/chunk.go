package http1

import "bytes"

// ChunkReader takes a chunked body apart (RFC 9112 7.1). It is given the bytes
// as they come, in pieces of any size; the pieces make no difference to what it
// reads. The zero value is ready for a body.
type ChunkReader struct {
	state      chunkState
	left       uint64 // of the chunk's data
	digits     int    // of the size read so far
	line       int    // bytes of this line's extensions
	extensions int    // bytes of extensions in the whole body, less what data has paid for
	err        *Error // in chunkBroken

	section  []byte  // the trailer section so far
	trailers []Field // of it, with names and values in section

	listed       []byte // names that are left out of it, as in Connection
	noUnderscore bool   // and any with "_"
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkExtension
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailer
	chunkDone
	chunkBroken
)

// Bounds on what a sender may put between the data.
const (
	// maxChunkDigits allows 2^60-1 bytes in a chunk, leading zeros counted.
	maxChunkDigits = 15

	// maxChunkExtension is for the extensions of one chunk. Few senders have
	// any; the longest known are signatures of some 90 bytes.
	maxChunkExtension = 256

	// maxChunkExtensions is for those of a body beyond one byte for each of
	// data, so that extensions cannot make a long body of a short one (CVE-2023-39326).
	maxChunkExtensions = 4 << 10

	// maxTrailerBytes is what servers commonly allow one header line.
	maxTrailerBytes = 8 << 10
)

// Reset makes the reader ready for another body.
func (c *ChunkReader) Reset() {
	clear(c.trailers)
	*c = ChunkReader{section: c.section[:0], trailers: c.trailers[:0], listed: c.listed[:0]}
}

// Drop has trailers left out, until Reset, that would not come through in the
// header h of their message: those that its Connection fields name (RFC 9110
// 7.6.1), and if underscores says so, those with a "_" in the name.
func (c *ChunkReader) Drop(h *Header, underscores bool) {
	c.noUnderscore = underscores
	for i := range h.Fields {
		if h.Fields[i].ID == Connection {
			c.listed = append(append(c.listed, h.Fields[i].Value...), ',')
		}
	}
}

// Trailers returns the fields of the trailer section, once the body is done,
// without those that are for a header section alone (see HeaderOnly). They
// hold until Reset.
func (c *ChunkReader) Trailers() []Field { return c.trailers }

// Next takes bytes from in. data is a part of in that belongs to the body,
// perhaps none; consumed says how many bytes of in are done with; done, that
// the body and its trailers are complete. Unless done, it is called again with
// the rest of in, and when that is empty with what comes after it.
//
// An error is an *[Error] and stays: the end of the body cannot be found any
// more. Its status is for requests. In a reply's body there is nobody left to
// tell it to, since its head has been sent on.
func (c *ChunkReader) Next(in []byte) (data []byte, consumed int, done bool, err error) {
	i := 0
	for i < len(in) {
		b := in[i]
		switch c.state {
		case chunkSize:
			// chunk-size = 1*HEXDIG, and nothing around it: no sign, no 0x, no
			// white space (RFC 9112 7.1).
			switch d := HexDigit(b); {
			case d >= 0:
				if c.digits++; c.digits > maxChunkDigits {
					return c.fail(i, errChunkSize)
				}
				c.left = c.left<<4 | uint64(d)
			case c.digits == 0:
				return c.fail(i, errChunkSize)
			case b == '\r':
				c.state = chunkSizeLF
			case b == ';':
				c.state = chunkExtension
			default:
				return c.fail(i, errChunkSize)
			}

		case chunkExtension:
			// Extensions are ignored (7.1.1); their grammar is not looked at, but
			// a control character may be a line's end to the next reader.
			switch {
			case b == '\r':
				c.state = chunkSizeLF
			case classes[b]&valueChar == 0:
				return c.fail(i, errChunkSize)
			default:
				c.line++
				c.extensions++
				if c.line > maxChunkExtension || c.extensions > maxChunkExtensions {
					return c.fail(i, errChunkExtension)
				}
			}

		case chunkSizeLF:
			if b != '\n' {
				return c.fail(i, errChunkSize)
			}
			c.extensions -= int(min(uint64(c.extensions), c.left))
			c.digits, c.line = 0, 0
			c.state = chunkData
			if c.left == 0 {
				c.state = chunkTrailer
			}

		case chunkData:
			n := int(min(uint64(len(in)-i), c.left))
			if c.left -= uint64(n); c.left == 0 {
				c.state = chunkDataCR
			}
			return in[i : i+n], i + n, false, nil

		case chunkDataCR:
			if b != '\r' {
				return c.fail(i, errChunkEnd)
			}
			c.state = chunkDataLF

		case chunkDataLF:
			if b != '\n' {
				return c.fail(i, errChunkEnd)
			}
			c.state = chunkSize

		case chunkTrailer:
			n, e := c.takeTrailer(in[i:])
			if e != nil {
				return c.fail(i, e)
			}
			i += n
			if c.state == chunkDone {
				return nil, i, true, nil
			}
			continue

		case chunkDone:
			return nil, i, true, nil

		case chunkBroken:
			return nil, i, false, c.err
		}
		i++
	}
	return nil, i, c.state == chunkDone, nil
}

func (c *ChunkReader) fail(i int, e *Error) ([]byte, int, bool, error) {
	c.state, c.err = chunkBroken, e
	return nil, i, false, e
}

// takeTrailer takes one line of the trailer section, as much of it as there
// is. The empty line is the end of the body.
func (c *ChunkReader) takeTrailer(in []byte) (n int, err *Error) {
	n = bytes.IndexByte(in, '\n') + 1
	whole := n > 0
	if !whole {
		n = len(in)
	}
	if len(c.section)+n > maxTrailerBytes {
		return 0, errTrailerLarge
	}
	c.section = append(c.section, in[:n]...)
	switch s := c.section; {
	case !whole:
	case len(s) < 2 || s[len(s)-2] != '\r':
		return 0, errTrailer
	case len(s) == 2 || s[len(s)-3] == '\n':
		c.state = chunkDone
		return n, c.parseTrailers()
	}
	return n, nil
}

// parseTrailers reads the section, by the rules of header fields.
func (c *ChunkReader) parseTrailers() *Error {
	lines := 0
	for b := c.section; ; lines++ {
		f, n, err := parseField(b)
		switch {
		case err != nil || n == 0:
			return errTrailer
		case f.Name == nil:
			return nil
		case lines == DefaultLimits.Fields:
			return errTrailerLarge
		case c.noUnderscore && bytes.IndexByte(f.Name, '_') >= 0:
		case !HeaderOnly(f) && !listed(c.listed, f.Name):
			c.trailers = append(c.trailers, f)
		}
		b = b[n:]
	}
}

// HeaderOnly reports whether a field must not come after the body: framing,
// routing, authentication, request modifiers, response controls, and how to
// read the content (RFC 9110 6.5.1), and everything about who the client is or
// what proxies tell each other. A next reader that merges trailers into the
// header would believe it. Merging is why names are compared with "_" for "-"
// too.
func HeaderOnly(f Field) bool {
	if f.ID != Unknown {
		return f.ID != GRPCStatus // every other one of them is such a field
	}
	var room [maxHeaderOnly]byte
	name := room[:copy(room[:], f.Name)]
	for i, b := range name {
		if b == '_' {
			b = '-'
		}
		name[i] = toLower(b)
	}
	if hasReservedPrefix(name) {
		return true
	}
	if len(name) != len(f.Name) {
		return false
	}
	id := LookupField(name)
	return id != Unknown && id != GRPCStatus || headerOnly[string(name)]
}

// reservedPrefixes are of names that proxies alone set, or that a server
// decides by.
var reservedPrefixes = []string{"x-forwarded-", "x-isthmus-", "x-envoy-", "proxy-", "sec-", "if-", "access-control-"}

func hasReservedPrefix(name []byte) bool {
	for _, p := range reservedPrefixes {
		if len(name) >= len(p) && string(name[:len(p)]) == p {
			return true
		}
	}
	return false
}

// maxHeaderOnly is the length of the longest name that is looked up; a longer
// one can only have a reserved prefix.
const maxHeaderOnly = 32

// headerOnly is what HeaderOnly drops beyond the well-known fields and the
// reserved prefixes.
var headerOnly = map[string]bool{
	"accept-encoding": true, "age": true, "cache-control": true, "client-cert": true, "client-cert-chain": true, "content-disposition": true, "content-encoding": true,
	"content-language": true, "content-location": true, "content-range": true, "expires": true, "forwarded": true,
	"http2-settings": true, "location": true, "max-forwards": true, "origin": true, "pragma": true, "range": true, "referer": true,
	"retry-after": true, "set-cookie2": true, "strict-transport-security": true, "vary": true, "warning": true,
	"www-authenticate": true, "x-client-ip": true, "x-http-method": true, "x-http-method-override": true, "x-method-override": true,
	"x-original-url": true, "x-real-ip": true, "x-rewrite-url": true, "true-client-ip": true,
}
