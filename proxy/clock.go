package proxy

import "time"

// instant is a moment on the monotonic clock: nanoseconds since the process
// started. 0 means "no moment", as a deadline that is not there.
type instant int64

var epoch = time.Now()

func now() instant { return instant(time.Since(epoch)) }

// sooner returns the earlier of two deadlines, of which 0 never comes.
func sooner(a, b instant) instant {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

func (t instant) time() time.Time { return epoch.Add(time.Duration(t)) }
