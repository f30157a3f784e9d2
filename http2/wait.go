package http2

import "time"

// waiter lets one goroutine wait for others. It is woken at least once for each
// time that something has changed, and may be without.
type waiter struct {
	wake  chan struct{} // of capacity 1
	timer *time.Timer   // nil before the first wait with a limit
	armed time.Time     // when the timer is due; zero: it is not armed
}

func newWaiter() waiter { return waiter{wake: make(chan struct{}, 1)} }

func (w *waiter) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// wait waits until somebody signals, or limit. A zero limit never comes.
func (w *waiter) wait(limit time.Time) error {
	if limit.IsZero() {
		<-w.wake
		return nil
	}
	if w.armed.IsZero() || limit.Before(w.armed) {
		d := time.Until(limit)
		if d <= 0 {
			select {
			case <-w.wake:
				return nil
			default:
				return ErrTimeout
			}
		}
		w.armed = limit
		if w.timer == nil {
			w.timer = time.NewTimer(d)
		} else {
			w.timer.Reset(d)
		}
	}
	select {
	case <-w.wake:
		return nil
	case <-w.timer.C:
		due := w.armed
		w.armed = time.Time{}
		if due.Before(limit) {
			return w.wait(limit)
		}
		return ErrTimeout
	}
}
