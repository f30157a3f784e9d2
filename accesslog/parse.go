package accesslog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Record is what a line of the log says of an exchange, as far as it matters for
// what the request would meet again. Texts that the line has not are empty.
type Record struct {
	Start     time.Time // zero: the line does not say
	Method    string
	Path      string // with the query
	Authority string
	Status    int
	Flags     string
	Details   string
	Route     string
	Upstream  string // "outbound|80||reviews.prod.svc.cluster.local"

	ServerName                         string // that the client's TLS asked for; "": plain text, or it named none
	UserAgent, ForwardedFor, RequestID string
	Client, Local                      string // address and port of both ends of the client's connection
}

// maxLine bounds a line; heads are no larger.
const maxLine = 1 << 20

// ParseLine reads a line in one of Istio's default formats, text or JSON.
func ParseLine(line []byte) (Record, error) {
	line = bytes.TrimSpace(line)
	switch {
	case len(line) == 0:
		return Record{}, errors.New("empty")
	case len(line) > maxLine:
		return Record{}, errors.New("too long")
	case line[0] == '{':
		return parseJSON(line)
	}
	return parseText(string(line))
}

func parseJSON(line []byte) (r Record, err error) {
	var m map[string]any
	if err := json.Unmarshal(line, &m); err != nil {
		return r, fmt.Errorf("not JSON: %w", err)
	}
	text := func(key string) string {
		switch v := m[key].(type) {
		case string:
			return dash(v)
		case float64:
			return strconv.FormatFloat(v, 'f', -1, 64)
		}
		return ""
	}
	r = Record{
		Method: text("method"), Path: text("path"), Authority: text("authority"), Flags: text("response_flags"), Details: text("response_code_details"),
		Route: text("route_name"), Upstream: text("upstream_cluster"), UserAgent: text("user_agent"), ForwardedFor: text("x_forwarded_for"),
		RequestID: text("request_id"), Client: text("downstream_remote_address"), Local: text("downstream_local_address"), ServerName: text("requested_server_name"),
	}
	return r.finish(text("start_time"), text("response_code"))
}

// textFields is how many values a line of the text format has.
const textFields = 23

// parseText takes a line apart: values stand between spaces, between brackets, or
// between quotes.
func parseText(line string) (r Record, err error) {
	var values []string
	for rest := line; len(rest) > 0 && len(values) < textFields; {
		value := ""
		switch rest[0] {
		case '[':
			value, rest, _ = strings.Cut(rest[1:], "]")
			rest = strings.TrimPrefix(rest, " ")
		case '"':
			from := 1
			if len(values) == 1 { // a query may hold quotes, but no spaces: the last one is before the protocol
				for range 2 {
					from += strings.IndexByte(rest[from:], ' ') + 1
				}
			}
			end := strings.Index(rest[from:], `" `)
			if end < 0 {
				value, rest = strings.TrimSuffix(rest[1:], `"`), ""
				break
			}
			value, rest = rest[1:from+end], rest[from+end+2:]
		default:
			value, rest, _ = strings.Cut(rest, " ")
		}
		values = append(values, dash(value))
	}
	if len(values) < 18 {
		return r, errors.New("it is neither Istio's text format nor JSON with Istio's keys")
	}
	for len(values) < textFields {
		values = append(values, "")
	}
	request := strings.SplitN(values[1], " ", 3)
	if len(request) < 2 {
		return r, errors.New("it tells of no request")
	}
	r = Record{
		Method: dash(request[0]), Path: dash(request[1]), Flags: values[3], Details: values[4],
		ForwardedFor: values[11], UserAgent: values[12], RequestID: values[13], Authority: values[14], Upstream: values[16],
		Local: values[18], Client: values[19], ServerName: values[20], Route: values[21],
	}
	return r.finish(values[0], values[2])
}

func (r Record) finish(start, status string) (Record, error) {
	r.Start, _ = time.Parse(time.RFC3339Nano, start)
	r.Status, _ = strconv.Atoi(status)
	switch {
	case r.Method == "" || r.Path == "" || r.Authority == "":
		return r, errors.New("it tells of no request: method, path or authority is missing")
	case r.Path[0] != '/':
		return r, fmt.Errorf("%q is no path", r.Path)
	}
	return r, nil
}

// dash takes "-" for nothing.
func dash(s string) string {
	if s == "-" {
		return ""
	}
	return s
}
