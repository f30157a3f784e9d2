package control

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// resolver keeps the addresses of host names fresh, as long as their records
// say they hold. The last good answer stays until there is a better one: a
// name server that is down takes nobody's endpoints away.
type resolver struct {
	resolvConf, hosts string
	port              string // of the name servers; "" for that of resolv.conf, 53
	changed           func()
	route             func(netip.Addr) bool // whether there is a way to an address; tests have others
	ctx               context.Context
	cancel            context.CancelFunc
	workers           sync.WaitGroup
	slots             chan struct{} // one for each lookup under way

	mu       sync.Mutex // guards what is below
	names    map[string]*name
	answered string // the name server that has answered last, and is asked first
}

// name is a host name that is watched by a goroutine of its own.
type name struct {
	cancel context.CancelFunc
	addrs  []netip.Addr
}

// maxLookups bounds how many names are looked up at once.
const maxLookups = 16

// Bounds on how long an answer is kept, and how soon a failure is repeated
// (Istio's dnsRefreshRate is 60 s).
const (
	minTTL     = time.Second
	maxTTL     = time.Hour
	firstRetry = time.Second
	lastRetry  = 60 * time.Second
)

func newResolver(resolvConf, hosts string, changed func()) *resolver {
	ctx, cancel := context.WithCancel(context.Background())
	return &resolver{
		resolvConf: cmp.Or(resolvConf, "/etc/resolv.conf"), hosts: cmp.Or(hosts, "/etc/hosts"),
		changed: changed, route: hasRoute, slots: make(chan struct{}, maxLookups), ctx: ctx, cancel: cancel, names: map[string]*name{},
	}
}

func (r *resolver) close() {
	r.cancel()
	r.workers.Wait()
}

// watch says which names are wanted; others are forgotten.
func (r *resolver) watch(names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for have, n := range r.names {
		if !slices.Contains(names, have) {
			n.cancel()
			delete(r.names, have)
		}
	}
	for _, want := range names {
		if r.names[want] == nil && r.ctx.Err() == nil {
			ctx, cancel := context.WithCancel(r.ctx)
			n := &name{cancel: cancel}
			r.names[want] = n
			r.workers.Go(func() { r.follow(ctx, want, n) })
		}
	}
}

// answers returns the last good answer for each name.
func (r *resolver) answers() map[string][]netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string][]netip.Addr{}
	for k, n := range r.names {
		out[k] = n.addrs
	}
	return out
}

// follow resolves one name again and again. watch starts it; it ends with ctx.
func (r *resolver) follow(ctx context.Context, host string, n *name) {
	retry := firstRetry
	for {
		select {
		case <-ctx.Done():
			return
		case r.slots <- struct{}{}:
		}
		addrs, ttl, err := r.lookup(ctx, host)
		<-r.slots
		if len(addrs) > 0 && r.keep(n, addrs, err == nil) {
			r.changed()
		}
		var wait time.Duration
		wait, retry = pause(len(addrs), ttl, err, retry)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait + rand.N(wait/10+1)):
		}
	}
}

// pause returns how long to wait after a lookup that has brought n addresses, and how
// soon the next failure is repeated, as this one is after retry. What was answered is
// looked up again when it holds no longer, whatever becomes of the question for the
// other family: some name servers never answer that for AAAA.
func pause(n int, ttl time.Duration, err error, retry time.Duration) (wait, next time.Duration) {
	wait, next = min(max(ttl, minTTL), maxTTL), firstRetry
	if n == 0 {
		wait = lastRetry
	}
	if n == 0 || err != nil {
		wait, next = min(wait, retry), min(2*retry, lastRetry)
	}
	return wait, next
}

// keep takes an answer over and reports whether it says anything new. Of one
// that is not whole, since only the question for one family was answered, the
// other family's addresses are those of before. Addresses without a route are left
// out, unless no other is there.
func (r *resolver) keep(n *name, addrs []netip.Addr, whole bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !whole {
		for _, old := range n.addrs {
			if old.Is4() != addrs[0].Is4() {
				addrs = append(addrs, old)
			}
		}
		slices.SortFunc(addrs, netip.Addr.Compare)
	}
	addrs = r.routed(addrs)
	same := slices.Equal(n.addrs, addrs)
	n.addrs = addrs
	return !same
}

var errNoAnswer = errors.New("no name server has answered")

// lookup asks the hosts file, then the name servers, for a name's addresses,
// sorted, and how long they hold. An error beside addresses means that the
// question for one family, A or AAAA, was not answered.
func (r *resolver) lookup(ctx context.Context, host string) ([]netip.Addr, time.Duration, error) {
	if addrs := lookupHosts(r.hosts, host); len(addrs) > 0 {
		return addrs, firstRetry * 5, nil
	}
	conf, err := dns.ClientConfigFromFile(r.resolvConf)
	if err != nil {
		return nil, 0, err
	}
	conf.Port = cmp.Or(r.port, conf.Port)
	r.mu.Lock()
	toFront(conf.Servers, r.answered)
	r.mu.Unlock()
	var failed error // of a name that had no addresses
	for _, fqdn := range conf.NameList(host) {
		var all []netip.Addr
		var incomplete error
		ttl := maxTTL
		for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
			addrs, hold, err := ask(ctx, conf, fqdn, t)
			if err != nil {
				incomplete = err
				continue
			}
			r.mu.Lock()
			r.answered = conf.Servers[0]
			r.mu.Unlock()
			all = append(all, addrs...)
			ttl = min(ttl, hold)
		}
		if len(all) > 0 {
			slices.SortFunc(all, netip.Addr.Compare)
			return slices.Compact(all), ttl, incomplete
		}
		failed = cmp.Or(incomplete, failed)
	}
	return nil, 0, failed
}

// routed returns the addresses that there is a route to; all of them if there is none to
// any. Many names have addresses of IPv6 which a cluster without it cannot reach: as
// endpoints, each would cost its share of the requests a vain try.
func (r *resolver) routed(addrs []netip.Addr) []netip.Addr {
	with := slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return !r.route(a) })
	if len(with) == 0 {
		return addrs
	}
	return with
}

// hasRoute reports whether the kernel knows a way to an address. To connect by UDP asks it,
// and sends nothing. What else may go wrong says nothing of the address.
func hasRoute(a netip.Addr) bool {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 9))) // of RFC 863; any would do
	if err == nil {
		c.Close()
	}
	for _, none := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EADDRNOTAVAIL, unix.EAFNOSUPPORT} {
		if errors.Is(err, none) {
			return false
		}
	}
	return true
}

// toFront moves a server before the others, if it is there.
func toFront(servers []string, server string) {
	if i := slices.Index(servers, server); i > 0 {
		copy(servers[1:], servers[:i])
		servers[0] = server
	}
}

// ask asks the servers in turn, and moves the one that answers before the others: one
// that does not answer costs its time-out once, and not with every question. A name that
// does not exist is no error, but has no addresses.
func ask(ctx context.Context, conf *dns.ClientConfig, fqdn string, t uint16) ([]netip.Addr, time.Duration, error) {
	q := new(dns.Msg)
	q.SetQuestion(fqdn, t)
	q.SetEdns0(1232, false)
	timeout := time.Duration(max(conf.Timeout, 1)) * time.Second
	err := errNoAnswer
	for range max(conf.Attempts, 1) {
		for _, server := range slices.Clone(conf.Servers) {
			addr := net.JoinHostPort(server, conf.Port)
			reply, e := exchange(ctx, &dns.Client{Timeout: timeout}, q, addr)
			if e == nil && reply.Truncated {
				reply, e = exchange(ctx, &dns.Client{Net: "tcp", Timeout: timeout}, q, addr)
			}
			switch {
			case e != nil:
				err = e
			case reply.Rcode == dns.RcodeSuccess, reply.Rcode == dns.RcodeNameError:
				toFront(conf.Servers, server)
				addrs, ttl := addresses(reply)
				return addrs, ttl, nil
			default:
				err = errors.New(dns.RcodeToString[reply.Rcode])
			}
		}
	}
	return nil, 0, err
}

// exchange asks one server. It ends with ctx, at the latest, which the client's own
// methods do not: who ends the proxy need not wait for a server that does not answer.
func exchange(ctx context.Context, c *dns.Client, q *dns.Msg, addr string) (*dns.Msg, error) {
	conn, err := c.DialContext(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	reply, _, err := c.ExchangeWithConnContext(ctx, q, conn)
	return reply, err
}

// addresses takes the addresses out of an answer and the smallest TTL on the
// way to them, aliases included.
func addresses(m *dns.Msg) (addrs []netip.Addr, ttl time.Duration) {
	ttl = maxTTL
	for _, rr := range m.Answer {
		ttl = min(ttl, time.Duration(rr.Header().Ttl)*time.Second)
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if a, ok := netip.AddrFromSlice(ip); ok {
			addrs = append(addrs, a.Unmap())
		}
	}
	return addrs, ttl
}

// lookupHosts looks a name up in a file of the form of /etc/hosts.
func lookupHosts(path, host string) []netip.Addr {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var out []netip.Addr
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) < 2 {
			continue
		}
		addr, err := netip.ParseAddr(fields[0])
		if err != nil {
			continue
		}
		if slices.ContainsFunc(fields[1:], func(f string) bool { return strings.EqualFold(strings.TrimSuffix(f, "."), host) }) {
			out = append(out, addr)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
