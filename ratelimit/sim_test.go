package ratelimit

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"isthmus/mesh"
)

// sim is proxies that keep a limit together, in a time of its own: everything
// that happens is an event in a queue.
type sim struct {
	now    time.Duration
	events eventQueue
	nodes  []*simNode
	delay  func(from, to *simNode) time.Duration // of a message
	loss   float64                               // part of messages that are lost
	cut    func(a, b *simNode) bool              // the link between two is cut; nil: none is
	random *rand.Rand

	timeout  time.Duration // for which a request waits
	admitted []int         // by second
	asked    []int
	messages int
}

type simNode struct {
	*Shared
	sim      *sim
	name     string
	cluster  string
	members  []string // the others that it takes for alive
	waiting  []*simRequest
	admitted int
	asked    int
}

type simRequest struct {
	taking
	end  time.Duration
	wait chan struct{}
}

type event struct {
	at   time.Duration
	turn int // of events at one moment, the first made comes first
	do   func()
}

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].turn < q[j].turn
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = event{} // lets go of do
	*q = (*q)[:last]
	return e
}

// newSim makes n proxies in clusters, a millisecond apart within one and 20
// between them.
func newSim(n int, clusters ...string) *sim {
	s := &sim{now: 1, random: rand.New(rand.NewPCG(1, 2)), timeout: 100 * time.Millisecond}
	s.delay = func(a, b *simNode) time.Duration {
		d := 20 * time.Millisecond
		if a.cluster == b.cluster {
			d = time.Millisecond
		}
		return d + time.Duration(s.random.Int64N(int64(d)/4+1))
	}
	for i := range n {
		s.addNode(clusters[i%len(clusters)])
	}
	s.settle()
	for _, n := range s.nodes {
		n.tick()
	}
	return s
}

func (s *sim) addNode(cluster string) *simNode {
	n := &simNode{sim: s, name: fmt.Sprintf("%s/ns/p%d", cluster, len(s.nodes)), cluster: cluster}
	n.Shared = newShared(n, func() time.Duration { return s.now })
	s.nodes = append(s.nodes, n)
	var tickNode func()
	tickNode = func() {
		n.tick()
		n.retry()
		s.after(tick, tickNode)
	}
	s.after(time.Duration(s.random.Int64N(int64(tick))), tickNode)
	return n
}

// settle lets every proxy know the others that it can reach.
func (s *sim) settle() {
	for _, n := range s.nodes {
		var names []string
		for _, o := range s.nodes {
			if o != n && (s.cut == nil || !s.cut(n, o)) {
				names = append(names, o.name)
			}
		}
		if !slices.Equal(names, n.members) {
			n.members = names
			n.PeersChanged()
		}
	}
}

// Self, Others and Send make a simNode Peers.
func (n *simNode) Self() string     { return n.name }
func (n *simNode) Others() []string { return slices.Clone(n.members) }
func (n *simNode) Send(to string, b []byte) {
	s := n.sim
	s.messages++
	i := slices.IndexFunc(s.nodes, func(o *simNode) bool { return o.name == to })
	o := s.nodes[i]
	if s.random.Float64() < s.loss || s.cut != nil && s.cut(n, o) {
		return
	}
	b = slices.Clone(b)
	s.after(s.delay(n, o), func() {
		if err := o.Receive(n.name, b); err != nil {
			panic(err)
		}
		o.retry()
	})
}

func (s *sim) after(d time.Duration, do func()) {
	heap.Push(&s.events, event{s.now + d, len(s.events), do})
}

// run lets time pass.
func (s *sim) run(d time.Duration) {
	end := s.now + d
	for len(s.events) > 0 && s.events[0].at <= end {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.do()
	}
	s.now = end
}

// load has a proxy get requests at random, so many a second, for ever.
func (n *simNode) load(perSecond func(time.Duration) float64, limit mesh.ServiceLimit, key string) {
	s := n.sim
	k := keyOf("d", []byte(key))
	var next func()
	next = func() {
		rate := perSecond(s.now)
		if rate > 0 {
			n.request(&simRequest{taking: taking{key: k, requests: limit.Requests, unit: limit.Unit, hits: 1, first: true}, end: s.now + s.timeout})
		}
		if rate == 0 {
			s.after(100*time.Millisecond, next)
			return
		}
		s.after(time.Duration(s.random.ExpFloat64()/rate*float64(time.Second)), next)
	}
	first := 100 * time.Millisecond // when it is looked whether there is any
	if rate := perSecond(0); rate > 0 {
		first = time.Duration(s.random.ExpFloat64() / rate * float64(time.Second))
	}
	s.after(first, next)
}

func steadily(rate float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return rate }
}

func (n *simNode) request(r *simRequest) {
	s := n.sim
	if r.first {
		n.asked++
		count(&s.asked, s.now)
	}
	for {
		r.ring, r.self, r.late = n.current(), n.name, s.now >= r.end
		got, _, wait := n.holder.take(s.now, &r.taking)
		r.first = false
		switch got {
		case ask:
			var out batches
			n.ask(r.ring, &r.taking.ask, &out)
			out.send(n)
		case allowed:
			n.admitted++
			count(&s.admitted, s.now)
			return
		case over:
			return
		}
		if wait == nil { // its home is here
			continue
		}
		r.wait = wait
		n.waiting = append(n.waiting, r)
		return
	}
}

// retry lets requests go on that have waited for a grant, or long enough.
func (n *simNode) retry() {
	if len(n.waiting) == 0 {
		return
	}
	waiting := n.waiting
	n.waiting = nil
	for _, r := range waiting {
		select {
		case <-r.wait:
		default:
			if n.sim.now < r.end {
				n.waiting = append(n.waiting, r)
				continue
			}
		}
		n.request(r)
	}
}

func count(bySecond *[]int, at time.Duration) {
	for len(*bySecond) <= int(at/time.Second) {
		*bySecond = append(*bySecond, 0)
	}
	(*bySecond)[at/time.Second]++
}

// mean returns how many a second there were in some seconds, and the most.
func mean(bySecond []int, from, to int) (float64, int) {
	sum := 0
	for _, n := range bySecond[from:to] {
		sum += n
	}
	return float64(sum) / float64(to-from), slices.Max(bySecond[from:to])
}

var hundred = mesh.ServiceLimit{Requests: 100, Unit: mesh.UnitSecond}

// long says to simulate what takes longer than a test may: a thousand proxies, ten
// million keys ("make simulate").
var long = os.Getenv("ISTHMUS_SIMULATE") != ""

// TestShared_Steady: under more load than the limit, what is let in is the limit;
// under less, everything.
func TestShared_Steady(t *testing.T) {
	for _, tt := range []struct {
		name     string
		nodes    int
		rates    []float64 // of the first nodes; the last holds for all others
		loss     float64
		least    float64 // let in, as a part of what is due, on an average
		inSecond int     // let in at most
	}{
		{"alone", 1, []float64{400}, 0, 0.98, 125},
		{"four, skewed", 4, []float64{300, 60, 30, 10}, 0, 0.97, 125},
		{"four, one busy", 4, []float64{400, 0}, 0, 0.97, 125},
		{"four, slightly too many", 4, []float64{60, 40, 20, 10}, 0, 0.96, 130},
		{"four, below the limit", 4, []float64{60, 10, 5, 1}, 0, 0.99, 130},
		{"four, a tenth of messages lost", 4, []float64{300, 60, 30, 10}, 0.1, 0.8, 125},
		{"fifty", 50, []float64{10}, 0, 0.96, 130},
		{"fifty, below the limit", 50, []float64{1.6}, 0, 0.98, 140},
		{"a thousand", 1000, []float64{2}, 0, 0.95, 130},
		{"a thousand, skewed", 1000, []float64{500, 100, 100, 0.2}, 0, 0.95, 130},
		{"a thousand, below the limit", 1000, []float64{0.08}, 0, 0.97, 140},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.nodes > 50 && !long {
				t.Skip("make simulate")
			}
			s := newSim(tt.nodes, "a", "b")
			s.loss = tt.loss
			for i, n := range s.nodes {
				if r := tt.rates[min(i, len(tt.rates)-1)]; r > 0 {
					n.load(steadily(r), hundred, "k")
				}
			}
			s.run(30 * time.Second)
			got, peak := mean(s.admitted, 10, 30)
			asked, _ := mean(s.asked, 10, 30)
			t.Logf("%.1f of %.1f requests a second are let in, %d in one at most; %d messages a second", got, asked, peak, s.messages/30)
			due := min(asked, 100)
			if got < due*tt.least || got > 102 || peak > tt.inSecond {
				t.Errorf("let in %.1f a second of the %.1f that are due, %d in one at most; want %v of them, %d at most: %v", got, due, peak, tt.least, tt.inSecond, s.admitted)
			}
		})
	}
}

// TestShared_Partition: each side of a partition lets in the limit at most, on an
// average, and some rounds' tokens more in a single second; from the moment on that
// all know each other again, together they let in the limit, whatever was left
// on either side.
func TestShared_Partition(t *testing.T) {
	const round = 10 // of tokens
	for _, tt := range []struct {
		name  string
		rates []float64
	}{
		{"one side below the limit", []float64{300, 60, 30, 10}},
		{"both above", []float64{300, 300, 60, 60}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for seed := range uint64(5) {
				s := newSim(4, "a", "b")
				s.random = rand.New(rand.NewPCG(seed, 2))
				for i, rate := range tt.rates {
					s.nodes[i].load(steadily(rate), hundred, fmt.Sprint("key ", seed)) // at home here or there
				}
				s.run(10 * time.Second)
				// Members that are gone are taken for dead about five seconds later.
				s.cut = func(a, b *simNode) bool { return a.cluster != b.cluster }
				s.run(5 * time.Second)
				s.settle()
				s.run(15 * time.Second)
				s.cut = nil
				s.run(3 * time.Second)
				s.settle()
				s.run(17 * time.Second)
				t.Logf("%d: %v", seed, s.admitted)
				before, _ := mean(s.admitted, 5, 10)
				_, unnoticed := mean(s.admitted, 10, 15)
				apart, most := mean(s.admitted, 15, 33)
				healed, peak := mean(s.admitted, 33, 50)
				if before < 95 || before > 105 || unnoticed > 200 || apart > 202 || most > 2*(100+2*round) || healed < 95 || healed > 105 || peak > 160 {
					t.Errorf("%d: %.1f a second, then at most %d, %.1f (%d at most), and %.1f (%d) when it has healed", seed, before, unnoticed, apart, most, healed, peak)
				}
			}
		})
	}
}

// TestShared_AskIsLost: an ask that is lost is asked again, by a proxy with few
// requests too, which would else go on alone for ever.
func TestShared_AskIsLost(t *testing.T) {
	for _, key := range []string{"a", "b", "c", "d", "e", "f"} { // at home here or there
		s := newSim(4, "a", "b")
		s.loss = 1
		for i, rate := range []float64{300, 60, 10, 10} {
			s.nodes[i].load(steadily(rate), hundred, key)
		}
		s.run(time.Second)
		s.loss = 0
		s.run(10 * time.Second)
		if got, _ := mean(s.admitted, 3, 11); got > 104 {
			t.Errorf("%s: let in %.1f a second: %v", key, got, s.admitted)
		}
		for _, n := range s.nodes {
			if state := n.State(); state != "" {
				t.Errorf("%s: %s: %s", key, n.name, state)
			}
		}
	}
}

// TestShared_HomeDies: until gossip has noticed that a home is gone, the others go
// on with the mean of what they had and an even part, which is half of the limit
// about, and never more than it.
func TestShared_HomeDies(t *testing.T) {
	for i := range 10 {
		key := fmt.Sprint("k", i) // at home here or there
		s := newSim(4, "a", "b")
		for i, rate := range []float64{300, 60, 30, 10} {
			s.nodes[i].load(steadily(rate), hundred, key)
		}
		s.run(10 * time.Second)
		dead := s.nodes[0].ring.Load().home(keyOf("d", []byte(key)))
		s.cut = func(a, b *simNode) bool { return a.name == dead || b.name == dead }
		gone := s.nodes[slices.IndexFunc(s.nodes, func(n *simNode) bool { return n.name == dead })]
		atDeath := gone.admitted
		s.run(5 * time.Second)
		own := float64(gone.admitted-atDeath) / 5
		both, most := mean(s.admitted, 10, 15)
		if others := both - own; others < 38 || others > 102 || both > 200 || most > 220 {
			t.Errorf("%s: the others let in %.1f a second while it was not noticed, %d in one at most with the dead one", key, others, most)
		}
		s.settle()
		s.run(15 * time.Second)
		t.Logf("%v, of which %d were the dead one's", s.admitted, gone.admitted-atDeath)
		if after, _ := mean(s.admitted, 18, 30); after > 210 {
			t.Errorf("%s: let in %.1f a second by both sides", key, after)
		}
	}
}

// TestShared_Joining: proxies that come move homes, which lets in no more than the
// limit.
func TestShared_Joining(t *testing.T) {
	s := newSim(2, "a", "b")
	for _, n := range s.nodes {
		n.load(steadily(150), hundred, "k")
	}
	s.run(5 * time.Second)
	for range 20 {
		s.addNode("a").load(steadily(20), hundred, "k")
		s.settle()
		s.run(time.Second)
	}
	t.Log(s.admitted)
	if got, peak := mean(s.admitted, 5, 25); got < 90 || got > 102 || peak > 130 {
		t.Errorf("let in %.1f a second, %d at most", got, peak)
	}
}

// TestShared_Moving: load that moves from proxy to proxy takes its share along.
func TestShared_Moving(t *testing.T) {
	s := newSim(4, "a", "b")
	for i, n := range s.nodes {
		n.load(func(at time.Duration) float64 {
			if int(at/(3*time.Second))%4 == i {
				return 300
			}
			return 0
		}, hundred, "k")
	}
	s.run(30 * time.Second)
	t.Log(s.admitted)
	if got, peak := mean(s.admitted, 2, 30); got < 93 || got > 102 || peak > 130 {
		t.Errorf("let in %.1f a second, %d at most", got, peak)
	}
}

// TestShared_FewPerHour: small limits are exact, whichever proxies are asked.
func TestShared_FewPerHour(t *testing.T) {
	s := newSim(4, "a", "b")
	for _, n := range s.nodes {
		n.load(steadily(1), mesh.ServiceLimit{Requests: 5, Unit: mesh.UnitHour}, "k")
	}
	s.run(time.Minute)
	sum := 0
	for _, n := range s.admitted {
		sum += n
	}
	if sum != 5 {
		t.Errorf("%d of a minute's requests are let in, want 5", sum)
	}
}

// TestShared_Properties: whatever the load and the network, no more is let in
// than the limit and what proxies may do without an answer of the home.
func TestShared_Properties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "proxies")
		limit := mesh.ServiceLimit{Requests: uint32(rapid.IntRange(0, 200).Draw(t, "limit")), Unit: mesh.UnitSecond}
		s := newSim(n, "a", "b")
		s.loss = rapid.Float64Range(0, 0.5).Draw(t, "loss")
		s.timeout = time.Duration(rapid.IntRange(0, 200).Draw(t, "timeout")) * time.Millisecond
		for _, node := range s.nodes {
			node.load(steadily(float64(rapid.IntRange(0, 300).Draw(t, "rate"))), limit, "k")
		}
		const seconds = 6
		s.run(seconds * time.Second)
		sum := 0
		for _, n := range s.admitted {
			sum += n
		}
		// The bucket's content and filling, and as much again by those that are
		// without an answer.
		if most := 2 * (seconds + 1) * int(limit.Requests+uint32(n)); sum > most {
			t.Fatalf("%d are let in within %d s, want %d at most: %v", sum, seconds, most, s.admitted)
		}
	})
}
