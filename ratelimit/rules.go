package ratelimit

import (
	"strings"

	"isthmus/mesh"
)

// Rules are limits by domain and descriptor, as envoyproxy/ratelimit has them.
type Rules struct {
	domains map[string]*ruleNode
	all     []*Rule // in the order of their file
}

// Rule is one limit.
type Rule struct {
	Domain string
	Path   string // "key=value key", of the descriptors that it is for
	Limit  *mesh.ServiceLimit
	Shadow bool // count only
	Source mesh.Source
	Counts *Counts
}

// ruleNode is what may follow an entry.
type ruleNode struct {
	exact    map[string]map[string]*ruleNode // by key and value
	prefixes map[string][]prefixNode         // by key, the longest first
	any      map[string]*ruleNode            // by key: of every other value
	rule     *Rule
}

type prefixNode struct {
	prefix string
	node   *ruleNode
}

// NewRules compiles limits.
func NewRules(domains []*mesh.LimitDomain) *Rules {
	r := &Rules{domains: map[string]*ruleNode{}}
	for _, d := range domains {
		root := &ruleNode{}
		r.domains[d.Domain] = root
		r.add(root, d.Domain, "", d.Descriptors)
	}
	return r
}

func (r *Rules) add(n *ruleNode, domain, path string, list []*mesh.LimitRule) {
	for _, l := range list {
		child := &ruleNode{}
		step := text(l.Key)
		prefix, wild := strings.CutSuffix(l.Value, "*")
		switch {
		case l.Value == "":
			if n.any == nil {
				n.any = map[string]*ruleNode{}
			}
			n.any[l.Key] = child
		case wild:
			step += "=" + text(prefix) + "*"
			if n.prefixes == nil {
				n.prefixes = map[string][]prefixNode{}
			}
			n.prefixes[l.Key] = append(n.prefixes[l.Key], prefixNode{prefix, child})
		default:
			step += "=" + text(l.Value)
			if n.exact == nil {
				n.exact = map[string]map[string]*ruleNode{}
			}
			if n.exact[l.Key] == nil {
				n.exact[l.Key] = map[string]*ruleNode{}
			}
			n.exact[l.Key][l.Value] = child
		}
		at := strings.TrimSpace(path + " " + step)
		if l.Limit != nil {
			child.rule = &Rule{Domain: domain, Path: at, Limit: l.Limit, Shadow: l.Shadow, Source: l.Source, Counts: &Counts{}}
			r.all = append(r.all, child.rule)
		}
		r.add(child, domain, at, l.Children)
	}
}

// find returns the limit of a descriptor: the node that all of its entries lead
// to, by the value, else by its beginning, else by the key alone; nil if there is
// none.
func (r *Rules) find(domain string, entries []entry) *Rule {
	n := r.domains[domain]
	if n == nil || len(entries) == 0 {
		return nil
	}
	for _, e := range entries {
		if n = n.next(e); n == nil {
			return nil
		}
	}
	return n.rule
}

func (n *ruleNode) next(e entry) *ruleNode {
	if child := n.exact[e.key][string(e.value)]; child != nil {
		return child
	}
	var best *prefixNode
	for i := range n.prefixes[e.key] {
		p := &n.prefixes[e.key][i]
		if len(e.value) >= len(p.prefix) && string(e.value[:len(p.prefix)]) == p.prefix && (best == nil || len(p.prefix) > len(best.prefix)) {
			best = p
		}
	}
	if best != nil {
		return best.node
	}
	return n.any[e.key]
}

// adopt takes over the counts of rules that were there before.
func (r *Rules) adopt(before *Rules) {
	type place struct{ domain, path string }
	old := make(map[place]*Counts, len(before.all))
	for _, rule := range before.all {
		old[place{rule.Domain, rule.Path}] = rule.Counts
	}
	for _, rule := range r.all {
		if counts := old[place{rule.Domain, rule.Path}]; counts != nil {
			rule.Counts = counts
		}
	}
}
