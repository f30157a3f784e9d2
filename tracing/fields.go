package tracing

import (
	"bytes"
	"slices"
)

// Fields writes the fields that carry a context, as one way to write heads has
// them. All that differs from request to request are digits, at places known
// beforehand: a text that has them all is copied, and they are filled in.
type Fields [1 << numTraits]template

// What a template depends on beside [Formats], which come first.
const (
	child = 1 << (iota + 3) // the span has a parent
	debug
	short
	random
	numTraits = iota + 3
)

// template is text with holes in it.
type template struct {
	text      []byte
	holes     []hole
	decisions []int // where the digit goes that says whether the trace is sampled
}

// hole is where sixteen digits go.
type hole struct {
	at   int
	what digits
}

// digits are some that a context has.
type digits uint8

const (
	traceDigits digits = iota // the first half of the trace's
	restDigits                // the second
	spanDigits
	parentDigits
	numDigits
)

// sampledDigit is one more if the trace is sampled: 0 and 1, or 2 and 3.
type sampledDigit byte

// NewFields makes what writes fields by field, which appends one.
func NewFields(field func(dst, name, value []byte) []byte) *Fields {
	f := &Fields{}
	for traits := range f {
		f[traits] = newTemplate(traits, field)
	}
	return f
}

func newTemplate(traits int, field func(dst, name, value []byte) []byte) (t template) {
	add := func(name string, value ...any) {
		// What stands in a hole until it is filled says where the value has got to.
		const unfilled = "0123456789abcdef"
		var whole []byte
		for _, part := range value {
			switch part := part.(type) {
			case string:
				whole = append(whole, part...)
			case digits:
				whole = append(whole, unfilled...)
			case sampledDigit:
				whole = append(whole, byte(part))
			}
		}
		t.text = field(t.text, []byte(name), whole)
		at := bytes.LastIndex(t.text, whole)
		for _, part := range value {
			switch part := part.(type) {
			case string:
				at += len(part)
			case digits:
				t.holes = append(t.holes, hole{at, part})
				at += len(unfilled)
			case sampledDigit:
				t.decisions = append(t.decisions, at)
				at++
			}
		}
	}
	formats := Formats(traits)
	if formats&W3C != 0 {
		flags := sampledDigit('0')
		if traits&random != 0 {
			flags = '2'
		}
		add("traceparent", "00-", traceDigits, restDigits, "-", spanDigits, "-0", flags)
	}
	trace := []any{traceDigits, restDigits}
	if traits&short != 0 { // as long as it came
		trace = []any{restDigits}
	}
	if formats&B3Single != 0 {
		value := append(slices.Clone(trace), "-", spanDigits, "-", sampledDigit('0'))
		if traits&debug != 0 {
			value[len(value)-1] = "d"
		}
		if traits&child != 0 {
			value = append(value, "-", parentDigits)
		}
		add("b3", value...)
	}
	if formats&B3Multi == 0 {
		return t
	}
	add("x-b3-traceid", trace...)
	add("x-b3-spanid", spanDigits)
	if traits&child != 0 {
		add("x-b3-parentspanid", parentDigits)
	}
	if traits&debug != 0 {
		add("x-b3-flags", "1")
	} else {
		add("x-b3-sampled", sampledDigit('0'))
	}
	return t
}

// Append appends the fields that say a context in some formats: span is the one
// that sends, parent its own; zero: it has none.
func (f *Fields) Append(dst []byte, c *Context, formats Formats, span, parent SpanID) []byte {
	traits := int(formats & (W3C | B3Single | B3Multi))
	if parent != (SpanID{}) {
		traits |= child
	}
	if c.Debug {
		traits |= debug
	}
	if c.Short {
		traits |= short
	}
	if c.Random {
		traits |= random
	}
	t := &f[traits]
	all := [numDigits]digitPair{
		traceDigits: digitsOf(c.Trace[:8]), restDigits: digitsOf(c.Trace[8:]), spanDigits: digitsOf(span[:]), parentDigits: digitsOf(parent[:]),
	}
	from := len(dst)
	dst = append(dst, t.text...)
	out := dst[from:]
	for _, h := range t.holes {
		all[h.what].put(out[h.at:])
	}
	if c.Decision == Sampled {
		for _, at := range t.decisions {
			out[at]++
		}
	}
	return dst
}
