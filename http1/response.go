package http1

// Parse reads the head of a reply to a request of the given method; see
// [Request.Parse]. Interim replies (1xx) are parsed like any other; the caller
// resets and goes on.
func (r *Response) Parse(buf []byte, lim Limits, requestMethod []byte) (n int, err error) {
	lim = lim.orDefault()
	head := buf[:min(len(buf), lim.HeadBytes)]
	if r.scan > 0 {
		again, e := r.arrived(head, lim.HeadBytes)
		if e != nil || !again {
			return 0, lim.wait(buf, e).inReply().orNil()
		}
	}
	n, e := r.parse(head, lim)
	if e == nil && n == 0 {
		r.Reset() // nothing shall point into buf while it may move
		_, e = r.findEnd(head)
		e = lim.wait(buf, e)
	}
	if e != nil || n == 0 {
		return 0, e.inReply().orNil()
	}
	r.HeadLen = n
	r.frame(requestMethod)
	return n, nil
}

// parse reads a head from its first byte; n is 0 if it is not whole.
func (r *Response) parse(b []byte, lim Limits) (n int, err *Error) {
	n, err = r.parseLine(b)
	if err != nil || n == 0 {
		return 0, err
	}
	size, err := r.parseFields(b[n:], lim)
	if err != nil || size == 0 {
		return 0, err
	}
	r.conclude()
	return n + size, nil
}

// parseLine reads status-line = HTTP-version SP status-code SP [reason-phrase]
// (RFC 9112 4). The space before an empty reason may be missing, as many
// servers leave it out. n is 0 if the line is not whole.
func (r *Response) parseLine(b []byte) (n int, err *Error) {
	const http11 = "HTTP/1.1 200"
	if len(b) < len(http11) {
		if len(b) > 0 && (b[0] != 'H' || indexControl(b) >= 0) {
			return 0, errStatusLine // another protocol
		}
		return 0, nil
	}
	if string(b[:5]) != "HTTP/" {
		return 0, errStatusLine
	}
	if r.Minor, err = parseVersion(b[:8]); err != nil {
		return 0, err
	}
	code := b[9:12]
	for _, c := range code {
		if c < '0' || c > '9' {
			return 0, errStatusLine
		}
	}
	r.Status = int(code[0]-'0')*100 + int(code[1]-'0')*10 + int(code[2]-'0')
	if b[8] != ' ' || r.Status < 100 || r.Status > 599 {
		return 0, errStatusLine
	}
	reason := b[12:]
	end := indexControl(reason)
	switch {
	case len(reason) > 0 && reason[0] != ' ' && reason[0] != '\r' && reason[0] != '\n':
		return 0, errStatusLine
	case end < 0 || end+1 == len(reason) && reason[end] == '\r':
		return 0, nil
	case reason[end] == '\n':
		return 0, errLineEnd
	case reason[end] != '\r':
		return 0, errStatusLine
	case reason[end+1] != '\n':
		return 0, errLineEnd
	}
	if end > 0 {
		r.Reason = reason[1:end:end]
	}
	return 12 + end + 2, nil
}

// frame settles how the body ends (RFC 9112 6.3).
//
// 1xx, 204, 304, replies to HEAD and 2xx to CONNECT have no body, whatever
// their fields say. In 1xx and 204, and 2xx to CONNECT, such fields must not be
// (RFC 9110 8.6, RFC 9112 6.1): they are ignored, but the sender may well put a
// body where we see none, so the connection ends. To HEAD and in 304 they
// announce the body of another reply.
func (r *Response) frame(method []byte) {
	r.ContentLength = -1
	if r.hasLength {
		r.ContentLength = r.length
	}
	switch {
	case r.Status < 200 || r.Status == 204 || r.Status < 300 && string(method) == "CONNECT":
		r.Framing = NoBody
		if r.length > 0 || r.chunked {
			r.Close = true
		}
	case r.Status == 304 || string(method) == "HEAD":
		r.Framing = NoBody
	case r.chunked:
		r.Framing = Chunked
	case !r.hasLength:
		r.Framing = UntilClose
		r.Close = true
	case r.length == 0:
		r.Framing = NoBody
	default:
		r.Framing = Length
	}
}
