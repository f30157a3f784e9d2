package proxy

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// authorization is an AuthorizationPolicy.
func authorization(namespace, name, spec string) string {
	return fmt.Sprintf(`---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: %s, namespace: %s}
spec: {%s}
---
`, name, namespace, spec)
}

// meshSettings is the mesh configuration of these lines.
func meshSettings(lines ...string) string {
	return `---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    ` + strings.Join(lines, "\n    ") + "\n---\n"
}

// authorizer is an authorization service, asked by HTTP.
type authorizer struct{ *httptest.Server }

func newAuthorizer(t testing.TB, answer http.HandlerFunc) authorizer {
	a := authorizer{httptest.NewServer(answer)}
	t.Cleanup(a.Close)
	return a
}

// provider names it among the mesh configuration's extensionProviders, with these fields
// besides.
func (a authorizer) provider(name, fields string) string {
	host, port, _ := net.SplitHostPort(a.Listener.Addr().String())
	return fmt.Sprintf("{name: %s, envoyExtAuthzHttp: {service: %s, port: %s, %s}}", name, host, port, fields)
}

// asked has it asked about every request, as the provider "tickets".
func (a authorizer) asked(namespace, fields string) string {
	return meshSettings("extensionProviders: ["+a.provider("tickets", fields)+"]") +
		authorization(namespace, "tickets", "action: CUSTOM, provider: {name: tickets}, rules: [{}]")
}
