package auth

import (
	"net/netip"
	"slices"
	"strings"

	"isthmus/http1"
	"isthmus/mesh"
)

// ruleSet finds a rule of many that fits, without asking each. A rule is entered
// by what every one of its alternatives asks for; if there are several such
// things, by the one that it shares with the fewest other rules. Rules that ask
// for none of these are asked always.
type ruleSet struct {
	policies []*policy
	size     int // rules in all
	always   []*rule
	texts    [bySource]map[string][]*rule
	longest  [bySource]int // text of each: none longer is looked up, however long a request's is
	endings  []int         // how long those of byEnding are, each length once
	claims   []claimKey    // the claims of byClaim, each once
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
	byEnding // of a path
	byCaller // whom a token is about
	byClaim  // of a token, and its value
	byHost   // or the domain of one
	byHeader // and its value

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
		s.size++
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
		if by == byEnding && !slices.Contains(s.endings, len(k.text)) {
			s.endings = append(s.endings, len(k.text))
		}
	}
	if by == byClaim {
		key, _ := r.claimKey()
		if !slices.ContainsFunc(s.claims, func(o claimKey) bool { return o.prefix == key.prefix }) {
			s.claims = append(s.claims, key)
		}
	}
}

// find returns a rule that fits; nil if there is none.
func (s *ruleSet) find(q *Request) (found *rule) {
	s.visit(q, func(list []*rule) bool {
		found = first(list, q)
		return found != nil
	})
	return found
}

// visit calls do for the rules that can fit, until it returns true.
func (s *ruleSet) visit(q *Request, do func([]*rule) bool) {
	switch {
	case do(s.always), do(s.texts[byPrincipal][q.Peer.Principal]), do(s.texts[byNamespace][q.Peer.Namespace]), do(s.texts[byAccount][q.Peer.ServiceAccount]):
	case s.visitAddress(bySource, q.Source, do), s.visitAddress(byRemote, q.Remote, do):
	case q.HTTP == nil:
		s.visitConnection(do)
	case do(s.texts[byPath][string(q.Path)]), len(s.texts[byCaller]) > 0 && do(s.texts[byCaller][q.caller()]):
	case s.visitFolder(q.Path, do), s.visitEnding(q.Path, do), s.visitHost(q.HTTP.Authority, do), s.visitHeaders(q.HTTP, do), s.visitClaims(q.Claims, do):
	}
}

// visitAddress looks at the rules on the blocks that an address lies in.
func (s *ruleSet) visitAddress(by dimension, a netip.Addr, do func([]*rule) bool) bool {
	t := &s.blocks[by-bySource]
	for _, l := range t.lengths {
		if do(t.within(a, l)) {
			return true
		}
	}
	return false
}

// visitFolder looks at the rules on the folders that a path lies in.
func (s *ruleSet) visitFolder(path []byte, do func([]*rule) bool) bool {
	folders := s.texts[byFolder]
	for i, c := range path[:min(len(path), s.longest[byFolder])] {
		if c == '/' && do(folders[string(path[:i+1])]) {
			return true
		}
	}
	return false
}

// visitEnding looks at the rules on the ends that a path has.
func (s *ruleSet) visitEnding(path []byte, do func([]*rule) bool) bool {
	for _, n := range s.endings {
		if n <= len(path) && do(s.texts[byEnding][string(path[len(path)-n:])]) {
			return true
		}
	}
	return false
}

// visitHost looks at the rules on a host, and on the domains that it is of, with
// its port and without.
func (s *ruleSet) visitHost(authority []byte, do func([]*rule) bool) bool {
	hosts := s.texts[byHost]
	if len(hosts) == 0 {
		return false
	}
	var buf [hostLength]byte
	whole, host := foldHost(buf[:0], authority)
	for _, name := range [...][]byte{host, whole} {
		if do(hosts[string(name)]) {
			return true
		}
		for i := max(len(name)-s.longest[byHost], 0); i < len(name); i++ {
			if name[i] == '.' && do(hosts[string(name[i:])]) {
				return true
			}
		}
		if len(host) == len(whole) {
			break
		}
	}
	return false
}

// keyLength is how long keys may be that are put together without memory from the
// heap; there is no need for longer ones.
const keyLength = 256

// visitHeaders looks at the rules on what each line of a header says.
func (s *ruleSet) visitHeaders(r *http1.Request, do func([]*rule) bool) bool {
	headers := s.texts[byHeader]
	if len(headers) == 0 {
		return false
	}
	var buf [keyLength]byte
	for i := range r.Fields {
		f := &r.Fields[i]
		if len(f.Name)+len(f.Value) >= s.longest[byHeader] {
			continue
		}
		key := buf[:0]
		for _, c := range f.Name {
			key = append(key, lowerByte(c))
		}
		if key = append(append(key, 0), f.Value...); do(headers[string(key)]) {
			return true
		}
	}
	return false
}

// visitClaims looks at the rules on what a token says.
func (s *ruleSet) visitClaims(c *Claims, do func([]*rule) bool) bool {
	var buf [keyLength]byte
	for i := range s.claims {
		for _, v := range c.Values(s.claims[i].path...) {
			if key := append(append(buf[:0], s.claims[i].prefix...), v...); do(s.texts[byClaim][string(key)]) {
				return true
			}
		}
	}
	return false
}

// visitConnection looks at the rules on what a connection has none of.
func (s *ruleSet) visitConnection(do func([]*rule) bool) {
	for _, by := range s.texts[byPath:] {
		for _, list := range by {
			if do(list) {
				return
			}
		}
	}
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
	for i := range r.when {
		if c := &r.when[i]; out[byHeader] == nil && c.Key == mesh.KeyHeader && !isHost(c.Name) && c.Name != forwardedFor && !strings.HasPrefix(c.Name, ":") {
			out[byHeader] = prefixed(c.Name+"\x00", textKeys(&c.values, whole))
		}
	}
	if key, values := r.claimKey(); values != nil {
		out[byClaim] = prefixed(key.prefix, values)
	}
	out[byPath] = keysOf(r.to, func(m *operationMatch) []entry { return textKeys(&m.paths, whole) })
	out[byFolder] = keysOf(r.to, func(m *operationMatch) []entry { return textKeys(&m.paths, folder) })
	out[byEnding] = keysOf(r.to, func(m *operationMatch) []entry { return textKeys(&m.paths, ending) })
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

// claimKey is a claim of tokens: the names that lead to it, and what the keys of
// its values begin with.
type claimKey struct {
	path   []string
	prefix string
}

// claimKey returns the claim that a rule can be looked up by, and its values; nil
// if there is none.
func (r *rule) claimKey() (key claimKey, values []entry) {
	for i := range r.when {
		if c := &r.when[i]; values == nil && c.Key == mesh.KeyClaims {
			key, values = claimKey{c.Claims, strings.Join(c.Claims, "\x00") + "\x00"}, textKeys(&c.values, whole)
		}
	}
	return key, values
}

func prefixed(prefix string, keys []entry) []entry {
	for i := range keys {
		keys[i].text = prefix + keys[i].text
	}
	return keys
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

// ending is what paths end with that a value stands for.
func ending(t *text) (string, bool) { return t.value, t.kind == suffix }

// domain is a host that a value stands for, or the longest domain, with the dot
// before it, that is sure to be all hosts'.
func domain(t *text) (string, bool) {
	if t.kind == suffix {
		dot := strings.IndexByte(t.value, '.')
		return t.value[max(dot, 0):], dot >= 0
	}
	return t.value, t.kind == exact
}
