package accesslog

import (
	"regexp"
	"strconv"
	"strings"
	"time"
	"unsafe"
)

// node is a part of an expression, or the whole: see [Filter] for what there is of
// CEL. The parser has seen to it that kinds fit, so that nothing fails here.
type node interface {
	eval(*Entry) value
	kind() kind
}

// kind is the type of a value.
type kind uint8

const (
	kindNone kind = iota // there is no such thing
	kindBool
	kindInt
	kindDuration
	kindText
)

func (k kind) String() string {
	return [...]string{"nothing", "true or false", "a number", "a duration", "a text"}[k]
}

// value is what an expression comes to. A text is in either of two forms, so
// that none has to be copied.
type value struct {
	kind   kind
	number int64 // also bool and duration
	text   string
	bytes  []byte
}

// string is the text, without a copy: it is gone when the entry is.
func (v value) string() string {
	if len(v.bytes) > 0 {
		return unsafe.String(&v.bytes[0], len(v.bytes))
	}
	return v.text
}

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

func boolean(b bool) value {
	if b {
		return value{kind: kindBool, number: 1}
	}
	return value{kind: kindBool}
}

func text(s string) value {
	if s == "" {
		return value{}
	}
	return value{kind: kindText, text: s}
}

func bytesOf(b []byte, ok bool) value {
	if !ok {
		return value{}
	}
	return value{kind: kindText, bytes: b}
}

type constant struct{ v value }

func (n constant) eval(*Entry) value { return n.v }
func (n constant) kind() kind        { return n.v.kind }

type lookup struct{ attribute }

func (n lookup) eval(e *Entry) value { return n.get(e) }
func (n lookup) kind() kind          { return n.attribute.kind }

// header is request.headers['name'].
type header struct{ field field }

func (n *header) eval(e *Entry) value { return e.field(&n.field) }
func (n *header) kind() kind          { return kindText }

type has struct{ of node }

func (n has) eval(e *Entry) value { return boolean(n.of.eval(e).kind != kindNone) }
func (n has) kind() kind          { return kindBool }

type not struct{ of node }

func (n not) eval(e *Entry) value {
	v := n.of.eval(e)
	if v.kind != kindBool {
		return value{}
	}
	return boolean(v.number == 0)
}
func (n not) kind() kind { return kindBool }

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

// logical is && and ||. As in CEL, what decides alone does so even if the other
// side has no value.
type logical struct {
	a, b node
	or   bool
}

func (n logical) eval(e *Entry) value {
	a := n.a.eval(e)
	if a.kind == kindBool && (a.number != 0) == n.or {
		return a
	}
	b := n.b.eval(e)
	if b.kind == kindBool && (b.number != 0) == n.or || a.kind == kindBool {
		return b
	}
	return value{}
}
func (n logical) kind() kind { return kindBool }

// comparison is == and the like.
type comparison struct {
	a, b node
	op   string
}

func (n comparison) eval(e *Entry) value {
	a, b := n.a.eval(e), n.b.eval(e)
	if a.kind == kindNone || b.kind == kindNone {
		return value{}
	}
	order := 0
	if a.kind == kindText {
		order = strings.Compare(a.string(), b.string())
	} else if a.number != b.number {
		order = 1
		if a.number < b.number {
			order = -1
		}
	}
	switch n.op {
	case "==":
		return boolean(order == 0)
	case "!=":
		return boolean(order != 0)
	case "<":
		return boolean(order < 0)
	case "<=":
		return boolean(order <= 0)
	case ">":
		return boolean(order > 0)
	}
	return boolean(order >= 0)
}
func (n comparison) kind() kind { return kindBool }

// member is in, with a list of constants.
type member struct {
	of   node
	list []value
}

func (n member) eval(e *Entry) value {
	v := n.of.eval(e)
	if v.kind == kindNone {
		return value{}
	}
	for _, w := range n.list {
		if v.kind == kindText && v.string() == w.text || v.kind != kindText && v.number == w.number {
			return boolean(true)
		}
	}
	return boolean(false)
}
func (n member) kind() kind { return kindBool }

// call is a method of a text.
type call struct {
	of     node
	method string
	what   string
	re     *regexp.Regexp // of matches
}

func (n call) eval(e *Entry) value {
	v := n.of.eval(e)
	if v.kind != kindText {
		return value{}
	}
	s := v.string()
	switch n.method {
	case "startsWith":
		return boolean(strings.HasPrefix(s, n.what))
	case "endsWith":
		return boolean(strings.HasSuffix(s, n.what))
	case "contains":
		return boolean(strings.Contains(s, n.what))
	}
	return boolean(n.re.MatchString(s))
}
func (n call) kind() kind { return kindBool }
