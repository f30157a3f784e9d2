package extauthz

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"isthmus/http1"
	"isthmus/mesh"
)

// partialBody is the field that tells the service whether it sees all of the
// body (Envoy: ExtAuthz.with_request_body).
const partialBody = "x-envoy-auth-partial-body"

// isFinal reports whether a client can get a status: one that ends the exchange
// (RFC 9110 15: 1xx is interim, and 600 and above is invalid).
func isFinal(status int) bool { return 200 <= status && status <= 599 }

// answer gathers a service's fields. The first fault in them spoils all of it.
type answer struct {
	size  int // of names and values, in bytes
	fault error
}

// field checks a field that the service wants set. It is not ok if it is to be
// left out: reserved, or a fault.
func (a *answer) field(name, value string) (nv mesh.NameValue, ok bool) {
	if name, ok = a.name(name); !ok {
		return nv, false
	}
	value = strings.Trim(value, " \t") // RFC 9110 5.5: not part of it
	a.size += len(value)
	switch {
	case !http1.ValidValue([]byte(value)):
		a.spoil(fmt.Errorf("the answer's field %s has a value that none can have", name))
	case a.size > maxAnswerFields:
		a.spoil(fmt.Errorf("the answer has more than %d bytes of fields", maxAnswerFields))
	default:
		return mesh.NameValue{Name: name, Value: value}, true
	}
	return nv, false
}

// name checks a field's name, and makes it lower case.
func (a *answer) name(name string) (lower string, ok bool) {
	if strings.HasPrefix(name, ":") {
		return "", false
	}
	if !http1.ValidName([]byte(name)) {
		a.spoil(fmt.Errorf("the answer has a field %.100q, which is no name", name))
		return "", false
	}
	a.size += len(name)
	name = strings.ToLower(name) // it is ASCII
	return name, !reserved(name)
}

func (a *answer) spoil(fault error) {
	if a.fault == nil {
		a.fault = fault
	}
}

// reserved reports whether a field is nobody's but the proxy's: what frames a
// message and what is about one connection (RFC 9110 7.6.1), where it goes to,
// and who the peer is. No service sets or removes it.
func reserved(lower string) bool {
	switch http1.LookupField([]byte(lower)) {
	case http1.Host, http1.ContentLength, http1.TransferEncoding, http1.Connection, http1.KeepAlive, http1.ProxyConnection,
		http1.Upgrade, http1.TE, http1.Trailer, http1.Expect, http1.XForwardedClientCert:
		return true
	}
	return strings.HasPrefix(lower, "x-isthmus-")
}

// withheld reports whether a field of the request is not for the service: it is
// the proxy's own, but for who the peer is; or what the proxy alone says.
func withheld(lower string, id http1.FieldID) bool {
	return reserved(lower) && id != http1.XForwardedClientCert || lower == partialBody
}

// remove takes a field off the request, whatever else the answer does with it:
// Envoy removes last.
func (v *Verdict) remove(lower string) {
	if !slices.Contains(v.Remove, lower) {
		v.Remove = append(v.Remove, lower)
	}
	named := func(nv mesh.NameValue) bool { return nv.Name == lower }
	v.Set, v.Add = slices.DeleteFunc(v.Set, named), slices.DeleteFunc(v.Add, named)
}

// set replaces a field of the request. Of two of one name the later counts.
func (v *Verdict) set(nv mesh.NameValue) {
	if i := indexName(v.Set, nv.Name); i >= 0 {
		v.Set[i] = nv
		return
	}
	v.Set = append(v.Set, nv)
}

func indexName(list []mesh.NameValue, lower string) int {
	return slices.IndexFunc(list, func(nv mesh.NameValue) bool { return nv.Name == lower })
}

// finish returns the verdict, or what holds in place of one with a fault: an
// allowed request must not go on without the changes it was allowed with, and a
// refusal stays one.
func (a *answer) finish(v *Verdict) *Verdict {
	switch {
	case a.fault != nil:
		return refuse(http.StatusInternalServerError, a.fault)
	case v.Allowed:
		return v
	case !isFinal(v.Status):
		return refuse(http.StatusInternalServerError, fmt.Errorf("the answer has status %d, which no client can get", v.Status))
	case v.Status == http.StatusNoContent || v.Status == http.StatusResetContent || v.Status == http.StatusNotModified:
		v.Body = nil // RFC 9110 15.3.5, 15.3.6, 15.4.5: they have none
	}
	if len(v.Body) > maxAnswerBody {
		v.Body = v.Body[:maxAnswerBody]
	}
	return v
}

// patterns are names of fields in lower case: exact, "abc*" or "*abc"; "*" is
// every name.
type patterns []string

func newPatterns(list []string) patterns {
	p := make(patterns, len(list))
	for i, pattern := range list {
		p[i] = strings.ToLower(pattern)
	}
	return p
}

func (p patterns) match(lower string) bool {
	for _, pattern := range p {
		if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
			if strings.HasSuffix(lower, suffix) {
				return true
			}
		} else if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
			if strings.HasPrefix(lower, prefix) {
				return true
			}
		} else if pattern == lower {
			return true
		}
	}
	return false
}
