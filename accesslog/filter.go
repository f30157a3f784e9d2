package accesslog

import "fmt"

// Filter says which exchanges are logged. It is an expression of CEL (Telemetry
// accessLogging.filter.expression), of which there are: || && ! ( ), == != < <=
// > >=, ?:, in with a list or request.headers, has() string(), startsWith endsWith contains matches,
// duration(), numbers, texts, true and false, and the attributes of
// attributes.go.
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

// ParseFilter reads an expression.
func ParseFilter(s string) (*Filter, error) {
	root, err := parseExpression(s)
	if err != nil {
		return nil, err
	}
	if root.kind() != kindBool {
		return nil, fmt.Errorf("the expression is %s, not true or false", root.kind())
	}
	return &Filter{root, s}, nil
}
