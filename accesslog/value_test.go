package accesslog

import (
	"strings"
	"testing"
)

func TestValue(t *testing.T) {
	for expression, want := range map[string]string{
		"'v1'":                      "v1",
		"request.host":              "reviews",
		"request.headers['x-none']": "",
		"response.code":             "200",
		"string(response.code)":     "200",
		"string(destination.port)":  "15006",
		"connection.mtls":           "true",
		"request.duration":          "12ms",
		"response.code >= 500 ? 'bad' : request.method == 'GET' ? 'read' : 'write'": "read",
		"(request.method == 'GET' ? 'a' : 'b') == 'a'":                              "true",
		"request.headers['x-none'] == 'a' ? 'b' : 'c'":                              "",
	} {
		v, err := ParseValue(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		if got := v.Of(known()); got != want {
			t.Errorf("%s: %q, want %q", expression, got, want)
		}
		if _, same := v.Constant(); same != (expression == "'v1'") {
			t.Errorf("%s: constant %v", expression, same)
		}
	}
	for expression, want := range map[string]string{
		"request.host ? 'a' : 'b'":               "not true or false",
		"connection.mtls ? 'a' : 1":              "both have to be alike",
		"connection.mtls ? 'a'":                  `":" is expected`,
		"upstream_peer.app":                      "is not known",
		"string(":                                "ends too early",
		strings.Repeat("true ? 1 : ", 100) + "1": "levels within",
	} {
		if _, err := ParseValue(expression); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", expression, err, want)
		}
	}
}
