package breaker

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWindow(10 * time.Second)
		is := func(want int32) {
			t.Helper()
			if n := w.Count(); n != want {
				t.Errorf("counts %d, want %d", n, want)
			}
		}
		is(0)
		for range 100 {
			w.Add()
		}
		is(100)
		time.Sleep(9 * time.Second)
		is(100)
		time.Sleep(2 * time.Second) // a tenth of the next interval
		is(90)
		w.Add()
		is(91)
		time.Sleep(8 * time.Second)
		is(11)
		time.Sleep(2 * time.Second)
		is(1)
		time.Sleep(time.Minute)
		is(0)
	})
}
