package accesslog

import (
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
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
	names  [][]byte // of fields: the first that is there
	layout []piece  // of START_TIME
	length int      // in bytes at most; 0: any
	text   string   // what is known beforehand
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
		o.names = append(o.names, []byte(strings.ToLower(field)))
	}
	if kind == opReply && len(o.names) == 1 && string(o.names[0]) == "x-envoy-upstream-service-time" {
		return operator{kind: opServiceTime}, nil
	}
	return o, nil
}

// append appends what the operator shows, or nothing where there is nothing, and
// says whether it is a number.
func (o *operator) append(dst []byte, e *Entry) (out []byte, number bool) {
	switch o.kind {
	case opStart:
		return appendTime(dst, e.Start), false
	case opStartFormat:
		return appendLayout(dst, o.layout, e.Start), false
	case opRequest:
		return o.appendRequest(dst, e), false
	case opReply:
		if e.Reply != nil {
			for _, name := range o.names {
				if v, ok := e.Reply.Lookup(name); ok {
					return append(dst, v...), false
				}
			}
		}
	case opProtocol:
		return append(dst, e.Protocol...), false
	case opStatus:
		return strconv.AppendInt(dst, int64(e.Status), 10), true
	case opFlags:
		return append(dst, e.Flags...), false
	case opDetails:
		return append(dst, e.Details...), false
	case opTermination:
		return append(dst, e.Termination...), false
	case opFailure:
		return append(dst, e.Failure...), false
	case opReceived:
		return strconv.AppendInt(dst, e.RequestBody, 10), true
	case opSent:
		return strconv.AppendInt(dst, e.ReplyBody, 10), true
	case opDuration:
		return appendMillis(dst, e.Duration), true
	case opRequestDuration:
		return appendMillis(dst, e.Received), true
	case opResponseDuration:
		return appendMillis(dst, e.FirstByte), true
	case opReplySending:
		if e.FirstByte == Unknown {
			return dst, true
		}
		return appendMillis(dst, e.Duration-e.FirstByte), true
	case opServiceTime:
		return appendMillis(dst, e.ServiceTime), true
	case opGRPC:
		if e.GRPCStatus == Unknown {
			return dst, false
		}
		if e.GRPCStatus < len(grpcNames) {
			return append(dst, grpcNames[e.GRPCStatus]...), false
		}
		return strconv.AppendInt(dst, int64(e.GRPCStatus), 10), false
	case opGRPCNumber:
		if e.GRPCStatus != Unknown {
			return strconv.AppendInt(dst, int64(e.GRPCStatus), 10), true
		}
	case opUpstreamHost:
		return appendAddrPort(dst, e.UpstreamHost), false
	case opUpstreamAddress:
		return appendAddr(dst, e.UpstreamHost), false
	case opUpstream:
		return append(dst, e.Upstream...), false
	case opUpstreamLocal:
		return appendAddrPort(dst, e.UpstreamLocal), false
	case opAttempts:
		return strconv.AppendInt(dst, int64(e.Attempts), 10), true
	case opLocal:
		return appendAddrPort(dst, e.Local), false
	case opLocalAddress:
		return appendAddr(dst, e.Local), false
	case opRemote:
		return appendAddrPort(dst, e.Remote), false
	case opRemoteAddress:
		return appendAddr(dst, e.Remote), false
	case opServerName:
		return append(dst, e.ServerName...), false
	case opRoute:
		return append(dst, e.Route...), false
	case opPeer:
		return append(dst, e.Peer...), false
	case opTrace:
		if e.Trace != [16]byte{} {
			return hex.AppendEncode(dst, e.Trace[:]), false
		}
	case opCluster:
		return append(dst, e.Cluster...), false
	case opNothing:
		return append(dst, o.text...), false
	}
	return dst, false
}

// appendRequest appends a field of the request, or what HTTP/2 calls a
// pseudo-header.
func (o *operator) appendRequest(dst []byte, e *Entry) []byte {
	for _, name := range o.names {
		if name[0] == ':' {
			switch string(name) {
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
		if string(name) == "x-request-id" && len(e.RequestID) > 0 {
			return append(dst, e.RequestID...)
		}
		if e.Request == nil {
			continue
		}
		if v, ok := e.Request.Lookup(name); ok {
			return append(dst, v...)
		}
	}
	return dst
}

func appendMillis(dst []byte, d time.Duration) []byte {
	if d == Unknown {
		return dst
	}
	return strconv.AppendInt(dst, d.Milliseconds(), 10)
}

func appendAddrPort(dst []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return dst
	}
	return a.AppendTo(dst)
}

func appendAddr(dst []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return dst
	}
	return a.Addr().AppendTo(dst)
}

// grpcNames are gRPC's statuses as Envoy writes them.
var grpcNames = [...]string{
	"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied",
	"ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated",
}

// piece is a part of a format of times: a text, a layout of package time,
// fractions of a second, or the seconds since 1970.
type piece struct {
	literal string
	layout  string
	digits  int // of a fraction
	seconds bool
}

// timeLayouts are those of strftime that are of use in a log.
var timeLayouts = map[byte]string{
	'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'y': "06", 'b': "Jan", 'a': "Mon", 'e': "_2", 'j': "002",
	'F': "2006-01-02", 'T': "15:04:05", 'D': "01/02/06", 'R': "15:04", 'Z': "UTC", 'z': "-0700", 'I': "03", 'p': "PM", 'B': "January", 'A': "Monday",
}

// parseTimeLayout reads a format of times as strftime has it, with %3f for
// milliseconds and the like.
func parseTimeLayout(s string) (out []piece, err error) {
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			out = append(out, piece{literal: s[i : i+1]})
			continue
		}
		i++
		digits := 0
		if i < len(s) && '1' <= s[i] && s[i] <= '9' {
			digits = int(s[i] - '0')
			i++
		}
		switch {
		case i == len(s):
			return nil, fmt.Errorf("START_TIME(%s): there is nothing behind the last %%", s)
		case s[i] == '%':
			out = append(out, piece{literal: "%"})
		case s[i] == 'f':
			if digits == 0 {
				digits = 9
			}
			out = append(out, piece{digits: digits})
		case s[i] == 's' && digits == 0:
			out = append(out, piece{seconds: true})
		case timeLayouts[s[i]] != "" && digits == 0:
			out = append(out, piece{layout: timeLayouts[s[i]]})
		default:
			return nil, fmt.Errorf("START_TIME(%s): %%%c is not known", s, s[i])
		}
	}
	return out, nil
}

func appendLayout(dst []byte, layout []piece, t time.Time) []byte {
	t = t.UTC()
	for _, p := range layout {
		switch {
		case p.digits > 0:
			fraction := t.Nanosecond()
			for range 9 - p.digits {
				fraction /= 10
			}
			dst = appendDigits(dst, fraction, p.digits)
		case p.seconds:
			dst = strconv.AppendInt(dst, t.Unix(), 10)
		case p.literal != "":
			dst = append(dst, p.literal...)
		default:
			dst = t.AppendFormat(dst, p.layout)
		}
	}
	return dst
}
