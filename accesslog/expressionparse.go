package accesslog

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

const (
	maxExpression = 4096 // bytes
	maxNesting    = 64   // parentheses and negations within each other
)

// parseExpression reads an expression of any type.
func parseExpression(s string) (node, error) {
	if len(s) > maxExpression {
		return nil, fmt.Errorf("the expression is longer than %d bytes", maxExpression)
	}
	tokens, err := scan(s)
	if err != nil {
		return nil, err
	}
	p := &parser{tokens: tokens}
	root, err := p.choice()
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != tokenEnd {
		return nil, fmt.Errorf("%q is one too many", t.text)
	}
	return root, nil
}

// parser reads tokens by recursive descent, as CEL's grammar has it.
type parser struct {
	tokens []token
	at     int
	depth  int
}

func (p *parser) peek() token {
	if p.at < len(p.tokens) {
		return p.tokens[p.at]
	}
	return token{kind: tokenEnd, text: "the end"}
}

func (p *parser) next() token {
	t := p.peek()
	p.at++
	return t
}

// accept takes a token if it is there.
func (p *parser) accept(text string) bool {
	if t := p.peek(); t.kind == tokenSign && t.text == text {
		p.at++
		return true
	}
	return false
}

func (p *parser) expect(text string) error {
	if !p.accept(text) {
		return fmt.Errorf("%q is expected before %q", text, p.peek().text)
	}
	return nil
}

// choice reads an expression, with the alternative that may stand behind it.
func (p *parser) choice() (node, error) {
	of, err := p.or()
	if err != nil || !p.accept("?") {
		return of, err
	}
	if p.depth++; p.depth > maxNesting {
		return nil, fmt.Errorf("more than %d levels within each other", maxNesting)
	}
	defer func() { p.depth-- }()
	a, err := p.choice()
	if err == nil {
		err = p.expect(":")
	}
	if err != nil {
		return nil, err
	}
	b, err := p.choice()
	switch {
	case err != nil:
		return nil, err
	case of.kind() != kindBool:
		return nil, fmt.Errorf("before ? stands %s, not true or false", of.kind())
	case a.kind() != b.kind():
		return nil, fmt.Errorf("%s and %s stand on the sides of a colon: both have to be alike", a.kind(), b.kind())
	}
	return choice{of, a, b}, nil
}

func (p *parser) or() (node, error) {
	if p.depth++; p.depth > maxNesting {
		return nil, fmt.Errorf("more than %d levels within each other", maxNesting)
	}
	defer func() { p.depth-- }()
	return p.chain("||", p.and)
}

func (p *parser) and() (node, error) { return p.chain("&&", p.relation) }

func (p *parser) chain(op string, operand func() (node, error)) (node, error) {
	a, err := operand()
	for err == nil && p.accept(op) {
		var b node
		if b, err = operand(); err != nil {
			break
		}
		if a.kind() != kindBool || b.kind() != kindBool {
			return nil, fmt.Errorf("%s stands between %s and %s: both have to be true or false", op, a.kind(), b.kind())
		}
		a = logical{a, b, op == "||"}
	}
	return a, err
}

func (p *parser) relation() (node, error) {
	a, err := p.unary()
	if err != nil {
		return nil, err
	}
	t := p.peek()
	if t.kind == tokenName && t.text == "in" {
		p.next()
		return p.list(a)
	}
	switch t.text {
	case "==", "!=", "<", "<=", ">", ">=":
		if t.kind != tokenSign {
			break
		}
		p.next()
		b, err := p.unary()
		if err != nil {
			return nil, err
		}
		if a.kind() != b.kind() {
			return nil, fmt.Errorf("%s compares %s with %s", t.text, a.kind(), b.kind())
		}
		return comparison{a, b, t.text}, nil
	}
	return a, nil
}

func (p *parser) list(of node) (node, error) {
	if t := p.peek(); t.kind == tokenName && t.text == "request" {
		return p.inHeaders(of)
	}
	if err := p.expect("["); err != nil {
		return nil, err
	}
	m := member{of: of}
	for !p.accept("]") {
		if len(m.list) > 0 {
			if err := p.expect(","); err != nil {
				return nil, err
			}
		}
		n, err := p.primary()
		if err != nil {
			return nil, err
		}
		c, ok := n.(constant)
		if !ok || c.v.kind != of.kind() {
			return nil, fmt.Errorf("the list behind in may hold %s only", of.kind())
		}
		m.list = append(m.list, c.v)
	}
	return m, nil
}

// inHeaders reads what is behind 'name' in: request.headers.
func (p *parser) inHeaders(of node) (node, error) {
	name, ok := of.(constant)
	if !ok || name.v.kind != kindText {
		return nil, fmt.Errorf("before in request.headers stands %s, not a name in quotes", of.kind())
	}
	for _, word := range [...]string{"request", ".", "headers"} {
		if t := p.next(); t.text != word {
			return nil, fmt.Errorf("behind in stands a list, or request.headers, not %q", t.text)
		}
	}
	return has{&header{newField(name.v.text)}}, nil
}

func (p *parser) unary() (node, error) {
	signs := 0
	for p.accept("!") {
		signs++
	}
	n, err := p.primary()
	if err != nil || signs == 0 {
		return n, err
	}
	if n.kind() != kindBool {
		return nil, fmt.Errorf("! stands before %s", n.kind())
	}
	if signs%2 == 1 {
		n = not{n}
	}
	return n, nil
}

func (p *parser) primary() (node, error) {
	n, err := p.operand()
	for err == nil && p.accept(".") {
		n, err = p.method(n)
	}
	return n, err
}

func (p *parser) operand() (node, error) {
	switch t := p.next(); t.kind {
	case tokenNumber:
		v, err := strconv.ParseInt(t.text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s is no number", t.text)
		}
		return constant{value{kind: kindInt, number: v}}, nil
	case tokenText:
		return constant{value{kind: kindText, text: t.text}}, nil
	case tokenSign:
		if t.text == "(" {
			n, err := p.choice()
			if err != nil {
				return nil, err
			}
			return n, p.expect(")")
		}
		return nil, fmt.Errorf("%q is not expected here", t.text)
	case tokenName:
		return p.named(t.text)
	}
	return nil, fmt.Errorf("the expression ends too early")
}

// named reads what begins with a name.
func (p *parser) named(name string) (node, error) {
	switch name {
	case "true", "false":
		return constant{boolean(name == "true")}, nil
	case "has":
		if err := p.expect("("); err != nil {
			return nil, err
		}
		n, err := p.primary()
		if err != nil {
			return nil, err
		}
		return has{n}, p.expect(")")
	case "string":
		if err := p.expect("("); err != nil {
			return nil, err
		}
		n, err := p.choice()
		if err != nil {
			return nil, err
		}
		return written{n}, p.expect(")")
	case "duration":
		s, err := p.argument()
		if err != nil {
			return nil, err
		}
		d, err := time.ParseDuration(s)
		if err != nil {
			return nil, fmt.Errorf("duration(%q): write 500ms or 2s", s)
		}
		return constant{value{kind: kindDuration, number: int64(d)}}, nil
	}
	for p.peek().text == "." && p.at+1 < len(p.tokens) && p.tokens[p.at+1].kind == tokenName {
		if _, ok := attributes[name]; ok {
			break // what follows is a method
		}
		p.next()
		name += "." + p.next().text
		if name == "request.headers" {
			return p.header()
		}
	}
	a, ok := attributes[name]
	if !ok {
		return nil, fmt.Errorf("%s is not known: there are request, response, connection, source, upstream and xds with their attributes, such as response.code", name)
	}
	return lookup{a}, nil
}

// header reads ['name'], or .name.
func (p *parser) header() (node, error) {
	if p.accept(".") {
		t := p.next()
		if t.kind != tokenName {
			return nil, fmt.Errorf("behind request.headers. a name is expected")
		}
		return &header{newField(t.text)}, nil
	}
	if err := p.expect("["); err != nil {
		return nil, err
	}
	t := p.next()
	if t.kind != tokenText {
		return nil, fmt.Errorf("behind request.headers[ a name in quotes is expected")
	}
	return &header{newField(t.text)}, p.expect("]")
}

// argument reads ("text").
func (p *parser) argument() (string, error) {
	if err := p.expect("("); err != nil {
		return "", err
	}
	t := p.next()
	if t.kind != tokenText {
		return "", fmt.Errorf("a text in quotes is expected before %q", t.text)
	}
	return t.text, p.expect(")")
}

func (p *parser) method(of node) (node, error) {
	t := p.next()
	switch t.text {
	case "startsWith", "endsWith", "contains", "matches":
	default:
		return nil, fmt.Errorf("%q is none of startsWith, endsWith, contains, matches", t.text)
	}
	if of.kind() != kindText {
		return nil, fmt.Errorf("%s is asked of %s", t.text, of.kind())
	}
	what, err := p.argument()
	if err != nil {
		return nil, err
	}
	c := call{of: of, method: t.text, what: what}
	if t.text == "matches" {
		if c.re, err = regexp.Compile(what); err != nil {
			return nil, err
		}
	}
	return c, nil
}
