package http2

import "isthmus/http1"

// ReadResponse makes a reply of the fields of a header block, as ReadRequest
// makes a request; method is that of the request. Interim replies (1xx) are read
// like any other. Framing is Length if there is a content-length, NoBody if the
// stream has ended or such a reply has no body (see http1), else UntilClose;
// where the stream's end says that there are no bytes, ContentLength is 0.
//
// An error is a [StreamError].
func ReadResponse(r *http1.Response, fields []http1.Field, method []byte, end bool) error {
	status, n, err := readStatus(fields)
	if err != nil {
		return err
	}
	if end && status < 200 {
		return errInterimEnd // RFC 9113 8.1
	}
	r.Status = status
	kept := r.Fields[:0]
	length := int64(-1)
	for i := n; i < len(fields); i++ {
		f := &fields[i]
		scored, err := checkField(f)
		if err != nil {
			return err
		}
		if scored {
			r.Underscore = true
		}
		switch f.ID {
		case http1.Connection, http1.KeepAlive, http1.ProxyConnection, http1.TransferEncoding, http1.Upgrade, http1.TE:
			return errConnectionField
		case http1.ContentLength:
			if length >= 0 {
				return errLengthCount
			}
			var ok bool
			if length, ok = http1.ParseLength(f.Value); !ok {
				return errLength
			}
		}
		kept = append(kept, *f)
	}
	keep(&r.Header, kept)
	r.Minor = 1
	r.ContentLength = length
	switch {
	case status < 200 || status == 204 || status == 304 || string(method) == "HEAD" || status < 300 && string(method) == "CONNECT":
		r.Framing = http1.NoBody
	case end:
		if length > 0 {
			return errLengthEnd
		}
		r.Framing, r.ContentLength = http1.NoBody, 0
	case length >= 0:
		r.Framing = http1.Length
	default:
		r.Framing = http1.UntilClose
	}
	return nil
}

// readStatus reads :status, the only pseudo-header field of a reply (RFC 9113
// 8.3.2), and says how many fields it has read. 101 is for HTTP/1.1 alone (8.6).
func readStatus(fields []http1.Field) (status, n int, err *StreamError) {
	for ; n < len(fields); n++ {
		f := &fields[n]
		switch {
		case len(f.Name) == 0 || f.Name[0] != ':':
		case string(f.Name) != ":status":
			return 0, n, errPseudoUnknown
		case n > 0:
			return 0, n, errPseudoCount
		default:
			continue
		}
		break
	}
	if n == 0 {
		return 0, 0, errPseudoMissing
	}
	code := fields[0].Value
	if len(code) != 3 {
		return 0, n, errStatus
	}
	for _, c := range code {
		if c < '0' || c > '9' {
			return 0, n, errStatus
		}
		status = status*10 + int(c-'0')
	}
	if status < 100 || status > 599 || status == 101 {
		return 0, n, errStatus
	}
	return status, n, nil
}
