package proxy

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"
)

// echoGRPC is a server of gRPC alone, which sends back what it gets and one
// trailer more. One header of the reply says what the request was.
func echoGRPC(t *testing.T) string {
	return h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("content-type", r.Header.Get("content-type"))
		h.Set("x-te", r.Header.Get("te"))
		h.Set("x-length", r.Header.Get("content-length"))
		if r.Proto != "HTTP/2.0" || r.URL.Path == "/fail" {
			io.Copy(io.Discard, r.Body)
			h.Set("grpc-status", "5")
			return
		}
		h.Set("trailer", "grpc-status, x-sum")
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Write(body)
		h.Set("grpc-status", "0")
		h.Set("x-sum", "é")
	})
}

// TestGRPCWeb_Bridged: gRPC-Web at a gateway is gRPC to an upstream over HTTP/2.
func TestGRPCWeb_Bridged(t *testing.T) {
	p := strictProxyHTTP2(t, echoGRPC(t))
	message := append([]byte{0, 0, 3, 0xd, 0x40}, bytes.Repeat([]byte("0123456789abcdef"), 13_300)...)
	end := "\x80\x00\x00\x00\x1bgrpc-status: 0\r\nx-sum: é\r\n"
	text := func(p []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(p)) }
	for down, c := range map[string]*http.Client{"HTTP/1.1": h1Client(t, p, "gateway:80"), "HTTP/2": h2Client(t, p, "gateway:80")} {
		for _, tt := range []struct {
			name, sends, hears string
			body, want         []byte
		}{
			{"binary", "application/grpc-web+proto", "application/grpc+proto", message, append(message[:len(message):len(message)], end...)},
			{"empty", "application/grpc-web", "application/grpc", []byte{}, []byte(end)},
			{"text", "application/grpc-web-text+proto", "application/grpc+proto", text(message), append(message[:len(message):len(message)], end...)},
			{"text, padded amid", "application/grpc-web-text", "application/grpc", []byte("AAAAAA==AAEx"), append([]byte("\x00\x00\x00\x00\x00\x011"), end...)},
		} {
			for _, known := range []bool{true, false} {
				var body io.Reader = bytes.NewReader(tt.body)
				if !known {
					body = io.MultiReader(body)
				}
				r, _ := http.NewRequest("POST", "http://s.test/echo", body)
				r.Header.Set("content-type", tt.sends)
				res, err := c.Do(r)
				if err != nil {
					t.Fatal(down, tt.name, known, err)
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(tt.sends, "-text") {
					got = untext(t, got)
				}
				if h := res.Header; res.StatusCode != 200 || h.Get("content-type") != tt.sends || h.Get("x-te") != "trailers" || !bytes.Equal(got, tt.want) || len(res.Trailer) > 0 {
					t.Errorf("%s, %s, known %v: status %d, %v, trailers %v, %d bytes, want %d", down, tt.name, known, res.StatusCode, h, res.Trailer, len(got), len(tt.want))
				}
			}
		}
		res := callAt(t, c, "/fail", "content-type", "application/grpc-web+proto")
		if res.StatusCode != 200 || res.Header.Get("grpc-status") != "5" || res.Header.Get("content-type") != "application/grpc-web+proto" {
			t.Errorf("%s, trailers-only: %v", down, res.Header)
		}
		res = callAt(t, c, "/admin", "content-type", "application/grpc-web-text")
		if res.StatusCode != 200 || res.Header.Get("grpc-status") != "7" || res.Header.Get("content-type") != "application/grpc-web-text" {
			t.Errorf("%s, refused by the gateway: %v", down, res.Header)
		}
	}
}

// TestGRPCWeb_DeadlineAmid: a call whose deadline passes behind the reply's head
// ends with a status as well.
func TestGRPCWeb_DeadlineAmid(t *testing.T) {
	p := strictProxyHTTP2(t, h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("content-type", "application/grpc")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	for down, c := range map[string]*http.Client{"HTTP/1.1": h1Client(t, p, "gateway:80"), "HTTP/2": h2Client(t, p, "gateway:80")} {
		r, _ := http.NewRequest("POST", "http://s.test/", strings.NewReader("\x00\x00\x00\x00\x00"))
		r.Header.Set("content-type", "application/grpc-web")
		r.Header.Set("grpc-timeout", "50m")
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(down, err)
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if want := "\x80\x00\x00\x008grpc-status: 4\r\ngrpc-message: upstream request timeout\r\n"; err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", down, got, err, want)
		}
	}
}

// untext decodes text that is padded wherever its sender has flushed.
func untext(t *testing.T, p []byte) []byte {
	t.Helper()
	var r textReader
	out, err := r.next(p, true)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(out)
}

// TestGRPCWeb_NotText: a body that is not base64 does not get far.
func TestGRPCWeb_NotText(t *testing.T) {
	p := strictProxyHTTP2(t, echoGRPC(t))
	for _, body := range []string{"AAA", "A*==", "====", "AAAA\r\nAAAA", strings.Repeat("AAAA", replayLimit) + "AAA"} {
		r, _ := http.NewRequest("POST", "http://s.test/echo", strings.NewReader(body))
		r.Header.Set("content-type", "application/grpc-web-text")
		res, err := h1Client(t, p, "gateway:80").Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.Header.Get("grpc-status") != "13" || res.Header.Get("grpc-message") != errText.Error() {
			t.Errorf("%.20q: %v", body, res.Header)
		}
	}
}

// TestGRPCWeb_AsItIs: to an upstream that speaks HTTP/1.1, and by a sidecar,
// gRPC-Web goes as it is.
func TestGRPCWeb_AsItIs(t *testing.T) {
	up := h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("content-type", r.Header.Get("content-type"))
		body, _ := io.ReadAll(r.Body)
		w.Write(body)
	})
	for name, c := range map[string]*http.Client{
		"HTTP/1.1": h1Client(t, strictProxy(t, up), "gateway:80"),
		"sidecar":  h1Client(t, strictProxyHTTP2(t, up), "outbound"),
	} {
		r, _ := http.NewRequest("POST", "http://s.test/", strings.NewReader("AAAA"))
		r.Header.Set("content-type", "application/grpc-web-text")
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if string(body) != "AAAA" || res.Header.Get("content-type") != "application/grpc-web-text" {
			t.Errorf("%s: %q, %v", name, body, res.Header)
		}
	}
}

// FuzzTextReader: text comes out the same however it is cut and padded.
func FuzzTextReader(f *testing.F) {
	f.Add([]byte("hello, world"), 3, 5)
	f.Add([]byte{0}, 1, 1)
	f.Fuzz(func(t *testing.T, p []byte, flush, cut int) {
		flush, cut = max(flush, 1), max(cut, 1)
		var text []byte
		for rest := p; len(rest) > 0; {
			n := min(flush, len(rest))
			text = appendText(text, rest[:n])
			rest = rest[n:]
		}
		var r textReader
		var got []byte
		for rest := text; ; {
			n := min(cut, len(rest))
			out, err := r.next(rest[:n], n == len(rest))
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			got = append(got, out...)
			if rest = rest[n:]; len(rest) == 0 {
				break
			}
		}
		if !bytes.Equal(got, p) {
			t.Errorf("%q became %q", p, got)
		}
		r = textReader{}
		r.next(p, true) // anything may come
	})
}

// TestGRPCWeb_Port: behind a port for gRPC-Web there is a server of gRPC, whoever makes
// calls to it (Istio: protocol.GRPCWeb); a sidecar translates for it, too.
func TestGRPCWeb_Port(t *testing.T) {
	for _, tt := range []struct{ protocol, want string }{
		{"GRPC-WEB", "application/grpc"},
		{"GRPC", "application/grpc-web"},
	} {
		port := "{number: 80, name: http, protocol: " + tt.protocol + "}"
		p := serve(t, Options{}, strings.ReplaceAll(entry("s.test", h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("x-asked", r.Proto+" "+r.Header.Get("content-type"))
		})), "{number: 80, name: http, protocol: HTTP}", port))
		for down, c := range map[string]*http.Client{"HTTP/1.1": h1Client(t, p, "outbound"), "HTTP/2": h2Client(t, p, "outbound")} {
			if got := callAt(t, c, "/", "content-type", "application/grpc-web").Header.Get("x-asked"); got != "HTTP/2.0 "+tt.want {
				t.Errorf("%s, %s: the server was asked by %s, want HTTP/2.0 %s", tt.protocol, down, got, tt.want)
			}
		}
	}
}
