package http1

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// The reference reads heads slowly and plainly: the rules of RFC 9112 and of
// this package, one after the other, on a string of the whole head. The fuzz
// tests hold the parser to it, in what is accepted and in what is understood.

// latin1 makes each byte a rune, so that regular expressions see bytes.
func latin1(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		s.WriteRune(rune(c))
	}
	return s.String()
}

var (
	refRequestLine = regexp.MustCompile(`^([!#$%&'*+\-.^_` + "`" + `|~0-9A-Za-z]{1,32}) ([!$-;=@-~]+(?:\?[!"$-~]*)?) HTTP/1\.([01])$`)
	refStatusLine  = regexp.MustCompile(`^HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t -~\x{80}-\x{ff}]*))?$`)
	refField       = regexp.MustCompile(`^([!#$%&'*+\-.^_` + "`" + `|~0-9A-Za-z]+):[ \t]*((?:[!-~\x{80}-\x{ff}](?:[\t -~\x{80}-\x{ff}]*[!-~\x{80}-\x{ff}])?)?)[ \t]*$`)
	refLength      = regexp.MustCompile(`^[0-9]{1,19}$`)
	refHost        = regexp.MustCompile(`^(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z\-._~]+)(?::([0-9]{1,5}))?$`)
	refAbsolute    = regexp.MustCompile(`^(?i:(https?)):` + `//([^/?]*)(/[^?]*)?(?:(\?)(.*))?$`)
	refOrigin      = regexp.MustCompile(`^(/[^?]*)(?:(\?)(.*))?$`)
	refEscapes     = regexp.MustCompile(`^(?:[^%]|%[0-9A-Fa-f]{2})*$`)
)

type refMessage struct {
	length           int // of the head
	method, target   string
	status           int
	reason           string
	minor            int
	names, values    []string
	scheme, path     string
	query, authority string
	hasQuery         bool
	framing          Framing
	contentLength    int64
	close            bool
}

// values returns those of all fields of a name.
func (m *refMessage) all(name string) (values []string) {
	for i := range m.names {
		if strings.EqualFold(m.names[i], name) {
			values = append(values, m.values[i])
		}
	}
	return values
}

// list returns the elements of all fields of a name, in lower case.
func (m *refMessage) list(name string) (elements []string) {
	for _, v := range m.all(name) {
		for _, e := range strings.Split(v, ",") {
			elements = append(elements, strings.ToLower(strings.Trim(e, " \t")))
		}
	}
	return elements
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

// refLines splits a head into its lines. ok is false if it has no end within
// the limit.
func refLines(in string) (lines []string, length int, ok bool) {
	end := strings.Index(in, "\r\n\r\n")
	if end < 0 {
		return nil, 0, false
	}
	length = len([]rune(in[:end])) + 4
	return strings.Split(in[:end], "\r\n"), length, length <= DefaultLimits.HeadBytes
}

// fields reads field lines, and what they say about framing: chunked, or a
// length, or neither (-1).
func (m *refMessage) fields(lines []string) (length int64, chunked, ok bool) {
	if len(lines) > DefaultLimits.Fields {
		return 0, false, false
	}
	for _, line := range lines {
		f := refField.FindStringSubmatch(line)
		if f == nil {
			return 0, false, false
		}
		m.names, m.values = append(m.names, f[1]), append(m.values, f[2])
	}
	lengths, codings, options := m.all("content-length"), m.all("transfer-encoding"), m.list("connection")
	switch {
	case len(options) > maxOptions, len(lengths) > 1, len(codings) > 1, len(lengths)+len(codings) > 1:
		return 0, false, false
	case len(codings) == 1:
		if m.minor == 0 || !strings.EqualFold(codings[0], "chunked") || len(codings[0]) != len("chunked") {
			return 0, false, false
		}
		chunked = true
	}
	length = -1
	if len(lengths) == 1 {
		n, err := strconv.ParseUint(lengths[0], 10, 63)
		if err != nil || !refLength.MatchString(lengths[0]) {
			return 0, false, false
		}
		length = int64(n)
	}
	m.close = contains(options, "close") || m.minor == 0 && !contains(options, "keep-alive")
	return length, chunked, true
}

func refValidHost(s string) (port string, ok bool) {
	h := refHost.FindStringSubmatch(s)
	if h == nil {
		return "", false
	}
	if h[1][0] == '[' {
		if a, err := netip.ParseAddr(h[1][1 : len(h[1])-1]); err != nil || !a.Is6() {
			return "", false
		}
	}
	if h[2] != "" {
		if n, _ := strconv.Atoi(h[2]); n < 1 || n > 65535 {
			return "", false
		}
	}
	return h[2], true
}

// refRequest reads a request. ok is false if it is refused or not whole.
func refRequest(b []byte) (m refMessage, ok bool) {
	in := latin1(b)
	empty := 0
	if strings.HasPrefix(in, "\r\n") {
		in, empty = in[2:], 2
	}
	lines, length, ok := refLines(in)
	if !ok || length+empty > DefaultLimits.HeadBytes {
		return m, false
	}
	m.length = length + empty
	l := refRequestLine.FindStringSubmatch(lines[0])
	if l == nil || len(l[2]) > DefaultLimits.TargetBytes {
		return m, false
	}
	m.method, m.target = l[1], l[2]
	m.minor, _ = strconv.Atoi(l[3])
	contentLength, chunked, ok := m.fields(lines[1:])
	if !ok {
		return m, false
	}
	switch {
	case chunked:
		m.framing = Chunked
	case contentLength >= 0:
		m.framing, m.contentLength = Length, contentLength
	}

	absolute, origin := refAbsolute.FindStringSubmatch(m.target), refOrigin.FindStringSubmatch(m.target)
	switch {
	case m.method == "CONNECT":
		port, ok := refValidHost(m.target)
		if !ok || port == "" {
			return m, false
		}
		m.authority = m.target
	case origin != nil:
		m.path, m.hasQuery, m.query = origin[1], origin[2] != "", origin[3]
	case m.target == "*":
		if m.method != "OPTIONS" {
			return m, false
		}
		m.path = "*"
	case absolute != nil:
		m.scheme, m.authority, m.path, m.hasQuery, m.query = absolute[1], absolute[2], absolute[3], absolute[4] != "", absolute[5]
		if _, ok := refValidHost(m.authority); !ok {
			return m, false
		}
		if m.path == "" {
			m.path = "/"
			if m.method == "OPTIONS" && !m.hasQuery {
				m.path = "*"
			}
		}
	default:
		return m, false
	}
	if !refEscapes.MatchString(m.path) {
		return m, false
	}

	hosts := m.all("host")
	switch len(hosts) {
	case 0:
		return m, m.minor == 0
	case 1:
		port, ok := refValidHost(hosts[0])
		if !ok {
			return m, false
		}
		host := hosts[0]
		if m.method == "CONNECT" && port == "" {
			host += m.authority[strings.LastIndexByte(m.authority, ':'):]
		}
		if m.authority != "" && !strings.EqualFold(m.authority, host) {
			return m, false
		}
		if m.authority == "" {
			m.authority = host
		}
		return m, true
	}
	return m, false
}

// refResponse reads a reply. ok is false if it is refused or not whole.
func refResponse(b []byte, method string) (m refMessage, ok bool) {
	lines, length, ok := refLines(latin1(b))
	if !ok {
		return m, false
	}
	m.length = length
	l := refStatusLine.FindStringSubmatch(lines[0])
	if l == nil {
		return m, false
	}
	m.minor, _ = strconv.Atoi(l[1])
	m.status, _ = strconv.Atoi(l[2])
	m.reason = l[3]
	contentLength, chunked, ok := m.fields(lines[1:])
	if !ok {
		return m, false
	}
	m.contentLength = contentLength
	switch {
	case method == "HEAD" || m.status == 304:
		if m.status < 200 || m.status == 204 {
			m.close = m.close || chunked || contentLength > 0
		}
	case m.status < 200, m.status == 204, m.status < 300 && method == "CONNECT":
		m.close = m.close || chunked || contentLength > 0
	case chunked:
		m.framing = Chunked
	case contentLength < 0:
		m.framing, m.close = UntilClose, true
	case contentLength > 0:
		m.framing = Length
	}
	return m, true
}
