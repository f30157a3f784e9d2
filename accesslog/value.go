package accesslog

import (
	"fmt"
	"strconv"
	"time"
)

// Value is an expression that comes to a text: that of a label (Telemetry
// metrics.overrides.tagOverrides.value). Numbers and the like are written out.
type Value struct{ root node }

// ParseValue reads an expression; see [Filter].
func ParseValue(s string) (*Value, error) {
	root, err := parse(s)
	if err != nil {
		return nil, err
	}
	return &Value{root}, nil
}

// Constant returns the text if it is the same for every exchange.
func (v *Value) Constant() (string, bool) {
	if c, ok := v.root.(constant); ok {
		return c.v.written(), true
	}
	return "", false
}

// Of returns the text for an exchange; "" if there is nothing.
func (v *Value) Of(e *Entry) string { return v.root.eval(e).written() }

// written is the value as a text of its own.
func (v value) written() string {
	switch v.kind {
	case kindBool:
		return strconv.FormatBool(v.number != 0)
	case kindInt:
		return strconv.FormatInt(v.number, 10)
	case kindDuration:
		return time.Duration(v.number).String()
	}
	if len(v.bytes) > 0 {
		return string(v.bytes)
	}
	return v.text
}

// written is string(of).
type written struct{ of node }

func (n written) eval(e *Entry) value { return text(n.of.eval(e).written()) }
func (n written) kind() kind          { return kindText }

// choice is of ? a : b.
type choice struct{ of, a, b node }

func (n choice) eval(e *Entry) value {
	switch v := n.of.eval(e); {
	case v.kind != kindBool:
		return value{}
	case v.number != 0:
		return n.a.eval(e)
	}
	return n.b.eval(e)
}
func (n choice) kind() kind { return n.a.kind() }

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
