package extauthz

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"isthmus/rpc"
)

// The messages of envoy.service.auth.v3.Authorization, as far as they are sent or
// read.

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

// parseCheckResponse reads a CheckResponse.
func parseCheckResponse(b []byte) (*checkResponse, error) {
	r := &checkResponse{}
	err := rpc.EachField(b, func(field protowire.Number, b []byte) (err error) {
		switch field {
		case 1:
			r.hasStatus = true
			return rpc.EachField(b, nil, func(field protowire.Number, v uint64) {
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
	err := rpc.EachField(b, func(field protowire.Number, b []byte) error {
		switch field {
		case 1:
			return rpc.EachField(b, nil, func(field protowire.Number, v uint64) {
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
	err := rpc.EachField(b, func(field protowire.Number, b []byte) error {
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
	err := rpc.EachField(b, func(field protowire.Number, b []byte) error {
		switch field {
		case 1: // HeaderValue
			return rpc.EachField(b, func(field protowire.Number, b []byte) error {
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
			return rpc.EachField(b, nil, func(field protowire.Number, v uint64) {
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
	http = rpc.AppendText(http, 1, r.id)
	http = rpc.AppendText(http, 2, r.method)
	for _, name := range slices.Sorted(maps.Keys(r.headers)) {
		http = rpc.AppendMessage(http, 3, rpc.AppendText(rpc.AppendText(nil, 1, name), 2, r.headers[name]))
	}
	http = rpc.AppendText(http, 4, r.path)
	http = rpc.AppendText(http, 5, r.host)
	http = rpc.AppendText(http, 6, r.scheme)
	http = rpc.AppendNumber(http, 9, uint64(r.size))
	http = rpc.AppendText(http, 10, r.protocol)
	http = rpc.AppendText(http, 11, r.body)
	http = rpc.AppendText(http, 12, string(r.rawBody))

	timestamp := rpc.AppendNumber(rpc.AppendNumber(nil, 1, uint64(r.time.Unix())), 2, uint64(r.time.Nanosecond()))
	attributes := rpc.AppendMessage(nil, 1, marshalPeer(r.source, r.principal))
	attributes = rpc.AppendMessage(attributes, 2, marshalPeer(r.destination, r.ownPrincipal))
	attributes = rpc.AppendMessage(attributes, 4, rpc.AppendMessage(rpc.AppendMessage(nil, 1, timestamp), 2, http))
	if r.sni != "" {
		attributes = rpc.AppendMessage(attributes, 12, rpc.AppendText(nil, 1, r.sni))
	}
	return rpc.AppendMessage(nil, 1, attributes)
}

// marshalPeer writes an AttributeContext.Peer.
func marshalPeer(at netip.AddrPort, principal string) (out []byte) {
	if at.IsValid() {
		socket := rpc.AppendText(nil, 2, at.Addr().Unmap().String())
		// The port is of a oneof: it is sent though it be 0.
		socket = protowire.AppendVarint(protowire.AppendTag(socket, 3, protowire.VarintType), uint64(at.Port()))
		out = rpc.AppendMessage(out, 1, rpc.AppendMessage(nil, 1, socket))
	}
	return rpc.AppendText(out, 4, principal)
}
