package auth

import "net/http"

// What refused requests get as their body: Envoy's texts (jwt_verify_lib,
// status.cc), for clients and tests that know them.
const (
	textFormat    = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
	textMultiple  = "Found multiple Jwt tokens"
	textHeader    = "Jwt header is an invalid JSON"
	textAlgorithm = "Jwt header [alg] is not supported"
	textPayload   = "Jwt payload is an invalid JSON"
	textExpired   = "Jwt is expired"
	textNotYet    = "Jwt not yet valid"
	textIssuer    = "Jwt issuer is not configured"
	textAudience  = "Audiences in Jwt are not allowed"
	textSignature = "Jwt verification fails"
	textNoKey     = "Jwks doesn't have key to match kid or alg from Jwt"
	textFetch     = "Jwks remote fetch is failed"
)

// challenge is for WWW-Authenticate (RFC 6750 3). The realm is a constant: Envoy
// puts the request's URL there, which is the client's to choose.
const challenge = `Bearer realm="isthmus", error="invalid_token"`

// TokenError is why a request is refused.
type TokenError struct {
	Status    int    // 401; 403 for audiences, as Envoy; 503 when there never was a key set
	Body      string // Envoy's text
	Challenge string // for WWW-Authenticate; "": none, as only 401 asks for one
	Cause     error  // for the log and for callers of the mesh: it may name what others need not know; nil: Body says all
}

// Error returns the cause.
func (e *TokenError) Error() string {
	if e.Cause == nil {
		return e.Body
	}
	return e.Body + ": " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *TokenError) Unwrap() error { return e.Cause }

func refuseToken(text string, cause error) *TokenError {
	return &TokenError{Status: http.StatusUnauthorized, Body: text, Challenge: challenge, Cause: cause}
}
