//go:build !race

package auth

import (
	"testing"

	"isthmus/mesh"
)

// TestCachedToken_Allocates: a token that is known costs no allocation, with all
// that can be asked for. The race detector allocates by itself.
func TestCachedToken_Allocates(t *testing.T) {
	everything := tokenRuleOf(key())
	everything.PayloadHeader = "x-payload"
	everything.ClaimHeaders = []mesh.ClaimHeader{{Header: "x-sub", Claim: "sub"}}
	for _, tt := range []struct {
		name string
		rule *mesh.TokenRule
	}{{"plain", tokenRuleOf(key())}, {"with headers", everything}} {
		t.Run(tt.name, func(t *testing.T) {
			check := cachedCheck(t, tt.rule, key().token(claimsOf(`"scope":"a b"`)))
			if n := testing.AllocsPerRun(1000, check); n != 0 {
				t.Errorf("%v allocations for a known token, want none", n)
			}
		})
	}
}
