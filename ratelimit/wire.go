package ratelimit

import (
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"isthmus/http1"
	"isthmus/mesh"
	"isthmus/rpc"
)

// The messages of envoy.service.ratelimit.v3, as far as they are sent or read,
// by both ends.

// Verdict is what is said of a request.
type Verdict struct {
	Over     bool
	Statuses []Status         // of descriptors, in their order
	Response []mesh.NameValue // fields of the reply
	Request  []mesh.NameValue // fields of the request
	Body     []byte           // of a refusal; nil: none
}

// Status is what is said of one descriptor.
type Status struct {
	Over      bool
	Limited   bool // it has a limit at all
	Limit     mesh.ServiceLimit
	Remaining uint32
	Reset     time.Duration // until all of the limit is there again
}

// The codes of RateLimitResponse.
const (
	codeOK        = 1
	codeOverLimit = 2
)

// maxFields bounds the fields that a service may add, in bytes.
const maxFields = 16 << 10

func marshalRequest(domain string, d *Descriptors) []byte {
	b := rpc.AppendText(nil, 1, sanitise(domain))
	var one, e []byte
	for i := range d.Len() {
		one = one[:0]
		for _, entry := range d.entriesOf(i) {
			e = rpc.AppendText(rpc.AppendText(e[:0], 1, sanitise(entry.key)), 2, sanitise(string(entry.value)))
			one = rpc.AppendMessage(one, 1, e)
		}
		if n := d.Hits(i); n != 1 {
			one = rpc.AppendMessage(one, 3, rpc.AppendNumber(nil, 1, uint64(n)))
		}
		b = rpc.AppendMessage(b, 2, one)
	}
	return b
}

// sanitise makes UTF-8 of a text: the message would be none, which is nothing
// that a client may bring about.
func sanitise(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "!")
}

var errCode = errors.New("the answer says neither OK nor OVER_LIMIT")

func parseResponse(b []byte) (v Verdict, err error) {
	code, size := uint64(0), 0
	field := func(list *[]mesh.NameValue, b []byte) error {
		nv, ok, err := parseField(b)
		size += len(nv.Name) + len(nv.Value)
		if ok && size <= maxFields {
			*list = append(*list, nv)
		}
		return err
	}
	err = rpc.EachField(b, func(n protowire.Number, b []byte) error {
		switch n {
		case 2:
			s, err := parseStatus(b)
			v.Statuses = append(v.Statuses, s)
			return err
		case 3:
			return field(&v.Response, b)
		case 4:
			return field(&v.Request, b)
		case 5:
			v.Body = b
		}
		return nil
	}, func(n protowire.Number, x uint64) {
		if n == 1 {
			code = x
		}
	})
	if err == nil && code != codeOK && code != codeOverLimit {
		err = errCode
	}
	v.Over = code == codeOverLimit
	return v, err
}

func parseStatus(b []byte) (s Status, err error) {
	err = rpc.EachField(b, func(n protowire.Number, b []byte) error {
		switch n {
		case 2:
			s.Limited = true
			return rpc.EachField(b, func(n protowire.Number, b []byte) error {
				if n == 3 {
					s.Limit.Name = string(b)
				}
				return nil
			}, func(n protowire.Number, x uint64) {
				switch n {
				case 1:
					s.Limit.Requests = uint32(x)
				case 2:
					if x <= uint64(mesh.UnitWeek) {
						s.Limit.Unit = mesh.LimitUnit(x)
					}
				}
			})
		case 4:
			return rpc.EachField(b, nil, func(n protowire.Number, x uint64) {
				switch {
				case n == 1 && x < 1<<32:
					s.Reset += time.Duration(x) * time.Second
				case n == 2 && x < 1<<30:
					s.Reset += time.Duration(x)
				}
			})
		}
		return nil
	}, func(n protowire.Number, x uint64) {
		switch n {
		case 1:
			s.Over = x == codeOverLimit
		case 3:
			s.Remaining = uint32(x)
		}
	})
	return s, err
}

// parseField reads a HeaderValue. It is not ok if no service may set it: what is
// no field, and what is the proxy's alone.
func parseField(b []byte) (nv mesh.NameValue, ok bool, err error) {
	err = rpc.EachField(b, func(n protowire.Number, b []byte) error {
		switch n {
		case 1:
			nv.Name = strings.ToLower(string(b))
		case 2, 3:
			if len(b) > 0 {
				nv.Value = strings.Trim(string(b), " \t")
			}
		}
		return nil
	}, nil)
	if !http1.ValidName([]byte(nv.Name)) || !http1.ValidValue([]byte(nv.Value)) || strings.HasPrefix(nv.Name, "x-isthmus-") {
		return nv, false, err
	}
	switch http1.LookupField([]byte(nv.Name)) {
	case http1.Host, http1.ContentLength, http1.TransferEncoding, http1.Connection, http1.KeepAlive, http1.ProxyConnection,
		http1.Upgrade, http1.TE, http1.Trailer, http1.Expect, http1.XForwardedClientCert:
		return nv, false, err
	}
	return nv, true, err
}

// Fields returns what x-ratelimit-limit, -remaining and -reset say (draft 03 of
// RateLimit Header Fields for HTTP, as Envoy writes it); none if no descriptor
// has a limit.
func (v *Verdict) Fields() []mesh.NameValue {
	least := -1
	var quotas strings.Builder
	for i, s := range v.Statuses {
		if !s.Limited || s.Limit.Unlimited {
			continue
		}
		if least < 0 || s.Remaining < v.Statuses[least].Remaining {
			least = i
		}
		quotas.WriteString(", " + strconv.FormatUint(uint64(s.Limit.Requests), 10) + ";w=" + strconv.FormatInt(int64(s.Limit.Unit.Span()/time.Second), 10))
		if s.Limit.Name != "" {
			quotas.WriteString(`;name="` + strings.Map(nameChar, s.Limit.Name) + `"`)
		}
	}
	if least < 0 {
		return nil
	}
	s := &v.Statuses[least]
	return []mesh.NameValue{
		{Name: "x-ratelimit-limit", Value: strconv.FormatUint(uint64(s.Limit.Requests), 10) + quotas.String()},
		{Name: "x-ratelimit-remaining", Value: strconv.FormatUint(uint64(s.Remaining), 10)},
		{Name: "x-ratelimit-reset", Value: strconv.FormatInt(seconds(s.Reset), 10)},
	}
}

// seconds rounds up: who comes back then is let in.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// nameChar drops what a quoted string in a field must not hold.
func nameChar(r rune) rune {
	if r < ' ' || r > '~' || r == '"' || r == '\\' {
		return -1
	}
	return r
}
