package auth

import (
	"slices"
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

// equalFold compares ASCII; lower is in lower case, and of b's length.
func equalFold(b []byte, lower string) bool {
	for i := range b {
		if lowerByte(b[i]) != lower[i] {
			return false
		}
	}
	return true
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// isTemplate reports whether a path of a policy is a template.
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
type texts struct{ in, notIn list }

func newTexts(v mesh.Values, make func(string) text) texts {
	return texts{newList(v.In, make), newList(v.NotIn, make)}
}

// match reports whether a value is one of in, if there are any, and none of
// notIn.
func (t *texts) match(b []byte) bool {
	return (len(t.in.all) == 0 || t.in.match(b)) && !t.notIn.match(b)
}

func (t *texts) matchString(s string) bool {
	return (len(t.in.all) == 0 || t.in.matchString(s)) && !t.notIn.matchString(s)
}

// matchHost is match for the authority of a request, whatever its case. A value
// without a port is for every port: whoever forbids a host means all of it. The
// values are in lower case.
func (t *texts) matchHost(authority []byte) bool {
	if len(t.in.all)+len(t.notIn.all) == 0 {
		return true
	}
	var buf [hostLength]byte
	whole, host := foldHost(buf[:0], authority)
	any := func(l *list) bool { return l.match(whole) || l.match(host) }
	return (len(t.in.all) == 0 || any(&t.in)) && !any(&t.notIn)
}

// hostLength has room for the longest name (RFC 1035, section 2.3.4) and a port.
const hostLength = 255 + len(":65535")

// foldHost returns an authority in lower case, whole, and without its port and
// the dot at the end of its name. Both stand in dst, if that has room.
func foldHost(dst, authority []byte) (whole, host []byte) {
	for _, c := range authority {
		dst = append(dst, lowerByte(c))
	}
	host = dst
	for i := len(dst) - 1; i >= 0; i-- {
		if c := dst[i]; c == ':' {
			host = dst[:i]
			break
		} else if c < '0' || c > '9' {
			break
		}
	}
	if n := len(host); n > 0 && host[n-1] == '.' {
		host = host[:n-1]
	}
	return dst, host
}

// matchList is match for something that has several values: one of them is
// enough.
func (t *texts) matchList(values []string) bool {
	return (len(t.in.all) == 0 || slices.ContainsFunc(values, t.in.matchString)) && !slices.ContainsFunc(values, t.notIn.matchString)
}

// isHost reports whether a header, named in lower case, is the request's host.
func isHost(name string) bool { return name == ":authority" || name == "host" }

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
		if t.in.match(f.Value) {
			in++
		}
		if t.notIn.match(f.Value) {
			notIn++
		}
	}
	if forbids {
		return (len(t.in.all) == 0 || in > 0) && notIn < max(lines, 1)
	}
	return (len(t.in.all) == 0 || lines > 0 && in == lines) && notIn == 0
}
