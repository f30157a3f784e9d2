package http2

import (
	"bytes"

	"isthmus/http1"
)

// The faults of messages that RFC 9113 8.1.1 calls malformed.
var (
	errFieldName       = &StreamError{CodeProtocol, "bad_field_name"}
	errFieldValue      = &StreamError{CodeProtocol, "bad_field_value"}
	errConnectionField = &StreamError{CodeProtocol, "connection_specific_field"}
	errTE              = &StreamError{CodeProtocol, "bad_te"}
	errPseudoUnknown   = &StreamError{CodeProtocol, "unknown_pseudo_field"}
	errPseudoLate      = &StreamError{CodeProtocol, "pseudo_field_after_others"}
	errPseudoCount     = &StreamError{CodeProtocol, "repeated_pseudo_field"}
	errPseudoMissing   = &StreamError{CodeProtocol, "missing_pseudo_field"}
	errPseudoConnect   = &StreamError{CodeProtocol, "pseudo_field_wrong_for_method"}
	errPseudoTrailer   = &StreamError{CodeProtocol, "pseudo_field_in_trailers"}
	errMethod          = &StreamError{CodeProtocol, "bad_method"}
	errScheme          = &StreamError{CodeProtocol, "bad_scheme"}
	errPath            = &StreamError{CodeProtocol, "bad_path"}
	errProtocol        = &StreamError{CodeProtocol, "bad_protocol"}
	errStatus          = &StreamError{CodeProtocol, "bad_status"}
	errHostMissing     = &StreamError{CodeProtocol, "missing_host"}
	errHostCount       = &StreamError{CodeProtocol, "several_hosts"}
	errHost            = &StreamError{CodeProtocol, "bad_host"}
	errHostMismatch    = &StreamError{CodeProtocol, "host_and_authority_differ"}
	errLengthCount     = &StreamError{CodeProtocol, "several_content_lengths"}
	errLength          = &StreamError{CodeProtocol, "bad_content_length"}
	errLengthEnd       = &StreamError{CodeProtocol, "content_length_without_content"}
	errInterimEnd      = &StreamError{CodeProtocol, "stream_ends_with_interim_reply"}
)

// Classes of characters of a field's name.
const (
	nameChar = 1 << iota
	underscore
)

// nameClasses is of what a name may hold: a token's characters but those in
// upper case, which are malformed (RFC 9113 8.2.1).
var nameClasses = func() (t [256]uint8) {
	for c := range 256 {
		b := byte(c)
		if http1.ValidName([]byte{b}) && !('A' <= b && b <= 'Z') {
			t[c] = nameChar
		}
	}
	t['_'] |= underscore
	return t
}()

// checkField holds a field to RFC 9113 8.2.1 and, since it may go on over
// HTTP/1.1, to the rules of that. It reports whether the name has a "_" in it.
func checkField(f *http1.Field) (scored bool, err *StreamError) {
	every, some := uint8(nameChar), uint8(0)
	for _, c := range f.Name {
		class := nameClasses[c]
		every &= class
		some |= class
	}
	switch {
	case every == 0 || len(f.Name) == 0:
		if len(f.Name) > 0 && f.Name[0] == ':' {
			return false, errPseudoLate
		}
		return false, errFieldName
	case !http1.ValidValue(f.Value):
		return false, errFieldValue
	}
	return some&underscore != 0, nil
}

// pseudo holds the pseudo-header fields of a request (RFC 9113 8.3.1, RFC 8441
// 4). seen has a bit for each that is there.
type pseudo struct {
	method, scheme, authority, path, protocol []byte
	seen                                      uint8
}

const (
	seenMethod = 1 << iota
	seenScheme
	seenAuthority
	seenPath
	seenProtocol
)

// read takes the pseudo-header fields, which come before all others, and says
// how many there are.
func (p *pseudo) read(fields []http1.Field) (n int, err *StreamError) {
	for ; n < len(fields); n++ {
		f := &fields[n]
		if len(f.Name) == 0 || f.Name[0] != ':' {
			break
		}
		var value *[]byte
		var bit uint8
		switch string(f.Name) {
		case ":method":
			value, bit = &p.method, seenMethod
		case ":scheme":
			value, bit = &p.scheme, seenScheme
		case ":authority":
			value, bit = &p.authority, seenAuthority
		case ":path":
			value, bit = &p.path, seenPath
		case ":protocol":
			value, bit = &p.protocol, seenProtocol
		default:
			return n, errPseudoUnknown
		}
		if p.seen&bit != 0 {
			return n, errPseudoCount
		}
		*value = f.Value
		p.seen |= bit
	}
	return n, nil
}

func (p *pseudo) has(bits uint8) bool { return p.seen&bits == bits }

// ReadRequest makes a request of the fields of a header block, as Decode
// returns them. r has been reset; fields may be r.Fields, which is written over.
// Cookies that come in several fields are joined (RFC 9113 8.2.3) in arena. end
// says that the stream ends with the block.
//
// The request is as that of HTTP/1.1 would be, and whatever comes by here can go
// on by HTTP/1.1 without being understood in another way. Its Framing is Length
// if there is a content-length, else NoBody if the stream has ended, else
// UntilClose. A Host field stays among the fields; Authority is :authority, or
// else Host. In extended CONNECT (RFC 8441) Upgrade is :protocol, and Path and
// Scheme are given; a server that has not allowed it refuses it by that.
//
// An error is a [StreamError] for what RFC 9113 calls malformed, or an
// [http1.Error] that the client can be told: then method, scheme and authority
// have been read, but nothing further.
func ReadRequest(r *http1.Request, fields []http1.Field, arena []byte, end bool) ([]byte, error) {
	var p pseudo
	n, err := p.read(fields)
	if err != nil {
		return arena, err
	}
	if err := readPseudo(r, &p); err != nil {
		return arena, err
	}
	kept := r.Fields[:0]
	var host []byte
	hosts, cookie, joined := 0, -1, -1
	hasLength, expects := false, false
	for i := n; i < len(fields); i++ {
		f := &fields[i]
		scored, err := checkField(f)
		if err != nil {
			return arena, err
		}
		if scored {
			r.Underscore = true
		}
		switch f.ID {
		case http1.Connection, http1.KeepAlive, http1.ProxyConnection, http1.TransferEncoding, http1.Upgrade:
			return arena, errConnectionField // RFC 9113 8.2.2
		case http1.TE:
			if !bytes.EqualFold(f.Value, trailersOnly) {
				return arena, errTE
			}
			r.Trailers = true
		case http1.Host:
			if hosts++; hosts > 1 {
				return arena, errHostCount
			}
			host = f.Value
		case http1.ContentLength:
			// Equal ones are refused, too; see http1.
			if hasLength {
				return arena, errLengthCount
			}
			length, ok := http1.ParseLength(f.Value)
			switch {
			case !ok:
				return arena, errLength
			case end && length > 0:
				return arena, errLengthEnd
			}
			r.ContentLength, hasLength = length, true
		case http1.Expect:
			expects = expects || bytes.EqualFold(f.Value, continue100)
		case http1.Cookie:
			switch {
			case cookie < 0:
				cookie = len(kept)
			case len(f.Value) == 0:
				continue
			case len(kept[cookie].Value) == 0:
				kept[cookie].Value = f.Value
				continue
			default:
				if joined < 0 {
					joined = len(arena)
					arena = append(arena, kept[cookie].Value...)
				}
				arena = append(append(arena, "; "...), f.Value...)
				continue
			}
		}
		kept = append(kept, *f)
	}
	if joined >= 0 {
		kept[cookie].Value = arena[joined:len(arena):len(arena)]
	}
	keep(&r.Header, kept)
	r.Minor = 1
	switch {
	case hasLength:
		r.Framing = http1.Length
	case !end:
		r.Framing = http1.UntilClose
	}
	r.Expect100 = expects && (r.Framing == http1.UntilClose || r.ContentLength > 0)
	if err := checkHost(r, host, hosts > 0); err != nil {
		return arena, err
	}
	return arena, nil
}

// keep gives a message its fields. Of what lies behind them, if they were there
// already, nothing shall hold on to an arena.
func keep(h *http1.Header, kept []http1.Field) {
	if n := len(kept); n < len(h.Fields) {
		clear(h.Fields[n:])
	}
	h.Fields = kept
}

var (
	trailersOnly = []byte("trailers")
	continue100  = []byte("100-continue")
)

// readPseudo fills in what the pseudo-header fields say, and holds them to RFC
// 9113 8.3.1 and 8.5, and RFC 8441 4.
func readPseudo(r *http1.Request, p *pseudo) error {
	connect := string(p.method) == "CONNECT"
	switch {
	case !p.has(seenMethod):
		return errPseudoMissing
	case !http1.ValidMethod(p.method):
		return errMethod
	case connect && !p.has(seenProtocol):
		if p.has(seenScheme) || p.has(seenPath) {
			return errPseudoConnect
		}
		if !p.has(seenAuthority) {
			return errPseudoMissing
		}
		if _, port, ok := http1.SplitHost(p.authority); !ok || port == nil {
			return errHost
		}
		r.Method, r.Target, r.Authority = p.method, p.authority, p.authority
		return nil
	case !p.has(seenScheme | seenPath), connect && !p.has(seenAuthority):
		return errPseudoMissing
	case p.has(seenProtocol) && !connect:
		return errPseudoConnect
	case p.has(seenProtocol) && !http1.ValidName(p.protocol):
		return errProtocol
	case !bytes.EqualFold(p.scheme, schemeHTTPS) && !bytes.EqualFold(p.scheme, schemeHTTP):
		return errScheme
	case len(p.path) == 0:
		return errPath
	}
	if p.has(seenAuthority) {
		if _, _, ok := http1.SplitHost(p.authority); !ok {
			return errHost
		}
		r.Authority = p.authority
	}
	r.Method, r.Scheme, r.Upgrade = p.method, p.scheme, p.protocol
	if len(p.path) == 1 && p.path[0] == '*' {
		if string(p.method) != "OPTIONS" {
			return errPath
		}
		r.Target, r.Path = p.path, p.path
		return nil
	}
	return r.ParsePath(p.path, http1.Limits{})
}

var (
	schemeHTTP  = []byte("http")
	schemeHTTPS = []byte("https")
)

// checkHost holds Host to :authority. One of them has to be there, and if both
// are, somebody before or behind us may go by the other, so they have to be
// equal.
func checkHost(r *http1.Request, host []byte, given bool) *StreamError {
	if !given {
		if r.Authority == nil {
			return errHostMissing
		}
		return nil
	}
	if _, _, ok := http1.SplitHost(host); !ok {
		return errHost
	}
	switch {
	case r.Authority == nil:
		r.Authority = host
	case bytes.EqualFold(host, r.Authority):
	default:
		return errHostMismatch
	}
	return nil
}

// ReadTrailers appends the trailers of a header block to dst, without those that
// are for a header section alone (see [http1.HeaderOnly]), and without those
// with a "_" in the name if underscores says so. An error is a [StreamError].
func ReadTrailers(dst, fields []http1.Field, underscores bool) ([]http1.Field, error) {
	for i := range fields {
		f := &fields[i]
		if len(f.Name) > 0 && f.Name[0] == ':' {
			return dst, errPseudoTrailer // RFC 9113 8.1
		}
		scored, err := checkField(f)
		if err != nil {
			return dst, err
		}
		switch f.ID {
		case http1.Connection, http1.KeepAlive, http1.ProxyConnection, http1.TransferEncoding, http1.Upgrade, http1.TE:
			return dst, errConnectionField
		}
		if !(scored && underscores) && !http1.HeaderOnly(*f) {
			dst = append(dst, *f)
		}
	}
	return dst, nil
}
