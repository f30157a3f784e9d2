package config

import (
	"fmt"
	"maps"
	"math"
	"slices"

	networking "istio.io/api/networking/v1alpha3"

	"isthmus/mesh"
)

// fault reads Istio's HTTPFaultInjection.
func (d *document) fault(f *networking.HTTPFaultInjection, path string) *mesh.Fault {
	if f == nil {
		return nil
	}
	out := &mesh.Fault{}
	if f.Delay == nil && f.Abort == nil {
		d.error(path, "says nothing to do: write delay, abort or both")
	}
	if f.Delay != nil {
		d.faultDelay(out, f.Delay, path+".delay")
	}
	if f.Abort != nil {
		d.faultAbort(out, f.Abort, path+".abort")
	}
	return out
}

func (d *document) faultDelay(out *mesh.Fault, f *networking.HTTPFaultInjection_Delay, path string) {
	switch t := f.HttpDelayType.(type) {
	case *networking.HTTPFaultInjection_Delay_FixedDelay:
		if out.Delay = t.FixedDelay.AsDuration(); out.Delay == 0 {
			d.error(path+".fixedDelay", "must be at least 1ms")
		}
	case *networking.HTTPFaultInjection_Delay_ExponentialDelay:
		d.error(path+".exponentialDelay", "is not supported, by Istio neither: write fixedDelay")
	default:
		d.error(path+".fixedDelay", "is missing")
	}
	//lint:ignore SA1019 still written by users
	old := f.Percent
	switch {
	case f.Percentage != nil:
		out.DelayShare = d.share(f.Percentage, path+".percentage")
	case old != 0:
		d.warning(path+".percent", "is deprecated: write percentage: {value: N}")
		out.DelayShare = d.share(&networking.Percent{Value: float64(old)}, path+".percent")
	default:
		d.find(Warning, ISM0031, path+".percentage", "is missing, which means 0 %: no request is delayed")
	}
}

func (d *document) faultAbort(out *mesh.Fault, f *networking.HTTPFaultInjection_Abort, path string) {
	switch t := f.ErrorType.(type) {
	case *networking.HTTPFaultInjection_Abort_HttpStatus:
		if out.AbortStatus = int(t.HttpStatus); t.HttpStatus < 200 || t.HttpStatus > 599 {
			d.error(path+".httpStatus", fmt.Sprintf("%d is not between 200 and 599", t.HttpStatus))
		}
	case *networking.HTTPFaultInjection_Abort_GrpcStatus:
		code, ok := mesh.GRPCCodes[t.GrpcStatus]
		if !ok {
			d.error(path+".grpcStatus", fmt.Sprintf("%q is no status of gRPC%s", t.GrpcStatus, suggest(t.GrpcStatus, slices.Sorted(maps.Keys(mesh.GRPCCodes)))))
		}
		if out.AbortGRPC = code; ok && code == 0 {
			d.error(path+".grpcStatus", "OK aborts nothing")
		}
	case *networking.HTTPFaultInjection_Abort_Http2Error:
		d.error(path+".http2Error", "is not supported, by Istio neither: write httpStatus or grpcStatus")
	default:
		d.warning(path, "has neither httpStatus nor grpcStatus: no request is aborted")
		return
	}
	if f.Percentage == nil {
		d.find(Warning, ISM0031, path+".percentage", "is missing, which means 0 %: no request is aborted")
		return
	}
	out.AbortShare = d.share(f.Percentage, path+".percentage")
}

// share reads a percentage: 0.1 is 0.1 %. What is finer than a millionth is
// rounded.
func (d *document) share(p *networking.Percent, path string) mesh.Fraction {
	v := p.Value
	if v < 0 || v > 100 {
		d.error(path, fmt.Sprintf("%v is not between 0 and 100", v))
		return 0
	}
	share := mesh.Fraction(math.Round(v / 100 * float64(mesh.AllRequests)))
	if share == 0 && v > 0 {
		d.warning(path, fmt.Sprintf("%v %% is less than one in a million, which counts as 0", v))
	}
	return share
}
