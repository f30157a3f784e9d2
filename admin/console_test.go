package admin

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// TestConsole: the page and every file of it are served, under a policy that
// runs nothing else.
func TestConsole(t *testing.T) {
	h := New(&state{}, http.NotFoundHandler())
	page := ask(h, "GET", "/", nil)
	if got := page.Header().Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'; script-src 'self'; style-src 'self'") || strings.Contains(got, "unsafe") {
		t.Errorf("policy %q", got)
	}
	for _, m := range regexp.MustCompile(`(?:href|src)="(/[^"]*)"`).FindAllStringSubmatch(page.Body.String(), -1) {
		if w := ask(h, "GET", m[1], nil); w.Code != 200 || w.Body.Len() == 0 {
			t.Errorf("%s: %d", m[1], w.Code)
		}
	}
	for path, kind := range map[string]string{"/console/main.js": "text/javascript", "/console/style.css": "text/css", "/console/icon.svg": "image/svg"} {
		w := ask(h, "GET", path, nil)
		if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), kind) || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
	}
	for _, path := range []string{"/console/", "/console/nothing.js", "/console/../admin.go", "/console"} {
		if w := ask(h, "GET", path, nil); w.Code == 200 {
			t.Errorf("%s is served", path)
		}
	}
}

// TestConsole_Safe: no markup is made of text, nothing comes from elsewhere,
// and no script or style would be stopped by the policy.
func TestConsole_Safe(t *testing.T) {
	never := regexp.MustCompile(`(?i)innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\sstyle="|<style|<script>|\son[a-z]+="|https?://`)
	names := "http://www.w3.org/2000/svg"
	imports := regexp.MustCompile(`from "\./([a-z]+\.js)"`)
	err := fs.WalkDir(consoleFiles, "console", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(consoleFiles, path)
		if err != nil {
			return err
		}
		if m := never.FindString(strings.ReplaceAll(string(b), names, "")); m != "" {
			t.Errorf("%s has %q", path, m)
		}
		for _, m := range imports.FindAllStringSubmatch(string(b), -1) {
			if _, err := fs.Stat(consoleFiles, "console/"+m[1]); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestList_Parts: a list is given whole, or as much of it as is asked for.
func TestList_Parts(t *testing.T) {
	w := &world{}
	for i := range 2500 {
		w.endpoints = append(w.endpoints, Endpoint{Service: "s.n", Address: fmt.Sprintf("10.0.%d.%d:80", i/250, i%250), Healthy: i%5 != 0, Labels: map[string]string{"app": "web"}})
	}
	h := New(w, http.NotFoundHandler())
	for _, tt := range []struct {
		query        string
		total, first string
		n            int
	}{
		{"", "2500", "10.0.0.0:80", 2500},
		{"&offset=250&limit=2", "2500", "10.0.1.0:80", 2},
		{"&offset=2499&limit=100", "2500", "10.0.9.249:80", 1},
		{"&offset=9999", "2500", "", 0},
		{"&healthy=false&limit=10", "500", "10.0.0.0:80", 10},
		{"&q=10.0.3.+APP%3DWEB", "250", "10.0.3.0:80", 250},
		{"&q=10.0.3.+-unhealthy", "200", "10.0.3.1:80", 200},
		{"&q=nobody", "0", "", 0},
	} {
		r := ask(h, "GET", "/endpoints?format=json"+tt.query, nil)
		var got []Endpoint
		if err := json.Unmarshal(r.Body.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v", tt.query, err)
		}
		first := ""
		if len(got) > 0 {
			first = got[0].Address
		}
		if len(got) != tt.n || first != tt.first || r.Header().Get("X-Total-Count") != tt.total {
			t.Errorf("%s: %d from %s of %s, want %d from %s of %s", tt.query, len(got), first, r.Header().Get("X-Total-Count"), tt.n, tt.first, tt.total)
		}
	}
	for _, bad := range []string{"limit=0", "limit=1001", "limit=x", "offset=-1"} {
		if r := ask(h, "GET", "/endpoints?"+bad, nil); r.Code != http.StatusBadRequest || !strings.Contains(r.Body.String(), bad) {
			t.Errorf("%s: %d %s", bad, r.Code, r.Body)
		}
	}
}

// TestGuard_SameOrigin: the console may act, other pages may not.
func TestGuard_SameOrigin(t *testing.T) {
	for _, tt := range []struct {
		name, origin, site string
		code               int
	}{
		{"a script", "", "", 200},
		{"the console", "http://127.0.0.1:15000", "same-origin", 200},
		{"another port of this machine", "http://127.0.0.1:3000", "same-site", 403},
		{"another site", "https://evil.example", "cross-site", 403},
		{"a form of another site, in a browser that hides where", "null", "cross-site", 403},
		{"no origin, but another site", "", "cross-site", 403},
	} {
		s := &state{}
		w := ask(New(s, http.NotFoundHandler()), "POST", "/reload", func(r *http.Request) {
			if tt.origin != "" {
				r.Header.Set("Origin", tt.origin)
			}
			if tt.site != "" {
				r.Header.Set("Sec-Fetch-Site", tt.site)
			}
		})
		if w.Code != tt.code || (len(s.did) == 1) != (tt.code == 200) {
			t.Errorf("%s: %d, did %v", tt.name, w.Code, s.did)
		}
	}
}

// BenchmarkLook is what a console asks for every two seconds.
func BenchmarkLook(b *testing.B) {
	w := twoClusters()
	for i := range 10_000 {
		w.endpoints = append(w.endpoints, Endpoint{Service: fmt.Sprintf("s%03d.n", i/20), Cluster: "c1", Healthy: true})
	}
	for b.Loop() {
		look(w)
	}
}

// BenchmarkFilter is a search in a large mesh.
func BenchmarkFilter(b *testing.B) {
	var all []Endpoint
	for i := range 10_000 {
		all = append(all, Endpoint{Service: fmt.Sprintf("s%03d.n", i/20), Address: "10.0.0.1:80", Cluster: "us-central", Owner: "us-central/n/x", Labels: map[string]string{"app": "web", "version": "v1"}})
	}
	list := make([]Endpoint, len(all))
	for b.Loop() {
		copy(list, all)
		filter(list, url.Values{"q": {"app=web 10.0.0 -s777"}}, endpointTexts)
	}
}
