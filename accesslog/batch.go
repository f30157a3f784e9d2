package accesslog

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"unsafe"

	"isthmus/http1"
)

// batch are exchanges of which lines are to be made: to keep what a line needs
// takes a fraction of the time that it takes to make it.
type batch struct {
	records  []record
	texts    []byte // of the records, one behind the other
	outcomes [outcomesKept]*Outcome
}

// outcomesKept is how many outcomes a batch keeps to find those that come again;
// each has one place, by its status, and those that are usual have different ones.
const outcomesKept = 31

// record is what is kept of one exchange.
type record struct {
	Facts
	format   *Format
	outcome  *Outcome
	client   *ClientEnd
	upstream *UpstreamEnd
	texts    int // how many bytes of the batch's are its
}

// recordSize is how much memory a record takes, in bytes.
const recordSize = 120

// size is how much memory the batch takes.
func (b *batch) size() int { return len(b.records)*recordSize + len(b.texts) }

// add keeps what a format shows of an exchange.
func (b *batch) add(f *Format, e *Entry) {
	before := len(b.texts)
	for i := range f.wanted {
		b.texts = f.wanted[i].keep(b.texts, e)
	}
	n := len(b.records)
	b.records = slices.Grow(b.records, 1)[:n+1]
	r := &b.records[n] // whatever was there is written over
	r.Facts, r.format, r.outcome, r.texts = e.Facts, f, b.outcome(&e.Outcome), len(b.texts)-before
	r.client, r.upstream = e.Client, e.Upstream // whose memory is not looked at now
	b.prefetch()
}

// prefetched is how many bytes prefetch asks for: a record and more, the texts of most
// exchanges.
const prefetched = 192

// prefetch asks for the memory that the next exchange will be kept in. The batch before
// has used it last, and it has left the processor's caches since; without, whoever
// serves would have to wait for it at the end of an exchange.
func (b *batch) prefetch() {
	if spare := b.records[len(b.records):cap(b.records)]; len(spare)*recordSize >= prefetched {
		prefetch(unsafe.Pointer(unsafe.SliceData(spare)))
	}
	if spare := b.texts[len(b.texts):cap(b.texts)]; len(spare) >= prefetched {
		prefetch(unsafe.Pointer(unsafe.SliceData(spare)))
	}
}

// outcome returns the same outcome, for keeping. What it returns never changes.
func (b *batch) outcome(o *Outcome) *Outcome {
	place := &b.outcomes[uint(o.Status)%outcomesKept]
	if *place == nil || **place != *o {
		kept := *o
		*place = &kept
	}
	return *place
}

// reset makes it empty. Its records are not cleared: few of them keep anything
// alive that is gone, and the next ones take their place.
func (b *batch) reset() { b.records, b.texts = b.records[:0], b.texts[:0] }

// appendLine appends the line of a record, with a line feed. s has the texts of
// this record and of those behind it.
func (r *record) appendLine(dst []byte, s *source) []byte {
	s.facts = &r.Facts
	rest := s.texts[r.texts:]
	for i := range r.format.runs {
		switch run := &r.format.runs[i]; run.scope {
		case ofOutcome:
			if s.last.format != r.format || s.outcome != r.outcome {
				s.outcome, s.last.format = r.outcome, r.format
				s.last.make(ofOutcome, s)
			}
			dst = append(dst, s.last.run(run.at)...)
		case ofClient:
			dst = append(dst, r.client.remembered(r.format).run(run.at)...)
		case ofUpstream:
			dst = append(dst, r.upstream.remembered(r.format).run(run.at)...)
		default:
			dst = s.appendParts(dst, run.parts)
		}
	}
	s.texts = rest
	return append(append(dst, r.format.tail...), '\n')
}

// wanted is a text that a format shows and that is kept until then: of messages, or
// the name of the trace.
type wanted struct {
	kind   opKind
	fields []field // the first that is there
	length int     // in bytes at most; 0: any
}

// lengthSize is what stands before each text that is kept: how long it is.
const lengthSize = 4

// keep keeps the text of an exchange.
func (w *wanted) keep(dst []byte, e *Entry) []byte {
	from := len(dst)
	dst = w.append(append(dst, 0, 0, 0, 0), e)
	n := len(dst) - from - lengthSize
	if w.length > 0 && n > w.length {
		n = w.length
		dst = dst[:from+lengthSize+n]
	}
	binary.LittleEndian.PutUint32(dst[from:], uint32(n))
	return dst
}

// text takes the next text that was kept.
func (s *source) text() []byte {
	n := binary.LittleEndian.Uint32(s.texts)
	t := s.texts[lengthSize : lengthSize+n]
	s.texts = s.texts[lengthSize+n:]
	return t
}

// appendTrace appends the name of a trace, if there is one.
func appendTrace(dst []byte, id [16]byte) []byte {
	if id == [16]byte{} {
		return dst
	}
	return hex.AppendEncode(dst, id[:])
}

func (w *wanted) append(dst []byte, e *Entry) []byte {
	h := &e.Request.Header
	switch w.kind {
	case opReply:
		h = e.Reply
	case opTrace:
		return appendTrace(dst, e.Trace)
	}
	for i := range w.fields {
		f := &w.fields[i]
		switch f.pseudo {
		case noPseudo:
			if f.id == http1.XRequestID && w.kind == opRequest && len(e.RequestID) > 0 {
				return append(dst, e.RequestID...)
			}
			if e.Outside && f.inner && w.kind == opRequest {
				continue
			}
			if v, ok := f.of(h); ok {
				return append(dst, v...)
			}
		case methodOf:
			return append(dst, e.Request.Method...)
		case pathOf:
			dst = append(dst, e.Request.Path...)
			if e.Request.HasQuery {
				dst = append(append(dst, '?'), e.Request.Query...)
			}
			return dst
		case authorityOf:
			return append(dst, e.Request.Authority...)
		case schemeOf:
			return append(dst, e.Scheme...)
		}
	}
	return dst
}
