package control

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
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
	log               *slog.Logger
	warnings          *rate.Limiter // when all names fail, some tell it

	mu       sync.Mutex // guards what is below
	names    map[string]*name
	answered string // the name server that has answered last, and is asked first
}

// name is a host name that is watched by a goroutine of its own.
type name struct {
	cancel context.CancelFunc
	addrs  []netip.Addr
	asked  bool // it was looked up once, whatever came of it
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
		log: slog.New(slog.DiscardHandler), warnings: rate.NewLimiter(rate.Every(10*time.Second), 5),
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

// asked reports whether all names have been looked up once.
func (r *resolver) asked() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.names {
		if !n.asked {
			return false
		}
	}
	return true
}

// follow resolves one name again and again. watch starts it; it ends with ctx.
func (r *resolver) follow(ctx context.Context, host string, n *name) {
	retry := firstRetry
	var o outage
	for {
		select {
		case <-ctx.Done():
			return
		case r.slots <- struct{}{}:
		}
		addrs, ttl, err := r.lookup(ctx, host)
		<-r.slots
		news := len(addrs) > 0 && r.keep(n, addrs, err == nil)
		r.mu.Lock()
		n.asked = true
		r.mu.Unlock()
		if news {
			r.changed()
		}
		if len(addrs) == 0 && err != nil {
			r.failed(ctx, &o, host, err)
		} else {
			r.told(&o, host)
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

// outage is how often in a row nobody has answered for a name, and whether the log says so.
type outage struct {
	tries  int
	warned bool
}

// failed warns that nobody answers for a name: the second time, since packets get lost, and
// once for each outage. That there is no such name is an answer.
func (r *resolver) failed(ctx context.Context, o *outage, host string, err error) {
	o.tries++
	if o.tries < 2 || o.warned || ctx.Err() != nil || !r.warnings.Allow() {
		return
	}
	o.warned = true
	r.log.Warn("no name server tells the addresses of a name; those that it had stay", "name", host, "addresses", len(r.answers()[host]), "error", err)
}

// told ends an outage.
func (r *resolver) told(o *outage, host string) {
	if o.warned {
		r.log.Info("the addresses of a name are told again", "name", host)
	}
	*o = outage{}
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
