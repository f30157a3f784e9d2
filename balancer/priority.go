package balancer

// overprovisioning is how many times its share a priority may be asked to
// carry before traffic spills to the next one: Envoy's default of 1.4, so that
// down to 71 % of healthy hosts nothing changes.
const overprovisioning = 140

// level is the cells of one priority, with their weights added up.
type level struct {
	cells               []*cell
	all, good, degraded uint64
}

// levelsOf gathers cells, which are sorted, by priority.
func levelsOf(cells []*cell) []level {
	var levels []level
	for i, c := range cells {
		if i == 0 || c.key.priority != cells[i-1].key.priority {
			levels = append(levels, level{})
		}
		levels[len(levels)-1].add(c)
	}
	return levels
}

func (l *level) add(c *cell) {
	l.cells = append(l.cells, c)
	l.all += c.weight
	l.good += weightOf(c.good)
	l.degraded += weightOf(c.degraded)
}

// available is what Envoy makes of a part of a priority's hosts, in percent.
func (l *level) available(part uint64) uint64 {
	if l.all == 0 {
		return 0
	}
	return min(100, overprovisioning*part/l.all)
}

// load is the part of the traffic that a priority gets: its hosts in full
// health, and those that ask to be spared.
type load struct {
	good, degraded float64
	panicking      bool // health is ignored, since too few hosts are well
}

// priorityLoads returns the load of each priority. All of them add up to 1,
// or to 0 where nobody can serve (Envoy: priority.rst, degraded.rst,
// panic_threshold.rst). panicAt is in percent; 0 never panics.
func priorityLoads(levels []level, panicAt int) []load {
	loads := make([]load, len(levels))
	var total uint64
	for i := range levels {
		l := &levels[i]
		total += l.available(l.good) + l.available(l.degraded)
	}
	total = min(100, total)
	if panicAt > 0 && total < 100 && panicLoads(levels, loads, panicAt) {
		return loads
	}
	if total == 0 {
		return loads
	}
	left := uint64(100)
	take := func(part uint64) float64 {
		share := min(left, part*100/total)
		left -= share
		return float64(share) / 100
	}
	for i := range levels {
		loads[i].good = take(levels[i].available(levels[i].good))
	}
	for i := range levels {
		loads[i].degraded = take(levels[i].available(levels[i].degraded))
	}
	addRest(loads, float64(left)/100)
	return loads
}

// addRest gives what rounding has left over to the first that has a load.
func addRest(loads []load, rest float64) {
	for i := range loads {
		switch {
		case loads[i].good > 0:
			loads[i].good += rest
			return
		case loads[i].degraded > 0:
			loads[i].degraded += rest
			return
		}
	}
}

// panicLoads marks the priorities that panic. If all of them do, traffic goes
// by the number of hosts, and the loads are done.
func panicLoads(levels []level, loads []load, panicAt int) (done bool) {
	done = true
	var hosts uint64
	for i := range levels {
		l := &levels[i]
		loads[i].panicking = 100*(l.good+l.degraded) < uint64(panicAt)*l.all
		done = done && loads[i].panicking
		hosts += l.all
	}
	if done {
		for i := range levels {
			loads[i].good = float64(levels[i].all) / float64(hosts)
		}
	}
	return done
}

// split divides a load among cells by the weight of those that can carry it,
// as if there were no localities: every such host is worth the same.
func split(load float64, weights []uint64) []float64 {
	var sum float64
	for _, w := range weights {
		sum += float64(w)
	}
	out := make([]float64, len(weights))
	for i, w := range weights {
		if sum > 0 {
			out[i] = load * float64(w) / sum
		}
	}
	return out
}

func weightOf(list []candidate) uint64 {
	var w uint64
	for i := range list {
		w += list[i].weight
	}
	return w
}
