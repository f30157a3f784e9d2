package mesh

import (
	"strconv"
	"time"
)

// Fraction is a share of requests in millionths: 1000 is 0.1 %. It is what
// Istio makes of its Percent for Envoy (route.go
// translatePercentToFractionalPercent).
type Fraction uint32

// AllRequests is the Fraction that stands for every request.
const AllRequests Fraction = 1_000_000

// Fault is Istio's HTTPFaultInjection: what a route does to some requests so
// that people see how callers take it. Whether a request is delayed and whether
// it is aborted are drawn apart.
type Fault struct {
	Delay      time.Duration // before the request is sent on
	DelayShare Fraction      // 0: no request is delayed

	AbortStatus int      // of HTTP, 200 to 599
	AbortGRPC   GRPCCode // in place of AbortStatus; 0: none
	AbortShare  Fraction // 0: no request is aborted
}

// Empty reports whether the fault can hit nobody.
func (f *Fault) Empty() bool { return f == nil || f.DelayShare == 0 && f.AbortShare == 0 }

// GRPCCode is a status of gRPC. 0, OK, is no failure.
type GRPCCode int

// The statuses that a proxy has something to do with.
const (
	GRPCCancelled         GRPCCode = 1
	GRPCUnknown           GRPCCode = 2
	GRPCDeadlineExceeded  GRPCCode = 4
	GRPCPermissionDenied  GRPCCode = 7
	GRPCResourceExhausted GRPCCode = 8
	GRPCUnimplemented     GRPCCode = 12
	GRPCInternal          GRPCCode = 13
	GRPCUnavailable       GRPCCode = 14
	GRPCUnauthenticated   GRPCCode = 16 // the last one
)

var grpcNames = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
	"FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

// GRPCCodes are the statuses by their names in gRPC's documentation (Status
// codes and their use in gRPC).
var GRPCCodes = func() map[string]GRPCCode {
	codes := map[string]GRPCCode{}
	for i, name := range grpcNames {
		codes[name] = GRPCCode(i)
	}
	return codes
}()

// String returns the name, or the number where gRPC has none.
func (c GRPCCode) String() string {
	if c < 0 || int(c) >= len(grpcNames) {
		return strconv.Itoa(int(c))
	}
	return grpcNames[c]
}

var grpcHTTP = [...]int{200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401}

// HTTPStatus is the status of HTTP that means the same (Envoy:
// Grpc::Utility::grpcToHttpStatus).
func (c GRPCCode) HTTPStatus() int { return grpcHTTP[c] }
