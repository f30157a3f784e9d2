package proxy

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"strings"
	"testing"
)

func TestAppendPeerCert(t *testing.T) {
	id := &url.URL{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/shop/sa/web"}
	c := &x509.Certificate{Raw: []byte("x"), Subject: pkix.Name{CommonName: `a"b`}, URIs: []*url.URL{id}, DNSNames: []string{"web.shop"}}
	want := `By=spiffe://cluster.local/ns/prod/sa/api;Hash=2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881;Subject="CN=a\\\"b";URI=spiffe://cluster.local/ns/shop/sa/web;DNS=web.shop`
	if got := string(appendPeerCert(nil, "spiffe://cluster.local/ns/prod/sa/api", c)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// FuzzClientCert: whatever stands in a certificate, its element of the header is
// one, with as many parts as it has names, and no line end.
func FuzzClientCert(f *testing.F) {
	f.Add("web", "web.shop", "/ns/shop/sa/web")
	f.Add(`a"b\`, "a,b;URI=spiffe://evil/x", "/a,b;By=c")
	f.Add("a\r\nx-admin: 1", "\x00", "/%0d%0a")
	f.Fuzz(func(t *testing.T, name, dns, path string) {
		c := &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{dns}, URIs: []*url.URL{{Scheme: "spiffe", Host: "d", Path: path}}}
		got := string(appendPeerCert(nil, "spiffe://d/"+path, c))
		if strings.ContainsAny(got, "\r\n\x00") {
			t.Fatalf("%q has what no header may have", got)
		}
		elements, parts := 1, 1
		quoted := false
		for i := 0; i < len(got); i++ {
			switch {
			case quoted && got[i] == '\\':
				i++
			case got[i] == '"':
				quoted = !quoted
			case !quoted && got[i] == ',':
				elements++
			case !quoted && got[i] == ';':
				parts++
			}
		}
		if elements != 1 || parts != 5 || quoted {
			t.Errorf("%q has %d elements and %d parts, quotes open: %v", got, elements, parts, quoted)
		}
	})
}
