package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
)

const (
	// maxToken bounds a token, in bytes. Real ones have 0.5 to 4 KiB; a head of
	// 60 KiB could hold a longer one.
	maxToken = 16 << 10

	// clockSkew is how far the issuer's clock may be off (Envoy: jwt_authn
	// clock_skew_seconds).
	clockSkew = 60 * time.Second

	// maxSeconds is the latest time that is told apart from those after it, in
	// 2255: nanoseconds with a skew added fit into an int64.
	maxSeconds = 9e9
)

// parsedToken is a token that is well formed. Nobody has verified it.
type parsedToken struct {
	alg, kid  string
	signed    []byte // header and payload, as received
	signature []byte
	payload   []byte // JSON
	claims    *claim

	issuer, subject    string
	audiences          []string
	expires, notBefore int64 // nanoseconds of Unix; math.MaxInt64 and math.MinInt64: unbounded
}

// parseToken reads the compact serialisation of a JWS (RFC 7515 3.1) with claims
// (RFC 7519) in it. It costs time and memory in proportion to the token, at most
// maxToken of it.
func parseToken(token []byte) (*parsedToken, *TokenError) {
	dots := 0
	var at [2]int
	for i, c := range token {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		case c == '.' && dots < 2:
			at[dots] = i
			dots++
		default:
			// A third dot, padding, white space (which the decoder would skip), "+".
			return nil, refuseToken(textFormat, fmt.Errorf("byte %q at %d", c, i))
		}
	}
	if dots < 2 || at[0] == 0 || at[1] == at[0]+1 || at[1] == len(token)-1 {
		return nil, refuseToken(textFormat, errors.New("three parts are needed, none of them empty"))
	}
	j := &parsedToken{signed: token[:at[1]]}
	header, err := decode(token[:at[0]])
	if err == nil {
		j.payload, err = decode(token[at[0]+1 : at[1]])
	}
	if err == nil {
		j.signature, err = decode(token[at[1]+1:])
	}
	if err != nil {
		return nil, refuseToken(textFormat, err)
	}
	if err := j.readHeader(header); err != nil {
		return nil, err
	}
	if err := j.readPayload(); err != nil {
		return nil, refuseToken(textPayload, err)
	}
	return j, nil
}

// decode reads base64url without padding. Bits left over have to be zero, so
// that each token has one spelling.
func decode(part []byte) ([]byte, error) {
	return base64.RawURLEncoding.Strict().AppendDecode(nil, part)
}

// readHeader reads the JOSE header (RFC 7515 4). What it says about keys (jwk,
// jku, x5u, x5c) is whoever made the token's to say: nobody looks at it.
func (j *parsedToken) readHeader(data []byte) *TokenError {
	h, err := parseObject(data)
	if err != nil {
		return refuseToken(textHeader, err)
	}
	if h.members["crit"] != nil {
		return refuseToken(textHeader, errors.New("crit: no extension is known here")) // RFC 7515 4.1.11
	}
	if b64 := h.members["b64"]; b64 != nil && (b64.kind != 't' || b64.text != "true") {
		return refuseToken(textHeader, errors.New("b64: the payload has to be encoded")) // RFC 7797
	}
	if j.kid, err = h.str("kid"); err != nil {
		return refuseToken(textHeader, err)
	}
	if j.alg, err = h.str("alg"); err == nil && keyKindOf(j.alg) == "" {
		err = fmt.Errorf("alg %.100q", j.alg)
	}
	if err != nil {
		return refuseToken(textAlgorithm, err)
	}
	return nil
}

// readPayload reads the claims that are registered (RFC 7519 4.1).
func (j *parsedToken) readPayload() (err error) {
	if j.claims, err = parseObject(j.payload); err != nil {
		return err
	}
	if j.issuer, err = j.claims.str("iss"); err != nil {
		return err
	}
	if j.subject, err = j.claims.str("sub"); err != nil {
		return err
	}
	if aud := j.claims.members["aud"]; aud != nil {
		if aud.kind != '"' && (aud.kind != '[' || aud.mixed) {
			return errors.New("aud is neither a string nor a list of strings")
		}
		j.audiences = aud.values
	}
	if j.expires, err = j.claims.instant("exp", math.MaxInt64); err != nil {
		return err
	}
	if j.notBefore, err = j.claims.instant("nbf", math.MinInt64); err != nil {
		return err
	}
	_, err = j.claims.instant("iat", 0) // has to be well formed; nothing is made of it
	return err
}

// instant returns a NumericDate (RFC 7519 2), which may have a fraction, in
// nanoseconds of Unix.
func (c *claim) instant(name string, absent int64) (int64, error) {
	m := c.members[name]
	if m == nil {
		return absent, nil
	}
	if m.kind != '0' {
		return 0, fmt.Errorf("%s is not a number", name)
	}
	seconds, err := strconv.ParseFloat(m.text, 64)
	if err != nil || seconds < 0 {
		return 0, fmt.Errorf("%s is %.40s, which is no time", name, m.text)
	}
	return int64(min(seconds, maxSeconds) * 1e9), nil
}

// checkTimes judges by the clock. Nothing is never valid: a token may be too new
// and too old at once.
func checkTimes(expires, notBefore, now int64) *TokenError {
	if expires != math.MaxInt64 && now >= expires+int64(clockSkew) {
		return refuseToken(textExpired, nil)
	}
	if notBefore != math.MinInt64 && now < notBefore-int64(clockSkew) {
		return refuseToken(textNotYet, nil)
	}
	return nil
}

// keyKindOf returns the kind of key that an algorithm takes; "" for one that is
// not allowed, as none and all with a shared secret are (RFC 8725 3.1, 3.2).
func keyKindOf(alg string) string {
	switch alg {
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		return "RSA"
	case "ES256":
		return "P-256"
	case "ES384":
		return "P-384"
	case "ES512":
		return "P-521"
	case "EdDSA":
		return "Ed25519"
	}
	return ""
}

// publicKey is a key that signatures may be verified with.
type publicKey struct {
	id   [sha256.Size]byte // of everything below
	kid  string
	alg  string // that it is for alone; "": any that fits
	kind string // as keyKindOf
	key  any
}

// keySet is an issuer's keys. It does not change.
type keySet struct {
	keys []*publicKey
	ids  map[[sha256.Size]byte]bool
}

func (s *keySet) has(id [sha256.Size]byte) bool { return s.ids[id] }

const (
	// maxKeys bounds a set: a token without a kid is tried with each that fits,
	// at 30 µs for RSA. Issuers have two to ten.
	maxKeys = 256

	// RSA keys, in bits: the least that RFC 7518 3.3 allows, and the most that is
	// verified in less than a millisecond.
	minRSA, maxRSA = 2048, 8192
)

// CheckKeySet says why tokens cannot be judged by a JWK set; nil if they can.
func CheckKeySet(data []byte) error {
	_, err := parseKeySet(data)
	return err
}

// parseKeySet reads a JWK set (RFC 7517 5). Keys that are not for this, or not
// safe, are left out; a set without any other is an error.
func parseKeySet(data []byte) (*keySet, error) {
	var document map[string]json.RawMessage
	if err := json.Unmarshal(data, &document); err != nil {
		return nil, fmt.Errorf("the key set is no JSON object: %w", err)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(document["keys"], &list); err != nil {
		return nil, errors.New("the key set has no list named keys")
	}
	if len(list) > maxKeys {
		return nil, fmt.Errorf("the key set has %d keys; at most %d are read", len(list), maxKeys)
	}
	s := &keySet{ids: map[[sha256.Size]byte]bool{}}
	var left error
	for i, raw := range list {
		k, err := parseKey(raw)
		if err != nil {
			left = fmt.Errorf("the %d. of them: %w", i+1, err)
			continue
		}
		if !s.ids[k.id] {
			s.keys, s.ids[k.id] = append(s.keys, k), true
		}
	}
	switch {
	case len(s.keys) > 0:
		return s, nil
	case left != nil:
		return nil, fmt.Errorf("the key set has no key that can be used; %w", left)
	default:
		return nil, errors.New("the key set is empty")
	}
}

func parseKey(raw []byte) (*publicKey, error) {
	parsed, err := jwk.ParseKey(raw)
	if err != nil {
		return nil, err
	}
	if use, ok := parsed.KeyUsage(); ok && use != "sig" {
		return nil, fmt.Errorf("its use is %.40q", use)
	}
	if ops, ok := parsed.KeyOps(); ok && !slices.Contains(ops, jwk.KeyOpVerify) {
		return nil, errors.New("its key_ops are without verify")
	}
	k := &publicKey{}
	k.kid, _ = parsed.KeyID()
	if alg, ok := parsed.Algorithm(); ok {
		k.alg = alg.String()
	}
	if k.key, err = jwk.PublicRawKeyOf(parsed); err != nil {
		return nil, err
	}
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < minRSA || n > maxRSA {
			return nil, fmt.Errorf("it has %d bits", n)
		}
		k.kind = "RSA"
	case *ecdsa.PublicKey:
		if _, err := key.ECDH(); err != nil { // is the point on the curve?
			return nil, err
		}
		k.kind = key.Curve.Params().Name
	case ed25519.PublicKey:
		k.kind = "Ed25519"
	default:
		return nil, fmt.Errorf("its type is %s", parsed.KeyType())
	}
	der, err := x509.MarshalPKIXPublicKey(k.key)
	if err != nil {
		return nil, err
	}
	if k.alg != "" && keyKindOf(k.alg) != k.kind {
		return nil, fmt.Errorf("a key of %s cannot be for %.40q", k.kind, k.alg)
	}
	k.id = sha256.Sum256(fmt.Appendf(nil, "%q %q %x", k.kid, k.alg, der))
	return k, nil
}

// verify returns the key that a token was signed with; else what the client is
// told, and whether the issuer may have a key that is not in the set. Where either
// has no kid, any key may be meant (RFC 7517 4.5).
func (s *keySet) verify(j *parsedToken) (key *publicKey, text string, unknown bool) {
	tried, named := false, false
	for _, k := range s.keys {
		if k.kind != keyKindOf(j.alg) || k.alg != "" && k.alg != j.alg || j.kid != "" && k.kid != "" && k.kid != j.kid {
			continue
		}
		tried = true
		named = named || j.kid != "" && k.kid != ""
		if verifySignature(k, j) == nil {
			return k, "", false
		}
	}
	if !tried {
		return nil, textNoKey, true
	}
	return nil, textSignature, !named
}

// verifySignature is called for algorithms that keyKindOf allows alone, with a
// key of that kind.
func verifySignature(k *publicKey, j *parsedToken) error {
	alg, ok := jwa.LookupSignatureAlgorithm(j.alg)
	if !ok {
		return fmt.Errorf("alg %s", j.alg)
	}
	v, err := jws.VerifierFor(alg)
	if err != nil {
		return err
	}
	// Copies: the token is in the buffer of a connection, and nobody here answers
	// for what a library keeps.
	return v.Verify(k.key, bytes.Clone(j.signed), bytes.Clone(j.signature))
}
