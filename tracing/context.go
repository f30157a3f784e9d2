package tracing

import (
	"bytes"
	"encoding/hex"

	"isthmus/http1"
)

// Decision is whether a trace is sampled.
type Decision uint8

// The decisions. Undecided: nobody before us has said.
const (
	Undecided Decision = iota
	NotSampled
	Sampled
)

// Formats are the languages in which a trace's context is written.
type Formats uint8

// The formats.
const (
	W3C      Formats = 1 << iota // traceparent
	B3Single                     // b3
	B3Multi                      // x-b3-traceid and others
)

// Context is what a request says of the trace that it belongs to.
type Context struct {
	Trace    TraceID
	Span     SpanID // of the caller
	Decision Decision
	Debug    bool    // B3: sampled whatever others think
	Short    bool    // B3: the trace's ID had 64 bits
	Formats  Formats // that were found
	Stated   bool    // by traceparent, so that tracestate belongs to it
	Random   bool    // W3C: whoever began the trace vouches for the last 56 bits of its ID
}

// Read finds the context in a request's fields. The first of traceparent, b3 and
// x-b3-traceid that can be read says it. What cannot be read is as if it was not
// there (W3C Trace Context 3.2.2.2), nor can a traceparent that is there twice: nobody
// knows whose trace it is. The context is the zero one before.
func (c *Context) Read(fields []http1.Field) {
	var parent, single []byte
	var multi multiFields
	for i := range fields {
		f := &fields[i]
		switch f.ID {
		case http1.Traceparent:
			if parent = f.Value; c.Formats&W3C != 0 {
				parent = []byte{}
			}
			c.Formats |= W3C
		case http1.B3:
			single = f.Value
			c.Formats |= B3Single
		case http1.B3TraceID:
			multi.trace = f.Value
			c.Formats |= B3Multi
		case http1.B3SpanID:
			multi.span = f.Value
			c.Formats |= B3Multi
		case http1.B3Sampled:
			multi.sampled = f.Value
			c.Formats |= B3Multi
		case http1.B3Flags:
			multi.flags = f.Value
			c.Formats |= B3Multi
		case http1.B3ParentSpanID:
			c.Formats |= B3Multi
		}
	}
	if c.Formats == 0 || parent != nil && c.readParent(parent) || single != nil && c.readSingle(single) {
		return
	}
	c.readMulti(&multi)
}

// readParent reads traceparent: version-trace-span-flags.
func (c *Context) readParent(v []byte) bool {
	const length = 55 // of version 00; later ones may have more behind it
	if len(v) < length || v[2] != '-' || v[35] != '-' || v[52] != '-' || len(v) > length && (v[length] != '-' || string(v[:2]) == "00") {
		return false
	}
	var version, flags [1]byte
	var trace TraceID
	var span SpanID
	if !unhex(version[:], v[:2]) || version[0] == 0xff || !unhex(trace[:], v[3:35]) || !unhex(span[:], v[36:52]) || !unhex(flags[:], v[53:55]) || trace.IsZero() || span == (SpanID{}) {
		return false
	}
	c.Trace, c.Span, c.Decision, c.Stated, c.Random = trace, span, NotSampled, true, flags[0]&2 != 0
	if flags[0]&1 != 0 {
		c.Decision = Sampled
	}
	return true
}

// readSingle reads b3: trace-span-decision-parent, of which the last two may be
// missing, or the decision alone.
func (c *Context) readSingle(v []byte) bool {
	if len(v) == 1 {
		return c.decide(v)
	}
	var trace TraceID
	i := bytes.IndexByte(v, '-')
	if i < 0 || !c.readTrace(&trace, v[:i]) {
		return false
	}
	v = v[i+1:]
	if len(v) < 16 || len(v) > 16 && v[16] != '-' {
		return false
	}
	var span SpanID
	if !unhex(span[:], v[:16]) || span == (SpanID{}) {
		return false
	}
	if len(v) > 17 {
		decision, _, _ := bytes.Cut(v[17:], []byte("-"))
		if !c.decide(decision) {
			return false
		}
	}
	c.Trace, c.Span = trace, span
	return true
}

// multiFields are B3's, one by one.
type multiFields struct{ trace, span, sampled, flags []byte }

func (c *Context) readMulti(m *multiFields) {
	var trace TraceID
	var span SpanID
	if m.trace != nil && c.readTrace(&trace, m.trace) && len(m.span) == 16 && unhex(span[:], m.span) && span != (SpanID{}) {
		c.Trace, c.Span = trace, span
	}
	if m.sampled != nil {
		c.decide(m.sampled)
	}
	if len(m.flags) == 1 && m.flags[0] == '1' {
		c.decide([]byte("d"))
	}
}

// readTrace reads the ID of a trace, of 128 bits or 64.
func (c *Context) readTrace(id *TraceID, v []byte) bool {
	c.Short = len(v) == 16
	switch {
	case c.Short && unhex(id[8:], v), len(v) == 32 && unhex(id[:], v):
		return !id.IsZero()
	}
	return false
}

// decide reads B3's decision.
func (c *Context) decide(v []byte) bool {
	switch string(v) {
	case "1", "true":
		c.Decision = Sampled
	case "0", "false":
		c.Decision = NotSampled
	case "d":
		c.Decision, c.Debug = Sampled, true
	default:
		return false
	}
	return true
}

// unhex reads digits, the letters among which are small (W3C) or, of old clients
// of B3, capital.
func unhex(dst, src []byte) bool {
	_, err := hex.Decode(dst, src)
	return err == nil
}
