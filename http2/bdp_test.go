package http2

import (
	"testing"
	"time"
)

// TestBDPEstimator_Fits has data come over a link, millisecond by millisecond:
// the window grows until the link is full, and not far beyond what that takes.
func TestBDPEstimator_Fits(t *testing.T) {
	for _, tt := range []struct {
		name  string
		rate  int // bytes a millisecond
		delay int // milliseconds one way
	}{
		{"100 Mbit/s over 40 ms", 12_500, 20},
		{"1 Gbit/s over 40 ms", 125_000, 20},
		{"10 Mbit/s over 10 ms", 1250, 5},
		{"10 Gbit/s over 2 ms", 1_250_000, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const steps = 4000
			size := tt.rate * 2 * tt.delay // what a round trip carries
			recv, send := newRecvWindow(initialWindow), newSendWindow(initialWindow)
			b := newBDPEstimator(initialWindow)
			data, updates := make([]int, steps+2*tt.delay+1), make([]uint32, steps+2*tt.delay+1)
			acks := make([]bool, steps+2*tt.delay+1)
			pings, last := 0, 0
			for now := range steps {
				at := time.Unix(0, int64(now)*int64(time.Millisecond))
				if acks[now] {
					b.acknowledge(at)
				}
				if n := data[now]; n > 0 {
					if !recv.receive(n) {
						t.Fatalf("%d ms: the sender goes beyond its window", now)
					}
					window, ping := b.receive(n, at)
					if ping {
						pings++
						acks[now+2*tt.delay] = true
					}
					updates[now+tt.delay] += recv.grow(window) + recv.consume(n)
				}
				send.add(updates[now])
				sent := send.take(tt.rate)
				data[now+tt.delay] += sent
				if now >= steps-100 {
					last += sent
				}
			}
			if want := min(size, bdpMax); b.window < want || b.window > 8*want {
				t.Errorf("the window is %d, and a round trip carries %d", b.window, want)
			}
			if last < 99*tt.rate {
				t.Errorf("in the last 100 ms %d bytes came, the link carries %d", last, 100*tt.rate)
			}
			if pings > 10 {
				t.Errorf("%d PING frames, want one and one for each time that the window has grown, at most 9 times", pings)
			}
		})
	}
}

// TestBDPEstimator_Quiet: many requests with small bodies cost one PING, and no
// window.
func TestBDPEstimator_Quiet(t *testing.T) {
	b := newBDPEstimator(initialWindow)
	pings := 0
	at := time.Unix(0, 0)
	for i := range 100_000 {
		at = at.Add(100 * time.Microsecond)
		window, ping := b.receive(200, at)
		if ping {
			pings++
		}
		if window != 0 {
			t.Fatalf("request %d: the window has grown to %d for nothing", i, window)
		}
		if i%10 == 9 {
			b.acknowledge(at.Add(500 * time.Microsecond)) // a round trip
		}
	}
	if pings != 1 {
		t.Errorf("%d PING frames, want 1", pings)
	}
}

// TestBDPEstimator_Slow: who reads slowly is not given a wider window, though
// the sender waits for updates all the time.
func TestBDPEstimator_Slow(t *testing.T) {
	b := newBDPEstimator(initialWindow)
	at := time.Unix(0, 0)
	for i := range 100 {
		if window, _ := b.receive(initialWindow/2, at); window != 0 {
			t.Fatalf("half %d: the window has grown to %d", i, window)
		}
		b.acknowledge(at.Add(time.Millisecond))
		at = at.Add(50 * time.Millisecond)
	}
}

// TestBDPEstimator_Strange: answers that nobody has asked for do nothing, the
// window never goes beyond its bound, and at the bound nothing is measured.
func TestBDPEstimator_Strange(t *testing.T) {
	b := newBDPEstimator(initialWindow)
	at := time.Unix(0, 0)
	b.acknowledge(at.Add(time.Hour))
	if b.rtt != 0 {
		t.Errorf("an answer without a question is taken for %v", b.rtt)
	}
	for range 100 {
		window, _ := b.receive(bdpMax, at)
		if window > bdpMax {
			t.Fatalf("a window of %d", window)
		}
		b.acknowledge(at)
	}
	if window, ping := b.receive(bdpMax, at); b.window != bdpMax || window != 0 || ping {
		t.Errorf("at its bound: %d, %d, %v", b.window, window, ping)
	}
}
