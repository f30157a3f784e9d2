package main

import (
	"testing"

	"isthmus/telemetry"
)

// TestServiceOf: traffic bears the names that the endpoints' services have, by which
// the console brings the two together.
func TestServiceOf(t *testing.T) {
	for want, l := range map[string]telemetry.Labels{
		"reviews.prod":     {DestinationService: "reviews.prod.global", DestinationName: "reviews", DestinationNamespace: "prod"},
		"api.partner.test": {DestinationService: "api.partner.test", DestinationName: "api.partner.test", DestinationNamespace: "edge"},
		"BlackHoleCluster": {DestinationName: "BlackHoleCluster"},
		"":                 {},
	} {
		if got := serviceOf(&l); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
