package auth

import (
	"encoding/binary"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// The messages of envoy.service.auth.v3.Authorization, as far as they are sent or
// read. They are few and small: Envoy's generated types and grpc-go would be 6
// MiB of memory in every proxy, whether it asks anybody or not.

// checkResponse is CheckResponse.
type checkResponse struct {
	hasStatus bool
	code      int32           // of status
	denied    *deniedResponse // at most one of these two
	ok        *okResponse
}

// deniedResponse is DeniedHttpResponse.
type deniedResponse struct {
	status  int32 // 0: none
	headers []headerOption
	body    []byte
}

// okResponse is OkHttpResponse.
type okResponse struct {
	headers, replies []headerOption // headers, response_headers_to_add
	remove           []string
	query            bool // it changes query parameters
}

// headerOption is HeaderValueOption.
type headerOption struct {
	key, value    string
	says, appends bool // append: whether it is there, and what it says
	action        appendAction
}

// appendAction is HeaderValueOption.HeaderAppendAction.
type appendAction int32

const (
	appendOrAdd appendAction = iota
	addIfAbsent
	overwriteOrAdd
	overwriteIfExists
)

var errMessage = errors.New("malformed gRPC message")

// frame puts the head before a message that every gRPC message has, without
// compression.
func frame(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// unframe takes it off the only message of an answer.
func unframe(b []byte) ([]byte, error) {
	if len(b) < 5 || b[0] != 0 || int64(binary.BigEndian.Uint32(b[1:])) != int64(len(b)-5) {
		return nil, errMessage
	}
	return b[5:], nil
}

// eachField calls message for each field that is a message, a text or bytes, and
// number for each that is a varint; others are skipped.
func eachField(b []byte, message func(field protowire.Number, b []byte) error, number func(field protowire.Number, v uint64)) error {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errMessage
		}
		b = b[n:]
		switch kind {
		case protowire.BytesType:
			inner, m := protowire.ConsumeBytes(b)
			if m < 0 {
				return errMessage
			}
			if message != nil {
				if err := message(field, inner); err != nil {
					return err
				}
			}
			n = m
		case protowire.VarintType:
			v, m := protowire.ConsumeVarint(b)
			if m < 0 {
				return errMessage
			}
			if number != nil {
				number(field, v)
			}
			n = m
		default:
			if n = protowire.ConsumeFieldValue(field, kind, b); n < 0 {
				return errMessage
			}
		}
		b = b[n:]
	}
	return nil
}

// parseCheckResponse reads a CheckResponse.
func parseCheckResponse(b []byte) (*checkResponse, error) {
	r := &checkResponse{}
	err := eachField(b, func(field protowire.Number, b []byte) (err error) {
		switch field {
		case 1:
			r.hasStatus = true
			return eachField(b, nil, func(field protowire.Number, v uint64) {
				if field == 1 {
					r.code = int32(v)
				}
			})
		case 2:
			r.ok = nil
			r.denied, err = parseDenied(b)
		case 3:
			r.denied = nil
			r.ok, err = parseOK(b)
		}
		return err
	}, nil)
	return r, err
}

func parseDenied(b []byte) (*deniedResponse, error) {
	d := &deniedResponse{}
	err := eachField(b, func(field protowire.Number, b []byte) error {
		switch field {
		case 1:
			return eachField(b, nil, func(field protowire.Number, v uint64) {
				if field == 1 {
					d.status = int32(v)
				}
			})
		case 2:
			return addOption(&d.headers, b)
		case 3:
			d.body = b
		}
		return nil
	}, nil)
	return d, err
}

func parseOK(b []byte) (*okResponse, error) {
	ok := &okResponse{}
	err := eachField(b, func(field protowire.Number, b []byte) error {
		switch field {
		case 2:
			return addOption(&ok.headers, b)
		case 5:
			ok.remove = append(ok.remove, string(b))
		case 6:
			return addOption(&ok.replies, b)
		case 7, 8:
			ok.query = true
		}
		return nil
	}, nil)
	return ok, err
}

func addOption(list *[]headerOption, b []byte) error {
	var o headerOption
	var raw []byte
	err := eachField(b, func(field protowire.Number, b []byte) error {
		switch field {
		case 1: // HeaderValue
			return eachField(b, func(field protowire.Number, b []byte) error {
				switch field {
				case 1:
					o.key = string(b)
				case 2:
					o.value = string(b)
				case 3:
					raw = b
				}
				return nil
			}, nil)
		case 2: // BoolValue
			o.says = true
			return eachField(b, nil, func(field protowire.Number, v uint64) {
				if field == 1 {
					o.appends = v != 0
				}
			})
		}
		return nil
	}, func(field protowire.Number, v uint64) {
		if field == 3 {
			o.action = appendAction(int32(v))
		}
	})
	if o.value == "" {
		o.value = string(raw)
	}
	*list = append(*list, o)
	return err
}

// checkRequest is CheckRequest with its AttributeContext.
type checkRequest struct {
	source, destination     netip.AddrPort // not sent if they are not valid
	principal, ownPrincipal string
	time                    time.Time
	id, method, path        string
	host, scheme, protocol  string
	headers                 map[string]string
	size                    int64
	body                    string
	rawBody                 []byte
	sni                     string
}

// marshal writes the message.
func (r *checkRequest) marshal() []byte {
	var http []byte
	http = appendText(http, 1, r.id)
	http = appendText(http, 2, r.method)
	for _, name := range slices.Sorted(maps.Keys(r.headers)) {
		http = appendMessage(http, 3, appendText(appendText(nil, 1, name), 2, r.headers[name]))
	}
	http = appendText(http, 4, r.path)
	http = appendText(http, 5, r.host)
	http = appendText(http, 6, r.scheme)
	http = appendNumber(http, 9, uint64(r.size))
	http = appendText(http, 10, r.protocol)
	http = appendText(http, 11, r.body)
	http = appendText(http, 12, string(r.rawBody))

	timestamp := appendNumber(appendNumber(nil, 1, uint64(r.time.Unix())), 2, uint64(r.time.Nanosecond()))
	attributes := appendMessage(nil, 1, marshalPeer(r.source, r.principal))
	attributes = appendMessage(attributes, 2, marshalPeer(r.destination, r.ownPrincipal))
	attributes = appendMessage(attributes, 4, appendMessage(appendMessage(nil, 1, timestamp), 2, http))
	if r.sni != "" {
		attributes = appendMessage(attributes, 12, appendText(nil, 1, r.sni))
	}
	return appendMessage(nil, 1, attributes)
}

// marshalPeer writes an AttributeContext.Peer.
func marshalPeer(at netip.AddrPort, principal string) (out []byte) {
	if at.IsValid() {
		socket := appendText(nil, 2, at.Addr().Unmap().String())
		// The port is of a oneof: it is sent though it be 0.
		socket = protowire.AppendVarint(protowire.AppendTag(socket, 3, protowire.VarintType), uint64(at.Port()))
		out = appendMessage(out, 1, appendMessage(nil, 1, socket))
	}
	return appendText(out, 4, principal)
}

func appendMessage(b []byte, field protowire.Number, message []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), message)
}

// appendText leaves an empty text out, and appendNumber 0, as proto3 does.
func appendText(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func appendNumber(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}
