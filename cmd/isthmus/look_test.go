package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestQuestion_Refused: a proxy's own words are enough; of others the address is told, and
// no page for people.
func TestQuestion_Refused(t *testing.T) {
	for name, tt := range map[string]struct {
		status            int
		kind, said, wants string
	}{
		"a proxy's own words": {404, "text/plain; charset=utf-8", "revision 9: there is no such revision", "revision 9: there is no such revision"},
		"no such page":        {404, "text/plain; charset=utf-8", "404 page not found", "ADDRESS/status: 404 Not Found: 404 page not found"},
		"no words at all":     {404, "", "", "ADDRESS/status: 404 Not Found: not the answer of an isthmus: give its listeners.admin with --admin"},
		"a page":              {400, "text/html", "<html>\n<body>Bad Request</body>", "ADDRESS/status: 400 Bad Request: not the answer of an isthmus: give its listeners.admin with --admin"},
		"others' words":       {503, "text/plain", "no healthy upstream", "ADDRESS/status: 503 Service Unavailable: no healthy upstream"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", tt.kind)
				w.WriteHeader(tt.status)
				w.Write([]byte(tt.said))
			}))
			defer s.Close()
			q := question{s.URL, "json"}
			_, err := q.ask("/status")
			if want := strings.Replace(tt.wants, "ADDRESS", s.URL, 1); err == nil || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
		})
	}
}
