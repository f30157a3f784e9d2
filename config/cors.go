package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	networking "istio.io/api/networking/v1alpha3"

	"isthmus/mesh"
)

// corsMethods are what Istio lets allowMethods name.
var corsMethods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"}

// cors reads Istio's CorsPolicy.
func (d *document) cors(p *networking.CorsPolicy, path string) *mesh.CORS {
	if p == nil {
		return nil
	}
	out := &mesh.CORS{
		AllowOrigins:  d.origins(p, path),
		Credentials:   p.AllowCredentials.GetValue(),
		AllowMethods:  strings.Join(p.AllowMethods, ","),
		AllowHeaders:  strings.Join(p.AllowHeaders, ","),
		ExposeHeaders: strings.Join(p.ExposeHeaders, ","),
		KeepUnmatched: p.UnmatchedPreflights == networking.CorsPolicy_IGNORE,
	}
	for i, m := range p.AllowMethods {
		if !slices.Contains(corsMethods, m) {
			d.error(fmt.Sprintf("%s.allowMethods[%d]", path, i), fmt.Sprintf("%q is none of %s%s", m, strings.Join(corsMethods, ", "), suggest(m, corsMethods)))
		}
	}
	d.headerNames(p.AllowHeaders, path+".allowHeaders")
	d.headerNames(p.ExposeHeaders, path+".exposeHeaders")
	if p.MaxAge != nil {
		age := p.MaxAge.AsDuration()
		if age%time.Second != 0 {
			d.error(path+".maxAge", fmt.Sprintf("%v is no whole number of seconds", age))
		}
		out.MaxAge = strconv.Itoa(int(age / time.Second))
	}
	if len(out.AllowOrigins) == 0 {
		d.warning(path+".allowOrigins", "is missing: no origin is allowed, so the policy has no effect")
	}
	if out.Credentials && slices.ContainsFunc(out.AllowOrigins, anyOrigin) {
		d.warning(path+".allowCredentials", "with every origin allowed, any site can read what its visitors may see here: list the origins")
	}
	return out
}

// anyOrigin reports whether a match plainly fits every origin.
func anyOrigin(m mesh.StringMatch) bool {
	switch m.Kind {
	case mesh.MatchExact:
		return m.Value == "*"
	case mesh.MatchRegex:
		return m.Value == ".*" || m.Value == ".+"
	}
	return m.Kind == mesh.MatchPresent
}

// origins reads allowOrigins, or the deprecated allowOrigin, which Istio looks
// at only if there are none.
func (d *document) origins(p *networking.CorsPolicy, path string) []mesh.StringMatch {
	var out []mesh.StringMatch
	for i, o := range p.AllowOrigins {
		at := fmt.Sprintf("%s.allowOrigins[%d]", path, i)
		m := d.stringMatch(o, at)
		if m.Value == "" && m.Kind != mesh.MatchPrefix && (m.Kind != mesh.MatchPresent || o.GetRegex() == "") {
			d.error(at, "is empty: write exact, prefix or regex")
		}
		out = append(out, *m)
	}
	//lint:ignore SA1019 still written by users
	old := p.AllowOrigin
	if len(old) > 0 {
		note := ""
		if len(out) > 0 {
			note = "; it has no effect beside allowOrigins"
		}
		d.warning(path+".allowOrigin", "is deprecated: write allowOrigins: [{exact: ...}]"+note)
	}
	if len(out) > 0 {
		return out
	}
	for i, o := range old {
		if o == "" {
			d.error(fmt.Sprintf("%s.allowOrigin[%d]", path, i), "is empty")
		}
		out = append(out, mesh.StringMatch{Kind: mesh.MatchExact, Value: o})
	}
	return out
}

// headerNames checks a list of header names; "*" is one, too.
func (d *document) headerNames(names []string, path string) {
	for i, name := range names {
		if !validHeaderName(name) {
			d.error(fmt.Sprintf("%s[%d]", path, i), fmt.Sprintf("%q is no header name", name))
		}
	}
}
