package gossip

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// swallows returns an address at which connections are neither made nor refused, as
// where a link swallows packets.
func swallows(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{} /* of the whole of 127.0.0.0/8 */); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprint("127.0.0.1:", at.(*unix.SockaddrInet4).Port)
	for range 10 { // until its queue is full
		c, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Skip("the queue of a listener has no end here")
	return ""
}

// untilGivenUp is closed when a connection to an address is given up, after as long as
// memberlist takes to do so.
func untilGivenUp(t *testing.T, address string) <-chan struct{} {
	done := make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		if c, err := new(net.Dialer).DialContext(ctx, "tcp", address); err == nil {
			c.Close()
		}
		close(done)
	}()
	return done
}

// TestUnreachable_Ask: whoever asks for a record and cannot be reached keeps nobody
// else's news waiting.
func TestUnreachable_Ask(t *testing.T) {
	address := swallows(t)
	a := start(t, "a", nil)
	a.Announce(endpoints(1, "a.ns"))
	b := start(t, "b", joining(a))
	eventually(t, "they have met", func() bool { return state(a, b) == stateAlive })
	given := untilGivenUp(t, address)
	for range 3 {
		delegate{a}.NotifyMsg(append([]byte{messageAsk}, "x\n"+address...))
	}
	x := &record{Owner: "x", Version: 1, Cluster: "c"}
	delegate{a}.NotifyMsg(append([]byte{messageRecord}, encode(x)...))
	eventually(t, "a has the record", func() bool { return knows(a, "x") })
	select {
	case <-given:
		t.Error("it came when the asker had been given up")
	default:
	}
}

// TestUnreachable_Many: many who cannot be reached keep nobody from being asked, be they
// strangers or members.
func TestUnreachable_Many(t *testing.T) {
	slow := func(o *Options) { o.Fast = false } // push/pull comes after 30 s
	_, port, err := net.SplitHostPort(swallows(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, who := range []string{"strangers", "members"} {
		t.Run(who, func(t *testing.T) {
			a := start(t, "a", slow)
			b := start(t, "b", slow) // nor do seeds exchange everything
			if _, err := b.list.Join([]string{a.Address()}); err != nil {
				t.Fatal(err)
			}
			a.Announce(endpoints(1, "a.ns"))
			given := untilGivenUp(t, "127.0.0.1:"+port)
			for i := range 2 * maxSending {
				name, address := fmt.Sprint("x", i), fmt.Sprintf("127.0.1.%d:%s", i, port)
				if who == "members" {
					a.mu.Lock()
					a.members[name] = &member{Member: Member{Name: name, Address: address, State: stateAlive}, since: time.Now(), silent: true}
					a.mu.Unlock()
				}
				delegate{a}.NotifyMsg(append([]byte{messageAsk}, name+"\n"+address...))
			}
			b.Announce(endpoints(2000, "b.ns"))
			a.Announce(endpoints(2000, "a.ns"))
			eventually(t, "both have asked, and been told", func() bool { return len(of(a, b)) == 2000 && len(of(b, a)) == 2000 })
			select {
			case <-given:
				t.Error("it came when those who asked before had been given up")
			default:
			}
		})
	}
}

// TestUnreachable_Leave: a goodbye waits neither for members nor for seeds that cannot
// be reached.
func TestUnreachable_Leave(t *testing.T) {
	members := swallows(t)
	_, port, err := net.SplitHostPort(swallows(t))
	if err != nil {
		t.Fatal(err)
	}
	a := start(t, "a", func(o *Options) {
		for i := range 3 * triesAtOnce {
			o.Join = append(o.Join, fmt.Sprintf("127.0.1.%d:%s", i, port))
		}
	})
	a.Announce(endpoints(1, "a.ns"))
	for i := range 3 {
		start(t, fmt.Sprint("b", i), func(o *Options) {
			// Another port than that of Bind is advertised only where Bind names one.
			o.Bind, o.Advertise = fmt.Sprint("127.0.0.2:", freePort(t, "127.0.0.2")), members
			joining(a)(o)
		})
	}
	eventually(t, "one is known, where nobody answers", func() bool {
		return slices.ContainsFunc(a.Members(), func(m Member) bool { return m.Address == members })
	})
	given := untilGivenUp(t, members)
	a.Leave(time.Second)
	select {
	case <-given:
		t.Error("the goodbye took as long as to give a member up")
	default:
	}
}

// freePort returns a port at an address that nobody has, for UDP or TCP.
func freePort(t *testing.T, address string) int {
	t.Helper()
	for range 10 {
		l, err := net.Listen("tcp", address+":0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		u, err := net.ListenPacket("udp", l.Addr().String())
		l.Close()
		if err == nil {
			u.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// TestUnreachable_CloseWhileKnocking: who ends does not knock at all the seeds that are
// missing first.
func TestUnreachable_CloseWhileKnocking(t *testing.T) {
	dead, err := net.ListenPacket("udp", "127.0.0.1:0") // nobody reads, nor answers
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	seeds := slices.Repeat([]string{dead.LocalAddr().String()}, 200)
	a := start(t, "a", nil)
	ctx, cancel := context.WithCancel(t.Context())
	done, began := make(chan struct{}), time.Now()
	go func() { // ends with ctx
		defer close(done)
		a.rest(ctx, time.Hour, seeds)
	}()
	dead.SetReadDeadline(began.Add(20 * time.Second))
	if _, _, err := dead.ReadFrom(make([]byte, 1500)); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-done
	sent := 1
	for ; ; sent++ {
		dead.SetReadDeadline(time.Now().Add(time.Second)) // they are there already
		if _, _, err := dead.ReadFrom(make([]byte, 1500)); err != nil {
			break
		}
	}
	if sent == len(seeds) {
		t.Errorf("all %d seeds have been knocked at", sent)
	}
}
