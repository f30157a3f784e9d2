package admin

import (
	"time"

	"isthmus/telemetry"
)

// Traffic is how requests go now: over the last ten seconds.
type Traffic struct {
	Requests float64 `json:"requests"` // a second
	Errors   float64 `json:"errors"`   // of them
	P50      float64 `json:"p50"`      // milliseconds
	P99      float64 `json:"p99"`
}

// Add adds what another proxy says. Quantiles of several proxies have no sum:
// the median is weighted by requests, and the 99th percentile is that of the
// slowest.
func (t *Traffic) Add(u Traffic) {
	if all := t.Requests + u.Requests; all > 0 {
		t.P50 = (t.P50*t.Requests + u.P50*u.Requests) / all
	}
	t.P99 = max(t.P99, u.P99)
	t.Requests += u.Requests
	t.Errors += u.Errors
}

// failing is the share of requests that failed.
func (t *Traffic) failing() float64 {
	if t.Requests == 0 {
		return 0
	}
	return t.Errors / t.Requests
}

// Level says how bad it is that so many fail: "critical", "warning" or "".
func Level(t Traffic) string {
	switch share := t.failing(); {
	case share >= failingBadly:
		return critical
	case share >= failing:
		return warning
	}
	return ""
}

// Flow is the traffic of one service to one cluster, as one proxy sees it.
type Flow struct {
	Service string `json:"service"` // "": all that the proxy sends to the cluster
	Cluster string `json:"cluster"` // "": to no endpoint at all
	Inbound bool   `json:"inbound"` // to the application beside the proxy
	Traffic
}

// Digest is what a proxy tells the others of itself by gossip.
type Digest struct {
	Age             float64        `json:"age"` // seconds since it came
	Ready           bool           `json:"ready"`
	Snapshot        uint64         `json:"snapshot"`
	Hash            string         `json:"hash"`
	Refused         bool           `json:"refused"`        // its files have changed since, and are not used
	Shed            telemetry.Shed `json:"shed,omitempty"` // the worst of what it refuses or ends since clients take too much
	CertificateEnds int64          `json:"certificateEnds,omitempty"`
	Flows           []Flow         `json:"flows"`
}

// Total is all that a proxy has done: for its application, and else for others.
func (d *Digest) Total() (t Traffic) {
	for _, f := range d.Flows {
		if f.Service == "" || f.Inbound {
			t.Add(f.Traffic)
		}
	}
	return t
}

// Point is how all requests of this proxy went for a moment.
type Point struct {
	Time     time.Time `json:"time"`
	Requests float64   `json:"requests"` // a second
	Errors   float64   `json:"errors"`
	P99      float64   `json:"p99"` // milliseconds
}
