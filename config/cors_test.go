package config

import (
	"reflect"
	"strings"
	"testing"

	"isthmus/mesh"
)

// TestCORS reads what may be written, and warns of what is dangerous or old.
func TestCORS(t *testing.T) {
	for _, tt := range []struct {
		name, policy string
		want         mesh.CORS
		warning      string
	}{
		{
			"in full", `{allowOrigins: [{exact: "https://a.test"}, {prefix: "https://b"}], allowMethods: [GET, PUT], allowHeaders: [x-one, "*"], exposeHeaders: [x-two], maxAge: 24h, allowCredentials: true, unmatchedPreflights: IGNORE}`,
			mesh.CORS{
				AllowOrigins: []mesh.StringMatch{{Kind: mesh.MatchExact, Value: "https://a.test"}, {Kind: mesh.MatchPrefix, Value: "https://b"}},
				AllowMethods: "GET,PUT", AllowHeaders: "x-one,*", ExposeHeaders: "x-two", MaxAge: "86400", Credentials: true, KeepUnmatched: true,
			}, "",
		},
		{"maxAge 0", `{allowOrigins: [{exact: "http://a"}], maxAge: 0s}`, mesh.CORS{AllowOrigins: []mesh.StringMatch{{Value: "http://a"}}, MaxAge: "0"}, ""},
		{"the old field", `{allowOrigin: ["http://a"]}`, mesh.CORS{AllowOrigins: []mesh.StringMatch{{Value: "http://a"}}}, "http[0].corsPolicy.allowOrigin: is deprecated"},
		{"the old beside the new", `{allowOrigins: [{exact: "http://b"}], allowOrigin: ["http://a"]}`, mesh.CORS{AllowOrigins: []mesh.StringMatch{{Value: "http://b"}}}, "http[0].corsPolicy.allowOrigin: is deprecated: write allowOrigins: [{exact: ...}]; it has no effect"},
		{"nobody", `{}`, mesh.CORS{}, "http[0].corsPolicy.allowOrigins: is missing"},
		{"everybody", `{allowOrigins: [{exact: "*"}]}`, mesh.CORS{AllowOrigins: []mesh.StringMatch{{Value: "*"}}}, ""},
		{"everybody, with cookies", `{allowOrigins: [{exact: "*"}], allowCredentials: true}`, mesh.CORS{AllowOrigins: []mesh.StringMatch{{Value: "*"}}, Credentials: true}, "http[0].corsPolicy.allowCredentials: with every origin allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rule, warnings := readRoute(t, "corsPolicy: "+tt.policy)
			if !reflect.DeepEqual(*rule.CORS, tt.want) {
				t.Errorf("read as %+v, want %+v", *rule.CORS, tt.want)
			}
			if !strings.HasPrefix(warnings, tt.warning) || (tt.warning == "") != (warnings == "") || strings.Contains(warnings, "\n") {
				t.Errorf("warnings %q, want %q", warnings, tt.warning)
			}
		})
	}
}
