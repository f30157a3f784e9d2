package accesslog

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unsafe"
)

// Filter says which exchanges are logged. It is an expression of CEL (Telemetry
// accessLogging.filter.expression), of which there are: || && ! ( ), == != < <=
// > >=, ?:, in with a list, has() string(), startsWith endsWith contains matches, duration(),
// numbers, texts, true and false, and the attributes in this file.
type Filter struct {
	root node
	text string
}

// String returns the expression.
func (f *Filter) String() string { return f.text }

// Match reports whether an exchange is one of those. An expression that has no
// value, such as one of a header that is not there, does not match.
func (f *Filter) Match(e *Entry) bool {
	v := f.root.eval(e)
	return v.kind == kindBool && v.number != 0
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

// attribute is one thing that an expression may ask for.
type attribute struct {
	kind kind
	get  func(*Entry) value
}

// attributes are Envoy's names of what an entry knows.
var attributes = map[string]attribute{
	"request.path":       {kindText, func(e *Entry) value { return bytesOf(e.Path, true) }},
	"request.url_path":   {kindText, func(e *Entry) value { return bytesOf(e.Path, true) }},
	"request.query":      {kindText, func(e *Entry) value { return bytesOf(e.Query, e.HasQuery) }},
	"request.method":     {kindText, func(e *Entry) value { return bytesOf(e.Method, true) }},
	"request.host":       {kindText, func(e *Entry) value { return bytesOf(e.Authority, true) }},
	"request.scheme":     {kindText, func(e *Entry) value { return bytesOf(e.Scheme, true) }},
	"request.id":         {kindText, func(e *Entry) value { return bytesOf(e.RequestID, len(e.RequestID) > 0) }},
	"request.protocol":   {kindText, func(e *Entry) value { return text(e.Protocol) }},
	"request.useragent":  {kindText, func(e *Entry) value { return e.field(&userAgent) }},
	"request.referer":    {kindText, func(e *Entry) value { return e.field(&referer) }},
	"request.duration":   {kindDuration, func(e *Entry) value { return value{kind: kindDuration, number: int64(e.Duration)} }},
	"request.size":       {kindInt, func(e *Entry) value { return value{kind: kindInt, number: e.RequestBody} }},
	"request.total_size": {kindInt, func(e *Entry) value { return value{kind: kindInt, number: e.RequestBytes} }},

	"response.code":         {kindInt, func(e *Entry) value { return value{kind: kindInt, number: int64(e.Status)} }},
	"response.code_details": {kindText, func(e *Entry) value { return text(e.Details) }},
	"response.flags":        {kindText, func(e *Entry) value { return text(e.Flags) }},
	"response.size":         {kindInt, func(e *Entry) value { return value{kind: kindInt, number: e.ReplyBody} }},
	"response.total_size":   {kindInt, func(e *Entry) value { return value{kind: kindInt, number: e.ReplyBytes} }},
	"response.grpc_status": {kindInt, func(e *Entry) value {
		if e.GRPCStatus == Unknown {
			return value{}
		}
		return value{kind: kindInt, number: int64(e.GRPCStatus)}
	}},
	"response.backend_latency": {kindDuration, func(e *Entry) value {
		if e.ServiceTime == Unknown {
			return value{}
		}
		return value{kind: kindDuration, number: int64(e.ServiceTime)}
	}},

	"connection.mtls":                     {kindBool, func(e *Entry) value { return boolean(e.MTLS) }},
	"connection.requested_server_name":    {kindText, func(e *Entry) value { return text(e.ServerName) }},
	"connection.uri_san_peer_certificate": {kindText, func(e *Entry) value { return text(e.Peer) }},
	"connection.termination_details":      {kindText, func(e *Entry) value { return text(e.Termination) }},
	"source.port":                         {kindInt, func(e *Entry) value { return value{kind: kindInt, number: int64(e.Remote.Port())} }},
	"destination.port":                    {kindInt, func(e *Entry) value { return value{kind: kindInt, number: int64(e.Local.Port())} }},
	"source.address": {kindText, func(e *Entry) value {
		if !e.Remote.IsValid() {
			return value{}
		}
		return text(e.Remote.String())
	}},
	"upstream.address": {kindText, func(e *Entry) value {
		if !e.UpstreamHost.IsValid() {
			return value{}
		}
		return text(e.UpstreamHost.String())
	}},
	"xds.cluster_name": {kindText, func(e *Entry) value { return text(e.Upstream) }},
	"xds.route_name":   {kindText, func(e *Entry) value { return text(e.Route) }},
}

var userAgent, referer = newField("user-agent"), newField("referer")

// field is one of the request's.
func (e *Entry) field(f *field) value { return bytesOf(f.of(e.Request)) }

// node is a part of an expression.
type node interface {
	eval(*Entry) value
	kind() kind
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

const (
	maxExpression = 4096 // bytes
	maxNesting    = 64   // parentheses and negations within each other
)

// ParseFilter reads an expression.
func ParseFilter(s string) (*Filter, error) {
	root, err := parse(s)
	if err != nil {
		return nil, err
	}
	if root.kind() != kindBool {
		return nil, fmt.Errorf("the expression is %s, not true or false", root.kind())
	}
	return &Filter{root, s}, nil
}

// parse reads an expression of any type.
func parse(s string) (node, error) {
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
