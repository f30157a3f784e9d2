package proxy

import (
	"fmt"
	"testing"

	"isthmus/explain"
)

// TestRoute_Claims: a gateway routes by what a request's token says, and by nothing
// else that a client may write.
func TestRoute_Claims(t *testing.T) {
	i := newTokenIssuer(t)
	gw := serve(t, atEdge(), tokensAtEdge(i)+anyHost+`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge}
spec:
  hosts: [web.prod]
  gateways: [gw]
  http:
  - {match: [{headers: {"@request.auth.claims.groups": {exact: admins}}, withoutHeaders: {"@request.auth.claims.banned": {exact: "true"}}}], directResponse: {status: 201}}
  - {match: [{headers: {"@request.auth.claims[example.com/plan][name]": {prefix: gold}}}], directResponse: {status: 202}}
  - {match: [{headers: {"@request.auth.claims.scope": {regex: "write|all"}}}], directResponse: {status: 203}}
  - {match: [{headers: {"@request.auth.claims.sub": {}}}], directResponse: {status: 200}}
  - {match: [{uri: {prefix: /}, withoutHeaders: {"@request.auth.claims.sub": {}}}], directResponse: {status: 402}}
`)
	for _, tt := range []struct {
		name   string
		claims map[string]any // nil: there is no token
		fields string
		want   string
	}{
		{"no token", nil, "", "402"},
		{"a name that no field may have", nil, "@request.auth.claims.groups: admins\r\n", "400"},
		{"claims of a token that nobody has verified", nil, "X-Claims: {\"groups\": \"admins\"}\r\n", "402"},
		{"none of these claims", map[string]any{}, "", "200"},
		{"a text", map[string]any{"groups": "admins"}, "", "201"},
		{"one of a list", map[string]any{"groups": []string{"users", "admins"}}, "", "201"},
		{"another of a list", map[string]any{"groups": []string{"users", "admin"}}, "", "200"},
		{"what must not be", map[string]any{"groups": "admins", "banned": true}, "", "200"},
		{"names with dots, one within another", map[string]any{"example.com/plan": map[string]any{"name": "gold-2"}}, "", "202"},
		{"an object", map[string]any{"groups": map[string]any{"admins": "admins"}}, "", "200"},
		{"a word of a scope", map[string]any{"scope": "read write"}, "", "203"},
		{"the case of a name", map[string]any{"Groups": "admins"}, "", "200"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			request := "GET / HTTP/1.1\r\nHost: web.prod\r\n" + tt.fields
			if tt.claims != nil {
				request += "Authorization: Bearer " + i.token(tt.claims) + "\r\n"
			}
			if got := exchangeRaw(t, gw.address("gateway:80"), request+"\r\n", whole(1)); status(got) != tt.want {
				t.Errorf("got %q, want %s", got, tt.want)
			}
		})
	}

	token := "Bearer " + i.token(map[string]any{"groups": []string{"users", "ops"}})
	e, err := gw.Explain(explain.Question{Listener: "gateway:80", URL: "http://web.prod/", Fields: []explain.Field{{Name: "authorization", Value: token}}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(e.Tried[0].Misses), `[claim @request.auth.claims.groups = admins: it is "users, ops"]`; got != want {
		t.Errorf("explained by %s, want %s", got, want)
	}
}
