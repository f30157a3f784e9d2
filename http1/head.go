package http1

import "bytes"

// arrived looks at the bytes of a head that have come since the last call. It
// reports whether parsing it again is worth while: when the head is whole, and
// once when its first line is, which may be all that a sender of something else
// ever sends. So a head that drips in costs no more than three looks at each
// byte. room is what a first line may take.
func (h *Header) arrived(head []byte, room int) (bool, *Error) {
	first := !h.line
	end, err := h.findEnd(head)
	return end > 0 || first && (h.line || len(head) > room), err
}

// findEnd looks for the end of a head, from where the last call stopped. It is
// 0 while there is none.
//
// A line that ends with LF alone is refused at once (RFC 9112 2.2 lets a reader
// take it for a line's end, so two readers may differ): whoever ends lines like
// that never sends the end that we wait for.
func (h *Header) findEnd(head []byte) (end int, err *Error) {
	for {
		i := bytes.IndexByte(head[h.scan:], '\n')
		if i < 0 {
			h.scan = len(head)
			return 0, nil
		}
		i += h.scan
		h.scan = i + 1
		if i == 0 || head[i-1] != '\r' {
			return 0, errLineEnd
		}
		if i >= 3 && head[i-2] == '\n' {
			return i + 1, nil
		}
		h.line = i > 1 // not the empty line before a request
	}
}

// wait is for a head that is not whole: whether more bytes may make it so. err
// is what has been found already.
func (l Limits) wait(buf []byte, err *Error) *Error {
	if err == nil && len(buf) >= l.HeadBytes {
		return errHeadLarge
	}
	return err
}

// parseFields reads field lines up to the empty line that ends them. n is 0 if
// that has not come yet.
func (h *Header) parseFields(b []byte, lim Limits) (n int, err *Error) {
	for {
		f, size, err := parseField(b[n:])
		if err != nil || size == 0 {
			return 0, err
		}
		n += size
		if f.Name == nil {
			if h.coded && !h.chunked {
				return 0, errTEUnknown
			}
			return n, nil
		}
		if len(h.Fields) >= lim.Fields {
			return 0, errFieldCount
		}
		h.Fields = append(h.Fields, f)
		switch {
		case f.ID == Unknown:
			if bytes.IndexByte(f.Name, '_') >= 0 {
				h.Underscore = true
			}
		case f.ID <= Expect:
			if err := h.note(f.ID, f.Value); err != nil {
				return 0, err
			}
		}
	}
}

// parseField reads one field line, or the empty line after the last one, for
// which the name is nil. n is 0 if the line is not whole.
//
// field-line = field-name ":" OWS field-value OWS, ended by CRLF alone (RFC
// 9112 5, 2.2). There is no white space before the colon (5.1) and none at the
// start of the line, which would fold it to the one before (5.2). NUL, CR, LF
// and other controls are in no value (RFC 9110 5.5).
func parseField(b []byte) (f Field, n int, err *Error) {
	i := 0
	for i < len(b) && classes[b[i]]&tokenChar != 0 {
		i++
	}
	switch {
	case i == len(b):
		return f, 0, nil
	case i == 0 || b[i] != ':':
		return parseOddLine(b, i)
	}
	value := b[i+1:]
	end := indexControl(value)
	switch {
	case end < 0:
		return f, 0, nil
	case value[end] == '\n':
		return f, 0, errLineEnd
	case value[end] != '\r':
		return f, 0, errFieldValue
	case end+1 == len(value):
		return f, 0, nil
	case value[end+1] != '\n':
		return f, 0, errLineEnd
	}
	f.Name = b[:i:i]
	f.ID = LookupField(f.Name)
	f.Value = trimOWS(value[:end:end])
	return f, i + 1 + end + 2, nil
}

// parseOddLine looks at a line that does not begin with i > 0 token characters
// and a colon: the empty line, or one that is refused.
func parseOddLine(b []byte, i int) (f Field, n int, err *Error) {
	switch c := b[i]; {
	case c == '\n':
		return f, 0, errLineEnd
	case i == 0 && (c == ' ' || c == '\t'):
		return f, 0, errFold
	case i > 0 || c != '\r':
		return f, 0, errFieldName
	case len(b) == 1:
		return f, 0, nil
	case b[1] != '\n':
		return f, 0, errLineEnd
	}
	return f, 2, nil
}

// maxOptions bounds what Connection may name: every option is compared with
// every field, so a head full of them would cost seconds. Clients name up to
// three.
const maxOptions = 32

// note takes down what a field says about framing or the connection.
func (h *Header) note(id FieldID, value []byte) *Error {
	switch id {
	case Host:
		h.host = value
		h.hosts = min(h.hosts+1, 2)

	case ContentLength:
		// RFC 9112 6.3 lets a recipient take equal values for one; two readers
		// still may see the two, so we do not. A length beside a transfer coding
		// is refused in either order.
		switch {
		case h.coded:
			return errLengthAndTE
		case h.hasLength:
			return errLengthCount
		}
		n, ok := ParseLength(value)
		if !ok {
			return errLength
		}
		h.length, h.hasLength = n, true

	case TransferEncoding:
		switch {
		case h.coded:
			return errTECount
		case h.hasLength:
			return errLengthAndTE
		case h.Minor == 0:
			return errTEOld // RFC 9112 6.1: its framing is faulty
		}
		// A coding that is merely unknown is a fault only when no worse one follows.
		err := checkCoding(value)
		if err != nil && err != errTEUnknown {
			return err
		}
		h.coded, h.chunked = true, err == nil

	case Connection:
		h.Hop = true
		return h.noteOptions(value)

	case Upgrade:
		// A second line would continue the list; the first alone is offered on.
		if h.upgrade == nil {
			h.upgrade = value
		}

	case TE:
		for more := true; more; {
			var coding []byte
			coding, value, more = next(value)
			if equalFold(coding, "trailers") {
				h.trailers = true
			}
		}

	case Expect:
		if equalFold(value, "100-continue") {
			h.expects100 = true
		}
	}
	return nil
}

// noteOptions takes down the connection options that concern us.
func (h *Header) noteOptions(list []byte) *Error {
	for more := true; more; {
		var option []byte
		option, list, more = next(list)
		if h.options++; h.options > maxOptions {
			return errOptions
		}
		switch {
		case equalFold(option, "close"):
			h.closes = true
		case equalFold(option, "keep-alive"):
			h.keepAlive = true
		case equalFold(option, "upgrade"):
			h.upgradeListed = true
		}
	}
	return nil
}

// conclude draws the conclusions that are the same for both kinds of message.
// HTTP/1.1 connections stay unless one side says otherwise, HTTP/1.0 ones end
// (RFC 9112 9.3); Upgrade counts from HTTP/1.1 on, if Connection lists it (RFC
// 9110 7.8).
func (h *Header) conclude() {
	h.Close = h.closes || h.Minor == 0 && !h.keepAlive
	if h.upgradeListed && h.Minor == 1 {
		h.Upgrade = h.upgrade
	}
}

// ParseLength reads 1*DIGIT (RFC 9110 8.6): no sign, no prefix, no list,
// nothing beyond 2^63-1.
func ParseLength(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return int64(n), n < 1<<63
}

// checkCoding accepts "chunked" alone (RFC 9112 7.1). Other codings that are
// well formed are refused as unknown, with 501 (6.1); everything else, chunked
// twice and chunked with parameters included, as malformed.
func checkCoding(list []byte) *Error {
	if equalFold(list, "chunked") {
		return nil
	}
	chunked, others := 0, 0
	for more := true; more; {
		var coding []byte
		coding, list, more = next(list)
		name, _, _ := bytes.Cut(coding, semicolon)
		name = trimOWS(name)
		switch {
		case !isToken(name):
			return errTE
		case equalFold(name, "chunked"):
			chunked++
		default:
			others++
		}
	}
	if others == 0 || chunked > 1 {
		return errTE
	}
	return errTEUnknown
}

var semicolon = []byte(";")

// parseVersion reads "HTTP/1.0" or "HTTP/1.1". RFC 9110 2.5 would have a
// higher minor version read as 1.1; nobody sends one in earnest.
func parseVersion(b []byte) (minor int, err *Error) {
	if len(b) != 8 || string(b[:5]) != "HTTP/" || b[6] != '.' || b[5] < '0' || b[5] > '9' || b[7] < '0' || b[7] > '9' {
		return 0, errVersion
	}
	switch {
	case b[5] > '1':
		return 0, errMajor
	case b[5] == '0' || b[7] > '1':
		return 0, errVersion
	}
	return int(b[7] - '0'), nil
}
