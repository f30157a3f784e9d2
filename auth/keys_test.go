package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"isthmus/mesh"
)

// fakeIssuer answers requests without a network, so that the bubbles of synctest
// know when everything waits.
type fakeIssuer struct {
	mu     sync.Mutex // guards what is below
	bodies map[string]string
	header http.Header
	status int
	err    error
	takes  time.Duration
	times  []time.Time
	now    int // requests under way
	most   int
}

func newFakeIssuer(keys string) *fakeIssuer {
	return &fakeIssuer{bodies: map[string]string{"https://issuer.test/keys": keys}, header: http.Header{}, status: 200}
}

func (f *fakeIssuer) client() *http.Client { return &http.Client{Transport: f} }

func (f *fakeIssuer) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeIssuer) serve(keys string) {
	f.set(func() { f.bodies["https://issuer.test/keys"] = keys })
}

func (f *fakeIssuer) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.times)
}

func (f *fakeIssuer) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	f.times = append(f.times, time.Now())
	f.now++
	f.most = max(f.most, f.now)
	takes := f.takes
	f.mu.Unlock()
	defer f.set(func() { f.now-- })
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	body, ok := f.bodies[r.URL.String()]
	status := f.status
	if !ok {
		status = 404
	}
	return &http.Response{StatusCode: status, Header: f.header.Clone(), Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// logged collects the log.
type logged struct {
	slog.Handler
	mu    sync.Mutex // guards lines
	lines []string
}

func newLogged() *logged { return &logged{Handler: slog.DiscardHandler} }

func (l *logged) Enabled(context.Context, slog.Level) bool { return true }

func (l *logged) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		return true
	})
	l.lines = append(l.lines, line)
	return nil
}

func (l *logged) count(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// remoteRule is a rule whose keys a fakeIssuer has.
func remoteRule() *mesh.TokenRule {
	return &mesh.TokenRule{Issuer: testIssuer, KeysURI: "https://issuer.test/keys"}
}

// remote runs a test in a bubble, with a rule whose keys an issuer has.
func remote(t *testing.T, issuer *fakeIssuer, o KeysOptions, test func(t *testing.T, k *Keys, check func(k tokenKey) *TokenError)) {
	synctest.Test(t, func(t *testing.T) {
		o.Client = issuer.client()
		k := NewKeys(o)
		defer k.Close()
		tokens := NewTokens([]*mesh.TokenRule{remoteRule()}, k)
		k.Retain(tokens)
		n := 0
		test(t, k, func(key tokenKey) *TokenError {
			n++ // no two tokens are the same, so that no cache answers
			_, err := tokens.Check(bearerRequest(t, key.token(claimsOf(fmt.Sprintf(`"n":%d`, n)))))
			return err
		})
	})
}

func TestKeys_FirstNeed(t *testing.T) {
	tests := []struct {
		name   string
		change func(f *fakeIssuer)
		status int           // 0: passes
		waits  time.Duration // the request does
		reason string
	}{
		{"at once", func(*fakeIssuer) {}, 0, 0, ""},
		{"slow", func(f *fakeIssuer) { f.takes = 4 * time.Second }, 0, 4 * time.Second, ""},
		{"too slow", func(f *fakeIssuer) { f.takes = 6 * time.Second }, 503, 5 * time.Second, "the key set of https://issuer.test could not be fetched: it was not there in time"},
		{"never", func(f *fakeIssuer) { f.takes = time.Hour }, 503, 5 * time.Second, "not there in time"},
		{"unreachable", func(f *fakeIssuer) { f.err = errors.New("connection refused") }, 503, 0, "connection refused"},
		{"an error of the server", func(f *fakeIssuer) { f.status = 500 }, 503, 0, "HTTP status 500"},
		{"a redirect that leads nowhere", func(f *fakeIssuer) { f.status = 304 }, 503, 0, "HTTP status 304"},
		{"garbage", func(f *fakeIssuer) { f.serve("<html>") }, 503, 0, "no JSON object"},
		{"no keys", func(f *fakeIssuer) { f.serve(jwks()) }, 503, 0, "is empty"},
		{"keys of no use", func(f *fakeIssuer) { f.serve(jwks(`{"kty":"oct","k":"AAAA"}`)) }, 503, 0, "no key that can be used"},
		{"huge", func(f *fakeIssuer) { f.serve(keySetOf(key()) + strings.Repeat(" ", maxBody)) }, 503, 0, "more than 1048576 bytes"},
		{"as large as may be", func(f *fakeIssuer) {
			s := keySetOf(key())
			f.serve(s + strings.Repeat(" ", maxBody-len(s)))
		}, 0, 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			issuer := newFakeIssuer(keySetOf(key()))
			tt.change(issuer)
			remote(t, issuer, KeysOptions{}, func(t *testing.T, k *Keys, check func(tokenKey) *TokenError) {
				start := time.Now()
				err := check(key())
				if waited := time.Since(start); waited != tt.waits {
					t.Errorf("waited %v, want %v", waited, tt.waits)
				}
				if tt.status == 0 {
					if err != nil {
						t.Fatal(err)
					}
					if s := k.Status(); len(s) != 1 || s[0].Keys != 1 || s[0].Error != "" || s[0].Issuer != testIssuer || s[0].URI != "https://issuer.test/keys" {
						t.Errorf("status %+v", s)
					}
					return
				}
				wantRefused(t, nil, err, tt.status, textFetch)
				if !strings.Contains(err.Error(), tt.reason) {
					t.Errorf("%v, want %q", err, tt.reason)
				}
			})
		})
	}
}

// TestKeys_AnsweredBadly: once an attempt has failed, requests do not wait for
// the next.
func TestKeys_AnsweredBadly(t *testing.T) {
	issuer := newFakeIssuer("")
	remote(t, issuer, KeysOptions{}, func(t *testing.T, k *Keys, check func(tokenKey) *TokenError) {
		wantRefused(t, nil, check(key()), 503, textFetch)
		issuer.set(func() { issuer.takes = time.Minute })
		time.Sleep(2 * time.Second)
		synctest.Wait() // the second attempt is under way
		start := time.Now()
		err := check(key())
		wantRefused(t, nil, err, 503, textFetch)
		if waited := time.Since(start); waited != 0 || issuer.calls() != 2 || !strings.Contains(err.Error(), "no JSON object") {
			t.Errorf("waited %v, %d calls, %v", waited, issuer.calls(), err)
		}
	})
}

// TestKeys_LateAnswer: an answer that a request did not wait for serves the next.
func TestKeys_LateAnswer(t *testing.T) {
	issuer := newFakeIssuer(keySetOf(key()))
	issuer.takes = 20 * time.Second
	remote(t, issuer, KeysOptions{}, func(t *testing.T, k *Keys, check func(tokenKey) *TokenError) {
		wantRefused(t, nil, check(key()), 503, textFetch)
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if err := check(key()); err != nil || issuer.calls() != 1 {
			t.Errorf("%v after %d calls", err, issuer.calls())
		}
	})
}

// TestKeys_WaitersShareOneFetch: many requests, one question.
func TestKeys_WaitersShareOneFetch(t *testing.T) {
	issuer := newFakeIssuer(keySetOf(key()))
	issuer.takes = time.Second
	synctest.Test(t, func(t *testing.T) {
		k := NewKeys(KeysOptions{Client: issuer.client()})
		defer k.Close()
		tokens := NewTokens([]*mesh.TokenRule{remoteRule()}, k)
		token := key().token(claimsOf(""))
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := tokens.Check(bearerRequest(t, token)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := issuer.calls(); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

func TestKeys_Refresh(t *testing.T) {
	tests := []struct {
		name, control string
		from, to      time.Duration // of the time between two fetches
	}{
		{"by default", "", 18 * time.Minute, 20 * time.Minute},
		{"shorter", "public, max-age=600", 9 * time.Minute, 10 * time.Minute},
		{"too short", "max-age=1", time.Minute, time.Minute},
		{"none", "no-cache, max-age=0", time.Minute, time.Minute},
		{"too long", "max-age=86400", 18 * time.Minute, 20 * time.Minute},
		{"overflow", "max-age=99999999999999999999", 18 * time.Minute, 20 * time.Minute},
		{"negative", "max-age=-1", 18 * time.Minute, 20 * time.Minute},
		{"quoted", `Max-Age="120"`, 108 * time.Second, 120 * time.Second},
		{"another directive", "s-maxage=60", 18 * time.Minute, 20 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			issuer := newFakeIssuer(keySetOf(key()))
			issuer.header.Set("Cache-Control", tt.control)
			remote(t, issuer, KeysOptions{}, func(t *testing.T, k *Keys, check func(tokenKey) *TokenError) {
				time.Sleep(3 * time.Hour)
				issuer.mu.Lock()
				defer issuer.mu.Unlock()
				if len(issuer.times) < 3 {
					t.Fatalf("%d fetches", len(issuer.times))
				}
				for i := range issuer.times[1:] {
					if d := issuer.times[i+1].Sub(issuer.times[i]); d < tt.from || d > tt.to {
						t.Errorf("fetched again after %v, want %v to %v", d, tt.from, tt.to)
					}
				}
			})
		})
	}
}

// TestKeys_Outage: the last good set serves for ever; there is one warning, and
// the attempts get rarer.
func TestKeys_Outage(t *testing.T) {
	issuer, log := newFakeIssuer(keySetOf(key())), newLogged()
	remote(t, issuer, KeysOptions{Logger: slog.New(log)}, func(t *testing.T, k *Keys, check func(tokenKey) *TokenError) {
		if err := check(key()); err != nil {
			t.Fatal(err)
		}
		issuer.set(func() { issuer.status = 503 })
		time.Sleep(20 * time.Minute)
		before := issuer.calls()
		time.Sleep(10 * time.Hour)
		synctest.Wait()
		if err := check(key()); err != nil {
			t.Errorf("during the outage: %v", err)
		}
		if n := issuer.calls() - before; n < 10*60 || n > 10*60*4/3+10 { // one a minute, less a quarter at most
			t.Errorf("%d attempts in 10 hours", n)
		}
		if s := k.Status()[0]; s.Keys != 1 || s.Age < 10*time.Hour || !strings.Contains(s.Error, "HTTP status 503") {
			t.Errorf("status %+v", s)
		}
		if n := log.count("WARN"); n != 1 {
			t.Errorf("%d warnings: %q", n, log.lines)
		}
		issuer.set(func() { issuer.status = 200 })
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := k.Status()[0]; s.Error != "" || s.Age > time.Minute || log.count("can be fetched again") != 1 {
			t.Errorf("status %+v, log %q", s, log.lines)
		}
		issuer.set(func() { issuer.status = 503 })
		before = issuer.calls()
		time.Sleep(20*time.Minute + 10*time.Second) // the pauses start anew: there are three in ten seconds, or more
		issuer.mu.Lock()
		failed := issuer.times[before:]
		if len(failed) < 3 || failed[1].Sub(failed[0]) > time.Second {
			t.Errorf("attempts of the second outage: %v", failed)
		}
		issuer.mu.Unlock()
		time.Sleep(time.Hour)
		if n := log.count("WARN"); n != 2 {
			t.Errorf("%d warnings for two outages: %q", n, log.lines)
		}
	})
}

// TestKeys_Backoff: from a second to a minute.
func TestKeys_Backoff(t *testing.T) {
	issuer := newFakeIssuer("")
	remote(t, issuer, KeysOptions{}, func(t *testing.T, k *Keys, check func(tokenKey) *TokenError) {
		time.Sleep(10 * time.Minute)
		issuer.mu.Lock()
		defer issuer.mu.Unlock()
		for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
			want *= time.Second
			if d := issuer.times[i+1].Sub(issuer.times[i]); d < want*3/4 || d > want {
				t.Errorf("pause %d is %v, want %v less a quarter at most", i, d, want)
			}
		}
	})
}

// TestKeys_Recovers: an issuer that was down at the start is believed as soon as
// it is up, without a request's help.
func TestKeys_Recovers(t *testing.T) {
	issuer := newFakeIssuer(keySetOf(key()))
	issuer.status = 502
	remote(t, issuer, KeysOptions{}, func(t *testing.T, k *Keys, check func(tokenKey) *TokenError) {
		wantRefused(t, nil, check(key()), 503, textFetch)
		issuer.set(func() { issuer.status = 200 })
		time.Sleep(time.Second)
		synctest.Wait()
		if err := check(key()); err != nil {
			t.Error(err)
		}
	})
}

// TestKeys_Rotation: a token of a new key has the set fetched; one of a key that
// is gone passes no longer, though it was known.
func TestKeys_Rotation(t *testing.T) {
	for _, kids := range []string{"everywhere", "nowhere", "in tokens alone"} {
		t.Run("kids "+kids, func(t *testing.T) {
			a, b := key(), tokenKey{"b", "ES256", ecKeyB()}
			if kids == "nowhere" {
				a.kid, b.kid = "", ""
			}
			listedA, listedB := a, b
			if kids != "everywhere" {
				listedA.kid, listedB.kid = "", ""
			}
			issuer := newFakeIssuer(keySetOf(listedA))
			synctest.Test(t, func(t *testing.T) {
				k := NewKeys(KeysOptions{Client: issuer.client()})
				defer k.Close()
				tokens := NewTokens([]*mesh.TokenRule{remoteRule()}, k)
				claims := fmt.Sprintf(`{"iss":%q}`, testIssuer)
				old, young := a.token(claims), b.token(claims)
				check := func(token string) *TokenError {
					_, err := tokens.Check(bearerRequest(t, token))
					return err
				}
				if err := check(old); err != nil {
					t.Fatal(err)
				}
				issuer.serve(keySetOf(listedA, listedB)) // what a careful issuer does first
				if err := check(young); err != nil {
					t.Errorf("of the new key: %v", err)
				}
				if err := check(old); err != nil {
					t.Errorf("of the old key, which is still there: %v", err)
				}
				if n := issuer.calls(); n != 2 {
					t.Errorf("%d fetches, want 2", n)
				}
				issuer.serve(keySetOf(listedB))
				time.Sleep(20 * time.Minute)
				synctest.Wait()
				if err := check(old); err == nil || err.Status != 401 {
					t.Errorf("of the key that is gone: %v", err)
				}
				if err := check(young); err != nil {
					t.Errorf("of the new key: %v", err)
				}
			})
		})
	}
}

// TestKeys_UnknownKid: who invents key ids makes one fetch each 10 s, however
// many do so at once.
func TestKeys_UnknownKid(t *testing.T) {
	issuer := newFakeIssuer(keySetOf(key()))
	remote(t, issuer, KeysOptions{}, func(t *testing.T, k *Keys, check func(tokenKey) *TokenError) {
		if err := check(key()); err != nil {
			t.Fatal(err)
		}
		issuer.set(func() { issuer.takes = time.Second })
		start := time.Now()
		tokens := NewTokens([]*mesh.TokenRule{remoteRule()}, k)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				unknown := tokenKey{fmt.Sprint("unknown", i), "ES256", ecKeyA()}
				_, err := tokens.Check(bearerRequest(t, unknown.token(claimsOf(""))))
				wantRefused(t, nil, err, 401, textNoKey)
			})
		}
		wg.Wait()
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("waited %v for one fetch of a second", waited)
		}
		if n := issuer.calls(); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
		for time.Since(start) < 95*time.Second {
			wantRefused(t, nil, check(tokenKey{"unknown", "ES256", ecKeyA()}), 401, textNoKey)
			time.Sleep(time.Second / 2)
		}
		// One before, one at once, and then one each 10 s.
		if n := issuer.calls(); n != 1+1+9 {
			t.Errorf("%d fetches in 95 s, want 11", n)
		}
		before := issuer.calls()
		for range 10 { // a bad signature of a known key id is no reason
			wantRefused(t, nil, check(tokenKey{"a", "ES256", ecKeyB()}), 401, textSignature)
			time.Sleep(10 * time.Second)
		}
		if n := issuer.calls(); n != before {
			t.Errorf("%d fetches for bad signatures", n-before)
		}
	})
}

// TestKeys_UnknownKidSlow: the request waits as long as its rule says.
func TestKeys_UnknownKidSlow(t *testing.T) {
	issuer := newFakeIssuer(keySetOf(key()))
	remote(t, issuer, KeysOptions{}, func(t *testing.T, k *Keys, check func(tokenKey) *TokenError) {
		if err := check(key()); err != nil {
			t.Fatal(err)
		}
		issuer.set(func() { issuer.takes = time.Hour })
		start := time.Now()
		wantRefused(t, nil, check(tokenKey{"unknown", "ES256", ecKeyA()}), 401, textNoKey)
		if waited := time.Since(start); waited != keySetTimeout {
			t.Errorf("waited %v", waited)
		}
		if err := check(key()); err != nil {
			t.Errorf("a good token meanwhile: %v", err)
		}
	})
}

// TestKeys_Disk: a restart during an outage.
func TestKeys_Disk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keysets")
	issuer := newFakeIssuer(keySetOf(key()))
	remote(t, issuer, KeysOptions{Dir: dir}, func(t *testing.T, k *Keys, check func(tokenKey) *TokenError) {
		if err := check(key()); err != nil {
			t.Fatal(err)
		}
	})
	files := must(filepath.Glob(filepath.Join(dir, "*")))
	const name = "4087236284bb17e966a6e08cae7428667e913a5c88fb8adcaef4c6819a30887a.json" // printf %s https://issuer.test/keys | sha256sum
	if len(files) != 1 || filepath.Base(files[0]) != name {
		t.Fatalf("%q, want %s", files, name)
	}
	if info := must(os.Stat(files[0])); info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	good := must(os.ReadFile(files[0]))
	issuer.err = errors.New("no route to host")
	tests := []struct {
		name    string
		content []byte
		status  int
		log     string
	}{
		{"good", good, 0, "INFO a key set is used from disk until it is fetched uri=https://issuer.test/keys keys=1 age="},
		{"cut", good[:len(good)/2], 503, "WARN a key set on disk is not used"},
		{"empty", nil, 503, "WARN a key set on disk is not used"},
		{"garbage", []byte("\x00\xff"), 503, "WARN a key set on disk is not used"},
		{"another's", []byte(strings.Replace(string(good), "issuer.test/keys", "issuer.test/kexs", 1)), 503, "WARN a key set on disk is not used"},
		{"without keys", []byte(`{"uri":"https://issuer.test/keys","fetched":"2000-01-01T00:00:00Z","keySet":{"keys":[]}}`), 503, "WARN a key set on disk is not used"},
		{"of the future", []byte(strings.Replace(string(good), `"fetched":"2000-`, `"fetched":"2999-`, 1)), 0, "from disk until it is fetched uri=https://issuer.test/keys keys=1 age=0s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(files[0], tt.content, 0o600); err != nil {
				t.Fatal(err)
			}
			log := newLogged()
			remote(t, issuer, KeysOptions{Dir: dir, Logger: slog.New(log)}, func(t *testing.T, k *Keys, check func(tokenKey) *TokenError) {
				err := check(key())
				if tt.status == 0 && err != nil {
					t.Error(err)
				} else if tt.status != 0 {
					wantRefused(t, nil, err, tt.status, textFetch)
				}
			})
			if log.count(tt.log) != 1 {
				t.Errorf("log %q, want %q", log.lines, tt.log)
			}
		})
	}
	t.Run("the issuer is back", func(t *testing.T) {
		issuer.err = nil
		remote(t, issuer, KeysOptions{Dir: dir}, func(t *testing.T, k *Keys, check func(tokenKey) *TokenError) {
			synctest.Wait()
			if s := k.Status()[0]; s.Age != 0 || s.Error != "" {
				t.Errorf("status %+v", s)
			}
		})
	})
	if left := must(filepath.Glob(filepath.Join(dir, "*.tmp"))); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestKeys_DiskFails: a folder that cannot be written is no reason to refuse.
func TestKeys_DiskFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	log := newLogged()
	remote(t, newFakeIssuer(keySetOf(key())), KeysOptions{Dir: file, Logger: slog.New(log)}, func(t *testing.T, k *Keys, check func(tokenKey) *TokenError) {
		if err := check(key()); err != nil {
			t.Error(err)
		}
	})
	if log.count("cannot be kept on disk") != 1 {
		t.Errorf("log %q", log.lines)
	}
}

func TestKeys_Discovery(t *testing.T) {
	const configuration = "https://issuer.test/.well-known/openid-configuration"
	tests := []struct {
		name, issuer, document, reason string
	}{
		{"found", testIssuer, `{"issuer":"https://issuer.test","jwks_uri":"https://issuer.test/keys","x":[{}]}`, ""},
		{"issuer with a slash", testIssuer + "/", `{"issuer":"https://issuer.test/","jwks_uri":"https://issuer.test/keys"}`, ""},
		{"another's", testIssuer, `{"issuer":"https://issuer.test/","jwks_uri":"https://issuer.test/keys"}`, `the issuer there is "https://issuer.test/"`},
		{"nobody's", testIssuer, `{"jwks_uri":"https://issuer.test/keys"}`, `the issuer there is ""`},
		{"two issuers", testIssuer, `{"issuer":"x","issuer":"https://issuer.test","jwks_uri":"https://issuer.test/keys"}`, "two members"},
		{"no keys", testIssuer, `{"issuer":"https://issuer.test"}`, "no jwks_uri"},
		{"keys a list", testIssuer, `{"issuer":"https://issuer.test","jwks_uri":["https://issuer.test/keys"]}`, "jwks_uri is not a string"},
		{"keys without TLS", testIssuer, `{"issuer":"https://issuer.test","jwks_uri":"http://issuer.test/keys"}`, "from https to http"},
		{"keys in a file", testIssuer, `{"issuer":"https://issuer.test","jwks_uri":"file:///etc/passwd"}`, "no URL of http"},
		{"keys elsewhere that are not there", testIssuer, `{"issuer":"https://issuer.test","jwks_uri":"https://issuer.test/none"}`, "HTTP status 404"},
		{"garbage", testIssuer, `<html>`, "not one JSON value"},
		{"not there", testIssuer, "", "not one JSON value"},
		{"issuer is no URL", "somebody@issuer.test", "", "discovery needs an issuer that is a URL"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				issuer := newFakeIssuer(keySetOf(key()))
				issuer.bodies[configuration] = tt.document
				k := NewKeys(KeysOptions{Client: issuer.client()})
				defer k.Close()
				tokens := NewTokens([]*mesh.TokenRule{{Issuer: tt.issuer}}, k)
				_, err := tokens.Check(bearerRequest(t, key().token(fmt.Sprintf(`{"iss":%q}`, tt.issuer))))
				if tt.reason == "" {
					if err != nil {
						t.Fatal(err)
					}
					if got := k.Status()[0].URI; got != configuration {
						t.Errorf("status of %s", got)
					}
					return
				}
				wantRefused(t, nil, err, 503, textFetch)
				if !strings.Contains(err.Error(), tt.reason) {
					t.Errorf("%v, want %q", err, tt.reason)
				}
			})
		})
	}
}

// TestKeys_Retain: what no rule needs is not fetched any longer.
func TestKeys_Retain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := newFakeIssuer(keySetOf(key()))
		issuer.bodies["https://issuer.test/others"] = keySetOf(key())
		k := NewKeys(KeysOptions{Client: issuer.client()})
		defer k.Close()
		uris := func() (out []string) {
			for _, s := range k.Status() {
				out = append(out, s.URI)
			}
			return out
		}
		others := remoteRule()
		others.KeysURI = "https://issuer.test/others"
		one, two := NewTokens([]*mesh.TokenRule{remoteRule()}, k), NewTokens([]*mesh.TokenRule{others}, k)
		k.Retain(two)
		if got := uris(); !slices.Equal(got, []string{"https://issuer.test/others"}) {
			t.Errorf("kept %q", got)
		}
		synctest.Wait()
		before := issuer.calls()
		time.Sleep(time.Hour)
		if n := issuer.calls() - before; n < 3 || n > 4 {
			t.Errorf("%d fetches in an hour, want those of one set", n)
		}
		k.Retain(one) // the snapshot before is taken up again
		if _, err := one.Check(bearerRequest(t, key().token(claimsOf("")))); err != nil {
			t.Error(err)
		}
		if got := uris(); !slices.Equal(got, []string{"https://issuer.test/keys"}) {
			t.Errorf("kept %q", got)
		}
		k.Retain(nil)
		if got := uris(); got != nil {
			t.Errorf("kept %q", got)
		}
		if _, err := one.Check(bearerRequest(t, key().token(claimsOf(`"x":1`)))); err != nil {
			t.Errorf("a request of the old snapshot: %v", err)
		}
	})
}

// TestKeys_SnapshotsShare: a new snapshot asks nobody again, and verifies nothing
// again.
func TestKeys_SnapshotsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := newFakeIssuer(keySetOf(key()))
		k := NewKeys(KeysOptions{Client: issuer.client()})
		defer k.Close()
		token := key().token(claimsOf(""))
		var first *Claims
		for range 10 {
			tokens := NewTokens([]*mesh.TokenRule{remoteRule()}, k)
			k.Retain(tokens)
			c, err := tokens.Check(bearerRequest(t, token))
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = c
			}
			if c != first {
				t.Error("verified again")
			}
		}
		if n := issuer.calls(); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

// TestKeys_Close: nobody waits for what will not come.
func TestKeys_Close(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := newFakeIssuer(keySetOf(key()))
		issuer.takes = time.Hour
		k := NewKeys(KeysOptions{Client: issuer.client()})
		tokens := NewTokens([]*mesh.TokenRule{remoteRule()}, k)
		var wg sync.WaitGroup
		start := time.Now()
		wg.Go(func() {
			_, err := tokens.Check(bearerRequest(t, key().token(claimsOf(""))))
			wantRefused(t, nil, err, 503, textFetch)
		})
		synctest.Wait()
		k.Close()
		wg.Wait()
		if time.Since(start) != 0 {
			t.Errorf("waited %v", time.Since(start))
		}
		late := NewTokens([]*mesh.TokenRule{remoteRule()}, k)
		_, err := late.Check(bearerRequest(t, key().token(claimsOf(""))))
		wantRefused(t, nil, err, 503, textFetch)
	})
}

// TestKeys_Bounded: a thousand issuers are not asked at once, and those that hang
// do not keep the others for ever.
func TestKeys_Bounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := newFakeIssuer("")
		issuer.takes = time.Hour
		k := NewKeys(KeysOptions{Client: issuer.client()})
		defer k.Close()
		var rules []*mesh.TokenRule
		for i := range 100 {
			rules = append(rules, &mesh.TokenRule{Issuer: fmt.Sprint(i), KeysURI: fmt.Sprintf("https://issuer.test/%d", i)})
		}
		NewTokens(rules, k)
		synctest.Wait()
		issuer.set(func() {
			if issuer.most != maxFetches {
				t.Errorf("%d fetches at once, want %d", issuer.most, maxFetches)
			}
		})
		time.Sleep(7*fetchTimeout + time.Second) // 100 of them, 16 at once
		for _, s := range k.Status() {
			if s.Error == "" {
				t.Errorf("%s was not asked", s.URI)
			}
		}
	})
}

// TestKeys_Timeout: requests wait for a key set as long as their rule says.
func TestKeys_Timeout(t *testing.T) {
	for _, tt := range []struct {
		timeout, takes, waits time.Duration
		passes                bool
	}{{time.Second, 4 * time.Second, time.Second, false}, {10 * time.Second, 6 * time.Second, 6 * time.Second, true}} {
		synctest.Test(t, func(t *testing.T) {
			issuer := newFakeIssuer(keySetOf(key()))
			issuer.takes = tt.takes
			k := NewKeys(KeysOptions{Client: issuer.client()})
			defer k.Close()
			rule := remoteRule()
			rule.Timeout = tt.timeout
			start := time.Now()
			_, err := NewTokens([]*mesh.TokenRule{rule}, k).Check(bearerRequest(t, key().token(claimsOf(""))))
			if waited := time.Since(start); waited != tt.waits || (err == nil) != tt.passes {
				t.Errorf("with a timeout of %v it waited %v, and %v", tt.timeout, waited, err)
			}
		})
	}
}

// TestKeys_TwoIssuers: nobody's token is judged by the keys of another issuer, however
// these are found.
func TestKeys_TwoIssuers(t *testing.T) {
	const otherIssuer = "https://other.test"
	other := tokenKey{"a", "ES256", ecKeyB()} // of the same name
	for name, uris := range map[string][2]string{
		"found":                {"", ""},
		"named":                {"https://issuer.test/keys", "https://other.test/keys"},
		"one found, one named": {"", "https://other.test/keys"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				issuer := newFakeIssuer(keySetOf(key()))
				issuer.bodies["https://other.test/keys"] = keySetOf(other)
				for _, i := range []string{testIssuer, otherIssuer} {
					issuer.bodies[i+"/.well-known/openid-configuration"] = fmt.Sprintf(`{"issuer":%q,"jwks_uri":"%s/keys"}`, i, i)
				}
				k := NewKeys(KeysOptions{Client: issuer.client()})
				defer k.Close()
				tokens := NewTokens([]*mesh.TokenRule{{Issuer: testIssuer, KeysURI: uris[0]}, {Issuer: otherIssuer, KeysURI: uris[1]}}, k)
				for _, of := range []struct {
					issuer string
					key    tokenKey
					good   bool
				}{{testIssuer, key(), true}, {otherIssuer, other, true}, {testIssuer, other, false}, {otherIssuer, key(), false}} {
					claims, err := tokens.Check(bearerRequest(t, of.key.token(fmt.Sprintf(`{"iss":%q}`, of.issuer))))
					if of.good && err != nil {
						t.Errorf("of %s: %v", of.issuer, err)
					} else if !of.good {
						wantRefused(t, claims, err, 401, textSignature)
					}
				}
			})
		})
	}
}
