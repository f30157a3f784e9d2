package proxy

import (
	"errors"
	"time"

	"isthmus/http2"
	"isthmus/telemetry"
)

// record counts the exchange, which is over, and keeps in mind what is to be
// told of it.
func (x *exchange) record() {
	if x.kind == ClientGone && x.conn.proxy.ended.Load() {
		x.kind = CutOff // likewise
	}
	if x.kind == ClientGone && x.conn.h2 != nil && errors.Is(x.conn.h2.Err(), http2.ErrShed) {
		x.kind = Shed // the client is there, but we have ended its stream
	}
	if x.kind == ClientGone || x.kind == CutOff {
		x.clock = now() // which is when that was noticed
	}
	switch x.kind {
	case Forbidden, Unauthorized, Denied:
		if x.route == nil && x.host != nil {
			x.route = x.host.find(x) // whose requests these would have been, for whoever tells
		}
	}
	flag, took := x.flag(), time.Duration(x.clock-x.start)
	e := telemetry.Exchange{
		Status: x.status, Flag: flag, GRPC: x.tally.grpcStatus(), Took: took,
		RequestBytes: x.requestHead() + x.requestBody(), ReplyBytes: int64(x.tally.replyHead) + x.tally.replyBody,
	}
	e.RequestMessages, e.ReplyMessages = x.tally.asks.count, x.tally.tells.count
	if x.traced.sampled() {
		e.Trace, e.End = x.traced.context.Trace, wall(x.clock)
	}
	if list := x.table.tags[x.conn.kind]; list != nil {
		e.Tags = x.tags(list, flag, took)
	}
	x.counters().Record(&e)
	if x.member != nil && x.member.traffic != nil {
		x.recordLink(&e)
	}
	if x.arm != nil {
		x.arm.Count(x.outcome(), x.trail.waited(x))
	}
	if x.troubled() {
		x.remember()
	}
	if x.traced.sampled() {
		x.tell(flag)
	}
	if r := x.table.logging[x.conn.kind]; r != nil {
		x.log(r, flag, took)
	}
}

// flag is Envoy's response flag for the exchange.
func (x *exchange) flag() string {
	flag := answers[x.kind].flag
	if x.delayed != 0 {
		flag = delayedFlag(flag)
	}
	return flag
}

// delayedFlag adds that a fault has delayed the request: "DI", or "DI,FI".
func delayedFlag(flag string) string {
	if flag == telemetry.NoFlag {
		return "DI"
	}
	return "DI," + flag
}

// counters finds where the exchange is counted: with the endpoint it went to
// last, else with the upstream that it was for, else with the routes that answer
// by themselves, as what was refused before anybody looked for one, else with what
// belongs nowhere.
func (x *exchange) counters() *telemetry.Requests {
	switch {
	case x.member != nil && (x.conn.kind != inbound || x.conn.identity == "" || !x.member.live.inbound):
		return x.member.requests.Load()
	case x.member != nil:
		return x.calledBy(x.member.live)
	case x.route != nil && len(x.route.destinations) > 0:
		l := x.upstream(x.route.destinations[0].target).live
		if l.inbound && x.conn.kind == inbound && x.conn.identity != "" {
			return x.calledBy(l)
		}
		return l.unreached
	case x.route != nil, x.kind == Overloaded:
		return x.conn.proxy.answered[x.conn.kind]
	}
	return x.conn.proxy.unrouted[x.conn.kind]
}

// recordLink counts what has gone to the place of the last endpoint. What clients end,
// or what is not sent for want of room here, is no failure of the way there.
func (x *exchange) recordLink(e *telemetry.Exchange) {
	status, waited, own := 0, time.Duration(0), x.kind == ClientGone || x.kind == Shed || x.kind == CutOff
	switch {
	case (x.kind == NoError || own) && x.trail.replied != 0:
		status, waited = x.meant(), time.Duration(x.trail.replied-x.tally.asked)
	case own:
		x.member.traffic.Gone(e.RequestBytes)
		return
	case x.kind == Overflow:
		return
	}
	x.member.traffic.Reply(status, waited, e.RequestBytes, e.ReplyBytes)
}

// grpcStatus is the status of an exchange of gRPC as metrics tell it.
func (t *tally) grpcStatus() int {
	switch t.grpc {
	case noGRPC:
		return telemetry.NoGRPC
	case untold:
		return telemetry.GRPCNoStatus
	}
	return t.grpc.value()
}
