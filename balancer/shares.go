package balancer

// Share is what one host of a Set gets of the traffic, as things are now.
type Share struct {
	Priority   int
	Part       float64 // of all, 0 to 1, over many requests: by weight, whatever the algorithm looks at besides
	LastResort bool    // it gets what there is because nobody is better
}

// Shares returns what each host gets, in the order of Hosts.
func (s *Set) Shares() []Share {
	out := make([]Share, len(s.hosts))
	for i, h := range s.hosts {
		out[i].Priority = s.plan.priority(h.Endpoint())
	}
	st := s.current()
	before := uint64(0)
	for i := range st.groups {
		g := &st.groups[i]
		part := float64(g.until-before) / float64(st.total)
		before = g.until
		total := uint64(0)
		for j := range g.candidates {
			total += g.candidates[j].weight
		}
		for j := range g.candidates {
			c := &g.candidates[j]
			out[c.index].Part += part * float64(c.weight) / float64(max(total, 1))
		}
	}
	if st.usable > 0 {
		return out
	}
	last := 0
	for i, h := range s.hosts {
		if out[i].LastResort = h.LastResort(); out[i].LastResort {
			last++
		}
	}
	for i := range out {
		if out[i].LastResort {
			out[i].Part = 1 / float64(last)
		}
	}
	return out
}
