package auth

import (
	"strings"

	"isthmus/mesh"
)

// ruleSet finds the first rule of many that fits, without asking each: rules are
// entered by what every one of their alternatives asks for, an exact path, an
// exact principal, a namespace, or the folder of a path's prefix. Those that ask
// for none of these are asked always.
type ruleSet struct {
	policies []*policy
	always   []*rule

	paths, principals, namespaces, folders map[string][]*rule
}

func (s *ruleSet) add(p *policy) {
	s.policies = append(s.policies, p)
	for _, r := range p.rules {
		s.enter(r)
	}
}

func (s *ruleSet) enter(r *rule) {
	for _, by := range []struct {
		into *map[string][]*rule
		keys func(*rule) []string
	}{{&s.paths, exactPaths}, {&s.principals, exactPrincipals}, {&s.namespaces, exactNamespaces}, {&s.folders, folders}} {
		keys := by.keys(r)
		if len(keys) == 0 {
			continue
		}
		if *by.into == nil {
			*by.into = map[string][]*rule{}
		}
		for _, k := range keys {
			(*by.into)[k] = append((*by.into)[k], r)
		}
		return
	}
	s.always = append(s.always, r)
}

// find returns a rule that fits; nil if there is none.
func (s *ruleSet) find(q *Request) *rule {
	if r := first(s.always, q); r != nil {
		return r
	}
	if r := first(s.principals[q.Peer.Principal], q); r != nil {
		return r
	}
	if r := first(s.namespaces[q.Peer.Namespace], q); r != nil {
		return r
	}
	if q.HTTP == nil {
		return s.findConnection(q)
	}
	if r := first(s.paths[string(q.Path)], q); r != nil {
		return r
	}
	if len(s.folders) > 0 {
		for i, c := range q.Path {
			if c == '/' {
				if r := first(s.folders[string(q.Path[:i+1])], q); r != nil {
					return r
				}
			}
		}
	}
	return nil
}

// findConnection looks at the rules on paths, which a connection has none of.
func (s *ruleSet) findConnection(q *Request) *rule {
	for _, by := range []map[string][]*rule{s.paths, s.folders} {
		for _, list := range by {
			if r := first(list, q); r != nil {
				return r
			}
		}
	}
	return nil
}

func first(list []*rule, q *Request) *rule {
	for _, r := range list {
		if r.match(q) {
			return r
		}
	}
	return nil
}

// exactKeys returns the values of lists of which every one has some, all of them
// exact; nil else.
func exactKeys(lists ...[]text) (out []string) {
	for _, list := range lists {
		if len(list) == 0 {
			return nil
		}
		for _, t := range list {
			if t.kind != exact {
				return nil
			}
			out = append(out, t.value)
		}
	}
	return out
}

func exactPaths(r *rule) []string {
	var lists [][]text
	for i := range r.to {
		lists = append(lists, r.to[i].paths.in)
	}
	return exactKeys(lists...)
}

func exactPrincipals(r *rule) []string {
	var lists [][]text
	for i := range r.from {
		lists = append(lists, r.from[i].principals.in)
	}
	if keys := exactKeys(lists...); keys != nil {
		return keys
	}
	return exactCondition(r, mesh.KeySourcePrincipal)
}

func exactNamespaces(r *rule) []string {
	var lists [][]text
	for i := range r.from {
		lists = append(lists, r.from[i].namespaces.in)
	}
	if keys := exactKeys(lists...); keys != nil {
		return keys
	}
	return exactCondition(r, mesh.KeySourceNamespace)
}

// exactCondition returns the values of a condition on a key.
func exactCondition(r *rule, key mesh.ConditionKey) []string {
	for i := range r.when {
		if r.when[i].Key == key {
			if keys := exactKeys(r.when[i].values.in); keys != nil {
				return keys
			}
		}
	}
	return nil
}

// folders are those that paths lie in which a rule asks for, up to the last
// slash that is sure to be there.
func folders(r *rule) (out []string) {
	for i := range r.to {
		list := r.to[i].paths.in
		if len(list) == 0 {
			return nil
		}
		for _, t := range list {
			v := t.value
			if t.kind == template {
				v, _, _ = strings.Cut(v, "{")
			}
			slash := strings.LastIndexByte(v, '/')
			if slash < 0 || t.kind == suffix || t.kind == present {
				return nil
			}
			out = append(out, v[:slash+1])
		}
	}
	return out
}
