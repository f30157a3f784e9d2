package admin

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestCertificates: of files that cannot be used it is told why, and what a search asks
// for alone is shown, as the links of problems do.
func TestCertificates(t *testing.T) {
	w := &world{certificates: []Certificate{
		{Name: "identity", Ends: time.Unix(1_900_000_000, 0), Usable: true},
		{Name: "web/tls.crt", Ends: time.Unix(1_900_000_000, 0), Error: "private key does not match public key"},
		{Name: "shop/tls.crt", Error: "open shop/tls.key: no such file or directory"},
	}}
	h := New(w, http.NotFoundHandler())
	for _, tt := range []struct{ query, want string }{
		{"", `
CERTIFICATE   ENDS                  IN FORCE
identity      2030-03-17T17:46:40Z  as its files are
web/tls.crt   2030-03-17T17:46:40Z  an earlier one: its files cannot be used: private key does not match public key
shop/tls.crt  -                     none: its files cannot be used: open shop/tls.key: no such file or directory
`},
		{"?q=WEB", `
CERTIFICATE  ENDS                  IN FORCE
web/tls.crt  2030-03-17T17:46:40Z  an earlier one: its files cannot be used: private key does not match public key
`},
		{"?q=no+such+file", `
CERTIFICATE   ENDS  IN FORCE
shop/tls.crt  -     none: its files cannot be used: open shop/tls.key: no such file or directory
`},
	} {
		if got := ask(h, "GET", "/certificates"+tt.query, nil).Body.String(); got != strings.TrimPrefix(tt.want, "\n") {
			t.Errorf("%s: got\n%s, want%s", tt.query, got, tt.want)
		}
	}
}
