package http1

import "bytes"

// maxMethod bounds a method; the longest registered one has 17 bytes.
const maxMethod = 32

// ValidMethod reports whether a text may be a request's method (RFC 9110 9.1).
func ValidMethod(method []byte) bool { return len(method) <= maxMethod && isToken(method) }

// Parse reads the head at the start of buf. n is its length; 0 without an
// error means that more bytes are wanted, and that the next call has to get the
// same bytes and more, wherever they lie by then. Any number of calls looks at
// each byte a few times at most. Between two messages Reset has to be called.
//
// An error is an *[Error]. The connection cannot be read any further.
func (r *Request) Parse(buf []byte, lim Limits) (n int, err error) {
	lim = lim.orDefault()
	head := buf[:min(len(buf), lim.HeadBytes)]
	if r.scan > 0 {
		const rest = len("\r\n" + "  HTTP/1.1\r\n")
		again, e := r.arrived(head, maxMethod+lim.TargetBytes+rest)
		if e != nil || !again {
			return 0, lim.wait(buf, e).orNil()
		}
	}
	n, e := r.parse(head, lim)
	if e == nil && n == 0 {
		r.Reset() // nothing shall point into buf while it may move
		_, e = r.findEnd(head)
		e = lim.wait(buf, e)
	}
	if e != nil || n == 0 {
		return 0, e.orNil()
	}
	r.HeadLen = n
	return n, nil
}

// parse reads a head from its first byte; n is 0 if it is not whole.
func (r *Request) parse(b []byte, lim Limits) (n int, err *Error) {
	// An empty line before the request line is forgiven, once (RFC 9112 2.2).
	if len(b) > 0 && b[0] == '\r' {
		if len(b) == 1 {
			return 0, nil
		}
		if b[1] != '\n' {
			return 0, errLineEnd
		}
		n = 2
	}
	size, err := r.parseLine(b[n:], lim)
	if err != nil || size == 0 {
		return 0, err
	}
	n += size
	size, err = r.parseFields(b[n:], lim)
	if err != nil || size == 0 {
		return 0, err
	}
	r.conclude()
	return n + size, r.settle()
}

// parseLine reads request-line = method SP request-target SP HTTP-version,
// with single spaces alone (RFC 9112 3). n is 0 if the line is not whole. The
// simple request of HTTP/0.9, a target without a version, is refused.
func (r *Request) parseLine(b []byte, lim Limits) (n int, err *Error) {
	n = span(b[:min(len(b), maxMethod+1)], tokenChar)
	switch {
	case n > maxMethod:
		return 0, errMethod
	case n == len(b):
		return 0, nil
	case n == 0 || b[n] != ' ':
		return 0, lineError(b[n], errMethod)
	}
	r.Method = b[:n:n]
	n++

	t := b[n:]
	size := spanTarget(t[:min(len(t), lim.TargetBytes+1)])
	switch {
	case size > lim.TargetBytes:
		return 0, errTargetLong
	case size == len(t):
		return 0, nil
	case size == 0 || t[size] != ' ':
		return 0, lineError(t[size], errTarget)
	}
	r.Target = t[:size:size]
	n += size + 1

	const http11 = "HTTP/1.1\r\n"
	v := b[n:]
	if len(v) >= len(http11) && string(v[:len(http11)]) == http11 {
		r.Minor = 1
		return n + len(http11), r.parseTarget()
	}
	size = span(v[:min(len(v), len(http11))], targetChar)
	switch {
	case size == len(http11):
		return 0, errVersion
	case size == len(v):
		return 0, nil
	case v[size] != '\r':
		return 0, lineError(v[size], errVersion)
	}
	if r.Minor, err = parseVersion(v[:size]); err != nil {
		return 0, err
	}
	v = v[size+1:]
	if len(v) == 0 {
		return 0, nil
	}
	if v[0] != '\n' {
		return 0, errLineEnd
	}
	return n + size + 2, r.parseTarget()
}

// lineError is the fault of a request line in which c stands at a wrong place.
func lineError(c byte, otherwise *Error) *Error {
	switch c {
	case ' ', '\t', '\r', '\n':
		return errRequestLine
	}
	return otherwise
}

// settle checks Host against the target and settles the framing.
func (r *Request) settle() *Error {
	if err := r.checkHost(); err != nil {
		return err
	}
	switch {
	case r.chunked:
		r.Framing = Chunked
	case r.hasLength:
		r.Framing, r.ContentLength = Length, r.length
	}
	// Without a body nobody waits for 100, and HTTP/1.0 does not know it (RFC
	// 9110 10.1.1).
	r.Expect100 = r.expects100 && r.Minor == 1 && (r.chunked || r.length > 0)
	r.Trailers = r.trailers
	return nil
}

// checkHost applies RFC 9112 3.2: an HTTP/1.1 request has exactly one Host, and
// it is valid. A target in absolute form has the last word on the host (3.2.2);
// where Host says otherwise, somebody before or behind us may go by it, so the
// two have to be equal.
func (r *Request) checkHost() *Error {
	if r.hosts == 0 {
		if r.Minor == 1 {
			return errHostMissing
		}
		return nil
	}
	if r.hosts > 1 {
		return errHostCount
	}
	_, _, ok := SplitHost(r.host)
	switch {
	case !ok:
		return errHost
	case r.Authority == nil:
		r.Authority = r.host
	case bytes.EqualFold(r.host, r.Authority):
	case r.Path == nil && bytes.EqualFold(r.host, hostOf(r.Authority)):
		// CONNECT always names a port, and some clients give Host without it.
	default:
		return errHostMismatch
	}
	return nil
}

// hostOf returns the host of a valid authority.
func hostOf(authority []byte) []byte {
	host, _, _ := SplitHost(authority)
	return host
}
