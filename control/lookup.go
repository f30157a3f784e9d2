package control

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

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
		all, ttl, incomplete := r.families(ctx, conf, fqdn)
		if len(all) > 0 {
			slices.SortFunc(all, netip.Addr.Compare)
			return slices.Compact(all), ttl, incomplete
		}
		failed = cmp.Or(incomplete, failed)
	}
	return nil, 0, failed
}

// otherFamily is how much longer the addresses of one family are waited for once those of
// the other are there, or it is said that there is no such name, which some servers say of
// AAAA alone. Some never answer for AAAA: whoever waits for all their time-outs, for each
// name of a search list, has no endpoints meanwhile, and keeps one of the slots.
const otherFamily = time.Second

// families asks for a name's addresses of both families at once. An error beside
// addresses is why those of one are not known.
func (r *resolver) families(ctx context.Context, conf *dns.ClientConfig, fqdn string) (all []netip.Addr, ttl time.Duration, incomplete error) {
	type answer struct {
		addrs  []netip.Addr
		ttl    time.Duration
		none   bool // there is no such name
		server string
		err    error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer, 2)
	for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
		own := *conf
		own.Servers = slices.Clone(conf.Servers)
		r.workers.Go(func() { // ends with ctx
			addrs, ttl, none, err := ask(ctx, &own, fqdn, t)
			a := answer{addrs, ttl, none, "", err}
			if err == nil {
				a.server = own.Servers[0]
			}
			answers <- a
		})
	}
	ttl = maxTTL
	var late <-chan time.Time
	for range 2 {
		select {
		case a := <-answers:
			if a.err != nil {
				incomplete = a.err
				continue
			}
			toFront(conf.Servers, a.server)
			r.mu.Lock()
			r.answered = a.server
			r.mu.Unlock()
			all, ttl = append(all, a.addrs...), min(ttl, a.ttl)
			if len(a.addrs) > 0 || a.none {
				late = time.After(otherFamily)
			}
		case <-late:
			if len(all) == 0 { // there is no such name
				return nil, ttl, nil
			}
			return all, ttl, errNoAnswer
		}
	}
	return all, ttl, incomplete
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
func ask(ctx context.Context, conf *dns.ClientConfig, fqdn string, t uint16) (addrs []netip.Addr, ttl time.Duration, none bool, err error) {
	q := new(dns.Msg)
	q.SetQuestion(fqdn, t)
	q.SetEdns0(1232, false)
	timeout := time.Duration(max(conf.Timeout, 1)) * time.Second
	err = errNoAnswer
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
				addrs, ttl = addresses(reply)
				return addrs, ttl, reply.Rcode == dns.RcodeNameError, nil
			default:
				err = errors.New(dns.RcodeToString[reply.Rcode])
			}
		}
	}
	return nil, 0, false, err
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
