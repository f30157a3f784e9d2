package control

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// nameServer answers from a table; a name that is not in it does not exist.
type nameServer struct {
	mu    sync.Mutex // guards what is below
	names map[string][]string
	fail  bool

	failType uint16 // questions of this type fail; 0: none
	muteType uint16 // questions of this type are not answered; 0: none
	unheard  int    // of these, how many there were
}

func (s *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.muteType != 0 && s.muteType == q.Question[0].Qtype {
		s.unheard++
		return
	}
	m := new(dns.Msg)
	m.SetReply(q)
	records, ok := s.names[q.Question[0].Name]
	switch {
	case s.fail, s.failType == q.Question[0].Qtype:
		m.Rcode = dns.RcodeServerFailure
	case !ok:
		m.Rcode = dns.RcodeNameError
	}
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		if t := rr.Header().Rrtype; t == q.Question[0].Qtype || t == dns.TypeCNAME {
			m.Answer = append(m.Answer, rr)
		}
	}
	if udp && len(m.Answer) > 20 {
		m.Answer, m.Truncated = nil, true
	}
	w.WriteMsg(m)
}

// listenBoth opens a port that is free for UDP and TCP: the kernel chooses for
// one of them only, so it takes some tries.
func listenBoth(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	var err error
	for range 100 {
		var packets net.PacketConn
		if packets, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		var streams net.Listener
		if streams, err = net.Listen("tcp", packets.LocalAddr().String()); err == nil {
			return packets, streams
		}
		packets.Close()
	}
	t.Fatalf("no port is free for UDP and TCP: %v", err)
	return nil, nil
}

// serveNames runs a name server and returns a resolv.conf that names it.
func serveNames(t *testing.T, names map[string][]string) (*nameServer, *dns.ClientConfig) {
	t.Helper()
	s := &nameServer{names: names}
	packets, streams := listenBoth(t)
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: s}, {Listener: streams, Handler: s}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go server.ActivateAndServe() // ends with Shutdown
		<-started
		t.Cleanup(func() { server.Shutdown() })
	}
	host, port, _ := net.SplitHostPort(packets.LocalAddr().String())
	return s, &dns.ClientConfig{Servers: []string{host}, Port: port, Timeout: 2, Attempts: 1, Ndots: 1}
}

func TestAsk(t *testing.T) {
	var many []string
	for i := range 30 {
		many = append(many, fmt.Sprintf("many.test. 60 IN A 192.0.2.%d", i))
	}
	_, conf := serveNames(t, map[string][]string{
		"one.test.":   {"one.test. 30 IN A 192.0.2.1", "one.test. 20 IN A 192.0.2.2"},
		"alias.test.": {"alias.test. 5 IN CNAME one.test.", "one.test. 30 IN A 192.0.2.1"},
		"six.test.":   {"six.test. 30 IN AAAA 2001:db8::1"},
		"many.test.":  many,
	})
	for _, tt := range []struct {
		name string
		t    uint16
		n    int
		ttl  time.Duration
	}{
		{"one.test.", dns.TypeA, 2, 20 * time.Second},
		{"one.test.", dns.TypeAAAA, 0, maxTTL},
		{"alias.test.", dns.TypeA, 1, 5 * time.Second},
		{"six.test.", dns.TypeAAAA, 1, 30 * time.Second},
		{"many.test.", dns.TypeA, 30, 60 * time.Second}, // over TCP
		{"none.test.", dns.TypeA, 0, maxTTL},
	} {
		addrs, ttl, _, err := ask(context.Background(), conf, tt.name, tt.t)
		if err != nil || len(addrs) != tt.n || ttl != tt.ttl {
			t.Errorf("%s: %d addresses for %v, %v; want %d for %v", tt.name, len(addrs), ttl, err, tt.n, tt.ttl)
		}
	}
}

func TestAsk_Failure(t *testing.T) {
	s, conf := serveNames(t, nil)
	s.mu.Lock()
	s.fail = true
	s.mu.Unlock()
	if _, _, _, err := ask(context.Background(), conf, "x.test.", dns.TypeA); err == nil || err.Error() != "SERVFAIL" {
		t.Errorf("error %v, want SERVFAIL", err)
	}
	conf.Servers = nil
	if _, _, _, err := ask(context.Background(), conf, "x.test.", dns.TypeA); err != errNoAnswer {
		t.Errorf("error %v, want %v", err, errNoAnswer)
	}
}

// TestResolver_HostsFile follows a file of the form of /etc/hosts, and keeps
// the last good answer when a name is gone from it.
func TestResolver_HostsFile(t *testing.T) {
	hosts := filepath.Join(t.TempDir(), "hosts")
	write(t, hosts, "# comment\n127.0.0.1 localhost\n192.0.2.7\tvm.test vm # tail\n2001:db8::7 VM.test\n")
	changed := make(chan struct{}, 1)
	r := newResolver("/nonexistent", hosts, func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	defer r.close()
	r.watch([]string{"vm.test", "other.test"})
	select {
	case <-changed:
	case <-time.After(20 * time.Second):
		t.Fatal("no answer")
	}
	want := []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")}
	if got := r.answers()["vm.test"]; !slices.Equal(got, want) {
		t.Errorf("vm.test is %v, want %v", got, want)
	}
	if got := r.answers()["other.test"]; len(got) != 0 {
		t.Errorf("other.test is %v", got)
	}
	r.watch([]string{"other.test"})
	if _, ok := r.answers()["vm.test"]; ok {
		t.Error("a name that nobody wants is still followed")
	}
}

// TestResolver_OneFamilyFails: addresses of one family are not lost because
// only the question for the other one was answered.
func TestResolver_OneFamilyFails(t *testing.T) {
	s, conf := serveNames(t, map[string][]string{
		"both.test.": {"both.test. 1 IN A 192.0.2.1", "both.test. 1 IN AAAA 2001:db8::1"},
	})
	file := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, file, "nameserver "+conf.Servers[0]+"\noptions timeout:1 attempts:1\n")
	r := newResolver(file, "/nonexistent", func() {})
	r.route = func(netip.Addr) bool { return true } // as a machine with both families
	r.port = conf.Port
	defer r.close()
	r.watch([]string{"both.test"})
	want := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	eventually(t, "both addresses", func() bool { return slices.Equal(r.answers()["both.test"], want) })
	s.mu.Lock()
	s.failType = dns.TypeA
	s.names["both.test."] = append(s.names["both.test."], "both.test. 1 IN AAAA 2001:db8::2")
	s.mu.Unlock()
	want = append(want, netip.MustParseAddr("2001:db8::2"))
	eventually(t, "the old address of one family and the new ones of the other", func() bool { return slices.Equal(r.answers()["both.test"], want) })
}

// TestResolver_OneFamilyUnanswered: the addresses of one family do not wait for all the
// time-outs of a name server that never answers for the other, and what is known of that
// one stays.
func TestResolver_OneFamilyUnanswered(t *testing.T) {
	for _, mute := range []uint16{dns.TypeA, dns.TypeAAAA} {
		t.Run(dns.TypeToString[mute], func(t *testing.T) {
			s, conf := serveNames(t, map[string][]string{
				"both.test.": {"both.test. 7 IN A 192.0.2.1", "both.test. 7 IN AAAA 2001:db8::1"},
			})
			s.mu.Lock()
			s.muteType = mute
			s.mu.Unlock()
			file := filepath.Join(t.TempDir(), "resolv.conf")
			write(t, file, "nameserver "+conf.Servers[0]+"\noptions timeout:30 attempts:2\n")
			r := newResolver(file, "/nonexistent", func() {})
			r.port = conf.Port
			defer r.close()
			addrs, ttl, err := r.lookup(t.Context(), "both.test")
			if len(addrs) != 1 || addrs[0].Is4() == (mute == dns.TypeA) || ttl != 7*time.Second || err == nil {
				t.Errorf("%v for %v, %v; want those of the other family for 7s, and an error", addrs, ttl, err)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.unheard != 1 {
				t.Errorf("asked %d times in vain, want once", s.unheard)
			}
		})
	}
}

// TestResolver_SearchedUnanswered: nor does a name that stands behind others in a search list,
// which there are not.
func TestResolver_SearchedUnanswered(t *testing.T) {
	s, conf := serveNames(t, map[string][]string{"a.y.test.": {"a.y.test. 7 IN A 192.0.2.1"}})
	s.mu.Lock()
	s.muteType = dns.TypeAAAA
	s.mu.Unlock()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, file, "nameserver "+conf.Servers[0]+"\nsearch x.test y.test\noptions timeout:10 attempts:2\n")
	r := newResolver(file, "/nonexistent", func() {})
	r.port = conf.Port
	defer r.close()
	if addrs, _, _ := r.lookup(t.Context(), "a"); len(addrs) != 1 {
		t.Errorf("%v, want one address", addrs)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unheard != 2 {
		t.Errorf("asked %d times in vain, want once for each name", s.unheard)
	}
}

// TestResolver_NoRoute: addresses of a family that the machine has no route for are
// no endpoints, unless the name has no others.
func TestResolver_NoRoute(t *testing.T) {
	s, conf := serveNames(t, map[string][]string{
		"both.test.": {"both.test. 1 IN A 192.0.2.1", "both.test. 1 IN AAAA 2001:db8::1"},
		"six.test.":  {"six.test. 1 IN AAAA 2001:db8::1"},
	})
	file := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, file, "nameserver "+conf.Servers[0]+"\noptions timeout:1 attempts:1\n")
	var both atomic.Bool
	r := newResolver(file, "/nonexistent", func() {})
	r.route = func(a netip.Addr) bool { return a.Is4() || both.Load() }
	r.port = conf.Port
	defer r.close()
	r.watch([]string{"both.test", "six.test"})
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	is := func(host string, want ...netip.Addr) func() bool {
		return func() bool { return slices.Equal(r.answers()[host], want) }
	}
	eventually(t, "the one with a route", is("both.test", four))
	eventually(t, "the only one there is", is("six.test", six))
	s.mu.Lock()
	s.failType = dns.TypeA
	s.names["both.test."] = append(s.names["both.test."], "both.test. 1 IN AAAA 2001:db8::2")
	s.mu.Unlock()
	asked := func() bool { return slices.Contains(r.answers()["six.test"], netip.MustParseAddr("2001:db8::3")) }
	s.mu.Lock()
	s.names["six.test."] = append(s.names["six.test."], "six.test. 1 IN AAAA 2001:db8::3")
	s.mu.Unlock()
	eventually(t, "the servers are asked again", asked)
	if !is("both.test", four)() {
		t.Errorf("while A is not answered: %v, want what it was", r.answers()["both.test"])
	}
	both.Store(true)
	eventually(t, "all, now that there is a route", is("both.test", four, six, netip.MustParseAddr("2001:db8::2")))
}

// TestHasRoute: on this machine loopback can be reached, and in a network of its own
// nothing can.
func TestHasRoute(t *testing.T) {
	loopback, far := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1")
	if !hasRoute(loopback) {
		t.Error("no route to loopback")
	}
	alone := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil && hasRoute(far) {
			t.Error("a route where there is no network")
		}
		alone <- err
	}()
	if err := <-alone; err != nil {
		t.Skip("no network of its own: ", err)
	}
}

// TestResolver_CloseWhileSilent: who ends does not wait for a name server that does not
// answer.
func TestResolver_CloseWhileSilent(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, file, "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n") // 150 s
	r := newResolver(file, "/nonexistent", func() {})
	_, r.port, _ = net.SplitHostPort(silent.LocalAddr().String())
	r.watch([]string{"a.test"})
	if _, _, err := silent.ReadFrom(make([]byte, 1500)); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		r.close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Fatal("still waiting for an answer")
	}
}

// TestResolver_SilentServer: a name server that does not answer is waited for once, and not
// with every question.
func TestResolver_SilentServer(t *testing.T) {
	_, conf := serveNames(t, map[string][]string{"a.test.": {"a.test. 1 IN A 192.0.2.1"}, "b.test.": {"b.test. 1 IN A 192.0.2.2"}})
	silent, err := net.ListenPacket("udp", "127.0.0.2:"+conf.Port)
	if err != nil {
		t.Skip(err) // somebody else has the port there
	}
	defer silent.Close()
	var questions atomic.Int32
	go func() { // ends when silent is closed
		for {
			if _, _, err := silent.ReadFrom(make([]byte, 1500)); err != nil {
				return
			}
			questions.Add(1)
		}
	}()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, file, "nameserver 127.0.0.2\nnameserver "+conf.Servers[0]+"\nsearch x.test y.test\noptions timeout:1 attempts:5 ndots:5\n")
	r := newResolver(file, "/nonexistent", func() {})
	r.port = conf.Port
	defer r.close()
	for _, name := range []string{"a.test", "b.test"} {
		if addrs, _, err := r.lookup(t.Context(), name); err != nil || len(addrs) != 1 {
			t.Errorf("%s: %v, %v", name, addrs, err)
		}
	}
	// 12 questions are to be asked. The other server may need more than a second once.
	if n := questions.Load(); n == 0 || n > 5 {
		t.Errorf("the silent server was asked %d times, want once", n)
	}
}

// TestPause: an answer is looked up again when it holds no longer, and what has failed
// sooner, more and more seldom.
func TestPause(t *testing.T) {
	for _, tt := range []struct {
		name       string
		n          int
		ttl        time.Duration
		err        error
		retry      time.Duration
		wait, next time.Duration
	}{
		{"an answer", 2, 30 * time.Second, nil, lastRetry, 30 * time.Second, firstRetry},
		{"one that does not hold at all", 1, 0, nil, firstRetry, minTTL, firstRetry},
		{"one that holds for ever", 1, 1000 * time.Hour, nil, firstRetry, maxTTL, firstRetry},
		{"no such name", 0, maxTTL, nil, firstRetry, firstRetry, 2 * firstRetry},
		{"no answer", 0, 0, errNoAnswer, 40 * time.Second, 40 * time.Second, lastRetry},
		{"one family, the other for the first time not", 1, 30 * time.Second, errNoAnswer, firstRetry, firstRetry, 2 * firstRetry},
		{"one family, the other never", 1, 5 * time.Second, errNoAnswer, lastRetry, 5 * time.Second, lastRetry},
		{"one family for long, the other never", 1, maxTTL, errNoAnswer, lastRetry, lastRetry, lastRetry},
	} {
		if wait, next := pause(tt.n, tt.ttl, tt.err, tt.retry); wait != tt.wait || next != tt.next {
			t.Errorf("%s: %v, then %v; want %v, then %v", tt.name, wait, next, tt.wait, tt.next)
		}
	}
}

// TestResolver_TellsOutage: that nobody answers for a name is told the second time, once,
// and that it is over; of many names, of some.
func TestResolver_TellsOutage(t *testing.T) {
	var log strings.Builder
	r := newResolver("/nonexistent", "/nonexistent", func() {})
	defer r.close()
	r.log, r.warnings = slog.New(slog.NewTextHandler(&log, nil)), rate.NewLimiter(rate.Every(time.Hour), r.warnings.Burst())
	said := func() (warned, over int) {
		defer log.Reset()
		return strings.Count(log.String(), "level=WARN"), strings.Count(log.String(), "level=INFO")
	}
	var o outage
	fail := func(o *outage) { r.failed(context.Background(), o, "a.test", errNoAnswer) }
	for i, step := range []struct {
		do           func()
		warned, over int
	}{
		{func() { fail(&o) }, 0, 0},
		{func() { r.told(&o, "a.test") }, 0, 0},
		{func() { fail(&o) }, 0, 0},
		{func() { fail(&o) }, 1, 0},
		{func() { fail(&o) }, 0, 0},
		{func() { r.told(&o, "a.test") }, 0, 1},
		{func() { r.told(&o, "a.test") }, 0, 0},
		{func() {
			for range 20 {
				var o outage
				fail(&o)
				fail(&o)
			}
		}, 4, 0},
	} {
		step.do()
		if warned, over := said(); warned != step.warned || over != step.over {
			t.Errorf("step %d: %d warnings, %d ends; want %d, %d", i, warned, over, step.warned, step.over)
		}
	}
}
