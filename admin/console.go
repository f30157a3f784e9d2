package admin

import (
	"embed"
	"io/fs"
	"net/http"
	"strings"
)

// The console is one page with its style and its scripts, used as they are: no
// build, and nothing from elsewhere. It shows what the other pages of admin
// have as JSON.
//
//go:embed console
var consoleFiles embed.FS

// consolePolicy lets the page load its own files and ask this listener,
// nothing else. No script or style in the page itself would be run, whatever
// text came into it.
const consolePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// console serves the page at / and its files below /console/.
func console(mux *http.ServeMux) {
	files, err := fs.Sub(consoleFiles, "console")
	if err != nil {
		panic("the console is embedded: " + err.Error())
	}
	server := http.FileServerFS(files)
	serve := func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", consolePolicy)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache") // another version may be here tomorrow
		server.ServeHTTP(w, r)
	}
	mux.HandleFunc("GET /{$}", serve) // index.html
	mux.Handle("GET /console/", http.StripPrefix("/console", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/") {
			http.NotFound(w, r) // no listings
			return
		}
		serve(w, r)
	})))
}

// pages are those of the console that have something to show, in their order.
func pages(s State) []string {
	list := []string{"mesh", "services", "endpoints", "routes", "members"}
	if len(s.Certificates()) > 0 {
		list = append(list, "certificates")
	}
	if len(s.Limits()) > 0 {
		list = append(list, "limits")
	}
	if len(s.Troubles(1)) > 0 {
		list = append(list, "failures")
	}
	return append(list, "configuration")
}
