package proxy

import (
	"sync"

	"isthmus/auth"
	"isthmus/mesh"
)

// exchanges are those that carry no request.
var exchanges = sync.Pool{New: func() any { return new(exchange) }}

// release gives the exchange's memory back.
func (x *exchange) release() {
	x.reset()
	exchanges.Put(x)
}

// reset makes the exchange ready for the next request.
func (x *exchange) reset() {
	x.body.kept.recycle()
	if x.body.larger.data != nil || x.pumping.larger.data != nil {
		x.body.larger.recycle()
		x.pumping.larger.release()
	}
	out, fields, tried := x.out[:0], x.fields[:0], x.tried[:0]
	x.tally, x.traced, x.replyKept.Fields = tally{}, traced{}, x.replyKept.Fields[:0]
	clear(tried[:cap(tried)])
	if cap(out) > 2*largeBufferSize {
		out = nil // one enormous head shall not be kept for ever
	}
	x.conn, x.table, x.arm, x.route, x.matched, x.host, x.member = nil, nil, nil, nil, nil, nil, nil
	x.body, x.kind, x.status, x.replying = requestBody{}, NoError, 0, false
	x.dialect, x.bridged, x.webReply = notGRPC, false, false
	x.upgrade.protocol, x.upgrade.agreed, x.upgrade.websocket = nil, false, false
	x.trail.forget()
	x.overloaded, x.unsent, x.hasID, x.sanitized, x.told, x.attempts, x.cookie, x.delayed = false, false, false, false, false, 0, nil, 0
	x.limited, x.drawn, x.timing, x.said = nil, 0, timing{}, nil
	if x.subject.Peer != nil || x.subject.Claims != nil {
		x.subject, x.refusal = auth.Request{}, nil
	}
	if x.badToken != nil || x.verdict != nil || x.added.Set != nil || x.added.Add != nil {
		x.badToken, x.verdict, x.added = nil, nil, mesh.HeaderOps{}
	}
	x.pumping.unread, x.pumping.short = false, false
	if x.pumping.came.Load() != 0 {
		x.pumping.came.Store(0)
	}
	if x.pumping.begun.Load() {
		x.pumping.begun.Store(false)
	}
	if x.pumping.continued.Load() != 0 {
		x.pumping.continued.Store(0)
	}
	if x.pumping.answered.Load() {
		x.pumping.answered.Store(false)
	}
	x.out, x.fields, x.tried = out, fields, tried
}
