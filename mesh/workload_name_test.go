package mesh

import "testing"

func TestWorkloadName(t *testing.T) {
	for instance, want := range map[string]string{
		"reviews-7d9f8b6c5-x2x9k": "reviews", "reviews-v1-545db77b95-2k4fz": "reviews-v1", "reviews-0": "reviews", "reviews-12": "reviews",
		"reviews": "reviews", "user-service": "user-service", "user-service-1": "user-service", "-0": "-0", "vm.example.com": "vm.example.com",
		"a-bcdfg": "a-bcdfg", "order-hello-world": "order-hello-world", "n": "n", "": "",
	} {
		if got := WorkloadName(instance); got != want {
			t.Errorf("%q: %q, want %q", instance, got, want)
		}
	}
}
