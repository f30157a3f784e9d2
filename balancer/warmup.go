package balancer

import (
	"math"
	"time"

	"isthmus/mesh"
)

// weightUnit is what a weight of 1 counts where hosts warm up, so that a part
// of it is a whole number still.
const weightUnit = 100

// warmSteps is in how many steps a host's weight grows; between two of them
// nothing is computed.
const warmSteps = 100

// warmFactor is the part of its weight that a host gets so long after it
// entered service: Envoy's slow start (slow_start.rst).
func warmFactor(w *mesh.Warmup, age time.Duration) float64 {
	if age >= w.Duration {
		return 1
	}
	part := float64(max(age, time.Second)) / float64(w.Duration)
	return min(1, max(w.MinPercent/100, math.Pow(part, 1/w.Aggression)))
}

// weigh returns the weight of a host at a time, and whether it is still to
// grow.
func (s *Set) weigh(h *Host, now time.Time) (weight uint64, growing bool) {
	weight = uint64(min(max(h.Endpoint().Weight, 1), maxWeight))
	if s.warmup == nil {
		return weight, false
	}
	since := h.since.Load()
	if since == 0 {
		return weight * weightUnit, false
	}
	factor := warmFactor(s.warmup, now.Sub(time.Unix(0, since)))
	return max(1, uint64(float64(weight*weightUnit)*factor)), factor < 1
}

// maxWeight bounds one host's weight, so that sums of very many fit.
const maxWeight = 1 << 24
