package extauthz

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"

	"isthmus/http1"
	"isthmus/mesh"
)

// readCheck reads an answer. It allows what Envoy allows, but nothing that also
// holds a denied_response, nor an empty message, which anything could be that
// is not of this protocol: those are refused with 403.
func readCheck(res *checkResponse, fields []http1.Field) *Verdict {
	if res.denied == nil && res.code == 0 && (res.hasStatus || res.ok != nil) {
		return readAllowed(res.ok, fields)
	}
	v, a := &Verdict{Status: http.StatusForbidden}, &answer{}
	if d := res.denied; d != nil {
		v.Body = d.body
		if d.status != 0 {
			v.Status = int(d.status)
		}
		// Envoy adds them all to a reply of its own, whatever their append says.
		for _, o := range d.headers {
			if nv, ok := a.field(o.key, o.value); ok {
				v.Downstream = append(v.Downstream, nv)
			}
		}
	}
	return a.finish(v)
}

// readAllowed reads an ok_response, which may be nil. An answer that asks for
// more than a Verdict can say is a fault: the request was allowed with that.
func readAllowed(ok *okResponse, fields []http1.Field) *Verdict {
	v, a := &Verdict{Allowed: true}, &answer{}
	if ok == nil {
		return a.finish(v)
	}
	if ok.query {
		a.spoil(errors.New("the answer changes query parameters, which is not supported"))
	}
	for _, o := range ok.headers {
		if nv, ok := a.field(o.key, o.value); ok {
			a.change(v, &o, nv, fields)
		}
	}
	for _, o := range ok.replies {
		nv, ok := a.field(o.key, o.value)
		switch {
		case !ok:
		case o.says && !o.appends, !o.says && o.action == overwriteOrAdd:
			if i := indexName(v.DownstreamSet, nv.Name); i >= 0 {
				v.DownstreamSet[i] = nv
			} else {
				v.DownstreamSet = append(v.DownstreamSet, nv)
			}
		case o.says, o.action == appendOrAdd:
			v.Downstream = append(v.Downstream, nv)
		default:
			a.spoil(fmt.Errorf("the answer has append_action %d for a reply, which is not supported", o.action))
		}
	}
	for _, name := range ok.remove {
		if name, ok := a.name(name); ok {
			v.remove(name)
		}
	}
	return a.finish(v)
}

// change does with a field of the request what append says or, without it,
// append_action. Without both, which looks like APPEND_IF_EXISTS_OR_ADD, the
// field is set (OkHttpResponse.headers: append defaults to false), so that none
// of the client's stays beside it.
func (a *answer) change(v *Verdict, o *headerOption, nv mesh.NameValue, fields []http1.Field) {
	switch {
	case o.appends:
		v.Add = append(v.Add, nv)
		return
	case o.says:
		v.set(nv)
		return
	}
	exists := indexName(v.Set, nv.Name) >= 0 || indexName(v.Add, nv.Name) >= 0
	for i := 0; i < len(fields) && !exists; i++ {
		exists = bytes.EqualFold(fields[i].Name, []byte(nv.Name))
	}
	switch o.action {
	case appendOrAdd, overwriteOrAdd:
		v.set(nv)
	case addIfAbsent:
		if !exists {
			v.set(nv)
		}
	case overwriteIfExists:
		if exists {
			v.set(nv)
		}
	default:
		a.spoil(fmt.Errorf("the answer has append_action %d, which is none", o.action))
	}
}
