package tracing

import "bytes"

// Fields writes the fields that carry a context, as one way to write heads has
// them. All that differs from request to request are digits, at places known
// beforehand: a text that has them all is copied, and they are filled in.
type Fields [1 << numTraits]template

// What a template depends on beside [Formats], which come first.
const (
	child = 1 << (iota + 3) // the span has a parent
	debug
	short
	numTraits = iota + 3
)

// template is text with holes in it.
type template struct {
	text  []byte
	holes []hole
}

// hole is where digits go.
type hole struct {
	at   int
	what digits
}

// digits are some that a context has.
type digits uint8

const (
	traceDigits      digits = iota
	shortTraceDigits        // the second half of the trace's
	spanDigits
	parentDigits
	decisionDigit
)

// String is what stands in a hole until it is filled.
func (d digits) String() string {
	return [...]string{"tttttttttttttttttttttttttttttttt", "uuuuuuuuuuuuuuuu", "ssssssssssssssss", "pppppppppppppppp", "d"}[d]
}

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
		var whole []byte
		var holes []hole
		for _, part := range value {
			switch part := part.(type) {
			case string:
				whole = append(whole, part...)
			case digits:
				holes = append(holes, hole{len(whole), part})
				whole = append(whole, part.String()...)
			}
		}
		t.text = field(t.text, []byte(name), whole)
		from := bytes.LastIndex(t.text, whole)
		for _, h := range holes {
			t.holes = append(t.holes, hole{from + h.at, h.what})
		}
	}
	formats := Formats(traits)
	if formats&W3C != 0 {
		add("traceparent", "00-", traceDigits, "-", spanDigits, "-0", decisionDigit)
	}
	trace := traceDigits
	if traits&short != 0 { // as long as it came
		trace = shortTraceDigits
	}
	if formats&B3Single != 0 {
		value := []any{trace, "-", spanDigits, "-", decisionDigit}
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
	add("x-b3-traceid", trace)
	add("x-b3-spanid", spanDigits)
	if traits&child != 0 {
		add("x-b3-parentspanid", parentDigits)
	}
	if traits&debug != 0 {
		add("x-b3-flags", "1")
	} else {
		add("x-b3-sampled", decisionDigit)
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
	t := &f[traits]
	from := len(dst)
	dst = append(dst, t.text...)
	for i := range t.holes {
		h := &t.holes[i]
		switch at := dst[from+h.at:]; h.what {
		case traceDigits:
			putHex(at, c.Trace[:])
		case shortTraceDigits:
			putHex(at, c.Trace[len(c.Trace)/2:])
		case spanDigits:
			putHex(at, span[:])
		case parentDigits:
			putHex(at, parent[:])
		case decisionDigit:
			at[0] = '0'
			if c.Decision == Sampled {
				at[0] = '1'
			}
		}
	}
	return dst
}
