// Package accesslog writes a line for an exchange: in Istio's default format,
// as text or JSON, or in one made of Envoy's operators.
//
// Whoever serves requests never waits for the log. What a line needs is kept in
// memory, and one goroutine makes lines of what has gathered and writes them. A
// disk that is full or does not answer costs lines, which are counted, and nothing
// else. See docs/adr/015 for why.
//
// What is logged is said by a [Rule]: a filter in the part of CEL that Istio's
// documentation uses, and a share.
package accesslog

import (
	"math/rand/v2"
	"time"

	"isthmus/http1"
)

// Unknown is a duration, or a gRPC status, that there is none of.
const Unknown = -1

// Entry is what is known of one exchange. Texts that are empty are shown as "-",
// or as null.
type Entry struct {
	Facts
	Outcome

	Request   *http1.Request // empty: its head could not be read
	Outside   bool           // it is as a client outside the mesh has it: what only proxies may say there is nobody's word
	Reply     *http1.Header  // of what the format asks for; nil: there was none
	Scheme    []byte
	RequestID []byte
	Trace     [16]byte // zero: the exchange is not traced

	RequestBytes, ReplyBytes int64 // of the bodies with their heads

	Client   *ClientEnd
	Upstream *UpstreamEnd
}

// Facts are what is known of an exchange and does not live in memory that the next
// one will use: it can be kept until there is time to make a line of it.
type Facts struct {
	Start       int64         // in nanoseconds since 1970
	Duration    time.Duration // until the last byte of the reply was sent
	Received    time.Duration // from Start until the request's last byte came; Unknown: it did not
	FirstByte   time.Duration // from Start until the upstream's reply began; Unknown: there is none
	ServiceTime time.Duration // that the upstream took to begin it; Unknown likewise

	RequestBody, ReplyBody int64 // bytes of the bodies

	Route      string
	GRPCStatus int32 // Unknown: the exchange is none of gRPC
	Attempts   int32
}

// Outcome is how an exchange went: most go as others before.
type Outcome struct {
	Protocol    string // "HTTP/1.1"
	Status      int
	Flags       string // "-": none
	Details     string
	Termination string // why the connection had to end
	Failure     string // what went wrong at connecting
}

// Rule says which exchanges are logged.
type Rule struct {
	Filter *Filter // nil: all
	Share  float64 // of them, 0 to 1
}

// wants reports whether the exchange is logged.
func (r *Rule) wants(e *Entry) bool {
	if r.Filter != nil && !r.Filter.Match(e) {
		return false
	}
	return r.Share >= 1 || rand.Float64() < r.Share
}
