package proxy

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fakeHelper is a helper that counts how often it is closed.
type fakeHelper struct {
	busy   atomic.Bool
	closed atomic.Int32
}

func (f *fakeHelper) Busy() bool { return f.busy.Load() }
func (f *fakeHelper) Close()     { f.closed.Add(1) }

// TestHelpers: who is asked by no table any more is closed a minute later, when nobody asks,
// unless a table has him again, and then as if he had never gone.
func TestHelpers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var h helpers[string, *fakeHelper]
		use := func(k string) *fakeHelper {
			mu.Lock()
			defer mu.Unlock()
			f := h.find(k)
			if f == nil {
				f = &fakeHelper{}
			}
			h.keep(map[string]*fakeHelper{k: f}, &mu)
			return f
		}
		closed := func(f *fakeHelper, want int32) {
			t.Helper()
			synctest.Wait()
			if n := f.closed.Load(); n != want {
				t.Errorf("closed %d times, want %d", n, want)
			}
		}
		a := use("a")
		b := use("b")
		for range 10 {
			time.Sleep(leftAfter / 4)
			if use("a") != a || use("b") != b {
				t.Fatal("a configuration that came back got others")
			}
		}
		time.Sleep(leftAfter - time.Nanosecond)
		closed(a, 0) // which has left with the last change
		time.Sleep(time.Nanosecond)
		closed(a, 1)
		if use("a") == a {
			t.Error("one that is closed is used again")
		}
		b.busy.Store(true)
		time.Sleep(2 * leftAfter)
		closed(b, 0)
		b.busy.Store(false)
		time.Sleep(time.Second)
		closed(b, 1)

		c, d := use("c"), use("d")
		mu.Lock()
		h.close()
		mu.Unlock()
		closed(c, 1)
		closed(d, 1)
		time.Sleep(2 * leftAfter)
		closed(c, 1)
	})
}
