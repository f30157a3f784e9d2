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

// date is what the wall clock said in a second of the monotonic one: the value
// of a Date field, and the moment that was 0. It is asked anew in each second,
// since it may be set.
type date struct {
	second instant
	value  []byte
	zero   int64 // in nanoseconds since 1970
}

var lastDate atomic.Pointer[date]

// dateAt returns the date of a second; t is about now.
func dateAt(t instant) *date {
	second := t / instant(time.Second)
	d := lastDate.Load()
	if d == nil || d.second != second {
		at := time.Now()
		d = &date{second, at.UTC().AppendFormat(nil, "Mon, 02 Jan 2006 15:04:05 GMT"), at.UnixNano() - int64(at.Sub(epoch))}
		lastDate.Store(d)
	}
	return d
}

// dateOf returns the value of Date for a reply that has none: who passes one on
// has to say when it came (RFC 9110 6.6.1). t is about now.
func dateOf(t instant) []byte { return dateAt(t).value }

// wall is what the wall clock says at t, which is about now: in nanoseconds since
// 1970.
func wall(t instant) int64 { return dateAt(t).zero + int64(t) }
