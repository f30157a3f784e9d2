package proxy

import (
	"context"
	"net"
	"strings"
	"testing"

	"isthmus/auth"
)

// TestAuthorize_KeysOutage: an issuer that never answered is a 503 with a reason;
// one that did may be away.
func TestAuthorize_KeysOutage(t *testing.T) {
	tr, i := newTrust(t), newTokenIssuer(t)
	web := tr.identity("prod", "web")
	request := withToken("web.prod", i.token(map[string]any{}))
	i.down.Store(true)
	callee := sidecarOfWeb(t, web, replying(t, okReply).address, tokensOf(i, "web"))
	if got := exchangeRaw(t, callee.address("inbound"), request, whole(1)); status(got) != "503" || !strings.Contains(got, i.URL) {
		t.Errorf("no key set yet: %q", got)
	}
	if got := exchangeRaw(t, callee.address("inbound"), get("web.prod"), whole(1)); status(got) != "200" {
		t.Errorf("without a token: %q", got)
	}
	gw := serve(t, atEdge(), edge("web.prod")+"---\n"+entry("web.prod", replying(t, okReply).address)+tokensAtEdge(i))
	if got := exchangeRaw(t, gw.address("gateway:80"), request, whole(1)); status(got) != "503" || strings.Contains(got, i.URL) {
		t.Errorf("no key set yet, and a client from outside: %q", got)
	}
	i.down.Store(false)
	await(t, "the keys", until(func() bool {
		return status(exchangeRaw(t, callee.address("inbound"), request, whole(1))) == "200"
	}))
	i.down.Store(true)
	other := withToken("web.prod", i.token(map[string]any{"n": 2}))
	if got := exchangeRaw(t, callee.address("inbound"), other, whole(1)); status(got) != "200" {
		t.Errorf("after an outage: %q", got)
	}
}

// TestAuthorize_KeysOfTheMesh: an issuer behind another proxy, under a name that
// only the mesh knows, is asked by mTLS.
func TestAuthorize_KeysOfTheMesh(t *testing.T) {
	tr, i := newTrust(t), newTokenIssuer(t)
	web := tr.identity("prod", "web")
	issuer := sidecarOfWeb(t, tr.identity("prod", "web"), strings.TrimPrefix(i.URL, "http://"), peerAuthentication("prod", "STRICT"))
	o := proxyOf("prod", "api", web)
	o.Inbound = "127.0.0.1:0"
	var p *Proxy
	published := make(chan struct{})
	o.Keys = auth.NewKeys(auth.KeysOptions{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		<-published
		return p.Dial(ctx, network, address)
	}})
	defer o.Keys.Close()
	application := replying(t, okReply)
	p = serve(t, o, strings.NewReplacer("name: web", "name: api", "app: web", "app: api").Replace(webService(application.address))+`
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: prod}
spec: {jwtRules: [{issuer: "`+i.URL+`", jwksUri: "http://web.prod.global/keys"}]}
`, webAt(issuer, web.Identity().ID))
	close(published)
	request := withToken("api.prod", i.token(map[string]any{}))
	if got := exchangeRaw(t, p.address("inbound"), request, whole(1)); status(got) != "200" {
		t.Errorf("got %q", got)
	}
}
