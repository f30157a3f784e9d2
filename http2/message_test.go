package http2

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"isthmus/http1"
)

// fieldsOf reads "name: value" lines, as if they had been decoded.
func fieldsOf(lines string) []http1.Field {
	var fields []http1.Field
	for line := range strings.Lines(lines) {
		line = strings.TrimSuffix(line, "\n")
		i := strings.Index(line[1:], ":") + 1 // behind that of a pseudo-header field
		name := []byte(line[:i])
		fields = append(fields, http1.Field{Name: name, Value: []byte(strings.TrimPrefix(line[i+1:], " ")), ID: http1.LookupField(name)})
	}
	return fields
}

const (
	get  = ":method: GET\n:scheme: https\n:authority: a.example\n:path: /x?y=1\n"
	post = ":method: POST\n:scheme: https\n:authority: a.example\n:path: /\n"
)

// describeRequest writes what a request says, and then its fields.
func describeRequest(r *http1.Request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s", r.Method, r.Target, r.Authority)
	if r.Scheme != nil {
		fmt.Fprintf(&b, " %s", r.Scheme)
	}
	if r.Path != nil {
		fmt.Fprintf(&b, " path %s", r.Path)
	}
	if r.HasQuery {
		fmt.Fprintf(&b, " query %s", r.Query)
	}
	b.WriteString(describeHeader(&r.Header, r.ContentLength))
	for _, flag := range []struct {
		set  bool
		name string
	}{{r.Expect100, "expect100"}, {r.Trailers, "trailers"}} {
		if flag.set {
			b.WriteString(" " + flag.name)
		}
	}
	return b.String() + "\n" + list(r.Fields)
}

func describeHeader(h *http1.Header, length int64) string {
	s := " " + [...]string{"nobody", "length", "chunked", "untilclose"}[h.Framing]
	if h.Framing == http1.Length {
		s += fmt.Sprintf(" %d", length)
	}
	if h.Upgrade != nil {
		s += fmt.Sprintf(" upgrade %s", h.Upgrade)
	}
	if h.Underscore {
		s += " underscore"
	}
	return s
}

var acceptedRequests = []struct {
	name, in string
	end      bool
	want     string
}{
	{"get", get + "accept: */*\n", true, "GET /x?y=1 a.example https path /x query y=1 nobody\naccept: */*\n"},
	{"post of unknown length", post, false, "POST / a.example https path / untilclose\n"},
	{"post", post + "content-length: 12\n", false, "POST / a.example https path / length 12\ncontent-length: 12\n"},
	{"post of nothing", post + "content-length: 0\n", true, "POST / a.example https path / length 0\ncontent-length: 0\n"},
	{"post of nothing, said later", post + "content-length: 0\n", false, "POST / a.example https path / length 0\ncontent-length: 0\n"},
	{"pseudo-header fields in another order", ":path: /\n:method: GET\n:authority: a\n:scheme: http\n", true, "GET / a http path / nobody\n"},
	{"host alone", ":method: GET\n:scheme: http\n:path: /\nhost: a:80\n", true, "GET / a:80 http path / nobody\nhost: a:80\n"},
	{"host too", get + "host: A.example\n", true, "GET /x?y=1 a.example https path /x query y=1 nobody\nhost: A.example\n"},
	{"options of the server", ":method: OPTIONS\n:scheme: http\n:authority: a\n:path: *\n", true, "OPTIONS * a http path * nobody\n"},
	{"cookies", get + "cookie: a=1\nx: y\ncookie: b=2\ncookie: \ncookie: c=3\n", true,
		"GET /x?y=1 a.example https path /x query y=1 nobody\ncookie: a=1; b=2; c=3\nx: y\n"},
	{"one cookie", get + "cookie: a=1; b=2\n", true, "GET /x?y=1 a.example https path /x query y=1 nobody\ncookie: a=1; b=2\n"},
	{"empty cookies", get + "cookie: \ncookie: \n", true, "GET /x?y=1 a.example https path /x query y=1 nobody\ncookie: \n"},
	{"empty cookie first", get + "cookie: \ncookie: a=1\ncookie: b=2\n", true,
		"GET /x?y=1 a.example https path /x query y=1 nobody\ncookie: a=1; b=2\n"},
	{"expect", post + "expect: 100-Continue\n", false, "POST / a.example https path / untilclose expect100\nexpect: 100-Continue\n"},
	{"expect with a length", post + "expect: 100-continue\ncontent-length: 3\n", false,
		"POST / a.example https path / length 3 expect100\nexpect: 100-continue\ncontent-length: 3\n"},
	{"expect without a body", get + "expect: 100-continue\n", true,
		"GET /x?y=1 a.example https path /x query y=1 nobody\nexpect: 100-continue\n"},
	{"te", get + "te: trailers\n", true, "GET /x?y=1 a.example https path /x query y=1 nobody trailers\nte: trailers\n"},
	{"underscore", get + "x_y: 1\n", true, "GET /x?y=1 a.example https path /x query y=1 nobody underscore\nx_y: 1\n"},
	{"empty value", get + "x: \n", true, "GET /x?y=1 a.example https path /x query y=1 nobody\nx: \n"},
	{"connect", ":method: CONNECT\n:authority: a:443\n", false, "CONNECT a:443 a:443 untilclose\n"},
	{"websocket", ":method: CONNECT\n:protocol: websocket\n:scheme: https\n:authority: a\n:path: /chat?x\n", false,
		"CONNECT /chat?x a https path /chat query x untilclose upgrade websocket\n"},
}

func TestReadRequest(t *testing.T) {
	for _, tt := range acceptedRequests {
		t.Run(tt.name, func(t *testing.T) {
			var r http1.Request
			arena, err := ReadRequest(&r, fieldsOf(tt.in), []byte("before"), tt.end)
			if got := describeRequest(&r); err != nil || got != tt.want {
				t.Errorf("%s\n%v, got\n%s\nwant\n%s", tt.in, err, got, tt.want)
			}
			if !bytes.HasPrefix(arena, []byte("before")) {
				t.Errorf("what was in the arena is %q", arena)
			}
			// In place, too.
			r.Reset()
			r.Fields = fieldsOf(tt.in)
			_, err = ReadRequest(&r, r.Fields, nil, tt.end)
			if got := describeRequest(&r); err != nil || got != tt.want {
				t.Errorf("in place: %v, got\n%s\nwant\n%s", err, got, tt.want)
			}
		})
	}
}

var refusedRequests = []struct {
	name, in string
	end      bool
	want     error // nil: an http1.Error
	status   int
}{
	{"no method", ":scheme: https\n:authority: a\n:path: /\n", true, errPseudoMissing, 0},
	{"no scheme", ":method: GET\n:authority: a\n:path: /\n", true, errPseudoMissing, 0},
	{"no path", ":method: GET\n:authority: a\n:scheme: https\n", true, errPseudoMissing, 0},
	{"nothing", "", true, errPseudoMissing, 0},
	{"two methods", ":method: GET\n" + get, true, errPseudoCount, 0},
	{"two paths", get + ":path: /x?y=1\n", true, errPseudoCount, 0},
	{"two authorities", get + ":authority: a.example\n", true, errPseudoCount, 0},
	{"unknown pseudo-header field", get + ":x: y\n", true, errPseudoUnknown, 0},
	{"pseudo-header field of replies", get + ":status: 200\n", true, errPseudoUnknown, 0},
	{"pseudo-header field in upper case", ":Method: GET\n" + get, true, errPseudoUnknown, 0},
	{"pseudo-header field after others", ":method: GET\n:scheme: https\n:authority: a\naccept: */*\n:path: /\n", true, errPseudoMissing, 0},
	{"one more after others", get + "accept: */*\n:path: /\n", true, errPseudoLate, 0},
	{"bad method", ":method: G T\n:scheme: https\n:authority: a\n:path: /\n", true, errMethod, 0},
	{"line end in the method", ":method: GET / HTTP/1.1\r\n:scheme: https\n:authority: a\n:path: /\n", true, errMethod, 0},
	{"long method", ":method: " + strings.Repeat("A", 33) + "\n:scheme: https\n:authority: a\n:path: /\n", true, errMethod, 0},
	{"scheme", ":method: GET\n:scheme: https://b/?\n:authority: a\n:path: /\n", true, errScheme, 0},
	{"empty path", ":method: GET\n:scheme: https\n:authority: a\n:path: \n", true, errPath, 0},
	{"asterisk", ":method: GET\n:scheme: https\n:authority: a\n:path: *\n", true, errPath, 0},
	{"path without a slash", ":method: GET\n:scheme: https\n:authority: a\n:path: x\n", true, nil, 400},
	{"path in absolute form", ":method: GET\n:scheme: https\n:authority: a\n:path: http://b/\n", true, nil, 400},
	{"path with a space", ":method: GET\n:scheme: https\n:authority: a\n:path: / HTTP/1.1\n", true, nil, 400},
	{"path with a line end", ":method: GET\n:scheme: https\n:authority: a\n:path: /\rx\n", true, nil, 400},
	{"path with a bad escape", ":method: GET\n:scheme: https\n:authority: a\n:path: /%2\n", true, nil, 400},
	{"path with a fragment", ":method: GET\n:scheme: https\n:authority: a\n:path: /#x\n", true, nil, 400},
	{"long path", ":method: GET\n:scheme: https\n:authority: a\n:path: /" + strings.Repeat("x", 8192) + "\n", true, nil, 414},
	{"no authority and no host", ":method: GET\n:scheme: https\n:path: /\n", true, errHostMissing, 0},
	{"empty authority", ":method: GET\n:scheme: https\n:authority: \n:path: /\n", true, errHost, 0},
	{"user in the authority", ":method: GET\n:scheme: https\n:authority: u@a\n:path: /\n", true, errHost, 0},
	{"authority with a path", ":method: GET\n:scheme: https\n:authority: a/b\n:path: /\n", true, errHost, 0},
	{"authority and host differ", get + "host: b.example\n", true, errHostMismatch, 0},
	{"authority and host differ in the port", get + "host: a.example:443\n", true, errHostMismatch, 0},
	{"two hosts", get + "host: a.example\nhost: a.example\n", true, errHostCount, 0},
	{"bad host", ":method: GET\n:scheme: https\n:path: /\nhost: a,b\n", true, errHost, 0},
	{"upper case", get + "Accept: */*\n", true, errFieldName, 0},
	{"name with a space", get + "x y: z\n", true, errFieldName, 0},
	{"name with a line end", get + "x\r: z\n", true, errFieldName, 0},
	{"name that looks like another", get + "content\rlength: 3\n", true, errFieldName, 0},
	{"CR", get + "x: a\rb\n", true, errFieldValue, 0},
	{"NUL", get + "x: a\x00b\n", true, errFieldValue, 0},
	{"space before", get + "x:  a\n", true, errFieldValue, 0},
	{"space behind", get + "x: a \n", true, errFieldValue, 0},
	{"tab behind", get + "x: a\t\n", true, errFieldValue, 0},
	{"connection", get + "connection: close\n", true, errConnectionField, 0},
	{"keep-alive", get + "keep-alive: timeout=5\n", true, errConnectionField, 0},
	{"proxy-connection", get + "proxy-connection: keep-alive\n", true, errConnectionField, 0},
	{"transfer-encoding", post + "transfer-encoding: chunked\n", false, errConnectionField, 0},
	{"upgrade", get + "upgrade: h2c\n", true, errConnectionField, 0},
	{"te", get + "te: trailers, gzip\n", true, errTE, 0},
	{"length", post + "content-length: +3\n", false, errLength, 0},
	{"list of lengths", post + "content-length: 3, 3\n", false, errLength, 0},
	{"two lengths", post + "content-length: 3\ncontent-length: 4\n", false, errLengthCount, 0},
	{"the same length twice", post + "content-length: 3\ncontent-length: 3\n", false, errLengthCount, 0},
	{"length without a body", post + "content-length: 3\n", true, errLengthEnd, 0},
	{"connect with a path", ":method: CONNECT\n:authority: a:443\n:path: /\n", false, errPseudoConnect, 0},
	{"connect with a scheme", ":method: CONNECT\n:authority: a:443\n:scheme: https\n", false, errPseudoConnect, 0},
	{"connect without an authority", ":method: CONNECT\nhost: a:443\n", false, errPseudoMissing, 0},
	{"connect without a port", ":method: CONNECT\n:authority: a\n", false, errHost, 0},
	{"protocol without connect", ":protocol: websocket\n" + get, true, errPseudoConnect, 0},
	{"websocket without a path", ":method: CONNECT\n:protocol: websocket\n:scheme: https\n:authority: a\n", false, errPseudoMissing, 0},
	{"websocket without an authority", ":method: CONNECT\n:protocol: websocket\n:scheme: https\n:path: /\nhost: a\n", false, errPseudoMissing, 0},
	{"bad protocol", ":method: CONNECT\n:protocol: web socket\n:scheme: https\n:authority: a\n:path: /\n", false, errProtocol, 0},
}

func TestReadRequest_Refuses(t *testing.T) {
	for _, tt := range refusedRequests {
		t.Run(tt.name, func(t *testing.T) {
			var r http1.Request
			_, err := ReadRequest(&r, fieldsOf(tt.in), nil, tt.end)
			var answer *http1.Error
			if tt.want == nil && (!errors.As(err, &answer) || answer.Status != tt.status) || tt.want != nil && err != tt.want {
				t.Errorf("%.300s\n%v, want %v %d; read as\n%s", tt.in, err, tt.want, tt.status, describeRequest(&r))
			}
		})
	}
	// What lines cannot say.
	for _, tt := range []struct {
		name, value string
		want        error
	}{
		{"", "x", errFieldName}, {"x:y", "z", errFieldName}, {"x: y\r\nz", "", errFieldName},
		{"x", "a\r\nb: c", errFieldValue}, {"x", "a\nb", errFieldValue},
		{":path", "/ HTTP/1.1\r\nx: y", errPseudoCount}, {":protocol", "x\r\ny: z", errPseudoConnect},
	} {
		fields := append(fieldsOf(get), http1.Field{Name: []byte(tt.name), Value: []byte(tt.value)})
		if _, err := ReadRequest(new(http1.Request), fields, nil, true); err != tt.want {
			t.Errorf("%q: %q: %v, want %v", tt.name, tt.value, err, tt.want)
		}
	}
}

func TestReadResponse(t *testing.T) {
	for _, tt := range []struct {
		name, in, method string
		end              bool
		want             string
		length           int64
		err              error
	}{
		{"with a length", ":status: 200\ncontent-length: 5\n", "GET", false, " length 5\ncontent-length: 5\n", 5, nil},
		{"without", ":status: 200\nserver: x\n", "GET", false, " untilclose\nserver: x\n", -1, nil},
		{"without a body", ":status: 503\n", "GET", true, " nobody\n", 0, nil},
		{"without a body, and said", ":status: 503\ncontent-length: 0\n", "GET", true, " nobody\ncontent-length: 0\n", 0, nil},
		{"head", ":status: 200\ncontent-length: 5\n", "HEAD", true, " nobody\ncontent-length: 5\n", 5, nil},
		{"head without a length", ":status: 200\n", "HEAD", true, " nobody\n", -1, nil},
		{"head whose stream ends later", ":status: 200\n", "HEAD", false, " nobody\n", -1, nil},
		{"304", ":status: 304\ncontent-length: 5\n", "GET", true, " nobody\ncontent-length: 5\n", 5, nil},
		{"204", ":status: 204\n", "GET", true, " nobody\n", -1, nil},
		{"103", ":status: 103\nlink: </x>\n", "GET", false, " nobody\nlink: </x>\n", -1, nil},
		{"tunnel", ":status: 200\n", "CONNECT", false, " nobody\n", -1, nil},
		{"cookies stay apart", ":status: 200\nset-cookie: a\nset-cookie: b\n", "GET", true, " nobody\nset-cookie: a\nset-cookie: b\n", 0, nil},
		{"underscore", ":status: 200\nx_y: a\n", "GET", true, " nobody underscore\nx_y: a\n", 0, nil},

		{"nothing", "", "GET", true, "", 0, errPseudoMissing},
		{"no status", "x: y\n", "GET", true, "", 0, errPseudoMissing},
		{"two", ":status: 200\n:status: 200\n", "GET", true, "", 0, errPseudoCount},
		{"late", "x: y\n:status: 200\n", "GET", true, "", 0, errPseudoMissing},
		{"one more, late", ":status: 200\nx: y\n:status: 200\n", "GET", true, "", 0, errPseudoLate},
		{"of requests", ":status: 200\n:path: /\n", "GET", true, "", 0, errPseudoUnknown},
		{"99", ":status: 099\n", "GET", true, "", 0, errStatus},
		{"600", ":status: 600\n", "GET", true, "", 0, errStatus},
		{"four digits", ":status: 2000\n", "GET", true, "", 0, errStatus},
		{"no number", ":status: 2x0\n", "GET", true, "", 0, errStatus},
		{"101", ":status: 101\n", "GET", false, "", 0, errStatus},
		{"interim, and the end", ":status: 100\n", "GET", true, "", 0, errInterimEnd},
		{"length without a body", ":status: 200\ncontent-length: 5\n", "GET", true, "", 0, errLengthEnd},
		{"two lengths", ":status: 200\ncontent-length: 5\ncontent-length: 6\n", "GET", false, "", 0, errLengthCount},
		{"bad length", ":status: 200\ncontent-length: 0x5\n", "GET", false, "", 0, errLength},
		{"connection", ":status: 200\nconnection: close\n", "GET", true, "", 0, errConnectionField},
		{"transfer-encoding", ":status: 200\ntransfer-encoding: chunked\n", "GET", false, "", 0, errConnectionField},
		{"upper case", ":status: 200\nServer: x\n", "GET", true, "", 0, errFieldName},
		{"CR", ":status: 200\nserver: x\ry\n", "GET", true, "", 0, errFieldValue},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, inPlace := range []bool{false, true} {
				var r http1.Response
				fields := fieldsOf(tt.in)
				if inPlace {
					r.Fields = fields
				}
				err := ReadResponse(&r, fields, []byte(tt.method), tt.end)
				if err != tt.err && !(err == nil && tt.err == nil) {
					t.Fatalf("%s\n%v, want %v", tt.in, err, tt.err)
				}
				if tt.err != nil {
					continue
				}
				if got := describeHeader(&r.Header, r.ContentLength) + "\n" + list(r.Fields); got != tt.want || r.ContentLength != tt.length ||
					fmt.Sprintf(":status: %d\n", r.Status) != tt.in[:13] {
					t.Errorf("%s\nis read as %d, length %d\n%s\nwant length %d\n%s", tt.in, r.Status, r.ContentLength, got, tt.length, tt.want)
				}
			}
		})
	}
}

func TestReadTrailers(t *testing.T) {
	for _, tt := range []struct {
		name, in    string
		underscores bool
		want        string
		err         error
	}{
		{"grpc", "grpc-status: 0\ngrpc-message: ok\ngrpc-status-details-bin: CAUS\n", false,
			"grpc-status: 0\ngrpc-message: ok\ngrpc-status-details-bin: CAUS\n", nil},
		{"checksum", "x-checksum: 1\n", false, "x-checksum: 1\n", nil},
		{"for headers alone", "content-length: 3\nhost: x\nx-forwarded-for: 1.2.3.4\nauthorization: x\ncache-control: no-store\nx-a: b\n", false, "x-a: b\n", nil},
		{"underscores kept", "x_a: b\n", false, "x_a: b\n", nil},
		{"underscores dropped", "x_a: b\nx-a: c\n", true, "x-a: c\n", nil},
		{"host with an underscore for a hyphen", "content_length: 3\n", false, "", nil},
		{"pseudo-header field", "grpc-status: 0\n:status: 200\n", false, "", errPseudoTrailer},
		{"connection", "connection: close\n", false, "", errConnectionField},
		{"upper case", "Grpc-Status: 0\n", false, "", errFieldName},
		{"CR", "x: a\rb\n", false, "", errFieldValue},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ReadTrailers(nil, fieldsOf(tt.in), tt.underscores)
			if err != tt.err && !(err == nil && tt.err == nil) || tt.err == nil && list(got) != tt.want {
				t.Errorf("%s\n%v\n%s\nwant %v\n%s", tt.in, err, list(got), tt.err, tt.want)
			}
		})
	}
}

// TestReadRequest_Allocates decodes and reads requests on one connection.
func TestReadRequest_Allocates(t *testing.T) {
	first, second := usualBlocks()
	d := NewDecoder(0)
	var r http1.Request
	var arena []byte
	read := func(block []byte) {
		r.Reset()
		var err error
		if arena, r.Fields, err = d.Decode(block, arena[:0], r.Fields, 60<<10); err != nil {
			t.Fatal(err)
		}
		if arena, err = ReadRequest(&r, r.Fields, arena, true); err != nil {
			t.Fatal(err)
		}
	}
	read(first)
	if n := testing.AllocsPerRun(100, func() { read(second) }); n != 0 {
		t.Errorf("a request whose fields are in the table allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { read(first) }); n != 0 {
		t.Errorf("a request that is spelled out allocates %v times", n)
	}
	if got, _ := r.Get(http1.Cookie); string(got) != "session=0123456789abcdef0123456789abcdef; theme=dark" || len(r.Fields) != 7 {
		t.Errorf("read as\n%s", describeRequest(&r))
	}
}

// FuzzReadRequest is that nothing is smuggled by way of HTTP/1.1: whatever is
// accepted, written as a request of that, is read back as the same. Fields are
// given a line each, but \x1f stands for the line's end and \x1e for the colon.
func FuzzReadRequest(f *testing.F) {
	seed := func(in string) []byte {
		var b []byte
		for _, field := range fieldsOf(in) {
			b = append(append(append(append(b, field.Name...), 0x1e), field.Value...), 0x1f)
		}
		return b
	}
	for _, tt := range acceptedRequests {
		f.Add(seed(tt.in), tt.end)
	}
	for _, tt := range refusedRequests {
		if len(tt.in) < 1000 {
			f.Add(seed(tt.in), tt.end)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, end bool) {
		if len(in) > 1<<16 {
			return
		}
		fields := splitFields(in)
		var r http1.Request
		_, err := ReadRequest(&r, fields, nil, end)
		if err != nil {
			var stream *StreamError
			var answer *http1.Error
			if !errors.As(err, &stream) && !(errors.As(err, &answer) && answer.Status < 500) {
				t.Fatalf("%q: %v", in, err)
			}
			return
		}
		var back http1.Request
		head := downgrade(&r)
		n, err := back.Parse(head, http1.Limits{HeadBytes: 1 << 20, Fields: 1 << 16})
		if err != nil || n != len(head) {
			t.Fatalf("%q is accepted and written as\n%s\nwhich http1 reads %d bytes of: %v", in, head, n, err)
		}
		// What HTTP/1.1 says in another way.
		if back.Framing == http1.Chunked {
			back.Framing = http1.UntilClose
		}
		if r.Upgrade != nil {
			back.Method = []byte("CONNECT")
		}
		back.Scheme = r.Scheme
		for _, m := range []*http1.Request{&r, &back} {
			m.Fields = slices.DeleteFunc(m.Fields, func(f http1.Field) bool {
				switch f.ID {
				case http1.Host, http1.TE, http1.ContentLength, http1.TransferEncoding, http1.Connection, http1.Upgrade:
					return true
				}
				return false
			})
		}
		if got, want := describeRequest(&back), describeRequest(&r); got != want {
			t.Fatalf("%q is written as\n%s\nand read back as\n%s\nwant\n%s", in, head, got, want)
		}
	})
}

func splitFields(in []byte) []http1.Field {
	var fields []http1.Field
	for line := range bytes.SplitSeq(bytes.TrimSuffix(in, []byte{0x1f}), []byte{0x1f}) {
		name, value, _ := bytes.Cut(line, []byte{0x1e})
		fields = append(fields, http1.Field{Name: name, Value: value, ID: http1.LookupField(name)})
	}
	return fields
}

// downgrade writes a request as one of HTTP/1.1.
func downgrade(r *http1.Request) []byte {
	method := r.Method
	if r.Upgrade != nil {
		method = []byte("GET") // RFC 8441 5
	}
	b := http1.AppendRequestLine(nil, method, r.Target)
	b = http1.AppendField(b, []byte("host"), r.Authority)
	for _, f := range r.Fields {
		switch f.ID {
		case http1.Host, http1.TE, http1.ContentLength:
		default:
			b = http1.AppendField(b, f.Name, f.Value)
		}
	}
	switch r.Framing {
	case http1.Length:
		b = fmt.Appendf(b, "content-length: %d\r\n", r.ContentLength)
	case http1.UntilClose:
		b = append(b, "transfer-encoding: chunked\r\n"...)
	}
	if r.Trailers {
		b = append(b, "te: trailers\r\nconnection: te\r\n"...)
	}
	if r.Upgrade != nil {
		b = http1.AppendField(append(b, "connection: upgrade\r\n"...), []byte("upgrade"), r.Upgrade)
	}
	return append(b, "\r\n"...)
}

// FuzzReadResponse is FuzzReadRequest for replies.
func FuzzReadResponse(f *testing.F) {
	f.Add([]byte(":status\x1e200\x1fcontent-length\x1e5\x1f"), "GET", false)
	f.Add([]byte(":status\x1e304\x1fx\x1ea\r\nb: c\x1f"), "GET", true)
	f.Add([]byte(":status\x1e200\x1f"), "HEAD", true)
	f.Fuzz(func(t *testing.T, in []byte, method string, end bool) {
		if len(in) > 1<<16 {
			return
		}
		fields := splitFields(in)
		var r, back http1.Response
		if err := ReadResponse(&r, fields, []byte(method), end); err != nil {
			return
		}
		head := http1.AppendStatusLine(nil, r.Status, nil)
		for _, f := range r.Fields {
			head = http1.AppendField(head, f.Name, f.Value)
		}
		head = append(head, "\r\n"...)
		n, err := back.Parse(head, http1.Limits{HeadBytes: 1 << 20, Fields: 1 << 16}, []byte(method))
		if err != nil || n != len(head) || back.Status != r.Status || list(back.Fields) != list(r.Fields) || back.Underscore != r.Underscore {
			t.Fatalf("%q is written as\n%s\nand read back as %d, %v, %d\n%s", in, head, n, err, back.Status, list(back.Fields))
		}
		// Without a length HTTP/1.1 ends the connection where a stream has ended.
		if back.Framing != r.Framing && !(r.Framing == http1.NoBody && end) && !(r.Framing == http1.Length && r.ContentLength == 0) {
			t.Errorf("%q: framing %v, read back as %v", in, r.Framing, back.Framing)
		}
	})
}
