package mesh

import "time"

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

// GRPCCodes are the statuses by their names in gRPC's documentation (Status
// codes and their use in gRPC).
var GRPCCodes = map[string]GRPCCode{
	"OK": 0, "CANCELLED": 1, "UNKNOWN": 2, "INVALID_ARGUMENT": 3, "DEADLINE_EXCEEDED": 4, "NOT_FOUND": 5,
	"ALREADY_EXISTS": 6, "PERMISSION_DENIED": 7, "RESOURCE_EXHAUSTED": 8, "FAILED_PRECONDITION": 9, "ABORTED": 10,
	"OUT_OF_RANGE": 11, "UNIMPLEMENTED": 12, "INTERNAL": 13, "UNAVAILABLE": 14, "DATA_LOSS": 15, "UNAUTHENTICATED": 16,
}

var grpcHTTP = [...]int{200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401}

// HTTPStatus is the status of HTTP that means the same (Envoy:
// Grpc::Utility::grpcToHttpStatus).
func (c GRPCCode) HTTPStatus() int { return grpcHTTP[c] }
