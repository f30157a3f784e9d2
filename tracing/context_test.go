package tracing

import (
	"fmt"
	"strings"
	"testing"

	"isthmus/http1"
)

const (
	trace128 = "4bf92f3577b34da6a3ce929d0e0e4736"
	trace64  = "a3ce929d0e0e4736"
	span64   = "00f067aa0ba902b7"
	own64    = "0102030405060708"
)

var own = SpanID{1, 2, 3, 4, 5, 6, 7, 8}

// fieldsOf makes fields of "name: value" lines.
func fieldsOf(lines ...string) (out []http1.Field) {
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		out = append(out, http1.Field{Name: []byte(name), Value: []byte(value), ID: http1.LookupField([]byte(name))})
	}
	return out
}

func read(fields []http1.Field) (c Context) {
	c.Read(fields)
	return c
}

// TestContext: what one process writes, the next one reads, in the language that
// it has come in.
func TestContext(t *testing.T) {
	for _, tt := range []struct {
		name, in string // fields, "|" between them
		decision Decision
		out      string // "": there is no trace
	}{
		{"nothing", "accept: */*", Undecided, ""},
		{"w3c", "traceparent: 00-" + trace128 + "-" + span64 + "-01", Sampled, "traceparent: 00-" + trace128 + "-" + own64 + "-01"},
		{"w3c, not sampled", "Traceparent: 00-" + trace128 + "-" + span64 + "-00", NotSampled, "traceparent: 00-" + trace128 + "-" + own64 + "-00"},
		{"w3c, other flags", "traceparent: 00-" + trace128 + "-" + span64 + "-fd", Sampled, "traceparent: 00-" + trace128 + "-" + own64 + "-01"},
		{"w3c, random", "traceparent: 00-" + trace128 + "-" + span64 + "-03|b3: 1", Sampled, "traceparent: 00-" + trace128 + "-" + own64 + "-03|b3: " + trace128 + "-" + own64 + "-1-" + span64},
		{"w3c, random and not sampled", "traceparent: 00-" + trace128 + "-" + span64 + "-fe", NotSampled, "traceparent: 00-" + trace128 + "-" + own64 + "-02"},
		{"w3c of tomorrow", "traceparent: cc-" + trace128 + "-" + span64 + "-01-more", Sampled, "traceparent: 00-" + trace128 + "-" + own64 + "-01"},
		{"w3c with something behind", "traceparent: 00-" + trace128 + "-" + span64 + "-01-more", Undecided, ""},
		{"w3c, version ff", "traceparent: ff-" + trace128 + "-" + span64 + "-01", Undecided, ""},
		{"w3c, no trace", "traceparent: 00-" + strings.Repeat("0", 32) + "-" + span64 + "-01", Undecided, ""},
		{"w3c, no span", "traceparent: 00-" + trace128 + "-" + strings.Repeat("0", 16) + "-01", Undecided, ""},
		{"w3c, no digits", "traceparent: 00-" + strings.Repeat("x", 32) + "-" + span64 + "-01", Undecided, ""},
		{"w3c, short", "traceparent: 00-1-2-01", Undecided, ""},
		{"w3c, another sign before its flags", "traceparent: 00-" + trace128 + "-" + span64 + "_01", Undecided, ""},
		{"w3c, another sign behind tomorrow's", "traceparent: cc-" + trace128 + "-" + span64 + "-01_more", Undecided, ""},
		{"w3c of no digits, and b3", "traceparent: 00-" + strings.Repeat("x", 32) + "-" + span64 + "-00|b3: 1", Sampled, ""},
		{"w3c twice", "traceparent: 00-" + trace128 + "-" + span64 + "-01|traceparent: 00-" + trace128 + "-" + span64 + "-01", Undecided, ""},
		{"w3c thrice, and b3", strings.Repeat("traceparent: 00-"+trace128+"-"+own64+"-01|", 3) + "b3: " + trace128 + "-" + span64 + "-0", NotSampled,
			"traceparent: 00-" + trace128 + "-" + own64 + "-00|b3: " + trace128 + "-" + own64 + "-0-" + span64},
		{"b3", "b3: " + trace128 + "-" + span64 + "-1", Sampled, "b3: " + trace128 + "-" + own64 + "-1-" + span64},
		{"b3 of 64 bits", "b3: " + trace64 + "-" + span64 + "-0-" + span64, NotSampled, "b3: " + trace64 + "-" + own64 + "-0-" + span64},
		{"b3, debug", "b3: " + trace128 + "-" + span64 + "-d", Sampled, "b3: " + trace128 + "-" + own64 + "-d-" + span64},
		{"b3, undecided", "b3: " + trace128 + "-" + span64, Undecided, "b3: " + trace128 + "-" + own64 + "-0-" + span64},
		{"b3, the decision alone", "b3: 0", NotSampled, ""},
		{"b3, nonsense", "b3: what", Undecided, ""},
		{"b3, a span that is none", "b3: " + trace128 + "-1-1", Undecided, ""},
		{"b3, a trace too long", "b3: " + trace128 + "00-" + span64 + "-1", Undecided, ""},
		{"b3, a trace too short", "b3: 4bf9-" + span64 + "-1", Undecided, ""},
		{"b3, no trace", "b3: " + strings.Repeat("0", 32) + "-" + span64 + "-1", Undecided, ""},
		{"b3, no span", "b3: " + trace128 + "-" + strings.Repeat("0", 16) + "-1", Undecided, ""},
		{"b3, a span of no digits", "b3: " + trace128 + "-" + strings.Repeat("x", 16) + "-1", Undecided, ""},
		{"b3, a span too long", "b3: " + trace128 + "-" + span64 + "0-1", Undecided, ""},
		{"b3, a decision that is none", "b3: " + trace128 + "-" + span64 + "-2", Undecided, ""},
		{"b3 that is none, and multi", "b3: " + trace64 + "-x|x-b3-traceid: " + trace128 + "|x-b3-spanid: " + span64 + "|x-b3-sampled: 1", Sampled,
			"b3: " + trace128 + "-" + own64 + "-1-" + span64 + "|x-b3-traceid: " + trace128 + "|x-b3-spanid: " + own64 + "|x-b3-parentspanid: " + span64 + "|x-b3-sampled: 1"},
		{"b3, and multi", "b3: " + trace128 + "-" + span64 + "-0|x-b3-traceid: " + strings.Repeat("1", 32) + "|x-b3-spanid: " + span64 + "|x-b3-sampled: 1", NotSampled,
			"b3: " + trace128 + "-" + own64 + "-0-" + span64 + "|x-b3-traceid: " + trace128 + "|x-b3-spanid: " + own64 + "|x-b3-parentspanid: " + span64 + "|x-b3-sampled: 0"},
		{"multi, a trace too long", "x-b3-traceid: " + trace128 + "00|x-b3-spanid: " + span64, Undecided, ""},
		{"multi, a span too long", "x-b3-traceid: " + trace128 + "|x-b3-spanid: " + span64 + "00", Undecided, ""},
		{"multi, no span", "x-b3-traceid: " + trace128 + "|x-b3-spanid: " + strings.Repeat("0", 16), Undecided, ""},
		{"multi, a span of no digits", "x-b3-traceid: " + trace128 + "|x-b3-spanid: " + strings.Repeat("x", 16), Undecided, ""},
		{"multi, flags of no debug", "x-b3-sampled: 0|x-b3-flags: 0", NotSampled, ""},
		{"multi", "x-b3-traceid: " + trace128 + "|x-b3-spanid: " + span64 + "|x-b3-sampled: 1", Sampled,
			"x-b3-traceid: " + trace128 + "|x-b3-spanid: " + own64 + "|x-b3-parentspanid: " + span64 + "|x-b3-sampled: 1"},
		{"multi, 64 bits, capital", "X-B3-TraceId: " + strings.ToUpper(trace64) + "|X-B3-SpanId: " + span64 + "|X-B3-Sampled: true|X-B3-ParentSpanId: " + span64, Sampled,
			"x-b3-traceid: " + trace64 + "|x-b3-spanid: " + own64 + "|x-b3-parentspanid: " + span64 + "|x-b3-sampled: 1"},
		{"multi, debug", "x-b3-traceid: " + trace128 + "|x-b3-spanid: " + span64 + "|x-b3-flags: 1", Sampled,
			"x-b3-traceid: " + trace128 + "|x-b3-spanid: " + own64 + "|x-b3-parentspanid: " + span64 + "|x-b3-flags: 1"},
		{"multi, the decision alone", "x-b3-sampled: 0", NotSampled, ""},
		{"both: w3c says it", "x-b3-traceid: " + strings.Repeat("1", 32) + "|x-b3-spanid: " + span64 + "|x-b3-sampled: 0|traceparent: 00-" + trace128 + "-" + span64 + "-01", Sampled,
			"traceparent: 00-" + trace128 + "-" + own64 + "-01|x-b3-traceid: " + trace128 + "|x-b3-spanid: " + own64 + "|x-b3-parentspanid: " + span64 + "|x-b3-sampled: 1"},
		{"w3c that is none, and b3", "traceparent: x|b3: " + trace128 + "-" + span64 + "-1", Sampled,
			"traceparent: 00-" + trace128 + "-" + own64 + "-01|b3: " + trace128 + "-" + own64 + "-1-" + span64},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := read(fieldsOf(strings.Split(tt.in, "|")...))
			if c.Decision != tt.decision {
				t.Errorf("decision %d, want %d", c.Decision, tt.decision)
			}
			out := ""
			if c.Trace != (TraceID{}) {
				out = written(&c, c.Formats)
			}
			if out != tt.out {
				t.Errorf("got  %s\nwant %s", out, tt.out)
			}
		})
	}
}

// TestAppend_Begun: of a trace that begins here there is no parent to tell of.
func TestAppend_Begun(t *testing.T) {
	c := read(fieldsOf("traceparent: 00-" + trace128 + "-" + span64 + "-01"))
	for _, tt := range []struct {
		formats Formats
		debug   bool
		want    string
	}{
		{W3C, false, "traceparent: 00-" + trace128 + "-" + own64 + "-01|"},
		{B3Single, false, "b3: " + trace128 + "-" + own64 + "-1|"},
		{B3Single, true, "b3: " + trace128 + "-" + own64 + "-d|"},
		{B3Multi, false, "x-b3-traceid: " + trace128 + "|x-b3-spanid: " + own64 + "|x-b3-sampled: 1|"},
		{B3Multi, true, "x-b3-traceid: " + trace128 + "|x-b3-spanid: " + own64 + "|x-b3-flags: 1|"},
		{0, false, ""},
	} {
		c.Debug = tt.debug
		if got := string(inLine.Append(nil, &c, tt.formats, own, SpanID{})); got != tt.want {
			t.Errorf("formats %b: %s, want %s", tt.formats, got, tt.want)
		}
	}
}

// written is the context as fields, "|" between them.
func written(c *Context, formats Formats) string {
	return strings.TrimSuffix(string(inLine.Append(nil, c, formats, own, c.Span)), "|")
}

var inLine = NewFields(func(dst, name, value []byte) []byte { return fmt.Appendf(dst, "%s: %s|", name, value) })

func TestRead_AllocatesNothing(t *testing.T) {
	fields := fieldsOf("host: a", "accept: */*", "traceparent: 00-"+trace128+"-"+span64+"-01", "b3: "+trace128+"-"+span64+"-1")
	out := make([]byte, 0, 512)
	n := testing.AllocsPerRun(100, func() {
		c := read(fields)
		var own SpanID
		own.Draw()
		out = inLine.Append(out[:0], &c, W3C|B3Single|B3Multi, own, c.Span)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzRead: no field breaks, and what is written of what was read is read as the
// same.
func FuzzRead(f *testing.F) {
	f.Add("00-"+trace128+"-"+span64+"-01", trace64+"-"+span64+"-d", trace128, span64, "1", "0")
	f.Add("", "0", trace64, span64, "true", "1")
	f.Add("cc-"+trace128+"-"+span64+"-00-x", "", "", "", "", "")
	f.Fuzz(func(t *testing.T, parent, single, trace, span, sampled, flags string) {
		fields := []http1.Field{
			{Value: []byte(parent), ID: http1.Traceparent}, {Value: []byte(single), ID: http1.B3}, {Value: []byte(trace), ID: http1.B3TraceID},
			{Value: []byte(span), ID: http1.B3SpanID}, {Value: []byte(sampled), ID: http1.B3Sampled}, {Value: []byte(flags), ID: http1.B3Flags},
		}
		c := read(fields)
		if c.Trace == (TraceID{}) {
			return
		}
		if c.Decision == Undecided {
			c.Decision = NotSampled
		}
		for _, format := range []Formats{W3C, B3Single, B3Multi} {
			again := read(fieldsOf(strings.Split(written(&c, format), "|")...))
			if again.Trace != c.Trace || again.Span != own || again.Decision != c.Decision {
				t.Errorf("%s: %s", fmt.Sprint(format), fmt.Sprint(again, " is not ", c))
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	fields := fieldsOf("host: a", "accept: */*", "user-agent: x", "x-request-id: y", "accept-encoding: gzip")
	b.ReportAllocs()
	for b.Loop() {
		read(fields)
	}
}
