package http2

import "time"

// glitch is something that a peer may do now and then, but that costs us more
// than it costs the peer, or moves nothing: done all the time it is an attack.
// Some are the opposite: work that the peer has come for, which makes up for
// the rest.
type glitch uint8

const (
	glitchReset        glitch = iota // RST_STREAM of a request just made (rapid reset, CVE-2023-44487); see addReset
	glitchProvoked                   // a stream that we had to reset, by the peer's fault (MadeYouReset, CVE-2025-8671)
	glitchLarge                      // a request whose header list is larger than we take (HPACK bomb, CVE-2022-41723): it is answered with 431
	glitchRefused                    // a request that is refused though the client could not know: it costs little, but is never free
	glitchStray                      // a client's HEADERS for a stream that we have reset: they may have been under way, but are decoded
	glitchContinuation               // CONTINUATION (CVE-2023-45288); the size of a header block has a bound of its own
	glitchPing                       // PING that is no answer (CVE-2019-9512)
	glitchSettings                   // SETTINGS that is no answer, after the first (CVE-2019-9515)
	glitchEmpty                      // DATA without data, HEADERS without a block or CONTINUATION, that do not end the stream (CVE-2019-9518)
	glitchPriority                   // PRIORITY (CVE-2019-9513)
	glitchWindow                     // a small WINDOW_UPDATE (CVE-2019-9511, CVE-2019-9517)
	glitchUnknown                    // a frame of an unknown type
	glitchIdle                       // a frame that changes nothing: an answer that nobody waits for, RST_STREAM of a client's for a stream that is over, WINDOW_UPDATE for more than it was sent, GOAWAY

	workRequest // a request that has been answered to its end, but for one that is too large
	workData    // a DATA frame that we have sent, not cut short for want of a window
)

// glitchCosts are in points. What they come to, with glitchBudget and
// glitchLeak, at once and then in each second:
//
//	resets         500   50  Envoy: 500 and more than half of all (overload.premature_reset_total_stream_count);
//	                         nghttp2: 1000, then 33
//	provoked       200   20  as above, but no client in order does it; HAProxy counts them as glitches
//	large          200   20  likewise: 431 is an answer that no client in order asks for again; x/net ends the
//	                         connection with a block of more than twice the limit
//	refused       2000  200  as many as are under way when the proxy says that it leaves, or were just reset
//	stray         2000  200  a request has one block of trailers at the most, but few have any
//	CONTINUATION  1000  100  a head of 60 KiB comes in 4 frames of 16 KiB
//	PING          2000  200  x/net and Envoy hold 10000 and 1000 answers that were not sent yet
//	SETTINGS      1000  100  likewise
//	empty         2000  200  Envoy: 1 in a row, but some clients send a few
//	PRIORITY      5000  500  Envoy: 100 for each stream; browsers of old sent some for each request
//	WINDOW_UPDATE 5000  500  Envoy: 10 for each DATA frame sent
//	unknown       5000  500  as PRIORITY, since PRIORITY_UPDATE (RFC 9218) is one
//	idle          5000  500  as WINDOW_UPDATE
//
// A request answered pays for one reset, and a DATA frame for a small update
// with a PING, which grpc-go sends in each round trip in which it gets data (its
// BDP estimator): so a client that cancels up to half of its requests, and one
// that talks much of what it gets, can go on for ever at any rate. A DATA frame
// that a tiny window has cut short pays for nothing.
var glitchCosts = [...]int32{
	glitchReset:        20,
	glitchProvoked:     50,
	glitchLarge:        50,
	glitchRefused:      5,
	glitchStray:        5,
	glitchContinuation: 10,
	glitchPing:         5,
	glitchSettings:     10,
	glitchEmpty:        5,
	glitchPriority:     2,
	glitchWindow:       2,
	glitchUnknown:      2,
	glitchIdle:         2,

	workRequest: -20,
	workData:    -8,
}

const (
	glitchBudget = 10_000 // points
	glitchLeak   = 1000   // points a second

	// windowGlitch is far below what clients in order give back at once: half a
	// window or a quarter (nghttp2, grpc-go, browsers), 4 KiB (x/net).
	windowGlitch = 1 << 10

	// resetGrace is how long a stream has to have been open for its reset to be
	// in order: it has held one of the places that MAX_CONCURRENT_STREAMS bounds,
	// so whoever does that all the time gets no more of us than by waiting for the
	// replies. Callers whose deadline is over reset all that they have under way.
	resetGrace = 100 * time.Millisecond
)

// glitches is the budget of one connection, a bucket that leaks.
type glitches struct {
	level int32     // points, never below 0: good work is not saved up
	since time.Time // when it last leaked
}

// add takes down what has happened. It reports whether that is too much: then
// the connection has to end, with ENHANCE_YOUR_CALM.
func (b *glitches) add(g glitch, now time.Time) bool {
	cost := glitchCosts[g]
	if cost < 0 {
		b.level = max(0, b.level+cost)
		return false
	}
	if b.level > 0 {
		leaked := int64(now.Sub(b.since)) * glitchLeak / int64(time.Second)
		if leaked > 0 {
			// What is less than a point goes on leaking.
			b.since = b.since.Add(time.Duration(leaked * int64(time.Second) / glitchLeak))
			b.level = int32(max(0, int64(b.level)-leaked))
		}
	}
	if b.level == 0 {
		b.since = now
	}
	b.level += cost
	return b.level > glitchBudget
}

// addReset takes down that the peer has reset a stream that has been open for
// some time, and whether a reply to it had begun: then we have got over the
// costly part, and to stop a stream that goes on for ever is how it ends.
func (b *glitches) addReset(open time.Duration, replied bool, now time.Time) bool {
	if replied || open >= resetGrace {
		return false
	}
	return b.add(glitchReset, now)
}

// addUpdate takes down a WINDOW_UPDATE.
func (b *glitches) addUpdate(increment uint32, now time.Time) bool {
	return increment < windowGlitch && b.add(glitchWindow, now)
}
