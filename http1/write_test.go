package http1

import (
	"net/http"
	"testing"
)

func TestAppend(t *testing.T) {
	b := func(s string) []byte { return []byte(s) }
	for _, tt := range []struct{ name, got, want string }{
		{"request line", string(AppendRequestLine(b("x"), b("GET"), b("/p?q"))), "xGET /p?q HTTP/1.1\r\n"},
		{"status line", string(AppendStatusLine(b("x"), 404, b("Not Found"))), "xHTTP/1.1 404 Not Found\r\n"},
		{"status line without reason", string(AppendStatusLine(nil, 200, nil)), "HTTP/1.1 200 \r\n"},
		{"field", string(AppendField(b("x"), b("a"), b("b"))), "xa: b\r\n"},
		{"chunk header", string(AppendChunkHeader(b("x"), 4096)), "x1000\r\n"},
		{"last chunk", string(AppendLastChunk(b("x"), nil)), "x0\r\n\r\n"},
		{"last chunk with trailers", string(AppendLastChunk(nil, []Field{{Name: b("a"), Value: b("b")}, {Name: b("c")}})), "0\r\na: b\r\nc: \r\n\r\n"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, tt.got, tt.want)
		}
	}
}

// TestStatusText_KnowsTheRegistered compares with net/http, which has some
// phrases that RFC 9110 has renamed and one that was never registered.
func TestStatusText_KnowsTheRegistered(t *testing.T) {
	other := map[int]string{413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content", 418: ""}
	for status := range 700 {
		want, ok := other[status]
		if !ok {
			want = http.StatusText(status)
		}
		if got := StatusText(status); got != want {
			t.Errorf("StatusText(%d) = %q, want %q", status, got, want)
		}
	}
}
