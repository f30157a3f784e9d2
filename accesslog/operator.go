package accesslog

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

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
	opGRPCSnake
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

// operator shows one thing of an entry. A line is made of some twenty, so it is
// kept small.
type operator struct {
	kind     opKind
	length   int32 // in bytes at most; 0: any
	argument *argument
}

// argument is what an operator is about; most need none.
type argument struct {
	fields []field // the first that is there
	layout []piece // of START_TIME
	text   string  // what is known beforehand
}

// field is one of a message, by its name in lower case.
type field struct {
	name   []byte
	id     http1.FieldID // http1.Unknown: it is found by its name
	pseudo pseudoField
	inner  bool // one that proxies say among themselves; see Entry.Outside
}

// pseudoField is what HTTP/2 calls by a name with a colon.
type pseudoField uint8

const (
	noPseudo pseudoField = iota
	methodOf
	pathOf
	authorityOf
	schemeOf
	unknownPseudo
)

// newField makes the field of a name, in any case.
func newField(name string) field {
	f := field{name: []byte(strings.ToLower(name)), id: http1.LookupField([]byte(name))}
	f.inner = strings.HasPrefix(string(f.name), "x-envoy-") || strings.HasPrefix(string(f.name), "x-isthmus-")
	switch string(f.name) {
	case ":method":
		f.pseudo = methodOf
	case ":path":
		f.pseudo = pathOf
	case ":authority":
		f.pseudo = authorityOf
	case ":scheme":
		f.pseudo = schemeOf
	default:
		if strings.HasPrefix(name, ":") {
			f.pseudo = unknownPseudo
		}
	}
	return f
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
func newOperator(name, of string, hasArgument bool) (operator, error) {
	fields := opLiteral
	switch name {
	case "REQ":
		fields = opRequest
	case "RESP", "TRAILER":
		fields = opReply
	case "HOSTNAME":
		return operator{kind: opNothing, argument: &argument{text: hostName}}, nil
	case "ENVIRONMENT":
		return operator{kind: opNothing, argument: &argument{text: os.Getenv(of)}}, nil
	case "DYNAMIC_METADATA", "METADATA", "FILTER_STATE", "CLUSTER_METADATA", "UPSTREAM_METADATA":
		return operator{kind: opNothing, argument: &argument{}}, nil // there is none
	case "START_TIME":
		if of != "" {
			layout, err := parseTimeLayout(of)
			return operator{kind: opStartFormat, argument: &argument{layout: layout}}, err
		}
		return operator{kind: opStart}, nil
	case "GRPC_STATUS":
		kind, ok := grpcForms[of]
		if !ok {
			return operator{}, fmt.Errorf("%%%s(%s)%%: it may be CAMEL_STRING, SNAKE_STRING or NUMBER", name, of)
		}
		return operator{kind: kind}, nil
	}
	if fields != opLiteral {
		return fieldOperator(name, of, fields)
	}
	kind, ok := operators[name]
	if !ok {
		known := append(slices.Collect(maps.Keys(operators)), "REQ", "RESP", "TRAILER", "ENVIRONMENT", "HOSTNAME", "DYNAMIC_METADATA")
		slices.Sort(known)
		return operator{}, fmt.Errorf("%%%s%% is no operator; there are %s", name, strings.Join(known, " "))
	}
	if hasArgument {
		return operator{}, fmt.Errorf("%%%s%% takes no argument", name)
	}
	return operator{kind: kind}, nil
}

// fieldOperator makes one for fields: NAME, or NAME?OTHER.
func fieldOperator(name, of string, kind opKind) (operator, error) {
	o := operator{kind: kind, argument: &argument{}}
	for field := range strings.SplitSeq(of, "?") {
		if field == "" {
			return o, fmt.Errorf("%%%s(%s)%%: a field's name is missing", name, of)
		}
		o.argument.fields = append(o.argument.fields, newField(field))
	}
	if kind == opReply && len(o.argument.fields) == 1 && string(o.argument.fields[0].name) == "x-envoy-upstream-service-time" {
		return operator{kind: opServiceTime}, nil
	}
	return o, nil
}

// grpcForms are the ways to write a status of gRPC.
var grpcForms = map[string]opKind{"": opGRPC, "CAMEL_STRING": opGRPC, "SNAKE_STRING": opGRPCSnake, "NUMBER": opGRPCNumber}

// grpcNames are gRPC's statuses as Envoy writes them.
var grpcNames = [...]string{
	"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied",
	"ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated",
}

// grpcSnakeNames are those of gRPC's documentation.
var grpcSnakeNames = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}
