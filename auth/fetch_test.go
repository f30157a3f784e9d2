package auth

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"isthmus/mesh"
)

// TestFetch_Server is an issuer of its own, over a network, from discovery to
// the rotation of its keys.
func TestFetch_Server(t *testing.T) {
	defer goleak.VerifyNone(t)
	a, b := key(), tokenKey{"b", "RS256", rsaKeyB()}
	var keys atomic.Pointer[string]
	var fetches atomic.Int32
	publish := func(list ...tokenKey) {
		s := keySetOf(list...)
		keys.Store(&s)
	}
	publish(a)
	mux := http.NewServeMux()
	server := httptest.NewTLSServer(mux)
	defer server.Close()
	mux.HandleFunc("/realm/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, server.URL+"/realm", server.URL+"/realm/certs")
	})
	mux.HandleFunc("/realm/certs", func(w http.ResponseWriter, r *http.Request) {
		if r.UserAgent() != "isthmus" || !strings.Contains(r.Header.Get("Accept"), "application/json") {
			t.Errorf("header %v", r.Header)
		}
		fetches.Add(1)
		fmt.Fprint(w, *keys.Load())
	})
	k := NewKeys(KeysOptions{Client: trusting(server)})
	defer k.Close()
	tokens := NewTokens([]*mesh.TokenRule{{Issuer: server.URL + "/realm"}}, k)
	k.Retain(tokens)
	claims := fmt.Sprintf(`{"iss":%q,"sub":"me"}`, server.URL+"/realm")
	for _, step := range []struct {
		name    string
		publish []tokenKey
		key     tokenKey
		fetches int32
	}{
		{"first", []tokenKey{a}, a, 1},
		{"rotated", []tokenKey{a, b}, b, 2},
		{"the old one", []tokenKey{a, b}, a, 2},
	} {
		publish(step.publish...)
		c, err := tokens.Check(bearerRequest(t, step.key.token(claims)))
		if err != nil || c.Principal != server.URL+"/realm/me" {
			t.Fatalf("%s: %+v, %v", step.name, c, err)
		}
		if n := fetches.Load(); n != step.fetches {
			t.Errorf("%s: %d fetches, want %d", step.name, n, step.fetches)
		}
	}
}

// trusting returns the package's own client, with the server's certificate.
func trusting(s *httptest.Server) *http.Client {
	c := newClient(nil)
	c.Transport.(*http.Transport).TLSClientConfig = s.Client().Transport.(*http.Transport).TLSClientConfig
	return c
}

// TestFetch_Client: the limits of the client, over a network.
func TestFetch_Client(t *testing.T) {
	defer goleak.VerifyNone(t)
	good := keySetOf(key())
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, good) }))
	defer plain.Close()
	mux := http.NewServeMux()
	server := httptest.NewTLSServer(mux)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are meant to fail
	defer server.Close()
	mux.HandleFunc("/good", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, good) })
	mux.Handle("/once", http.RedirectHandler("/good", http.StatusFound))
	mux.Handle("/loop", http.RedirectHandler("/loop", http.StatusFound))
	mux.Handle("/plain", http.RedirectHandler(plain.URL, http.StatusFound))
	mux.Handle("/file", http.RedirectHandler("file:///etc/passwd", http.StatusFound))
	mux.HandleFunc("/huge", func(w http.ResponseWriter, r *http.Request) {
		for range 3 << 10 { // 3 MiB, of a length that is not announced
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10000")
		fmt.Fprint(w, good)
	})
	mux.HandleFunc("/header", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X", strings.Repeat("x", 1<<20))
		fmt.Fprint(w, good)
	})
	follows := trusting(server)
	follows.CheckRedirect = nil
	for _, tt := range []struct {
		name   string
		client *http.Client
		uri    string
		err    string
	}{
		{"good", trusting(server), server.URL + "/good", ""},
		{"plain", trusting(server), plain.URL, ""},
		{"redirect", trusting(server), server.URL + "/once", ""},
		{"redirects without end", trusting(server), server.URL + "/loop", "more than 3 redirects"},
		{"redirect to plain text", trusting(server), server.URL + "/plain", "from https to http"},
		{"redirect to plain text, of a client that follows", follows, server.URL + "/plain", "from https to http"},
		{"redirect to a file", trusting(server), server.URL + "/file", "from https to file"},
		{"huge", trusting(server), server.URL + "/huge", "more than 1048576 bytes"},
		{"cut", trusting(server), server.URL + "/cut", "unexpected EOF"},
		{"huge header", trusting(server), server.URL + "/header", ""},
		{"certificate nobody knows", newClient(nil), server.URL + "/good", "certificate"},
		{"nobody there", trusting(server), "http://127.0.0.1:1/", "refused"},
		{"no URL", trusting(server), "::", "missing protocol scheme"},
		{"no host", trusting(server), "http:///x", "no URL of http"},
		{"a file", trusting(server), "file:///etc/passwd", "no URL of http"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := NewKeys(KeysOptions{Client: tt.client})
			defer k.Close()
			got, err := k.fetch(t.Context(), &keySource{id: tt.uri, uri: tt.uri})
			if tt.name == "huge header" { // the text is net/http's
				if err == nil {
					t.Error("read")
				}
				return
			}
			if tt.err == "" {
				if err != nil || len(got.set.keys) != 1 || got.fresh != maxFresh || time.Since(got.at) > time.Minute {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%v, want %q", err, tt.err)
			}
		})
	}
}

func TestCheckDowngrade(t *testing.T) {
	for _, tt := range []struct {
		from, to string
		ok       bool
	}{
		{"https://a", "https://b", true}, {"http://a", "https://b", true}, {"http://a", "http://b", true},
		{"https://a", "http://a", false}, {"https://a", "ftp://a", false},
	} {
		if err := checkDowngrade(must(url.Parse(tt.from)), must(url.Parse(tt.to))); (err == nil) != tt.ok {
			t.Errorf("%s to %s: %v", tt.from, tt.to, err)
		}
	}
}
