package admin

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime/pprof"
	"strings"
	"testing"
)

func TestProfile(t *testing.T) {
	h := New(&state{}, http.NotFoundHandler())
	ask := func(query string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://127.0.0.1/debug/pprof/profile"+query, nil))
		return w
	}
	for _, bad := range []string{"?seconds=x", "?seconds=0", "?seconds=-1", "?seconds=601", "?seconds=99999999999999999999"} {
		if w := ask(bad); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "write a number from 1 to 600") {
			t.Errorf("%s: %d %s", bad, w.Code, w.Body)
		}
	}
	w := ask("?seconds=1")
	if gzip := []byte{0x1f, 0x8b}; w.Code != http.StatusOK || !bytes.HasPrefix(w.Body.Bytes(), gzip) {
		t.Errorf("%d, %d bytes, no profile", w.Code, w.Body.Len())
	}
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		t.Fatal(err)
	}
	defer pprof.StopCPUProfile()
	if w := ask("?seconds=1"); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "wait for it to end") {
		t.Errorf("%d %s while another one is being taken", w.Code, w.Body)
	}
}
