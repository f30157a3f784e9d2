package auth

import (
	"net/netip"
	"strings"

	"isthmus/http1"
	"isthmus/mesh"
)

// text is one value of a policy: exact, "abc*", "*abc", "*" for anything that is
// there, or a path template.
type text struct {
	kind     textKind
	value    string
	segments []string // of a template
}

type textKind uint8

const (
	exact textKind = iota
	prefix
	suffix
	present
	template
)

func newText(s string) text {
	switch {
	case s == "*":
		return text{kind: present}
	case strings.HasSuffix(s, "*"):
		return text{kind: prefix, value: s[:len(s)-1]}
	case strings.HasPrefix(s, "*"):
		return text{kind: suffix, value: s[1:]}
	}
	return text{kind: exact, value: s}
}

func (t *text) match(b []byte) bool {
	switch t.kind {
	case exact:
		return string(b) == t.value
	case prefix:
		return len(b) >= len(t.value) && string(b[:len(t.value)]) == t.value
	case suffix:
		return len(b) >= len(t.value) && string(b[len(b)-len(t.value):]) == t.value
	case template:
		return matchTemplate(t.segments, b)
	}
	return len(b) > 0
}

// fold is match without regard to case; value is in lower case.
func (t *text) fold(b []byte) bool {
	switch t.kind {
	case exact:
		return len(b) == len(t.value) && equalFold(b, t.value)
	case prefix:
		return len(b) >= len(t.value) && equalFold(b[:len(t.value)], t.value)
	case suffix:
		return len(b) >= len(t.value) && equalFold(b[len(b)-len(t.value):], t.value)
	}
	return len(b) > 0
}

// equalFold compares ASCII; lower is in lower case, and of b's length.
func equalFold(b []byte, lower string) bool {
	for i := range b {
		c := b[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// IsTemplate reports whether a path of a policy is a template.
func isTemplate(s string) bool { return strings.Contains(s, "{*}") || strings.Contains(s, "{**}") }

// newPath is newText for a path, which may be a template: "{*}" stands for one
// segment that is not empty, "{**}" for any number of them (Istio: Operation.paths).
func newPath(s string) text {
	if isTemplate(s) {
		return text{kind: template, value: s, segments: strings.Split(s, "/")}
	}
	return newText(s)
}

// matchTemplate matches segment by segment. There is one "{**}" at most, and no
// operator behind it, so what follows it is compared from the end.
func matchTemplate(segments []string, path []byte) bool {
	for i, s := range segments {
		if s == "{**}" {
			rest := strings.Join(segments[i+1:], "/")
			if len(segments) == i+1 {
				return true
			}
			return len(path) > len(rest) && string(path[len(path)-len(rest):]) == rest && path[len(path)-len(rest)-1] == '/'
		}
		end := len(path)
		for j, c := range path {
			if c == '/' {
				end = j
				break
			}
		}
		last := i == len(segments)-1
		switch {
		case last != (end == len(path)), s == "{*}" && end == 0, s != "{*}" && string(path[:end]) != s:
			return false
		}
		if !last {
			path = path[end+1:]
		}
	}
	return true
}

// texts are the values of one field and of its negation.
type texts struct{ in, notIn []text }

func newTexts(v mesh.Values, make func(string) text) texts {
	var t texts
	for _, s := range v.In {
		t.in = append(t.in, make(s))
	}
	for _, s := range v.NotIn {
		t.notIn = append(t.notIn, make(s))
	}
	return t
}

// match reports whether a value is one of in, if there are any, and none of
// notIn.
func (t *texts) match(b []byte) bool {
	return (len(t.in) == 0 || anyText(t.in, b)) && !anyText(t.notIn, b)
}

func (t *texts) matchString(s string) bool {
	return (len(t.in) == 0 || anyString(t.in, s)) && !anyString(t.notIn, s)
}

// matchHost is match for the authority of a request, whatever its case. A value
// without a port is for every port: whoever forbids a host means all of it.
func (t *texts) matchHost(authority []byte) bool {
	host := authority
	for i := len(authority) - 1; i >= 0; i-- {
		if c := authority[i]; c == ':' {
			host = authority[:i]
			break
		} else if c < '0' || c > '9' {
			break
		}
	}
	if n := len(host); n > 0 && host[n-1] == '.' {
		host = host[:n-1]
	}
	any := func(list []text) bool {
		for i := range list {
			if list[i].fold(authority) || list[i].fold(host) {
				return true
			}
		}
		return false
	}
	return (len(t.in) == 0 || any(t.in)) && !any(t.notIn)
}

// matchList is match for something that has several values: one of them is
// enough.
func (t *texts) matchList(values []string) bool {
	any := func(list []text) bool {
		for _, v := range values {
			if anyString(list, v) {
				return true
			}
		}
		return false
	}
	return (len(t.in) == 0 || any(t.in)) && !any(t.notIn)
}

func anyText(list []text, b []byte) bool {
	for i := range list {
		if list[i].match(b) {
			return true
		}
	}
	return false
}

func anyString(list []text, s string) bool {
	for i := range list {
		t := &list[i]
		switch t.kind {
		case exact:
			if s == t.value {
				return true
			}
		case prefix:
			if strings.HasPrefix(s, t.value) {
				return true
			}
		case suffix:
			if strings.HasSuffix(s, t.value) {
				return true
			}
		case present:
			if s != "" {
				return true
			}
		}
	}
	return false
}

// matchHeader matches a header by each of its lines: what forbids is not talked
// out of it by one more line, and what allows wants all of them.
func (t *texts) matchHeader(r *http1.Request, name string, forbids bool) bool {
	lines, in, notIn := 0, 0, 0
	for i := range r.Fields {
		f := &r.Fields[i]
		if len(f.Name) != len(name) || !equalFold(f.Name, name) {
			continue
		}
		lines++
		if anyText(t.in, f.Value) {
			in++
		}
		if anyText(t.notIn, f.Value) {
			notIn++
		}
	}
	if forbids {
		return (len(t.in) == 0 || in > 0) && (len(t.notIn) == 0 || notIn < max(lines, 1))
	}
	return (len(t.in) == 0 || lines > 0 && in == lines) && notIn == 0
}

// matchBlocks matches an address.
func matchBlocks(b *mesh.Blocks, a netip.Addr) bool {
	any := func(list []netip.Prefix) bool {
		for _, p := range list {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	return (len(b.In) == 0 || any(b.In)) && !any(b.NotIn)
}
