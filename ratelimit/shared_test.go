package ratelimit

import (
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"isthmus/mesh"
	"isthmus/rpc"
)

// nobody is Peers of a proxy that is alone.
type nobody struct{}

func (nobody) Self() string        { return "me" }
func (nobody) Others() []string    { return nil }
func (nobody) Send(string, []byte) { panic("a message to nobody") }

// rules are limits of domain d.
func rules(list ...*mesh.LimitRule) *Rules {
	return NewRules([]*mesh.LimitDomain{{Domain: "d", Descriptors: list}})
}

func limited(key, value string, n uint32, children ...*mesh.LimitRule) *mesh.LimitRule {
	return &mesh.LimitRule{Key: key, Value: value, Limit: &mesh.ServiceLimit{Requests: n, Unit: mesh.UnitHour}, Children: children}
}

// TestRules_Find: which limit a descriptor has.
func TestRules_Find(t *testing.T) {
	r := rules(
		limited("a", "1", 1, limited("b", "", 2)),
		limited("a", "", 3),
		limited("a", "pre*", 4),
		limited("a", "prefix*", 5),
		&mesh.LimitRule{Key: "c", Children: []*mesh.LimitRule{limited("d", "x", 6)}},
	)
	for _, tt := range []struct {
		entries []string
		want    uint32 // 0: none
	}{
		{[]string{"a", "1"}, 1}, {[]string{"a", "2"}, 3}, {[]string{"a", "pretty"}, 4}, {[]string{"a", "prefixed"}, 5}, {[]string{"a", "1", "b", "z"}, 2},
		{[]string{"a", "2", "b", "z"}, 0}, {[]string{"c", "1"}, 0}, {[]string{"c", "1", "d", "x"}, 6}, {[]string{"c", "1", "d", "y"}, 0}, {[]string{"x", "1"}, 0}, {nil, 0},
	} {
		got := uint32(0)
		if rule := r.find("d", descriptors(tt.entries).entriesOf(0)); rule != nil {
			got = rule.Limit.Requests
		}
		if got != tt.want {
			t.Errorf("%q: limit %d, want %d", tt.entries, got, tt.want)
		}
	}
	if r.find("other", descriptors([]string{"a", "1"}).entriesOf(0)) != nil {
		t.Error("a limit in another domain")
	}
}

// elsewhere is Peers of a proxy whose keys are at home at another one, which gives out five
// tokens of a key twice, the second time when some are given back. back is called for every
// other message that gives some back.
type elsewhere struct {
	shared *Shared
	given  map[leaseKey]int
	back   func()
}

func (*elsewhere) Self() string     { return "me" }
func (*elsewhere) Others() []string { return []string{"other"} }

func (e *elsewhere) Send(_ string, message []byte) {
	asks, _, err := parseLeases(message)
	if err != nil {
		panic(err)
	}
	answer := []byte{leaseGrants}
	for i := range asks {
		if e.given[asks[i].key]++; e.given[asks[i].key] > 2 {
			e.back()
			continue
		}
		answer = appendGrant(answer, &leaseGrant{key: asks[i].key, tokens: 5, left: 100})
	}
	if len(answer) > 1 {
		e.shared.Receive("other", answer)
	}
}

// TestShared_GivesBack: what a proxy does not need goes back to where it is at home, also
// where the request that it was for came just as rounds were about to stand still.
func TestShared_GivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := &elsewhere{given: map[leaseKey]int{}}
		s := newShared(peers, func() func() time.Duration {
			begin := time.Now()
			return func() time.Duration { return time.Since(begin) + 1 }
		}())
		peers.shared = s
		s.SetRules(rules(limited("user", "", 100)))
		var users []string // whose keys are at home there
		for i := 0; len(users) < 3; i++ {
			d := descriptors([]string{"user", fmt.Sprint(i)})
			if s.current().home(keyOf("d", d.key(0))) == "other" {
				users = append(users, fmt.Sprint(i))
			}
		}
		ask := func(user string) {
			if v, err := s.Ask(time.Second, "d", descriptors([]string{"user", user})); err != nil || v.Over {
				t.Errorf("%v, %+v", err, v)
			}
		}
		returned := 0
		peers.back = func() { // by the goroutine that keeps the rounds
			if returned++; returned < len(users) {
				ask(users[returned])
			}
		}
		s.ended.Go(s.run)
		ask(users[0])
		time.Sleep(time.Minute)
		s.Close()
		if returned != len(users) {
			t.Errorf("the tokens of %d keys have gone back, want those of %d", returned, len(users))
		}
	})
}

// TestShared_Ask: values have tokens of their own, one descriptor that is over
// refuses, and a limit in shadow mode does not.
func TestShared_Ask(t *testing.T) {
	defer goleak.VerifyNone(t)
	s := NewShared(nobody{})
	defer s.Close()
	shadow := limited("shadow", "", 1)
	shadow.Shadow = true
	s.SetRules(rules(limited("user", "", 3), limited("asked", "", 3), limited("none", "", 0), shadow, &mesh.LimitRule{Key: "free", Limit: &mesh.ServiceLimit{Unlimited: true}}))
	pass := func(d *Descriptors) (n int, last Verdict) {
		for range 10 {
			v, err := s.Ask(time.Second, "d", d)
			if err != nil {
				t.Fatal(err)
			}
			if last = v; !v.Over {
				n++
			}
		}
		return n, last
	}
	for _, tt := range []struct {
		d    *Descriptors
		want int
	}{
		{descriptors([]string{"user", "a"}), 3}, {descriptors([]string{"user", "b"}), 3}, {descriptors([]string{"none", "a"}), 0}, {descriptors([]string{"shadow", "a"}), 10},
		{descriptors([]string{"free", "a"}), 10}, {descriptors([]string{"unknown", "a"}), 10}, {descriptors([]string{"free", "a"}, []string{"user", "c"}), 3},
	} {
		if got, _ := pass(tt.d); got != tt.want {
			t.Errorf("%s: %d of 10 pass, want %d", tt.d, got, tt.want)
		}
	}
	var room Descriptors // asks whether there is any
	room.Add("asked", []byte("a"))
	room.End(0)
	before, v := pass(&room)
	left := v.Statuses[0].Remaining
	in, _ := pass(descriptors([]string{"asked", "a"}))
	if after, _ := pass(&room); before != 10 || left != 3 || in != 3 || after != 0 {
		t.Errorf("%d of 10 are told that there is room (for %d), then %d pass, then %d are told so; want 10 (3), 3 and 0", before, left, in, after)
	}
	_, v = pass(descriptors([]string{"user", "a"}))
	if f := v.Fields(); len(f) != 3 || f[0].Value != "3, 3;w=3600" || f[1].Value != "0" {
		t.Errorf("fields %v", f)
	}
	s.SetRules(rules(limited("user", "", 3)))
	if got, _ := pass(descriptors([]string{"user", "a"})); got != 0 {
		t.Errorf("new rules have given %d tokens", got)
	}
	if r := s.Rules()[0]; r.Counts.Allowed.Load() != 9 {
		t.Errorf("%d are counted, want 9", r.Counts.Allowed.Load())
	}
}

// TestShared_Serve: others ask by the rate limit service's protocol.
func TestShared_Serve(t *testing.T) {
	s := NewShared(nobody{})
	defer s.Close()
	s.SetRules(rules(limited("user", "", 3)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(s.Methods())
	go server.Serve(l) // until Close
	defer server.Close()
	client := to(t, l.Addr().String())
	for i, over := range []bool{false, false, false, true} {
		v, err := client.Ask(10*time.Second, "d", descriptors([]string{"user", "a"}, []string{"unknown", "b"}))
		if err != nil {
			t.Fatal(err)
		}
		if v.Over != over || len(v.Statuses) != 2 || v.Statuses[0].Over != over || v.Statuses[0].Limit.Requests != 3 || v.Statuses[1].Limited {
			t.Errorf("request %d: %+v", i+1, v)
		}
	}
	if _, err := client.Ask(10*time.Second, "", descriptors([]string{"user", "a"})); err == nil {
		t.Error("an answer without a domain")
	}
	if _, err := client.Ask(10*time.Second, "d", &Descriptors{}); err == nil {
		t.Error("an answer without descriptors")
	}
}

// TestShared_KeysAreBounded: a flood of keys takes no more memory than those that
// are kept.
func TestShared_KeysAreBounded(t *testing.T) {
	n := 400_000
	if long {
		n = 10_000_000
	}
	s := newShared(nobody{}, func() time.Duration { return time.Second })
	s.SetRules(rules(limited("user", "", 3)))
	d, value := &Descriptors{}, []byte(nil)
	ask := func(from, to int) {
		for i := from; i < to; i++ {
			value = fmt.Appendf(value[:0], "user-%d", i)
			d.Reset()
			d.Add("user", value)
			d.End(1)
			if v, err := s.Ask(time.Second, "d", d); err != nil || v.Over {
				t.Fatalf("key %d: %+v, %v", i, v, err)
			}
		}
	}
	ask(0, 2*maxKeys)
	before := heapSize()
	ask(2*maxKeys, n)
	after := heapSize()
	runtime.KeepAlive(s)
	t.Logf("%d MiB after %d keys, %d MiB after %d", before>>20, 2*maxKeys, after>>20, n)
	if after > before+2<<20 {
		t.Errorf("memory has grown")
	}
	if before > 64<<20 {
		t.Errorf("%d keys take %d MiB", maxKeys, before>>20)
	}
}

// TestShared_Concurrent: many goroutines and a file that changes, of which the
// race detector shall see nothing.
func TestShared_Concurrent(t *testing.T) {
	s := NewShared(nobody{})
	defer s.Close()
	s.SetRules(rules(limited("user", "", 1000)))
	var all sync.WaitGroup
	var mu sync.Mutex
	passed := 0
	for range 8 {
		all.Go(func() {
			d := descriptors([]string{"user", "a"})
			for range 500 {
				v, _ := s.Ask(time.Second, "d", d)
				mu.Lock()
				if !v.Over {
					passed++
				}
				mu.Unlock()
				s.PeersChanged()
			}
		})
	}
	for range 20 {
		s.SetRules(rules(limited("user", "", 1000)))
	}
	all.Wait()
	if passed != 1000 {
		t.Errorf("%d pass, want 1000", passed)
	}
}

// FuzzLeases: whatever a message, reading it ends, and what it says is written
// as it was read.
func FuzzLeases(f *testing.F) {
	f.Add(appendAsk([]byte{leaseAsks}, &leaseAsk{key: leaseKey{1}, requests: 5, unit: mesh.UnitDay, want: 3, back: 1, left: 9}))
	f.Add(appendGrant([]byte{leaseGrants}, &leaseGrant{key: leaseKey{2}, short: true, tokens: 1, left: 70000, again: 100}))
	f.Fuzz(func(t *testing.T, b []byte) {
		asks, grants, err := parseLeases(b)
		if err != nil {
			return
		}
		var again []byte
		for i := range asks {
			again = appendAsk(again, &asks[i])
		}
		for i := range grants {
			again = appendGrant(again, &grants[i])
		}
		a, g, err := parseLeases(append([]byte{b[0]}, again...))
		if err != nil || !slices.Equal(a, asks) || !slices.Equal(g, grants) {
			t.Errorf("%v %v, then %v %v, %v", asks, grants, a, g, err)
		}
	})
}

// FuzzQuestion: whatever is asked, there is an answer or an error.
func FuzzQuestion(f *testing.F) {
	f.Add(marshalRequest("d", descriptors([]string{"user", "a"}, []string{"b", "c"})))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newShared(nobody{}, func() time.Duration { return time.Second })
		s.SetRules(rules(limited("user", "", 3)))
		if answer, err := s.shouldRateLimit(b); err == nil {
			if _, err := parseResponse(answer); err != nil {
				t.Errorf("the answer to %q is %q: %v", b, answer, err)
			}
		}
	})
}

// BenchmarkShared: a request that finds tokens of its key here.
func BenchmarkShared(b *testing.B) {
	s := NewShared(nobody{})
	defer s.Close()
	s.SetRules(NewRules([]*mesh.LimitDomain{{Domain: "d", Descriptors: []*mesh.LimitRule{{Key: "user", Limit: &mesh.ServiceLimit{Requests: 1 << 31, Unit: mesh.UnitSecond}}}}}))
	d := descriptors([]string{"user", "a"})
	b.ReportAllocs()
	for b.Loop() {
		s.Ask(time.Second, "d", d)
	}
}
