package accesslog

// Value is an expression that comes to a text: that of a label (Telemetry
// metrics.overrides.tagOverrides.value). Numbers and the like are written out.
type Value struct{ root node }

// ParseValue reads an expression; see [Filter].
func ParseValue(s string) (*Value, error) {
	root, err := parseExpression(s)
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
