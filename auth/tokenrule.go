package auth

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// ruleGroup is the rules that look in the same places. A token found there is
// for the one of its issuer.
type ruleGroup struct {
	places   tokenPlaces
	rules    []*tokenRule
	byIssuer map[string][]*tokenRule
	print    [sha256.Size]byte // of all that the rules say: equal prints judge alike
	cache    *tokenCache
}

// tokenRule is a mesh.TokenRule made ready.
type tokenRule struct {
	index      int // in its group
	issuer     string
	audiences  []string
	keys       *keySource
	timeout    time.Duration
	forward    bool
	payloadTo  []byte // "": nowhere
	claimsTo   []claimOutput
	spaced     []string
	configured string // of the log: where the rule is from
}

// claimOutput is a header that gets a claim.
type claimOutput struct {
	header []byte // in lower case
	claim  string // as configured
}

// keySetTimeout is how long requests wait for a key set where the rule says
// nothing (Istio: JWTRule.timeout).
const keySetTimeout = 5 * time.Second

// check judges one token at a time in nanoseconds of Unix.
func (g *ruleGroup) check(token []byte, now int64) (*verified, *TokenError) {
	if len(token) > maxToken {
		return nil, tooLong(token)
	}
	k := cacheKey{sha256.Sum256(token), g.print}
	if v := g.cache.get(k); v != nil && v.stands(g.rules[v.rule].keys) {
		if err := checkTimes(v.expires, v.notBefore, now); err != nil {
			g.cache.delete(k)
			return nil, err
		}
		return v, nil
	}
	v, err := g.judge(token, now)
	if err != nil {
		g.cache.delete(k)
		return nil, err
	}
	g.cache.put(k, v)
	return v, nil
}

// preview judges a token by the key sets that are there, and remembers nothing.
func (g *ruleGroup) preview(token []byte, now int64) (*verified, *TokenError) {
	if len(token) > maxToken {
		return nil, tooLong(token)
	}
	return g.judgeWith(token, now, func(r *tokenRule, j *parsedToken, _ time.Time) (*verified, *TokenError) {
		set, key, err := r.verify(j, time.Time{})
		switch {
		case err == nil:
			return newVerified(j, r, set, key), nil
		case err.Body == textFetch:
			return newUnverified(j, r), nil
		}
		return nil, err
	})
}

// judge verifies a token.
func (g *ruleGroup) judge(token []byte, now int64) (*verified, *TokenError) {
	return g.judgeWith(token, now, func(r *tokenRule, j *parsedToken, start time.Time) (*verified, *TokenError) {
		set, key, err := r.verify(j, start.Add(r.timeout))
		if err != nil {
			return nil, err
		}
		return newVerified(j, r, set, key), nil
	})
}

// judgeWith looks at a token by the rules of its issuer; the first that it
// satisfies counts. start is that of all waiting for key sets.
func (g *ruleGroup) judgeWith(token []byte, now int64, satisfies func(r *tokenRule, j *parsedToken, start time.Time) (*verified, *TokenError)) (*verified, *TokenError) {
	j, failed := parseToken(token)
	if failed != nil {
		return nil, failed
	}
	rules := g.byIssuer[j.issuer]
	if j.issuer == "" || len(rules) == 0 {
		return nil, refuseToken(textIssuer, fmt.Errorf("issuer %.200q", j.issuer))
	}
	if err := checkTimes(j.expires, j.notBefore, now); err != nil {
		return nil, err
	}
	start := time.Now()
	for _, r := range rules {
		v, err := satisfies(r, j, start)
		if err == nil {
			return v, nil
		}
		if failed == nil {
			failed = err
		}
	}
	return nil, failed
}

// verify returns the key that a token is signed with. Without a deadline nothing
// is fetched.
func (r *tokenRule) verify(j *parsedToken, deadline time.Time) (*keySet, *publicKey, *TokenError) {
	if len(r.audiences) > 0 && !slices.ContainsFunc(j.audiences, func(a string) bool { return slices.Contains(r.audiences, a) }) {
		cause := fmt.Errorf("issuer %s, audiences %.200s, rule %s", r.issuer, fmt.Sprintf("%q", j.audiences), r.configured)
		return nil, nil, &TokenError{Status: http.StatusForbidden, Body: textAudience, Cause: cause}
	}
	set, err := r.keys.await(deadline)
	if err != nil {
		return nil, nil, &TokenError{Status: http.StatusServiceUnavailable, Body: textFetch, Cause: err}
	}
	key, text, unknown := set.verify(j)
	if unknown && !deadline.IsZero() && r.keys.refetch(deadline) {
		set = r.keys.current.Load()
		key, text, _ = set.verify(j)
	}
	if key == nil {
		return nil, nil, refuseToken(text, fmt.Errorf("issuer %s, alg %s, kid %.200q", r.issuer, j.alg, j.kid))
	}
	return set, key, nil
}

func tooLong(token []byte) *TokenError {
	return refuseToken(textFormat, fmt.Errorf("%d bytes; at most %d are read", len(token), maxToken))
}
