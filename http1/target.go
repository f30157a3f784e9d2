package http1

import "bytes"

// parseTarget takes the target apart by its four forms (RFC 9112 3.2). Its
// characters have been looked at.
func (r *Request) parseTarget() *Error {
	t := r.Target
	switch {
	case t[0] == '/' && string(r.Method) != "CONNECT": // origin-form
	case string(r.Method) == "CONNECT":
		// authority-form, for CONNECT alone, and nothing else for CONNECT.
		if _, port, ok := SplitHost(t); !ok || port == nil {
			return errTarget
		}
		r.Authority = t
		return nil
	case len(t) == 1 && t[0] == '*':
		// asterisk-form, for OPTIONS alone.
		if string(r.Method) != "OPTIONS" {
			return errTarget
		}
		r.Path = t
		return nil
	default:
		var err *Error
		if t, err = r.parseAbsolute(t); err != nil {
			return err
		}
	}
	return r.setPath(t)
}

// ParsePath reads a target in origin-form that came without a request line, as
// HTTP/2 brings it, by the same rules. An error is an *[Error].
func (r *Request) ParsePath(target []byte, lim Limits) error {
	lim = lim.orDefault()
	switch {
	case len(target) > lim.TargetBytes:
		return errTargetLong
	case len(target) == 0 || target[0] != '/' || spanTarget(target) < len(target):
		return errTarget
	}
	r.Target = target
	return r.setPath(target).orNil()
}

// setPath takes path and query apart.
func (r *Request) setPath(t []byte) *Error {
	path := t
	if i := bytes.IndexByte(t, '?'); i >= 0 {
		path, r.Query, r.HasQuery = t[:i:i], t[i+1:], true
	}
	if len(path) == 0 {
		// http://example.com stands for its root; with OPTIONS, for the server
		// (RFC 9112 3.2.1, 3.2.4).
		path = slash
		if !r.HasQuery && string(r.Method) == "OPTIONS" {
			path = asterisk
		}
	}
	if !validEscapes(path) {
		return errTarget
	}
	r.Path = path
	return nil
}

var (
	slash    = []byte("/")
	asterisk = []byte("*")
)

// parseAbsolute reads scheme "://" authority and returns path and query, which
// may be empty. User names are refused (RFC 9110 4.2.4).
func (r *Request) parseAbsolute(t []byte) (rest []byte, err *Error) {
	const separator = "://"
	i := bytes.IndexByte(t, ':')
	if i < 0 || len(t) < i+len(separator) || string(t[i:i+len(separator)]) != separator {
		return nil, errTarget
	}
	r.Scheme = t[:i:i]
	if !equalFold(r.Scheme, "http") && !equalFold(r.Scheme, "https") {
		return nil, errTarget
	}
	t = t[i+len(separator):]
	end := 0
	for end < len(t) && t[end] != '/' && t[end] != '?' {
		end++
	}
	r.Authority = t[:end:end]
	if _, _, ok := SplitHost(r.Authority); !ok {
		return nil, errHost
	}
	return t[end:], nil
}

// validEscapes reports whether each "%" of a path begins an escape (RFC 3986
// 2.1). Queries are not held to it: browsers send "?off=10%" as it is.
func validEscapes(path []byte) bool {
	for {
		i := bytes.IndexByte(path, '%')
		if i < 0 {
			return true
		}
		if len(path) < i+3 || !all(path[i+1:i+3], hexChar) {
			return false
		}
		path = path[i+3:]
	}
}

// SplitHost reads uri-host [":" port] as it occurs: a name, an IPv4 address or
// an IPv6 address in brackets. No user, no escapes, no list, no white space;
// where there is a colon there is a port, from 1 to 65535. port is nil if there
// is none.
func SplitHost(b []byte) (host, port []byte, ok bool) {
	var rest []byte
	if len(b) > 0 && b[0] == '[' {
		end := bytes.IndexByte(b, ']')
		if end < 0 || !validIPv6(b[1:end]) {
			return nil, nil, false
		}
		host, rest = b[:end+1], b[end+1:]
	} else {
		n := span(b, hostChar)
		if n == 0 {
			return nil, nil, false
		}
		host, rest = b[:n], b[n:]
	}
	if len(rest) == 0 {
		return host, nil, true
	}
	if rest[0] != ':' || !validPort(rest[1:]) {
		return nil, nil, false
	}
	return host, rest[1:], true
}

func validPort(b []byte) bool {
	if len(b) > 5 {
		return false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n > 0 && n <= 65535
}

// validIPv6 reads an IPv6 address (RFC 3986 3.2.2): eight groups of up to four
// hexadecimal digits, one run of them perhaps left out as "::", the last two
// perhaps as an IPv4 address. Zones mean nothing to others and are refused.
func validIPv6(b []byte) bool {
	groups, elided := 0, false
	if len(b) >= 2 && b[0] == ':' && b[1] == ':' {
		elided = true
		b = b[2:]
	}
	for len(b) > 0 {
		n := span(b, hexChar)
		if n == 0 || n < len(b) && b[n] == '.' {
			if !validIPv4(b) {
				return false
			}
			groups += 2
			break
		}
		if n > 4 {
			return false
		}
		groups++
		b = b[n:]
		switch {
		case len(b) == 0:
		case len(b) >= 2 && b[0] == ':' && b[1] == ':':
			if elided {
				return false
			}
			elided = true
			b = b[2:]
		case len(b) >= 2 && b[0] == ':':
			b = b[1:]
		default:
			return false
		}
	}
	if elided {
		return groups < 8
	}
	return groups == 8
}

func validIPv4(b []byte) bool {
	for i := range 4 {
		n, digits := 0, 0
		for digits < len(b) && '0' <= b[digits] && b[digits] <= '9' {
			n = n*10 + int(b[digits]-'0')
			if digits++; digits > 3 {
				return false
			}
		}
		if digits == 0 || n > 255 || digits > 1 && b[0] == '0' {
			return false
		}
		b = b[digits:]
		if i < 3 {
			if len(b) == 0 || b[0] != '.' {
				return false
			}
			b = b[1:]
		}
	}
	return len(b) == 0
}
