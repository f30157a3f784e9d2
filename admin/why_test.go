package admin

import "testing"

func TestLasted(t *testing.T) {
	for _, tt := range []struct {
		seconds float64
		want    string
	}{{0, "0 ms"}, {0.0000423, "0.0423 ms"}, {0.00149, "1.49 ms"}, {0.9994, "999 ms"}, {0.9996, "1 s"}, {5.00149, "5 s"}, {15.34, "15.3 s"}, {99.97, "100 s"}, {3600, "3600 s"}} {
		if got := lasted(tt.seconds); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.seconds, got, tt.want)
		}
	}
}
