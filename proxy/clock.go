package proxy

import (
	"sync/atomic"
	"time"
)

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

// date is a Date field's value, and the second in which it was made.
type date struct {
	second instant
	value  []byte
}

var lastDate atomic.Pointer[date]

// dateOf returns the value of Date for a reply that has none: who passes one on
// has to say when it came (RFC 9110 6.6.1). t is about now.
func dateOf(t instant) []byte {
	second := t / instant(time.Second)
	d := lastDate.Load()
	if d == nil || d.second != second {
		d = &date{second, time.Now().UTC().AppendFormat(nil, "Mon, 02 Jan 2006 15:04:05 GMT")}
		lastDate.Store(d)
	}
	return d.value
}
