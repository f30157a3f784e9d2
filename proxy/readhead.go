package proxy

import (
	"bytes"
	"errors"
	"fmt"

	"isthmus/http1"
)

// readHead reads one request head. status is that of a refusal.
func (c *conn) readHead(x *exchange) (Kind, int) {
	x.req.Reset()
	started := instant(0)
	for {
		n, err := x.req.Parse(c.in.bytes(), http1.Limits{})
		if err != nil {
			if c.last == 0 && brokenPreface(c.in.bytes()) {
				return ClientGone, 0
			}
			status := 400
			var bad *http1.Error
			if errors.As(err, &bad) {
				status = bad.Status
			}
			x.trail.cause = err
			return BadRequest, status
		}
		if n > 0 {
			c.in.r += n
			x.tally.head = n
			return x.judgeHead()
		}
		if started == 0 {
			started = now()
			c.limit = started + c.patience.head
		}
		if c.in.w == len(c.in.data) {
			c.in.compact()
			if c.in.w == len(c.in.data) && !c.in.grow() {
				x.trail.cause = errHeadTooLarge
				return BadRequest, 431
			}
		}
		c.movable = true
		_, err = c.fill()
		c.movable = false
		switch {
		case err == nil, errors.Is(err, errInterrupted):
		case errors.Is(err, errTimeout):
			return RequestTimeout, 408
		default:
			return ClientGone, 0
		}
	}
}

// judgeHead says whether a request with this head may be made at all. status is
// that of a refusal.
func (x *exchange) judgeHead() (k Kind, status int) {
	switch {
	case string(x.req.Method) == "CONNECT":
		x.trail.cause = errConnect
		return BadRequest, 405
	case x.req.Underscore && x.conn.kind == gateway:
		// An application that turns names into variables would take
		// x_forwarded_for for x-forwarded-for.
		x.trail.cause = underscored(&x.req)
		return BadRequest, 400
	}
	return NoError, 0
}

// notTaken is why a request is refused that is well-formed. It says all there is to say.
type notTaken string

func (e notTaken) Error() string { return string(e) }

const (
	errConnect      = notTaken("CONNECT is not taken")
	errProtocol     = notTaken("of what a CONNECT may ask for, WebSocket alone is taken")
	errConnectBody  = notTaken("a CONNECT for a WebSocket has neither a length nor an end")
	errHeadTooLarge = notTaken("its head is larger than 60 KiB, or has more than 100 fields")
)

// underscored says that a name has a "_" in it, and which.
func underscored(r *http1.Request) error {
	name := ""
	for i := range r.Fields {
		if bytes.IndexByte(r.Fields[i].Name, '_') >= 0 {
			name = string(r.Fields[i].Name)
			break
		}
	}
	return notTaken(fmt.Sprintf("a gateway takes no field with a \"_\" in its name, as %q has one: some servers would take it for a \"-\"", name))
}

// refuseHead answers a request that could not be read.
func (x *exchange) refuseHead(k Kind, status int) {
	x.keep = false
	x.kind = k
	x.start = now()
	x.clock = x.start
	x.table = x.conn.proxy.table.Load()
	x.req.Minor = 1
	x.req.Framing, x.req.Fields = http1.NoBody, x.req.Fields[:0]
	x.local(status, nil)
	x.record()
}
