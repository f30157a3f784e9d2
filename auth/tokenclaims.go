package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"isthmus/http1"
)

// Claims is what a token says that was believed. It is shared by the requests
// with that token; nobody changes it.
type Claims struct {
	Issuer, Subject string
	Principal       string // "issuer/subject"; "" if the token names no subject
	Audiences       []string
	Presenter       string // the claim azp

	root *claim
}

// maxClaimPath bounds how deep policies look into claims.
const maxClaimPath = 8

// Values returns the texts of a claim, given by the path of names that leads to
// it: a string, the strings of a list, a number or a boolean as JSON writes it.
// The words of scope, of permission, and of the claims that the rule names, are
// one each. There are none for an object, null, a claim that is not there, and a
// path of more than 8 names. The slice is not to be changed.
func (c *Claims) Values(path ...string) []string {
	if c == nil || len(path) == 0 || len(path) > maxClaimPath {
		return nil
	}
	at := c.root
	for _, name := range path {
		if at = at.members[name]; at == nil {
			return nil
		}
	}
	return at.values
}

// claim is a value of JSON.
type claim struct {
	kind    byte   // '{', '[', '"', '0', 't' for a boolean, 'n' for null
	text    string // of a string, a number, a boolean
	mixed   bool   // of a list: not all are strings
	values  []string
	members map[string]*claim // of an object
}

// maxNesting bounds values within values. Tokens have three or four levels; it
// keeps the parser's stack small.
const maxNesting = 32

// parseObject reads one JSON object, strictly: two readers must not understand
// it in two ways. A name that an object has twice, bytes that are not UTF-8, and
// anything behind the object are errors.
func parseObject(data []byte) (*claim, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8")
	}
	if !json.Valid(data) { // Decoder.Token alone would let some errors pass
		return nil, errors.New("not one JSON value")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	c, err := readClaim(d, 0)
	if err != nil {
		return nil, err
	}
	if c.kind != '{' {
		return nil, errors.New("not a JSON object")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("there is more behind the JSON object")
	}
	return c, nil
}

func readClaim(d *json.Decoder, depth int) (*claim, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Delim:
		if depth == maxNesting {
			return nil, fmt.Errorf("nested more than %d deep", maxNesting)
		}
		if t == '{' {
			return readObject(d, depth)
		}
		return readList(d, depth)
	case string:
		return &claim{kind: '"', text: t, values: []string{t}}, nil
	case json.Number:
		return &claim{kind: '0', text: t.String(), values: []string{t.String()}}, nil
	case bool:
		text := "false"
		if t {
			text = "true"
		}
		return &claim{kind: 't', text: text, values: []string{text}}, nil
	}
	return &claim{kind: 'n'}, nil
}

func readObject(d *json.Decoder, depth int) (*claim, error) {
	c := &claim{kind: '{', members: map[string]*claim{}}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, ok := t.(string)
		if !ok {
			return nil, errors.New("a member without a name")
		}
		if c.members[name] != nil {
			return nil, fmt.Errorf("two members %.100q", name)
		}
		if c.members[name], err = readClaim(d, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := d.Token() // the closing brace
	return c, err
}

func readList(d *json.Decoder, depth int) (*claim, error) {
	c := &claim{kind: '['}
	for d.More() {
		item, err := readClaim(d, depth+1)
		if err != nil {
			return nil, err
		}
		if item.kind == '"' {
			c.values = append(c.values, item.text)
		} else {
			c.mixed = true
		}
	}
	_, err := d.Token() // the closing bracket
	return c, err
}

// str returns a member that is a string, and "" if there is none.
func (c *claim) str(name string) (string, error) {
	switch m := c.members[name]; {
	case m == nil:
		return "", nil
	case m.kind != '"':
		return "", fmt.Errorf("%s is not a string", name)
	default:
		return m.text, nil
	}
}

// split makes words of a claim that is a string of words.
func (c *claim) split(name string) {
	if m := c.members[name]; m != nil && m.kind == '"' {
		m.values = strings.FieldsFunc(m.text, func(r rune) bool { return r == ' ' })
	}
}

// output returns what a header gets for a claim, which may be nested: "a.b"
// (Envoy: claim_to_headers). A name that has dots itself, as those that are URLs
// do, is looked for where no path leads anywhere. Strings, booleans and integers
// have a text for a header, unless the text could not be one.
func (c *claim) output(name string) (string, bool) {
	at := c
	if parts := strings.Split(name, "."); len(parts) <= maxClaimPath {
		for _, part := range parts {
			if at != nil {
				at = at.members[part]
			}
		}
	} else {
		at = nil
	}
	if at == nil {
		at = c.members[name]
	}
	if at == nil || at.text == "" || !http1.ValidValue([]byte(at.text)) {
		return "", false
	}
	switch at.kind {
	case '"', 't':
		return at.text, true
	case '0':
		return at.text, !strings.ContainsAny(at.text, ".eE")
	}
	return "", false
}

// bytes is about what a claim takes in memory.
func (c *claim) bytes() int {
	const (
		own    = 112 // the struct, in the allocator's class
		object = 288 // a map with one group of 8 members
		member = 24  // of one more
		value  = 16  // a string's head
	)
	n := own + len(c.text) + value*cap(c.values)
	for _, v := range c.values {
		n += max(len(v), value/2) // the allocator's least
	}
	if c.members != nil {
		n += object
		for name, m := range c.members {
			n += member + 2*len(name) + m.bytes() // the decoder's copies are rounded up
		}
	}
	return n
}

// claimsFor makes Claims of a token that was believed, with some of its claims
// split into words.
func (j *parsedToken) claimsFor(spaced []string) *Claims {
	for _, name := range spaced {
		j.claims.split(name)
	}
	c := &Claims{Issuer: j.issuer, Subject: j.subject, Audiences: slices.Clip(j.audiences), root: j.claims}
	if j.subject != "" {
		c.Principal = j.issuer + "/" + j.subject
	}
	c.Presenter, _ = j.claims.str("azp")
	return c
}
