package balancer

// overprovisioning is how many times its share a priority may be asked to
// carry before traffic spills to the next one: Envoy's default of 1.4, so that
// down to 71 % of healthy hosts nothing changes.
const overprovisioning = 140

// level is the cells of one priority.
type level struct {
	cells     []*cell
	all, good uint64 // weights
}

// levelsOf gathers cells, which are sorted, by priority.
func levelsOf(cells []*cell) []level {
	var levels []level
	for i, c := range cells {
		if i == 0 || c.key.priority != cells[i-1].key.priority {
			levels = append(levels, level{})
		}
		l := &levels[len(levels)-1]
		l.cells = append(l.cells, c)
		l.all += c.weight
		for _, m := range c.good {
			l.good += uint64(m.weight)
		}
	}
	return levels
}

// health is Envoy's health of a priority, in percent.
func (l *level) health() uint64 {
	if l.all == 0 {
		return 0
	}
	return min(100, overprovisioning*l.good/l.all)
}

// priorityLoads returns the share of each priority, adding up to 1, and which
// of them ignore health because too few of their hosts are well (Envoy:
// priority.rst, panic_threshold.rst). panicAt is in percent; 0 never panics.
func priorityLoads(levels []level, panicAt int) (loads []float64, panicking []bool) {
	loads, panicking = make([]float64, len(levels)), make([]bool, len(levels))
	var total uint64
	for i := range levels {
		total += levels[i].health()
	}
	normalized := min(100, total)
	if panicAt > 0 && normalized < 100 {
		all := true
		for i := range levels {
			l := &levels[i]
			panicking[i] = 100*l.good < uint64(panicAt)*l.all
			all = all && panicking[i]
		}
		if all {
			// Every priority panics: traffic goes by the number of hosts.
			var hosts uint64
			for i := range levels {
				hosts += levels[i].all
			}
			for i := range levels {
				loads[i] = float64(levels[i].all) / float64(hosts)
			}
			return loads, panicking
		}
	}
	if normalized == 0 {
		return loads, panicking
	}
	left := uint64(100)
	first := -1
	for i := range levels {
		share := min(left, levels[i].health()*100/normalized)
		if share > 0 && first < 0 {
			first = i
		}
		loads[i] = float64(share) / 100
		left -= share
	}
	loads[first] += float64(left) / 100 // what rounding has left over
	return loads, panicking
}

// split divides the share of a priority among its cells by weight, as if it
// had no localities: every good host of the priority is worth the same.
func (l *level) split(load float64) []float64 {
	var good float64
	for _, c := range l.cells {
		good += goodWeight(c)
	}
	out := make([]float64, len(l.cells))
	for i, c := range l.cells {
		if good > 0 {
			out[i] = load * goodWeight(c) / good
		}
	}
	return out
}

func goodWeight(c *cell) float64 {
	var w uint64
	for _, m := range c.good {
		w += uint64(m.weight)
	}
	return float64(w)
}
