package accesslog

import (
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"isthmus/http1"
)

// opKind is what an operator shows.
type opKind uint8

const (
	opLiteral opKind = iota // none: a text as it is
	opStart
	opStartFormat
	opRequest
	opReply
	opProtocol
	opStatus
	opFlags
	opDetails
	opTermination
	opFailure
	opReceived
	opSent
	opDuration
	opRequestDuration
	opResponseDuration
	opReplySending
	opServiceTime
	opGRPC
	opGRPCNumber
	opUpstreamHost
	opUpstreamAddress
	opUpstream
	opUpstreamLocal
	opAttempts
	opLocal
	opLocalAddress
	opRemote
	opRemoteAddress
	opServerName
	opRoute
	opPeer
	opTrace
	opCluster
	opNothing
)

// operators are those without an argument, by Envoy's names.
var operators = map[string]opKind{
	"START_TIME": opStart, "PROTOCOL": opProtocol,
	"RESPONSE_CODE": opStatus, "RESPONSE_FLAGS": opFlags, "RESPONSE_CODE_DETAILS": opDetails,
	"CONNECTION_TERMINATION_DETAILS": opTermination, "UPSTREAM_TRANSPORT_FAILURE_REASON": opFailure,
	"BYTES_RECEIVED": opReceived, "BYTES_SENT": opSent,
	"DURATION": opDuration, "REQUEST_DURATION": opRequestDuration, "RESPONSE_DURATION": opResponseDuration, "RESPONSE_TX_DURATION": opReplySending,
	"GRPC_STATUS": opGRPC, "GRPC_STATUS_NUMBER": opGRPCNumber,
	"UPSTREAM_HOST": opUpstreamHost, "UPSTREAM_REMOTE_ADDRESS": opUpstreamHost, "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": opUpstreamAddress,
	"UPSTREAM_CLUSTER": opUpstream, "UPSTREAM_CLUSTER_RAW": opUpstream,
	"UPSTREAM_LOCAL_ADDRESS": opUpstreamLocal, "UPSTREAM_REQUEST_ATTEMPT_COUNT": opAttempts,
	"DOWNSTREAM_LOCAL_ADDRESS": opLocal, "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": opLocalAddress,
	"DOWNSTREAM_REMOTE_ADDRESS": opRemote, "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": opRemoteAddress,
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS": opRemote, "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": opRemoteAddress,
	"REQUESTED_SERVER_NAME": opServerName, "ROUTE_NAME": opRoute, "DOWNSTREAM_PEER_URI_SAN": opPeer,
	"TRACE_ID": opTrace, "ISTHMUS_CLUSTER": opCluster,
}

// operator shows one thing of an entry.
type operator struct {
	kind   opKind
	fields []field // the first that is there
	layout []piece // of START_TIME
	length int     // in bytes at most; 0: any
	text   string  // what is known beforehand
}

// field is one of a message, by its name in lower case.
type field struct {
	name []byte
	id   http1.FieldID // http1.Unknown: it is found by its name
}

// newField makes the field of a name, in any case.
func newField(name string) field {
	return field{[]byte(strings.ToLower(name)), http1.LookupField([]byte(name))}
}

// of finds the field in a message; h may be nil.
func (f *field) of(h *http1.Header) ([]byte, bool) {
	switch {
	case h == nil:
		return nil, false
	case f.id != http1.Unknown:
		return h.Get(f.id)
	}
	return h.Lookup(f.name)
}

// newOperator makes the operator of a name.
func newOperator(name, argument string, hasArgument bool) (operator, error) {
	fields := opLiteral
	switch name {
	case "REQ":
		fields = opRequest
	case "RESP", "TRAILER":
		fields = opReply
	case "HOSTNAME":
		return operator{kind: opNothing, text: hostName}, nil
	case "ENVIRONMENT":
		return operator{kind: opNothing, text: os.Getenv(argument)}, nil
	case "DYNAMIC_METADATA", "FILTER_STATE", "CLUSTER_METADATA", "UPSTREAM_METADATA":
		return operator{kind: opNothing}, nil // there is none
	case "START_TIME":
		if argument != "" {
			layout, err := parseTimeLayout(argument)
			return operator{kind: opStartFormat, layout: layout}, err
		}
		return operator{kind: opStart}, nil
	}
	if fields != opLiteral {
		return fieldOperator(name, argument, fields)
	}
	kind, ok := operators[name]
	if !ok {
		known := append(slices.Collect(maps.Keys(operators)), "REQ", "RESP", "TRAILER", "ENVIRONMENT", "HOSTNAME", "DYNAMIC_METADATA")
		slices.Sort(known)
		return operator{}, fmt.Errorf("%%%s%% is no operator; there are %s", name, strings.Join(known, " "))
	}
	if hasArgument && kind != opGRPC {
		return operator{}, fmt.Errorf("%%%s%% takes no argument", name)
	}
	return operator{kind: kind}, nil
}

// fieldOperator makes one for fields: NAME, or NAME?OTHER.
func fieldOperator(name, argument string, kind opKind) (operator, error) {
	o := operator{kind: kind}
	for field := range strings.SplitSeq(argument, "?") {
		if field == "" {
			return o, fmt.Errorf("%%%s(%s)%%: a field's name is missing", name, argument)
		}
		o.fields = append(o.fields, newField(field))
	}
	if kind == opReply && len(o.fields) == 1 && string(o.fields[0].name) == "x-envoy-upstream-service-time" {
		return operator{kind: opServiceTime}, nil
	}
	return o, nil
}

// number reports whether JSON shows it without quotes.
func (k opKind) number() bool {
	switch k {
	case opStatus, opReceived, opSent, opDuration, opRequestDuration, opResponseDuration, opReplySending, opServiceTime, opGRPCNumber, opAttempts:
		return true
	}
	return false
}

// harmless reports whether what is shown never holds what would have to be
// escaped: it is made here, or comes out of a list.
func (k opKind) harmless() bool {
	switch k {
	case opStart, opProtocol, opFlags, opUpstreamLocal, opLocal, opLocalAddress, opGRPC, opTrace:
		return true
	}
	return k.number()
}

// append appends what the operator shows, or nothing where there is nothing.
func (o *operator) append(dst []byte, e *Entry) []byte {
	switch o.kind {
	case opStart:
		return appendTime(dst, e.Start)
	case opStartFormat:
		return appendLayout(dst, o.layout, e.Start)
	case opRequest:
		return o.appendRequest(dst, e)
	case opReply:
		for i := range o.fields {
			if v, ok := o.fields[i].of(e.Reply); ok {
				return append(dst, v...)
			}
		}
	case opProtocol:
		return append(dst, e.Protocol...)
	case opStatus:
		return appendInt(dst, int64(e.Status))
	case opFlags:
		return append(dst, e.Flags...)
	case opDetails:
		return append(dst, e.Details...)
	case opTermination:
		return append(dst, e.Termination...)
	case opFailure:
		return append(dst, e.Failure...)
	case opReceived:
		return appendInt(dst, e.RequestBody)
	case opSent:
		return appendInt(dst, e.ReplyBody)
	case opDuration:
		return appendMillis(dst, e.Duration)
	case opRequestDuration:
		return appendMillis(dst, e.Received)
	case opResponseDuration:
		return appendMillis(dst, e.FirstByte)
	case opReplySending:
		if e.FirstByte == Unknown {
			return dst
		}
		return appendMillis(dst, e.Duration-e.FirstByte)
	case opServiceTime:
		return appendMillis(dst, e.ServiceTime)
	case opGRPC:
		if e.GRPCStatus == Unknown {
			return dst
		}
		if e.GRPCStatus < len(grpcNames) {
			return append(dst, grpcNames[e.GRPCStatus]...)
		}
		return appendInt(dst, int64(e.GRPCStatus))
	case opGRPCNumber:
		if e.GRPCStatus != Unknown {
			return appendInt(dst, int64(e.GRPCStatus))
		}
	case opUpstreamHost:
		return appendAddrPort(dst, e.UpstreamHost)
	case opUpstreamAddress:
		return appendAddr(dst, e.UpstreamHost)
	case opUpstream:
		return append(dst, e.Upstream...)
	case opUpstreamLocal:
		return appendAddrPort(dst, e.UpstreamLocal)
	case opAttempts:
		return appendInt(dst, int64(e.Attempts))
	case opLocal:
		return appendAddrPort(dst, e.Local)
	case opLocalAddress:
		return appendAddr(dst, e.Local)
	case opRemote:
		return appendAddrPort(dst, e.Remote)
	case opRemoteAddress:
		return appendAddr(dst, e.Remote)
	case opServerName:
		return append(dst, e.ServerName...)
	case opRoute:
		return append(dst, e.Route...)
	case opPeer:
		return append(dst, e.Peer...)
	case opTrace:
		if e.Trace != [16]byte{} {
			return hex.AppendEncode(dst, e.Trace[:])
		}
	case opCluster:
		return append(dst, e.Cluster...)
	case opNothing:
		return append(dst, o.text...)
	}
	return dst
}

// appendRequest appends a field of the request, or what HTTP/2 calls a
// pseudo-header.
func (o *operator) appendRequest(dst []byte, e *Entry) []byte {
	for i := range o.fields {
		f := &o.fields[i]
		if f.name[0] == ':' {
			switch string(f.name) {
			case ":method":
				return append(dst, e.Method...)
			case ":path":
				dst = append(dst, e.Path...)
				if e.HasQuery {
					dst = append(append(dst, '?'), e.Query...)
				}
				return dst
			case ":authority":
				return append(dst, e.Authority...)
			case ":scheme":
				return append(dst, e.Scheme...)
			}
			continue
		}
		if f.id == http1.XRequestID && len(e.RequestID) > 0 {
			return append(dst, e.RequestID...)
		}
		if v, ok := f.of(e.Request); ok {
			return append(dst, v...)
		}
	}
	return dst
}

func appendMillis(dst []byte, d time.Duration) []byte {
	if d == Unknown {
		return dst
	}
	return appendInt(dst, d.Milliseconds())
}

func appendAddrPort(dst []byte, a netip.AddrPort) []byte {
	if !a.Addr().Is4() {
		if !a.IsValid() {
			return dst
		}
		return a.AppendTo(dst)
	}
	return appendInt(append(appendAddr(dst, a), ':'), int64(a.Port()))
}

func appendAddr(dst []byte, a netip.AddrPort) []byte {
	switch {
	case a.Addr().Is4():
		for i, b := range a.Addr().As4() {
			if i > 0 {
				dst = append(dst, '.')
			}
			dst = appendInt(dst, int64(b))
		}
		return dst
	case a.IsValid():
		return a.Addr().AppendTo(dst)
	}
	return dst
}

// grpcNames are gRPC's statuses as Envoy writes them.
var grpcNames = [...]string{
	"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied",
	"ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated",
}
