package accesslog

import (
	"encoding/binary"
	"slices"

	"isthmus/http1"
)

// batch are exchanges of which lines are to be made: to keep what a line needs
// takes a fraction of the time that it takes to make it.
type batch struct {
	records []record
	texts   []byte // of the records, one behind the other
}

// record is what is kept of one exchange.
type record struct {
	Facts
	format           *Format
	client, upstream *remembered // nil: the format does not ask
	texts            int         // how many bytes of the batch's are its
}

// recordSize is about how much memory a record takes.
const recordSize = 256

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
	r.Facts, r.format, r.texts = e.Facts, f, len(b.texts)-before
	r.client, r.upstream = nil, nil
	if f.asks[ofClient] {
		r.client = e.ClientMemo.of(ofClient, f, e)
	}
	if f.asks[ofUpstream] {
		r.upstream = e.UpstreamMemo.of(ofUpstream, f, e)
	}
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
			if s.last.format != r.format || s.last.outcome != r.Outcome {
				s.last.learn(r.format, &r.Outcome)
			}
			dst = append(dst, s.last.run(run.at)...)
		case ofClient:
			dst = append(dst, r.client.run(run.at)...)
		case ofUpstream:
			dst = append(dst, r.upstream.run(run.at)...)
		default:
			dst = s.appendParts(dst, run.parts)
		}
	}
	s.texts = rest
	return append(append(dst, r.format.tail...), '\n')
}

// wanted is a text of messages that a format shows.
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

func (w *wanted) append(dst []byte, e *Entry) []byte {
	h := e.Request
	if w.kind == opReply {
		h = e.Reply
	}
	for i := range w.fields {
		f := &w.fields[i]
		switch f.pseudo {
		case noPseudo:
			if f.id == http1.XRequestID && w.kind == opRequest && len(e.RequestID) > 0 {
				return append(dst, e.RequestID...)
			}
			if v, ok := f.of(h); ok {
				return append(dst, v...)
			}
		case methodOf:
			return append(dst, e.Method...)
		case pathOf:
			dst = append(dst, e.Path...)
			if e.HasQuery {
				dst = append(append(dst, '?'), e.Query...)
			}
			return dst
		case authorityOf:
			return append(dst, e.Authority...)
		case schemeOf:
			return append(dst, e.Scheme...)
		}
	}
	return dst
}
