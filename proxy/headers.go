package proxy

import (
	"slices"

	"isthmus/http1"
	"isthmus/mesh"
)

// headerRules are the header rules of a route, or of one of its destinations.
type headerRules struct {
	said              *mesh.HeaderRules
	request, response headerOps
	authority         []byte // that the request gets; nil: it keeps its own

	// tells says that they change what requests say of where they come from, on
	// which a gateway's clients have no say, and we have.
	tells bool
}

// newHeaderRules makes them ready; nil: there are none.
func newHeaderRules(said *mesh.HeaderRules) *headerRules {
	if said.Empty() {
		return nil
	}
	r := &headerRules{said: said, request: newHeaderOps(&said.Request), response: newHeaderOps(&said.Response)}
	r.tells = r.request.tell()
	for _, list := range [][]mesh.NameValue{said.Request.Add, said.Request.Set} { // which wins (Istio: TranslateHeadersOperations)
		for _, nv := range list {
			if nv.Name == "host" || nv.Name == ":authority" {
				r.authority = []byte(nv.Value)
			}
		}
	}
	return r
}

// headerOps change the fields of a message. Pseudo-headers and host are left to
// others, and framing cannot be changed by a rule.
type headerOps struct {
	remove   []http1.Field // by their names
	set, add []http1.Field
}

// newHeaderOps makes them of what a rule, or somebody who was asked, says.
func newHeaderOps(said *mesh.HeaderOps) (o headerOps) {
	for _, name := range said.Remove {
		if name != "host" {
			o.remove = append(o.remove, newField(mesh.NameValue{Name: name}))
		}
	}
	return headerOps{o.remove, newFields(said.Set), newFields(said.Add)}
}

// tell reports whether one of the fields is about where a request comes from.
func (o *headerOps) tell() bool {
	return slices.ContainsFunc(slices.Concat(o.remove, o.set, o.add), func(f http1.Field) bool {
		return f.ID == http1.XForwardedFor || f.ID == http1.XForwardedProto || f.ID == http1.XRequestID || doubtful(&f, true)
	})
}

func newFields(list []mesh.NameValue) (out []http1.Field) {
	for _, nv := range list {
		if settable(nv.Name) {
			out = append(out, newField(nv))
		}
	}
	return out
}

func settable(name string) bool {
	return name != "host" && name != "content-length" && name != "transfer-encoding" && name[0] != ':'
}

// newField makes a field that many messages may share.
func newField(nv mesh.NameValue) http1.Field {
	return http1.Field{Name: slices.Clip([]byte(nv.Name)), Value: slices.Clip([]byte(nv.Value)), ID: http1.LookupField([]byte(nv.Name))}
}

// apply removes, sets and adds.
func (o *headerOps) apply(fields []http1.Field) []http1.Field {
	for i := range o.remove {
		fields = removeField(fields, &o.remove[i])
	}
	for i := range o.set {
		fields = append(removeField(fields, &o.set[i]), o.set[i])
	}
	return append(fields, o.add...)
}

// change applies what somebody who was asked says.
func change(fields []http1.Field, said *mesh.HeaderOps) []http1.Field {
	o := newHeaderOps(said)
	return o.apply(fields)
}

// removeField takes the fields out that have the name of one.
func removeField(fields []http1.Field, named *http1.Field) []http1.Field {
	same := func(f *http1.Field) bool {
		return f.ID == named.ID && (f.ID != http1.Unknown || len(f.Name) == len(named.Name) && equalFold(f.Name, string(named.Name)))
	}
	at := 0
	for at < len(fields) && !same(&fields[at]) {
		at++
	}
	kept := fields[:at]
	for i := at; i < len(fields); i++ {
		if !same(&fields[i]) {
			kept = append(kept, fields[i])
		}
	}
	return kept
}

// changeRequest applies header rules to a copy of the request's fields: the
// route's first, then the destination's, which is nearer. Setting host changes the
// authority; there the route's word stands (Istio: processDestination). told
// says that our words about where the request comes from are among the fields.
func (x *exchange) changeRequest(route, destination *headerRules) (fields []http1.Field, authority []byte, told bool) {
	told = route != nil && route.tells || destination != nil && destination.tells
	if told {
		x.sanitize()
	}
	fields, authority = append(x.fields[:0], x.req.Fields...), x.req.Authority
	if told {
		fields = x.introduceClient(fields)
	}
	for _, r := range [...]*headerRules{route, destination} {
		if r == nil {
			continue
		}
		fields = r.request.apply(fields)
	}
	switch {
	case route != nil && route.authority != nil:
		authority = route.authority
	case destination != nil && destination.authority != nil:
		authority = destination.authority
	}
	x.fields = fields
	return fields, authority, told
}

// changeReply applies header rules to a copy of the reply's fields, in the same order.
func (x *exchange) changeReply(route, destination *headerRules) []http1.Field {
	fields := append(x.fields[:0], x.res.Fields...)
	for _, r := range [...]*headerRules{route, destination} {
		if r != nil {
			fields = r.response.apply(fields)
		}
	}
	x.fields = fields
	return fields
}
