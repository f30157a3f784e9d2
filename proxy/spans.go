package proxy

import (
	"bytes"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
	"unsafe"

	"isthmus/http1"
	"isthmus/tracing"
)

// tell offers the spans of the exchange, which is over, and of its tries.
func (x *exchange) tell(flag string) {
	end := time.Now()
	at := func(i instant) time.Time { return end.Add(-time.Duration(x.clock - i)) }
	w := newSpanWriter(x)
	kind := tracing.Server
	if x.conn.kind == outbound {
		kind = tracing.Client
	}
	w.begin(tracing.Span{ID: x.traced.span, Parent: x.traced.context.Span, Kind: kind, Start: at(x.start), End: end, Failed: x.meant() >= 500 || x.status == 0})
	w.exchange(x, flag)
	for i := range x.trail.failed {
		f := &x.trail.failed[i]
		w.begin(tracing.Span{ID: f.span, Parent: x.traced.span, Kind: tracing.Client, Start: at(f.began), End: at(f.ended), Failed: true})
		w.try(i+1, f.member, f.status, f.kind, false, f.cause)
	}
	if m := x.member; m != nil && x.attempts > len(x.trail.failed) {
		w.begin(tracing.Span{ID: x.traced.try, Parent: x.traced.span, Kind: tracing.Client, Start: at(x.trail.began), End: end, Failed: x.kind != NoError || x.meant() >= 500})
		w.try(x.attempts, m, x.status, x.kind, x.brokeOff(), x.trail.cause)
	}
	w.close()
	for _, e := range x.traced.rule.exporters {
		e.Offer(w.spans)
	}
	w.release()
}

// maxTag is how long a tag may be that clients decide about (Istio's
// maxPathTagLength).
const maxTag = 256

// spanWriter puts the spans of one exchange together. They are offered and
// forgotten together, so their tags share memory, which the next exchange uses, and
// so do the texts of these.
type spanWriter struct {
	trace tracing.TraceID
	state string
	name  string
	spans []tracing.Span
	tags  []tracing.Tag
	from  int    // in tags: where those of the last span begin
	text  []byte // of tags and names, as strings: it is not written over before they are forgotten
}

var spanWriters = sync.Pool{New: func() any { return new(spanWriter) }}

func newSpanWriter(x *exchange) *spanWriter {
	w := spanWriters.Get().(*spanWriter)
	w.trace, w.name = x.traced.context.Trace, "unknown"
	if x.traced.context.Stated {
		w.state = w.traceState(x.req.Fields)
	}
	if x.host != nil { // Istio's name of what was asked for
		var room [5]byte
		w.name = w.write([]byte(x.host.name), []byte(":"), strconv.AppendUint(room[:0], uint64(x.host.port), 10), []byte("/*"))
	}
	return w
}

// maxState is how long the tracestate of a span may be: as long as those that everybody
// passes on (W3C Trace Context 3.3.1.5).
const maxState = 512

// traceState is what fields of that name say, together (RFC 9110 5.3), as far as its members
// are not too many.
func (w *spanWriter) traceState(fields []http1.Field) string {
	from := len(w.text)
	for i := range fields {
		if f := &fields[i]; f.ID == http1.Unknown && isTraceState(f.Name) {
			if len(w.text) > from {
				w.text = append(w.text, ',')
			}
			w.text = append(w.text, f.Value...)
		}
	}
	state := w.text[from:]
	w.text = w.text[:from]
	if len(state) > maxState {
		state = state[:max(bytes.LastIndexByte(state[:maxState+1], ','), 0)]
	}
	return w.foreign(state)
}

func isTraceState(name []byte) bool { return len(name) == 10 && equalFold(name, "tracestate") }

// begin begins another span. What it says comes before the next one begins.
func (w *spanWriter) begin(s tracing.Span) {
	w.close()
	s.Trace, s.State, s.Name = w.trace, w.state, w.name
	w.spans = append(w.spans, s)
}

// close gives the last span its tags.
func (w *spanWriter) close() {
	if n := len(w.spans); n > 0 {
		w.spans[n-1].Tags = w.tags[w.from:len(w.tags):len(w.tags)]
	}
	w.from = len(w.tags)
}

// release gives the memory to the next exchange.
func (w *spanWriter) release() {
	clear(w.spans)
	clear(w.tags)
	*w = spanWriter{spans: w.spans[:0], tags: w.tags[:0], text: w.text[:0]}
	spanWriters.Put(w)
}

// write makes a text, which lasts until the spans are forgotten.
func (w *spanWriter) write(parts ...[]byte) string {
	from := len(w.text)
	for _, p := range parts {
		w.text = append(w.text, p...)
	}
	text := w.text[from:]
	return unsafe.String(unsafe.SliceData(text), len(text))
}

// foreign makes a text of what others have said. OTLP's are UTF-8: for the sake of one that is
// not, a collector refuses all spans that come with it.
func (w *spanWriter) foreign(parts ...[]byte) string {
	text := w.write(parts...)
	if utf8.ValidString(text) {
		return text
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// tag adds what the last span says, unless that is nothing.
func (w *spanWriter) tag(key, value string) { w.tags = appendTag(w.tags, key, value) }

func appendTag(tags []tracing.Tag, key, value string) []tracing.Tag {
	if value == "" {
		return tags
	}
	return append(tags, tracing.Tag{Key: key, Value: cutTag(value)})
}

// cutTag is a value as far as a tag may be long, and no part of a character.
func cutTag(value string) string {
	if len(value) <= maxTag {
		return value
	}
	n := maxTag
	for n > 0 && !utf8.RuneStart(value[n]) {
		n--
	}
	return value[:n]
}

func (w *spanWriter) number(key string, v int64) {
	var room [20]byte
	w.tag(key, w.write(strconv.AppendInt(room[:0], v, 10)))
}

// override adds a tag that the configuration wants, in place of one of ours by the
// same name.
func (w *spanWriter) override(key, value string) {
	own := w.tags[w.from:]
	for i := range own {
		if own[i].Key == key && value != "" {
			own[i].Value = cutTag(value)
			return
		}
	}
	w.tag(key, value)
}

// exchange adds the tags of the exchange: Istio's, and what the rule adds.
func (w *spanWriter) exchange(x *exchange, flag string) {
	r := x.traced.rule
	w.tags = append(w.tags, r.own...)
	w.tag("guid:x-request-id", w.foreign(x.requestIDText()))
	w.tag("http.method", w.write(x.req.Method))
	// Without the query, which may hold what is secret.
	w.tag("http.url", w.foreign(x.scheme(), []byte("://"), x.req.Authority, x.req.Path))
	w.tag("http.protocol", x.protocol())
	w.number("http.status_code", int64(x.status))
	w.tag("response_flags", flag)
	w.number("request_size", x.requestBody())
	w.number("response_size", x.tally.replyBody)
	if agent, ok := x.req.Get(http1.UserAgent); ok {
		w.tag("user_agent", w.foreign(agent))
	}
	var room [64]byte
	w.tag("peer.address", w.write(x.conn.address.AppendTo(room[:0])))
	up := x.aim()
	if m := x.member; m != nil {
		up = m.live
	}
	if up != nil {
		w.tag("upstream_cluster", up.name)
		w.tag("upstream_cluster.name", up.name)
	}
	if s := x.tally.grpcStatus(); s >= 0 {
		w.number("grpc.status_code", int64(s))
	}
	for _, tag := range r.tags {
		value := tag.Literal
		if tag.Header != "" {
			value = tag.Default
			name := []byte(tag.Header)
			if v, ok := x.req.Lookup(name); ok && !(x.outside() && reserved(name)) {
				value = w.foreign(v)
			}
		}
		w.override(tag.Name, value)
	}
}

// try adds the tags of a try; status is 0 where there was no reply, and begun says
// that it failed after that.
func (w *spanWriter) try(n int, m *member, status int, k Kind, begun bool, cause error) {
	w.tag("component", "proxy")
	w.number("isthmus.attempt", int64(n))
	w.tag("isthmus.cluster", m.host.Endpoint().Cluster)
	w.tag("upstream_cluster", m.live.name)
	var room [64]byte
	w.tag("upstream_address", w.write(m.address.AppendTo(room[:0])))
	if status != 0 {
		w.number("http.status_code", int64(status))
	}
	if k != NoError && k != retriableStatus {
		w.tag("response_flags", answers[k].flag)
		w.tag("isthmus.failure", detailOf(k, begun))
	}
	if cause != nil {
		w.tag("isthmus.cause", strings.ToValidUTF8(cause.Error(), "\uFFFD"))
	}
}
