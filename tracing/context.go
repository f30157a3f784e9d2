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
}

// Read finds the context in a request's fields. The first of traceparent, b3 and
// x-b3-traceid that can be read says it. What cannot be read is as if it was not
// there (W3C Trace Context 3.2.2.2).
func Read(fields []http1.Field) (c Context) {
	var parent, single []byte
	var multi multiFields
	for i := range fields {
		f := &fields[i]
		switch f.ID {
		case http1.Traceparent:
			parent = f.Value
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
	if c.Formats == 0 {
		return c
	}
	if parent != nil && c.readParent(parent) || single != nil && c.readSingle(single) {
		return c
	}
	c.readMulti(&multi)
	return c
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
	if !unhex(version[:], v[:2]) || version[0] == 0xff || !unhex(trace[:], v[3:35]) || !unhex(span[:], v[36:52]) || !unhex(flags[:], v[53:55]) || trace == (TraceID{}) || span == (SpanID{}) {
		return false
	}
	c.Trace, c.Span, c.Decision = trace, span, NotSampled
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
		return *id != TraceID{}
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

// Field is one of those that carry a context.
type Field uint8

// The fields that are written.
const (
	Traceparent Field = iota
	B3
	B3TraceID
	B3SpanID
	B3ParentSpanID
	B3Sampled
	B3Flags
	numFields
)

// names are those of the fields.
var names = [numFields][]byte{
	[]byte("traceparent"), []byte("b3"), []byte("x-b3-traceid"), []byte("x-b3-spanid"), []byte("x-b3-parentspanid"), []byte("x-b3-sampled"), []byte("x-b3-flags"),
}

// Name is the field's.
func (f Field) Name() []byte { return names[f] }

// lists are the fields by the formats, whether the span has a parent, and whether
// the trace is debugged: to put them together for each request costs more than to
// write them.
var lists = func() (out [B3Multi << 3][]Field) {
	for i := range out {
		formats, child, debug := Formats(i&7), i&8 != 0, i&16 != 0
		if formats&W3C != 0 {
			out[i] = append(out[i], Traceparent)
		}
		if formats&B3Single != 0 {
			out[i] = append(out[i], B3)
		}
		if formats&B3Multi == 0 {
			continue
		}
		out[i] = append(out[i], B3TraceID, B3SpanID)
		if child {
			out[i] = append(out[i], B3ParentSpanID)
		}
		if debug {
			out[i] = append(out[i], B3Flags)
		} else {
			out[i] = append(out[i], B3Sampled)
		}
	}
	return out
}()

// List returns which fields say the context in some formats, in their order. A
// span without a parent has no field for it. The list is not to be changed.
func (c *Context) List(formats Formats, parent SpanID) []Field {
	i := formats & (W3C | B3Single | B3Multi)
	if parent != (SpanID{}) {
		i |= 8
	}
	if c.Debug {
		i |= 16
	}
	return lists[i]
}

// Spelling is a context as it goes to the next process.
type Spelling struct {
	whole  [len("00-") + 2*len(TraceID{}) + len("-") + 2*len(SpanID{}) + len("-01")]byte // traceparent, which most else is a part of
	parent [2 * len(SpanID{})]byte
	single []byte // b3
	short  bool
}

// Where the parts of traceparent are.
const (
	traceAt   = len("00-")
	spanAt    = traceAt + 2*len(TraceID{}) + len("-")
	sampledAt = spanAt + 2*len(SpanID{}) + len("-0")
)

// Spell spells the context out in some formats: span is the one that sends, parent
// its own.
func (s *Spelling) Spell(c *Context, formats Formats, span, parent SpanID) {
	copy(s.whole[:], "00-")
	putHex(s.whole[traceAt:], c.Trace[:])
	s.whole[spanAt-1] = '-'
	putHex(s.whole[spanAt:], span[:])
	s.whole[sampledAt-2], s.whole[sampledAt-1], s.whole[sampledAt] = '-', '0', '0'
	if c.Decision == Sampled {
		s.whole[sampledAt] = '1'
	}
	putHex(s.parent[:], parent[:])
	s.short = c.Short
	if formats&B3Single != 0 {
		s.spellSingle(c, parent)
	}
}

// spellSingle writes b3.
func (s *Spelling) spellSingle(c *Context, parent SpanID) {
	decision := s.whole[sampledAt]
	if c.Debug {
		decision = 'd'
	}
	b := append(append(s.single[:0], s.Value(B3TraceID)...), '-')
	b = append(append(b, s.Value(B3SpanID)...), '-', decision)
	if parent != (SpanID{}) {
		b = append(append(b, '-'), s.parent[:]...)
	}
	s.single = b
}

// Value is what a field says. It is the spelling's memory.
func (s *Spelling) Value(f Field) []byte {
	switch f {
	case Traceparent:
		return s.whole[:]
	case B3:
		return s.single
	case B3TraceID:
		if s.short { // as long as it came
			return s.whole[traceAt+len(TraceID{}) : spanAt-1]
		}
		return s.whole[traceAt : spanAt-1]
	case B3SpanID:
		return s.whole[spanAt : spanAt+2*len(SpanID{})]
	case B3ParentSpanID:
		return s.parent[:]
	case B3Sampled:
		return s.whole[sampledAt:]
	}
	return debugFlag
}

var debugFlag = []byte("1")
