package auth

import (
	"net/netip"
	"strings"

	"isthmus/mesh"
)

// ruleSet finds a rule of many that fits, without asking each. A rule is entered
// by what every one of its alternatives asks for; if there are several such
// things, by the one that it shares with the fewest other rules. Rules that ask
// for none of these are asked always.
type ruleSet struct {
	policies []*policy
	always   []*rule
	texts    [bySource]map[string][]*rule
	longest  [bySource]int // text of each: none longer is looked up, however long a request's is
	blocks   [dimensions - bySource]blockTable[*rule]
}

// dimension is something that rules are looked up by.
type dimension int

const (
	byPrincipal dimension = iota
	byNamespace
	byAccount

	// Of requests alone: a rule that forbids fits a connection without them.
	byPath
	byFolder // of a path
	byCaller // whom a token is about
	byHost   // or the domain of one

	// By address block.
	bySource
	byRemote

	dimensions
)

// entry is one value in a dimension.
type entry struct {
	text  string
	block netip.Prefix
}

// newRuleSet enters the rules of some policies.
func newRuleSet(policies []*policy) ruleSet {
	s := ruleSet{policies: policies}
	type use struct {
		dimension
		entry
	}
	uses := map[use]int{}
	each := func(do func(r *rule, keys [dimensions][]entry)) {
		for _, p := range policies {
			for _, r := range p.rules {
				do(r, r.keys())
			}
		}
	}
	each(func(_ *rule, keys [dimensions][]entry) {
		for d, list := range keys {
			for _, k := range list {
				uses[use{dimension(d), k}]++
			}
		}
	})
	each(func(r *rule, keys [dimensions][]entry) {
		best, shared := dimensions, 0
		for d, list := range keys {
			most := 0
			for _, k := range list {
				most = max(most, uses[use{dimension(d), k}])
			}
			if most > 0 && (best == dimensions || most < shared) {
				best, shared = dimension(d), most
			}
		}
		s.enter(r, best, keys)
	})
	return s
}

func (s *ruleSet) enter(r *rule, by dimension, keys [dimensions][]entry) {
	if by == dimensions {
		s.always = append(s.always, r)
		return
	}
	for _, k := range keys[by] {
		if by >= bySource {
			s.blocks[by-bySource].add(k.block, r)
			continue
		}
		if s.texts[by] == nil {
			s.texts[by] = map[string][]*rule{}
		}
		s.texts[by][k.text] = append(s.texts[by][k.text], r)
		s.longest[by] = max(s.longest[by], len(k.text))
	}
}

// find returns a rule that fits; nil if there is none.
func (s *ruleSet) find(q *Request) *rule {
	if r := first(s.always, q); r != nil {
		return r
	}
	if r := first(s.texts[byPrincipal][q.Peer.Principal], q); r != nil {
		return r
	}
	if r := first(s.texts[byNamespace][q.Peer.Namespace], q); r != nil {
		return r
	}
	if r := first(s.texts[byAccount][q.Peer.ServiceAccount], q); r != nil {
		return r
	}
	if r := s.findAddress(bySource, q.Source, q); r != nil {
		return r
	}
	if r := s.findAddress(byRemote, q.Remote, q); r != nil {
		return r
	}
	if q.HTTP == nil {
		return s.findConnection(q)
	}
	if r := first(s.texts[byPath][string(q.Path)], q); r != nil {
		return r
	}
	if len(s.texts[byCaller]) > 0 {
		if r := first(s.texts[byCaller][q.caller()], q); r != nil {
			return r
		}
	}
	if r := s.findFolder(q); r != nil {
		return r
	}
	return s.findHost(q)
}

// findAddress looks at the rules on the blocks that an address lies in.
func (s *ruleSet) findAddress(by dimension, a netip.Addr, q *Request) *rule {
	t := &s.blocks[by-bySource]
	for i := range t.lengths {
		if r := first(t.within(a, t.lengths[i]), q); r != nil {
			return r
		}
	}
	return nil
}

// findFolder looks at the rules on the folders that a path lies in.
func (s *ruleSet) findFolder(q *Request) *rule {
	folders := s.texts[byFolder]
	if len(folders) == 0 {
		return nil
	}
	for i, c := range q.Path[:min(len(q.Path), s.longest[byFolder])] {
		if c == '/' {
			if r := first(folders[string(q.Path[:i+1])], q); r != nil {
				return r
			}
		}
	}
	return nil
}

// findHost looks at the rules on a host, and on the domains that it is of, with
// its port and without.
func (s *ruleSet) findHost(q *Request) *rule {
	hosts := s.texts[byHost]
	if len(hosts) == 0 {
		return nil
	}
	var buf [hostLength]byte
	whole, host := foldHost(buf[:0], q.HTTP.Authority)
	for _, name := range [...][]byte{host, whole} {
		if r := first(hosts[string(name)], q); r != nil {
			return r
		}
		for i := max(len(name)-s.longest[byHost], 0); i < len(name); i++ {
			if name[i] == '.' {
				if r := first(hosts[string(name[i:])], q); r != nil {
					return r
				}
			}
		}
		if len(host) == len(whole) {
			break
		}
	}
	return nil
}

// findConnection looks at the rules on what a connection has none of.
func (s *ruleSet) findConnection(q *Request) *rule {
	for _, by := range s.texts[byPath:] {
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

// keys returns what a rule can be looked up by.
func (r *rule) keys() (out [dimensions][]entry) {
	for _, p := range []struct {
		by    dimension
		field func(*peerMatch) *texts
		when  mesh.ConditionKey
	}{
		{byPrincipal, func(m *peerMatch) *texts { return &m.principals }, mesh.KeySourcePrincipal},
		{byNamespace, func(m *peerMatch) *texts { return &m.namespaces }, mesh.KeySourceNamespace},
		{byAccount, func(m *peerMatch) *texts { return &m.accounts }, mesh.KeySourceServiceAccount},
		{byCaller, func(m *peerMatch) *texts { return &m.requestPrincipals }, mesh.KeyRequestPrincipal},
	} {
		out[p.by] = keysOf(r.from, func(m *peerMatch) []entry { return textKeys(p.field(m), whole) })
		for i := range r.when {
			if c := &r.when[i]; out[p.by] == nil && c.Key == p.when {
				out[p.by] = textKeys(&c.values, whole)
			}
		}
	}
	out[byPath] = keysOf(r.to, func(m *operationMatch) []entry { return textKeys(&m.paths, whole) })
	out[byFolder] = keysOf(r.to, func(m *operationMatch) []entry { return textKeys(&m.paths, folder) })
	out[byHost] = keysOf(r.to, func(m *operationMatch) []entry { return textKeys(&m.hosts, domain) })
	for _, b := range []struct {
		by    dimension
		field func(*peerMatch) *blocks
		when  mesh.ConditionKey
	}{
		{bySource, func(m *peerMatch) *blocks { return &m.ip }, mesh.KeySourceIP},
		{byRemote, func(m *peerMatch) *blocks { return &m.remote }, mesh.KeyRemoteIP},
	} {
		out[b.by] = keysOf(r.from, func(m *peerMatch) []entry { return b.field(m).keys() })
		for i := range r.when {
			if c := &r.when[i]; out[b.by] == nil && c.Key == b.when {
				out[b.by] = c.blocks.keys()
			}
		}
	}
	return out
}

// keysOf puts the keys of alternatives together; nil if one of them has none.
func keysOf[T any](alternatives []T, keys func(*T) []entry) (out []entry) {
	for i := range alternatives {
		more := keys(&alternatives[i])
		if more == nil {
			return nil
		}
		out = append(out, more...)
	}
	return out
}

// textKeys returns the keys of values, of each of which there has to be one.
func textKeys(t *texts, of func(*text) (string, bool)) (out []entry) {
	for i := range t.in.all {
		k, ok := of(&t.in.all[i])
		if !ok {
			return nil
		}
		out = append(out, entry{text: k})
	}
	return out
}

// whole is a value that is exact.
func whole(t *text) (string, bool) { return t.value, t.kind == exact }

// folder is the one that paths lie in which a value stands for, up to the last
// slash that is sure to be there.
func folder(t *text) (string, bool) {
	v := t.value
	if t.kind == template {
		v, _, _ = strings.Cut(v, "{")
	}
	slash := strings.LastIndexByte(v, '/')
	return v[:slash+1], slash >= 0 && t.kind != suffix && t.kind != present
}

// domain is a host that a value stands for, or the longest domain, with the dot
// before it, that is sure to be all hosts'.
func domain(t *text) (string, bool) {
	if t.kind == suffix {
		dot := strings.IndexByte(t.value, '.')
		return t.value[max(dot, 0):], dot >= 0
	}
	return t.value, t.kind == exact
}
