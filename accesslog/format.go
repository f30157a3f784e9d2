package accesslog

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"isthmus/jsonstring"
)

// Text is Istio's default format (istio: EnvoyTextLogFormat).
const Text = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%`

// jsonFormat is the default as JSON, with Istio's keys.
const jsonFormat = `{
 "start_time": "%START_TIME%",
 "method": "%REQ(:METHOD)%", "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", "protocol": "%PROTOCOL%",
 "response_code": "%RESPONSE_CODE%", "response_flags": "%RESPONSE_FLAGS%", "response_code_details": "%RESPONSE_CODE_DETAILS%",
 "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%", "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
 "bytes_received": "%BYTES_RECEIVED%", "bytes_sent": "%BYTES_SENT%",
 "duration": "%DURATION%", "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
 "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%", "user_agent": "%REQ(USER-AGENT)%", "request_id": "%REQ(X-REQUEST-ID)%", "authority": "%REQ(:AUTHORITY)%",
 "upstream_host": "%UPSTREAM_HOST%", "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%", "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
 "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%", "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
 "requested_server_name": "%REQUESTED_SERVER_NAME%", "route_name": "%ROUTE_NAME%"
}`

// Format is how a line looks. It never changes.
type Format struct {
	parts  []part
	runs   []run    // the same
	wanted []wanted // for the parts that show what messages hold
	tail   string   // behind the last part
	json   bool
	reply  [][]byte // names of the reply's fields that are asked for
}

// part is a text as it is, and what the operator behind it stands for.
type part struct {
	literal string
	short   [shortLiteral]byte // the beginning of it
	operator
	style style
}

// shortLiteral is how long the literals of Istio's formats are at most.
const shortLiteral = 32

// style is how what an operator stands for is written.
type style uint8

const (
	bare   style = iota // into a line of text
	quoted              // into a string of JSON that holds more than this
	alone               // as a whole value of JSON, which keeps its type
)

// ReplyFields are the names of those fields of replies that lines hold, in lower
// case: [Entry].Reply need not have others.
func (f *Format) ReplyFields() [][]byte { return f.reply }

// ParseFormat reads a format: "text", "json", a line with Envoy's operators, or
// a JSON or YAML mapping of keys to such texts, for lines of JSON.
func ParseFormat(text string) (*Format, error) {
	f := &Format{}
	var err error
	switch trimmed := strings.TrimSpace(text); {
	case trimmed == "text" || trimmed == "":
		err = f.line(Text, false)
	case trimmed == "json":
		f.json = true
		err = f.mapping(jsonFormat)
	case strings.HasPrefix(trimmed, "{"):
		f.json = true
		err = f.mapping(text)
	case !strings.Contains(text, "%"):
		err = fmt.Errorf("%q is neither text nor json, and holds no operator such as %%RESPONSE_CODE%%", text)
	default:
		err = f.line(strings.TrimSuffix(text, "\n"), false)
	}
	if err != nil {
		return nil, err
	}
	f.group()
	return f, nil
}

// mapping reads keys and values, in their order.
func (f *Format) mapping(text string) error {
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(text), &root); err != nil {
		return fmt.Errorf("not a mapping of keys to texts: %w", err)
	}
	if len(root.Content) != 1 || root.Content[0].Kind != yaml.MappingNode || len(root.Content[0].Content) == 0 {
		return fmt.Errorf("must be a mapping of keys to texts")
	}
	return f.object(root.Content[0])
}

// maxDepth bounds how far mappings may stand within each other.
const maxDepth = 8

func (f *Format) object(n *yaml.Node) error { return f.objectAt(n, 1) }

func (f *Format) objectAt(n *yaml.Node, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("mappings stand more than %d deep", maxDepth)
	}
	f.text("{")
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if i > 0 {
			f.text(",")
		}
		f.text(string(jsonstring.Append(nil, key.Value)) + ":")
		switch {
		case value.Kind == yaml.MappingNode:
			if err := f.objectAt(value, depth+1); err != nil {
				return err
			}
		case value.Kind != yaml.ScalarNode:
			return fmt.Errorf("%s: must be a text", key.Value)
		case value.Style == 0 && value.Tag != "!!str" && json.Valid([]byte(value.Value)):
			f.text(value.Value) // a number, true, false or null stays what it is
		default:
			if err := f.line(value.Value, true); err != nil {
				return fmt.Errorf("%s: %w", key.Value, err)
			}
		}
	}
	f.text("}")
	return nil
}

// text adds a text as it is.
func (f *Format) text(s string) { f.tail += s }

// add adds an operator behind the text that is there.
func (f *Format) add(p part) {
	p.literal, f.tail = f.tail, ""
	copy(p.short[:], p.literal)
	f.parts = append(f.parts, p)
}

// line adds a text with operators; in JSON, as the value of a key.
func (f *Format) line(s string, value bool) error {
	list, err := parseLine(s)
	if err != nil {
		return err
	}
	for i := range list {
		if list[i].kind == opReply {
			for _, field := range list[i].argument.fields {
				f.reply = append(f.reply, field.name)
			}
		}
	}
	if value && len(list) == 1 && list[0].kind != opLiteral {
		list[0].style = alone
		f.add(list[0])
		return nil
	}
	if value {
		f.text(`"`)
		defer f.text(`"`)
	}
	for _, p := range list {
		switch {
		case p.kind != opLiteral:
			if value {
				p.style = quoted
			}
			f.add(p)
		case value:
			quoted := jsonstring.Append(nil, p.literal)
			f.text(string(quoted[1 : len(quoted)-1]))
		default:
			f.text(p.literal)
		}
	}
	return nil
}

// parseLine splits a text into its parts.
func parseLine(s string) (list []part, err error) {
	for len(s) > 0 {
		i := strings.IndexByte(s, '%')
		if i < 0 {
			i = len(s)
		}
		if i > 0 {
			list = append(list, part{literal: s[:i]})
			s = s[i:]
			continue
		}
		if strings.HasPrefix(s, "%%") {
			list = append(list, part{literal: "%"})
			s = s[2:]
			continue
		}
		p, rest, err := parseOperator(s)
		if err != nil {
			return nil, err
		}
		list, s = append(list, p), rest
	}
	return list, nil
}

// parseOperator reads %NAME%, %NAME(ARGUMENT)% or %NAME(ARGUMENT):LENGTH%.
func parseOperator(s string) (p part, rest string, err error) {
	end := 1
	for end < len(s) && ('A' <= s[end] && s[end] <= 'Z' || s[end] == '_') {
		end++
	}
	name, argument, hasArgument := s[1:end], "", false
	rest = s[end:]
	if strings.HasPrefix(rest, "(") {
		i := strings.IndexByte(rest, ')')
		if i < 0 {
			return p, "", fmt.Errorf("%%%s(: there is no )", name)
		}
		argument, hasArgument, rest = rest[1:i], true, rest[i+1:]
	}
	length := int64(0)
	if strings.HasPrefix(rest, ":") {
		i := 1
		for i < len(rest) && '0' <= rest[i] && rest[i] <= '9' {
			i++
		}
		if length, err = strconv.ParseInt(rest[1:i], 10, 32); err != nil || length < 1 {
			return p, "", fmt.Errorf("%%%s: behind the colon there has to be a length", name)
		}
		rest = rest[i:]
	}
	if !strings.HasPrefix(rest, "%") {
		return p, "", fmt.Errorf("%q: an operator ends with %%; write %%%% for a percent sign", first(s, 24))
	}
	p.operator, err = newOperator(name, argument, hasArgument)
	p.length = int32(length)
	return p, rest[1:], err
}

func first(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}

// hostName is what %HOSTNAME% stands for.
var hostName = func() string {
	name, _ := os.Hostname()
	return name
}()
