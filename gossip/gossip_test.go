package gossip

import (
	"bytes"
	"io"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"isthmus/mesh"
)

func TestMain(m *testing.M) {
	// memberlist's Shutdown lets go of connections under way a moment later, and of those
	// that are being made when that fails.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).handleConn"),
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*NetTransport).DialAddressTimeout"))
}

func start(t *testing.T, name string, change func(*Options)) *Gossip {
	t.Helper()
	o := Options{
		Node:   &mesh.Node{Name: name, Address: "127.0.0.1", Cluster: "c-" + name, Namespace: "ns", Locality: mesh.ParseLocality("r/z")},
		Bind:   "127.0.0.1:0",
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Fast:   true,
	}
	if change != nil {
		change(&o)
	}
	g, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

func joining(others ...*Gossip) func(*Options) {
	return func(o *Options) {
		for _, g := range others {
			o.Join = append(o.Join, g.Address())
		}
	}
}

func endpoints(n int, service string) []mesh.Endpoint {
	out := make([]mesh.Endpoint, n)
	for i := range out {
		out[i] = mesh.Endpoint{
			Service: service, Port: mesh.Port{Number: 80, Name: "http", Protocol: mesh.ProtocolHTTP},
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80),
			Labels:  map[string]string{"app": service, "version": "v1"}, Weight: 2, Locality: mesh.ParseLocality("r/z"), Via: true,
		}
	}
	return out
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// of returns the endpoints that somebody announced, as another member knows
// them.
func of(g *Gossip, owner *Gossip) (out []Announced) {
	for _, e := range g.Endpoints() {
		if e.Owner == owner.name {
			out = append(out, e)
		}
	}
	return out
}

func state(g *Gossip, of *Gossip) string {
	for _, m := range g.Members() {
		if m.Name == of.name {
			return m.State
		}
	}
	return ""
}

func TestGossip_RecordsTravel(t *testing.T) {
	a := start(t, "a", nil)
	a.Announce(endpoints(1, "early.ns"))
	b := start(t, "b", joining(a))
	c := start(t, "c", joining(a))
	b.Announce(endpoints(2, "b.ns"))
	c.Announce(endpoints(3, "c.ns"))
	for _, g := range []*Gossip{a, b, c} {
		eventually(t, g.name+" knows all", func() bool { return len(of(g, a)) == 1 && len(of(g, b)) == 2 && len(of(g, c)) == 3 })
	}
	got := of(a, b)[0]
	want := endpoints(2, "b.ns")[0]
	want.Source, want.Owner, want.Cluster = mesh.SourceGossip, "c-b/ns/b", "c-b"
	if !got.Endpoint.Equal(&want) {
		t.Errorf("got %+v\nwant %+v", got.Endpoint, want)
	}
	b.Announce(endpoints(1, "b.ns"))
	eventually(t, "an update arrives", func() bool { return len(of(c, b)) == 1 })
	eventually(t, "the members, alive again if they stood still", func() bool {
		m := a.Members()
		return len(m) == 3 && m[1].Name == "c-b/ns/b" && m[1].Cluster == "c-b" && m[1].Locality == "r/z" && m[1].State == "alive"
	})
}

// TestGossip_LargeRecord: what no packet holds is fetched.
func TestGossip_LargeRecord(t *testing.T) {
	slow := func(o *Options) { o.Fast = false } // push/pull comes after 30 s: later than is waited for
	a := start(t, "a", slow)
	b := start(t, "b", func(o *Options) { slow(o); joining(a)(o) })
	eventually(t, "b has joined", func() bool { return state(a, b) == "alive" })
	b.Announce(endpoints(2000, "big.ns"))
	eventually(t, "the record arrives", func() bool { return len(of(a, b)) == 2000 })
}

// TestGossip_Leave takes own endpoints along; those announced for others stay,
// unready.
func TestGossip_Leave(t *testing.T) {
	a := start(t, "a", nil)
	b := start(t, "b", joining(a))
	list := endpoints(2, "b.ns")
	list[1].Relayed = true
	b.Announce(list)
	eventually(t, "b is known", func() bool { return len(of(a, b)) == 2 })
	if err := b.Leave(2 * time.Second); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b has left", func() bool { return state(a, b) == "left" && len(of(a, b)) == 1 })
	if e := of(a, b)[0]; !strings.Contains(e.Unready, "left") || e.OwnerDead {
		t.Errorf("got %+v, want an unready endpoint, and nobody dead", e)
	}
}

// TestGossip_LeaveWhileJoining: who is being let in waits for that, and says goodbye
// to whom it has met then.
func TestGossip_LeaveWhileJoining(t *testing.T) {
	a, b := start(t, "a", nil), start(t, "b", nil)
	b.Announce(endpoints(1, "b.ns"))
	b.joining <- struct{}{} // as if a seed was being asked
	left := make(chan error, 1)
	go func() { left <- b.Leave(time.Minute) }() // ends when the seed has answered
	if _, err := b.list.Join([]string{a.Address()}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-left:
		t.Fatalf("it has left already: %v", err)
	default:
	}
	<-b.joining
	if err := <-left; err != nil {
		t.Fatal(err)
	}
	eventually(t, "b has left", func() bool { return state(a, b) == "left" && len(of(a, b)) == 0 })
}

// TestGossip_Death keeps own endpoints, marked; the owner's return makes all
// well.
func TestGossip_Death(t *testing.T) {
	a := start(t, "a", nil)
	b := start(t, "b", joining(a))
	list := endpoints(2, "b.ns")
	list[1].Relayed = true
	b.Announce(list)
	eventually(t, "b is known", func() bool { return len(of(a, b)) == 2 })
	b.Close()
	eventually(t, "b has died", func() bool { return state(a, b) == "dead" })
	for _, e := range of(a, b) {
		if !e.OwnerDead || (e.Unready != "") != e.Relayed {
			t.Errorf("got %+v, want a dead owner, and unready only what was relayed", e)
		}
	}
	again := start(t, "b", joining(a))
	again.Announce(endpoints(1, "b.ns"))
	eventually(t, "b is back", func() bool {
		list := of(a, again)
		return state(a, again) == "alive" && len(list) == 1 && !list[0].OwnerDead
	})
}

// TestGossip_JoinIsTriedForEver: the seed may come later.
func TestGossip_JoinIsTriedForEver(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	b := start(t, "b", func(o *Options) { o.Join = []string{address} })
	b.Announce(endpoints(1, "b.ns"))
	l.Close()
	a := start(t, "a", func(o *Options) { o.Bind = address })
	eventually(t, "they meet", func() bool { return len(of(a, b)) == 1 && state(b, a) == "alive" })
}

// TestGossip_TellsThatItIsAlone: whoever reaches nobody of those whom it is to join says
// why, once, and that it is over; who has nobody to join says nothing.
func TestGossip_TellsThatItIsAlone(t *testing.T) {
	logged := func(log *lines) func(*Options) {
		return func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(log, nil)) }
	}
	var first lines
	a := start(t, "a", func(o *Options) { o.Keys = [][]byte{key(1)}; logged(&first)(o) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	late := l.Addr().String()
	l.Close()
	for name, tt := range map[string]struct {
		join []string
		want string
	}{
		"another key":  {[]string{a.Address()}, "no installed keys could decrypt"},
		"no such name": {[]string{"nosuch.invalid:7946"}, "lookup nosuch.invalid"},
		"nobody there": {[]string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4"}, "connection refused; and 1 more"},
		"late":         {[]string{late}, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			var log lines
			start(t, "alone", func(o *Options) { o.Keys = [][]byte{key(2)}; o.Join = tt.join; logged(&log)(o) })
			eventually(t, "it says so", func() bool { return log.count("nobody else is reached") > 0 })
			if log.count(tt.want) != 1 {
				t.Errorf("it says %q, want %q", log.text(), tt.want)
			}
			if name != "late" {
				return
			}
			start(t, "b", func(o *Options) { o.Keys = [][]byte{key(2)}; o.Bind = late })
			eventually(t, "it says that it is over", func() bool { return log.count("others are reached") == 1 })
		})
	}
	if first.count("nobody else") != 0 {
		t.Errorf("who has nobody to join says %q", first.text())
	}
}

// lines are what was logged.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) count(text string) int { return strings.Count(l.text(), text) }

// TestGossip_Knocks: who is missing is noticed when it is there, however long it
// is until the next try.
func TestGossip_Knocks(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	a := start(t, "a", nil)
	noticed := make(chan []string, 1)
	go func() { noticed <- a.rest(t.Context(), time.Hour, []string{"127.0.0.1:1", address}) }()
	l.Close()
	start(t, "b", func(o *Options) { o.Bind = address })
	if back := <-noticed; !slices.Equal(back, []string{address}) {
		t.Errorf("%q answer, want %s", back, address)
	}
}

// TestNextTry: soon while some are missing, seldom in the end, and seldom too
// where an address answers at which nobody lives.
func TestNextTry(t *testing.T) {
	for _, tt := range []struct {
		round            int
		wait             time.Duration
		missing, reached int
		want             time.Duration
	}{
		{0, 0, 3, 3, firstJoin},
		{settlingRounds - 1, firstJoin, 3, 0, firstJoin},
		{settlingRounds, firstJoin, 0, 0, lastJoin},
		{settlingRounds, firstJoin, 2, 2, lastJoin},
		{settlingRounds, 4 * time.Second, 2, 1, firstJoin},
		{settlingRounds, 4 * time.Second, 2, 0, 8 * time.Second},
		{settlingRounds, lastJoin, 1, 0, lastJoin},
	} {
		if got := nextTry(tt.round, tt.wait, tt.missing, tt.reached); got != tt.want {
			t.Errorf("round %d after %v, %d of %d reached: %v, want %v", tt.round, tt.wait, tt.reached, tt.missing, got, tt.want)
		}
	}
}

// TestGossip_SeedElsewhere: an address that leads to a member who lives at another
// is reached, and still missing.
func TestGossip_SeedElsewhere(t *testing.T) {
	b := start(t, "b", nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // ends with l
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with either side
				defer c.Close()
				up, err := net.Dial("tcp", b.Address())
				if err != nil {
					return
				}
				defer up.Close()
				go func() { io.Copy(up, c); up.(*net.TCPConn).CloseWrite() }()
				io.Copy(c, up)
			}()
		}
	}()
	a := start(t, "a", nil)
	seeds := []string{l.Addr().String(), "127.0.0.1:1"}
	reached, failed := a.tryAll(seeds)
	if len(failed) != 1 || !strings.Contains(failed[0].Error(), seeds[1]) {
		t.Errorf("what failed: %v, want %s", failed, seeds[1])
	}
	if !slices.Equal(reached, seeds[:1]) || !slices.Equal(a.missing(reached), reached) {
		t.Errorf("reached %q, of which %q are missing", reached, a.missing(reached))
	}
	if state(a, b) != "alive" {
		t.Error("they have not met")
	}
}

func key(c byte) []byte { return bytes.Repeat([]byte{c}, 32) }

func TestGossip_Keys(t *testing.T) {
	a := start(t, "a", func(o *Options) { o.Keys = [][]byte{key(1)} })
	for name, keys := range map[string][][]byte{"wrong": {key(2)}, "none": nil} {
		stranger := start(t, name, func(o *Options) { o.Keys = keys; joining(a)(o) })
		if n, err := stranger.list.Join([]string{a.Address()}); n != 0 || err == nil {
			t.Errorf("a member with key %s has joined", name)
		}
		if got := len(a.Members()); got != 1 {
			t.Errorf("a member with key %s: %d members, want 1", name, got)
		}
	}
	b := start(t, "b", func(o *Options) { o.Keys = [][]byte{key(1)}; joining(a)(o) })
	eventually(t, "b has joined", func() bool { return state(a, b) == "alive" })

	// A rotation: all learn the new key, then use it, then forget the old one.
	for _, keys := range [][][]byte{{key(1), key(3)}, {key(3), key(1)}, {key(3)}} {
		for _, g := range []*Gossip{a, b} {
			if err := g.SetKeys(keys); err != nil {
				t.Fatal(err)
			}
		}
		want := len(of(b, b)) + 1
		b.Announce(endpoints(want, "b.ns"))
		eventually(t, "an update arrives", func() bool { return len(of(a, b)) == want })
	}
	if err := a.SetKeys([][]byte{[]byte("short")}); err == nil {
		t.Error("a key of 5 bytes is taken")
	}
	if err := a.SetKeys(nil); err == nil {
		t.Error("encryption was switched off")
	}
}

// TestGossip_Garbage: whatever comes to the port, nobody joins and nothing
// falls over.
func TestGossip_Garbage(t *testing.T) {
	a := start(t, "a", nil)
	for _, network := range []string{"udp", "tcp"} {
		for _, data := range [][]byte{nil, {0}, bytes.Repeat([]byte{0xff}, 1200), []byte("GET / HTTP/1.1\r\n\r\n"), bytes.Repeat([]byte{8}, 500)} {
			c, err := net.Dial(network, a.Address())
			if err != nil {
				t.Fatal(err)
			}
			c.Write(data)
			c.Close()
		}
	}
	for _, b := range [][]byte{{}, {messageRecord}, {messageRecord, '{'}, {messageNote}, {messageNote, 1, 2}, []byte("Anobody"), {'?', 1}} {
		delegate{a}.NotifyMsg(b)
	}
	delegate{a}.MergeRemoteState([]byte("[1,2"), false)
	delegate{a}.MergeRemoteState([]byte(`[{"owner":""},7]`), false)
	b := start(t, "b", joining(a))
	b.Announce(endpoints(1, "b.ns"))
	eventually(t, "it still works", func() bool { return len(of(a, b)) == 1 })
	if len(a.Members()) != 2 {
		t.Errorf("members %+v, want 2", a.Members())
	}
}

// TestGossip_NobodySpeaksForUs: a record of our own that is newer than ours,
// of a life with a faster clock or forged, is outdone.
func TestGossip_NobodySpeaksForUs(t *testing.T) {
	a := start(t, "a", nil)
	a.Announce(endpoints(1, "a.ns"))
	a.merge(&record{Owner: a.name, Version: a.own.Version + 1000, Cluster: "elsewhere"}, 0)
	if got := of(a, a); len(got) != 1 || got[0].Cluster != "c-a" {
		t.Errorf("own endpoints %+v", got)
	}
	b := start(t, "b", joining(a))
	eventually(t, "others know ours", func() bool { return len(of(b, a)) == 1 })
}

// TestGossip_Flood: what comes faster than it is worked on takes a bounded room, and
// the next messages find one.
func TestGossip_Flood(t *testing.T) {
	a := start(t, "a", nil)
	large := append([]byte{messageRecord}, encode(&record{Owner: "x", Version: 1, Endpoints: toRecord(endpoints(5000, "x.ns"))})...)
	a.mu.Lock() // whoever works on them waits
	for range 1000 {
		delegate{a}.NotifyMsg(large)
	}
	if n := len(a.inbox); n > maxWaiting/len(large) {
		t.Errorf("%d messages of %d bytes wait", n, len(large))
	}
	for waits := true; waits; { // which would take a while
		select {
		case b := <-a.inbox:
			a.waiting.Add(-int64(len(b)))
		default:
			waits = false
		}
	}
	a.mu.Unlock()
	eventually(t, "all is worked on", func() bool { return a.waiting.Load() == 0 })
	delegate{a}.NotifyMsg(append([]byte{messageRecord}, encode(&record{Owner: "y", Version: 1})...))
	eventually(t, "what comes next is heard", func() bool { return knows(a, "y") })
}

// TestGossip_NobodyEndsVersions: who has the key cannot keep an owner from being
// heard, by a version beyond which there is none.
func TestGossip_NobodyEndsVersions(t *testing.T) {
	a := start(t, "a", nil)
	b := start(t, "b", joining(a))
	a.Announce(endpoints(1, "a.ns"))
	eventually(t, "b knows a's endpoint", func() bool { return len(of(b, a)) == 1 })
	for i, version := range []uint64{math.MaxUint64, math.MaxUint64 - 1, 1 << 63, uint64(time.Now().Add(maxAhead).UnixNano())} {
		forged := encode(&record{Owner: a.name, Version: version, Cluster: "elsewhere", Left: true})
		for _, g := range []*Gossip{a, b} {
			delegate{g}.NotifyMsg(append([]byte{messageRecord}, forged...))
			delegate{g}.NotifyMsg(note(&record{Owner: a.name, Version: version}))
		}
		want := i + 2
		a.Announce(endpoints(want, "a.ns"))
		eventually(t, "b hears of a's news", func() bool { return len(of(b, a)) == want })
		b.mu.Lock()
		if b.wanted[a.name] > b.records[a.name].Version {
			t.Errorf("b waits for version %d, which will never come", b.wanted[a.name])
		}
		b.mu.Unlock()
	}
}

// TestGossip_NobodyWaitsForVersions: of a version that an owner has not got to, a note
// to one member has nobody wait for it for ever.
func TestGossip_NobodyWaitsForVersions(t *testing.T) {
	a := start(t, "a", nil)
	b := start(t, "b", joining(a))
	a.Announce(endpoints(1, "a.ns"))
	eventually(t, "b knows a's endpoint", func() bool { return len(of(b, a)) == 1 })
	forged := uint64(time.Now().Add(time.Hour).UnixNano())
	eventually(t, "b has heard of more", func() bool {
		delegate{b}.NotifyMsg(note(&record{Owner: a.name, Version: forged}))
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.wanted[a.name] >= forged
	})
	eventually(t, "b waits for nothing", func() bool { return b.Stats().Behind == 0 })
}

func TestStart_Errors(t *testing.T) {
	a := start(t, "a", nil)
	node := &mesh.Node{Name: "n", Address: "127.0.0.1", Cluster: "c", Namespace: "ns"}
	for name, tt := range map[string]struct {
		o    Options
		want string
	}{
		"port in use": {Options{Node: node, Bind: a.Address()}, "address already in use"},
		"key length":  {Options{Node: node, Bind: "127.0.0.1:0", Keys: [][]byte{[]byte("short")}}, "isthmus keygen"},
		"bind":        {Options{Node: node, Bind: "nonsense"}, "gossip.bind"},
		"not ours":    {Options{Node: node, Bind: "203.0.113.7:7946"}, "listen gossip 203.0.113.7:7946: cannot assign requested address: this machine has no such address; choose another one with gossip.bind"},
	} {
		tt.o.Logger = slog.New(slog.DiscardHandler)
		if g, err := Start(tt.o); err == nil {
			g.Close()
			t.Errorf("%s: no error", name)
		} else if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %q, want %q in it", name, err, tt.want)
		}
	}
}

func TestMeta_Fits(t *testing.T) {
	a := start(t, "a", func(o *Options) { o.Version = strings.Repeat("v", 600) })
	if n := len(a.meta()); n > 512 {
		t.Errorf("%d bytes of node metadata, memberlist takes 512", n)
	}
	if !slices.ContainsFunc(a.Members(), func(m Member) bool { return m.Cluster == "c-a" }) {
		t.Errorf("members %+v", a.Members())
	}
}
