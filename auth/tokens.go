package auth

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"isthmus/http1"
	"isthmus/mesh"
)

// Tokens judges requests' tokens by the rules for one node. It does not change;
// one is made for each snapshot of the configuration. Key sets, and what tokens
// were found to say, live on in the Keys.
type Tokens struct {
	groups  []*ruleGroup // in the order of their first rules
	outputs [][]byte     // headers that rules set, in lower case
	sources map[string]*keySource
}

// NewTokens makes a judge of rules, and has the key sets fetched that are new;
// nil if there are no rules. A rule whose keys cannot be used stays, and refuses
// its issuer's tokens with 503. Once the judge is current, it is for Keys.Retain.
func NewTokens(rules []*mesh.TokenRule, keys *Keys) *Tokens {
	if len(rules) == 0 {
		return nil
	}
	t := &Tokens{sources: map[string]*keySource{}}
	byPlaces := map[string]*ruleGroup{}
	said := map[*ruleGroup][]byte{}
	for _, r := range rules {
		where := placesOf(r)
		g := byPlaces[where.key()]
		if g == nil {
			g = &ruleGroup{places: where, byIssuer: map[string][]*tokenRule{}, cache: keys.cache}
			byPlaces[where.key()] = g
			t.groups = append(t.groups, g)
		}
		c := t.compile(r, keys)
		c.index = len(g.rules)
		g.rules = append(g.rules, c)
		g.byIssuer[c.issuer] = append(g.byIssuer[c.issuer], c)
		// %q keeps two lists apart that would read alike once joined.
		said[g] = fmt.Appendf(said[g], "%q %q %q %q %q %t %q %q %q\n", where.key(), r.Issuer, r.Audiences,
			r.KeysURI, r.Keys, r.Forward, r.PayloadHeader, r.ClaimHeaders, r.Spaced)
	}
	for g, text := range said {
		g.print = sha256.Sum256(text)
	}
	return t
}

func (t *Tokens) compile(r *mesh.TokenRule, keys *Keys) *tokenRule {
	c := &tokenRule{
		issuer:     r.Issuer,
		audiences:  r.Audiences,
		timeout:    r.Timeout,
		forward:    r.Forward,
		spaced:     append([]string{"scope", "permission"}, r.Spaced...),
		configured: r.Source.String(),
	}
	if c.timeout <= 0 {
		c.timeout = keySetTimeout
	}
	if len(r.Keys) > 0 {
		c.keys = inlineSource(r.Issuer, r.Keys)
	} else {
		c.keys = keys.source(r.Issuer, r.KeysURI)
		t.sources[c.keys.id] = c.keys
	}
	if name, ok := t.output(r.PayloadHeader); ok {
		c.payloadTo = name
	}
	for _, h := range r.ClaimHeaders {
		if name, ok := t.output(h.Header); ok {
			c.claimsTo = append(c.claimsTo, claimOutput{name, h.Claim})
		}
	}
	return c
}

// output notes a header that a rule sets. One that is about framing or the
// connection is not for rules to set; the configuration refuses such names.
func (t *Tokens) output(name string) ([]byte, bool) {
	lower := []byte(strings.ToLower(name))
	id := http1.LookupField(lower)
	if !http1.ValidName(lower) || http1.Host <= id && id <= http1.Expect {
		return nil, false
	}
	if !slices.ContainsFunc(t.outputs, func(o []byte) bool { return string(o) == string(lower) }) {
		t.outputs = append(t.outputs, lower)
	}
	return lower, true
}

// Check judges the token of a request and makes the request what the upstream is
// to get: headers that rules set are taken off, whoever sent them, and set if
// the token says what they are for; the token goes unless its rule forwards it.
// Claims are nil for a request without a token, and for a preflight of CORS,
// which browsers send without one; policies refuse those that need one. It may
// wait for a key set, as long as the rule says. A refused request may have been
// changed in part. A nil Tokens lets everything pass.
func (t *Tokens) Check(r *http1.Request) (*Claims, *TokenError) {
	passed, failed := t.check(r, false)
	if passed == nil {
		return nil, failed
	}
	return passed.claims, nil
}

// Preview is Check for a request that nobody has sent: it asks nobody for keys,
// and remembers nothing. unverified says that there are no keys to verify the
// token with, so that its claims are as the token has them.
func (t *Tokens) Preview(r *http1.Request) (claims *Claims, unverified bool, err *TokenError) {
	passed, failed := t.check(r, true)
	if passed == nil {
		return nil, false, failed
	}
	return passed.claims, passed.unverified, nil
}

// Look returns the claims that [Tokens.Check] would find, and changes nothing: for
// policies that come before the token is judged. A token that is refused has none.
func (t *Tokens) Look(r *http1.Request) *Claims { return t.look(r, false) }

// PreviewLook is to [Tokens.Preview] what Look is to Check.
func (t *Tokens) PreviewLook(r *http1.Request) *Claims { return t.look(r, true) }

func (t *Tokens) look(r *http1.Request, preview bool) *Claims {
	if t == nil || isPreflight(r) {
		return nil
	}
	f, _ := t.find(r, preview)
	if f.verified == nil {
		return nil
	}
	return f.claims
}

func (t *Tokens) check(r *http1.Request, preview bool) (*verified, *TokenError) {
	if t == nil {
		return nil, nil
	}
	if isPreflight(r) {
		t.strip(r)
		return nil, nil
	}
	f, failed := t.find(r, preview)
	if f.verified == nil {
		t.strip(r)
		return nil, failed
	}
	if !f.group.rules[f.rule].forward {
		f.at.remove(r)
	}
	if len(f.outputs) > 0 && r.Hop {
		// Connection may name a header that is about to be set, which would take it
		// off again further on (RFC 9110 7.6.1).
		r.StripListed()
	}
	t.strip(r)
	r.Fields = append(r.Fields, f.outputs...)
	return f.verified, nil
}

// accepted is a token that was believed, and where it was.
type accepted struct {
	*verified // nil: there is none
	group     *ruleGroup
	at        foundToken
}

// find looks for the token of a request and judges it.
func (t *Tokens) find(r *http1.Request, preview bool) (out accepted, failed *TokenError) {
	var now int64
	for _, g := range t.groups {
		found, n := g.places.find(r)
		if n > 1 {
			// Which one counts is the upstream's guess as much as ours.
			return accepted{}, refuseToken(textMultiple, nil)
		}
		if n == 0 || out.verified != nil {
			continue
		}
		if now == 0 {
			now = time.Now().UnixNano()
		}
		look := g.check
		if preview {
			look = g.preview
		}
		v, err := look(found.token, now)
		if err == nil {
			out = accepted{v, g, found}
		} else if failed == nil || failed.Body == textIssuer {
			failed = err // the most telling: of a rule that knows the issuer
		}
	}
	return out, failed
}

// strip takes off headers that only rules may set.
func (t *Tokens) strip(r *http1.Request) {
	if len(t.outputs) == 0 {
		return
	}
	kept := r.Fields[:0]
fields:
	for _, f := range r.Fields {
		for _, name := range t.outputs {
			// Applications that turn names into variables take x_a for x-a.
			if sameName(f.Name, name) || r.Underscore && sameVariable(f.Name, name) {
				continue fields
			}
		}
		kept = append(kept, f)
	}
	clear(r.Fields[len(kept):])
	r.Fields = kept
}

// isPreflight reports whether a request is a CORS preflight (Fetch 3.2.2; Envoy:
// bypass_cors_preflight).
func isPreflight(r *http1.Request) bool {
	if string(r.Method) != "OPTIONS" {
		return false
	}
	origin, _ := r.Lookup([]byte("origin"))
	method, _ := r.Lookup([]byte("access-control-request-method"))
	return len(origin) > 0 && len(method) > 0
}
