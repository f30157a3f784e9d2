package config

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	security "istio.io/api/security/v1beta1"

	"isthmus/mesh"
)

func readRequestAuthentication(d *document) {
	var p security.RequestAuthentication
	if !d.decode(&p) {
		return
	}
	out := &mesh.RequestAuthentication{Meta: d.meta(), Selector: p.Selector.GetMatchLabels()}
	d.refuseTargets(len(p.TargetRefs) > 0 || p.TargetRef != nil)
	for i, r := range p.JwtRules {
		out.Rules = append(out.Rules, d.tokenRule(r, fmt.Sprintf("jwtRules[%d]", i)))
	}
	if len(out.Rules) == 0 {
		d.warning("jwtRules", "are missing: no token is read")
	}
	d.reader.config.RequestAuthentications = append(d.reader.config.RequestAuthentications, out)
}

func (d *document) tokenRule(r *security.JWTRule, path string) *mesh.TokenRule {
	out := &mesh.TokenRule{
		Source: d.source(path), Issuer: r.Issuer, Audiences: r.Audiences, KeysURI: r.JwksUri, Keys: []byte(r.Jwks),
		Params: r.FromParams, Cookies: r.FromCookies, Forward: r.ForwardOriginalToken,
		PayloadHeader: strings.ToLower(r.OutputPayloadToHeader), Spaced: r.SpaceDelimitedClaims, Timeout: r.Timeout.AsDuration(),
	}
	if r.Issuer == "" {
		d.error(path+".issuer", "is missing: it has to be what iss says in the tokens, exactly")
	}
	switch {
	case r.JwksUri != "" && r.Jwks != "":
		d.error(path+".jwks", "cannot stand beside jwksUri: only one of them")
	case r.JwksUri != "":
		d.checkURL(r.JwksUri, path+".jwksUri", true)
	case r.Jwks != "":
		var set struct {
			Keys []map[string]any `json:"keys"`
		}
		if err := json.Unmarshal(out.Keys, &set); err != nil {
			d.error(path+".jwks", "is not JSON: "+err.Error())
		} else if len(set.Keys) == 0 {
			d.error(path+".jwks", `has no keys: write {"keys": [...]}`)
		}
	case r.Issuer != "":
		if d.checkURL(r.Issuer, path+".issuer", false) {
			break
		}
		d.error(path+".issuer", "is no URL, by which its keys could be found: write jwksUri or jwks")
	}
	for i, h := range r.FromHeaders {
		if h.Name == "" {
			d.error(fmt.Sprintf("%s.fromHeaders[%d].name", path, i), "is missing")
			continue
		}
		out.Headers = append(out.Headers, mesh.TokenHeader{Name: strings.ToLower(h.Name), Prefix: h.Prefix})
	}
	for i, c := range r.OutputClaimToHeaders {
		at := fmt.Sprintf("%s.outputClaimToHeaders[%d]", path, i)
		if c.Header == "" || c.Claim == "" {
			d.error(at, "header and claim have to be named")
			continue
		}
		d.checkOwnHeader(c.Header, at+".header")
		out.ClaimHeaders = append(out.ClaimHeaders, mesh.ClaimHeader{Header: strings.ToLower(c.Header), Claim: c.Claim})
	}
	if out.PayloadHeader != "" {
		d.checkOwnHeader(out.PayloadHeader, path+".outputPayloadToHeader")
	}
	return out
}

// checkOwnHeader refuses headers that a claim must not take the place of.
func (d *document) checkOwnHeader(name, path string) {
	switch strings.ToLower(name) {
	case "host", "content-length", "transfer-encoding", "connection", "x-forwarded-client-cert":
		d.error(path, fmt.Sprintf("%q cannot hold a claim: choose a header of your own", name))
	}
	if name[0] == ':' || strings.ContainsAny(name, " \t\r\n:") {
		d.error(path, fmt.Sprintf("%q is no name of a header", name))
	}
}

// checkURL reports whether a text is a URL that can be asked.
func (d *document) checkURL(s, path string, say bool) bool {
	u, err := url.Parse(s)
	if err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" {
		return true
	}
	if say {
		d.error(path, fmt.Sprintf("%q is no URL of http or https", s))
	}
	return false
}
