package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"reflect"
	"strings"
	"testing"
)

// FuzzRequest holds the parser to the reference, which has to accept and
// understand the same; to net/http, which has to understand the same of what
// we accept; and to itself, whatever pieces the head comes in.
func FuzzRequest(f *testing.F) {
	for _, tt := range acceptedRequests {
		f.Add([]byte(tt.in), uint8(7))
	}
	for _, tt := range refusedRequests {
		if len(tt.in) < 1000 {
			f.Add([]byte(tt.in), uint8(1))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		var r Request
		n, err := r.Parse(in, Limits{})
		checkVerdict(t, in, n, r.HeadLen, err, false)

		want, ok := refRequest(in)
		if accepted := n > 0; accepted != ok {
			t.Fatalf("%q: Parse = %d, %v; the reference accepts: %v", in, n, err, ok)
		}
		checkPieces(t, &r, n, in, int(step), func(r *Request, step int) (int, error) { return feedRequest(r, in, step) })
		if n == 0 {
			return
		}
		checkHeader(t, in, &r.Header, n, want)
		for _, c := range []struct {
			name, want string
			got        []byte
		}{
			{"method", want.method, r.Method}, {"target", want.target, r.Target}, {"path", want.path, r.Path}, {"query", want.query, r.Query},
			{"scheme", want.scheme, r.Scheme}, {"authority", want.authority, r.Authority},
		} {
			if latin1(c.got) != c.want {
				t.Errorf("%q: %s %q, the reference says %q", in, c.name, c.got, c.want)
			}
		}
		if r.HasQuery != want.hasQuery || r.Framing != want.framing || r.ContentLength != want.contentLength {
			t.Errorf("%q: query %v, framing %v, length %d, the reference says %v, %v, %d", in, r.HasQuery, r.Framing, r.ContentLength,
				want.hasQuery, want.framing, want.contentLength)
		}
		compareRequest(t, in[:n], &r)
	})
}

// compareRequest holds a request that we accept to net/http's understanding.
func compareRequest(t *testing.T, in []byte, r *Request) {
	// net/http.ReadRequest leaves the empty line before a request to its server.
	other, err := http.ReadRequest(bufio.NewReaderSize(bytes.NewReader(bytes.TrimPrefix(in, crlf)), 64<<10))
	if err != nil {
		if _, ok := r.Get(Trailer); ok && strings.Contains(err.Error(), "bad trailer key") {
			return // it refuses some names that Trailer announces, we let them be
		}
		t.Fatalf("%q: accepted; net/http says %v", in, err)
	}
	length := int64(0)
	switch r.Framing {
	case Chunked:
		length = -1
	case Length:
		length = r.ContentLength
	}
	if other.Method != string(r.Method) || other.RequestURI != string(r.Target) || other.ProtoMinor != r.Minor ||
		other.Host != string(r.Authority) || other.ContentLength != length {
		t.Errorf("%q: %s %s 1.%d of %s, length %d; net/http says %s %s 1.%d of %s, length %d", in,
			r.Method, r.Target, r.Minor, r.Authority, length,
			other.Method, other.RequestURI, other.ProtoMinor, other.Host, other.ContentLength)
	}
	if r.Framing == Chunked != (len(other.TransferEncoding) == 1) {
		t.Errorf("%q: framing %v; net/http says %v", in, r.Framing, other.TransferEncoding)
	}
	if other.Close && !r.Close {
		t.Errorf("%q: kept; net/http closes", in)
	}
	if !strings.HasPrefix(other.RequestURI, "/") {
		return
	}
	path := other.URL.RawPath
	if path == "" {
		path = other.URL.EscapedPath()
	}
	if path != string(r.Path) || other.URL.RawQuery != string(r.Query) {
		t.Errorf("%q: path %q, query %q; net/http says %q, %q", in, r.Path, r.Query, path, other.URL.RawQuery)
	}
}

var crlf = []byte("\r\n")

// FuzzResponse is FuzzRequest for replies.
func FuzzResponse(f *testing.F) {
	for _, tt := range acceptedResponses {
		f.Add([]byte(tt.in), tt.method, uint8(7))
	}
	for _, tt := range refusedResponses {
		if len(tt.in) < 1000 {
			f.Add([]byte(tt.in), "GET", uint8(1))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, method string, step uint8) {
		var r Response
		n, err := r.Parse(in, Limits{}, []byte(method))
		checkVerdict(t, in, n, r.HeadLen, err, true)

		want, ok := refResponse(in, method)
		if accepted := n > 0; accepted != ok {
			t.Fatalf("%q to %s: Parse = %d, %v; the reference accepts: %v", in, method, n, err, ok)
		}
		checkPieces(t, &r, n, in, int(step), func(r *Response, step int) (int, error) { return feedResponse(r, in, method, step) })
		if n == 0 {
			return
		}
		checkHeader(t, in, &r.Header, n, want)
		if r.Status != want.status || latin1(r.Reason) != want.reason || r.Framing != want.framing || r.ContentLength != want.contentLength {
			t.Errorf("%q to %s: %d %q, framing %v, length %d, the reference says %d %q, %v, %d", in, method,
				r.Status, r.Reason, r.Framing, r.ContentLength, want.status, want.reason, want.framing, want.contentLength)
		}
		compareResponse(t, in[:n], method, &r)
	})
}

// compareResponse holds a reply that we accept to net/http's understanding.
func compareResponse(t *testing.T, in []byte, method string, r *Response) {
	if method == "CONNECT" || r.Status == 101 {
		return // net/http leaves tunnels to its transport
	}
	other, err := http.ReadResponse(bufio.NewReaderSize(bytes.NewReader(in), 64<<10), &http.Request{Method: method})
	if err != nil {
		if _, ok := r.Get(Trailer); ok && strings.Contains(err.Error(), "bad trailer key") {
			return
		}
		t.Fatalf("%q to %s: accepted; net/http says %v", in, method, err)
	}
	other.Body.Close()
	if other.StatusCode != r.Status || other.ProtoMinor != r.Minor {
		t.Errorf("%q: %d 1.%d; net/http says %d 1.%d", in, r.Status, r.Minor, other.StatusCode, other.ProtoMinor)
	}
	framing := Length
	switch {
	case len(other.TransferEncoding) == 1:
		framing = Chunked
	case other.ContentLength < 0:
		framing = UntilClose
	case other.ContentLength == 0:
		framing = NoBody
	}
	if r.Framing != NoBody && framing != r.Framing {
		t.Errorf("%q to %s: framing %v; net/http says %v", in, method, r.Framing, framing)
	}
	if r.Framing == Length && other.ContentLength != r.ContentLength {
		t.Errorf("%q to %s: length %d; net/http says %d", in, method, r.ContentLength, other.ContentLength)
	}
}

// checkVerdict checks what holds for every outcome.
func checkVerdict(t *testing.T, in []byte, n, headLen int, err error, reply bool) {
	var e *Error
	switch {
	case n < 0 || n > len(in) || err != nil && n > 0:
		t.Fatalf("%q: Parse = %d, %v", in, n, err)
	case n > 0 && (headLen != n || !bytes.HasSuffix(in[:n], []byte("\r\n\r\n"))):
		t.Fatalf("%q: Parse = %d, HeadLen %d, and the head does not end there", in, n, headLen)
	case err != nil && !errors.As(err, &e):
		t.Fatalf("%q: %v is no *Error", in, err)
	case err != nil && reply != (e.Status == 502):
		t.Fatalf("%q: status %d", in, e.Status)
	case n == 0 && err == nil && bytes.Contains(in[min(len(in), 2):], []byte("\r\n\r\n")):
		t.Fatalf("%q: waits for more", in)
	}
}

// checkPieces parses again, piece by piece. A whole head is read alike, a
// refused one is not accepted.
func checkPieces[M any](t *testing.T, whole *M, n int, in []byte, step int, feed func(*M, int) (int, error)) {
	var m M
	got, err := feed(&m, max(step, 1+len(in)/200))
	if got != n || n > 0 && err != nil {
		t.Fatalf("%q in steps of %d: %d, %v; in one %d", in, step, got, err, n)
	}
	if n > 0 && !reflect.DeepEqual(zeroScan(m), zeroScan(*whole)) {
		t.Fatalf("%q in steps of %d:\n%+v\nin one:\n%+v", in, step, m, *whole)
	}
}

// zeroScan takes out how far a message was looked at before it was whole.
func zeroScan(m any) any {
	switch m := m.(type) {
	case Request:
		m.scan, m.line = 0, false
		return m
	case Response:
		m.scan, m.line = 0, false
		return m
	}
	return m
}

// checkHeader compares what requests and replies have in common.
func checkHeader(t *testing.T, in []byte, h *Header, n int, want refMessage) {
	if n != want.length || h.Minor != want.minor || h.Close != want.close || len(h.Fields) != len(want.names) {
		t.Fatalf("%q: %d bytes, 1.%d, close %v, %d fields, the reference says %d, 1.%d, %v, %d", in, n, h.Minor, h.Close, len(h.Fields),
			want.length, want.minor, want.close, len(want.names))
	}
	for i, f := range h.Fields {
		if string(f.Name) != want.names[i] || latin1(f.Value) != want.values[i] {
			t.Errorf("%q: field %d is %q: %q, the reference says %q: %q", in, i, f.Name, f.Value, want.names[i], want.values[i])
		}
		if f.ID != LookupField(f.Name) {
			t.Errorf("%q: field %q has ID %v", in, f.Name, f.ID)
		}
	}
}

// FuzzChunk holds the decoder to net/http's, which has to decode what we
// accept alike, and to itself, whatever pieces the body comes in.
func FuzzChunk(f *testing.F) {
	for _, tt := range acceptedChunks {
		f.Add([]byte(tt.in), uint8(3))
	}
	for _, tt := range refusedChunks {
		if len(tt.in) < 1000 {
			f.Add([]byte(tt.in), uint8(1))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		var whole, pieces ChunkReader
		body, rest, done, err := readChunks(&whole, in, max(1, len(in)))
		if !done && err == nil && len(rest) > 0 {
			t.Fatalf("%q: neither done nor refused, and %q is left", in, rest)
		}
		body2, rest2, done2, err2 := readChunks(&pieces, in, max(1, int(step)))
		if !bytes.Equal(body2, body) || done2 != done || err2 != err || done && !bytes.Equal(rest2, rest) {
			t.Fatalf("%q in steps of %d: body %q, rest %q, %v, %v; in one: %q, %q, %v, %v", in, step, body2, rest2, done2, err2, body, rest, done, err)
		}
		if got, want := describeFields(pieces.Trailers()), describeFields(whole.Trailers()); got != want {
			t.Fatalf("%q in steps of %d: trailers %q; in one: %q", in, step, got, want)
		}
		if !done {
			return
		}
		other := httputil.NewChunkedReader(bytes.NewReader(in))
		if theirs, err := io.ReadAll(other); err != nil || !bytes.Equal(theirs, body) {
			t.Fatalf("%q: body %q; net/http says %q, %v", in, body, theirs, err)
		}
		for _, f := range whole.Trailers() {
			if f.ID != Unknown && f.ID != GRPCStatus || !ValidName(f.Name) || !ValidValue(f.Value) {
				t.Errorf("%q: trailer %q: %q", in, f.Name, f.Value)
			}
		}
	})
}
