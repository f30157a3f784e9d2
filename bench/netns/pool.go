package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"time"
)

// limits are those of a connectionPool of 09-circuit-breakers.yaml.
type limits struct {
	service                     string
	connections, pending, perOn int // maxConnections, http1MaxPendingRequests, maxRequestsPerConnection
	connectTimeout              time.Duration
}

func runSeedPoolPayment(r *runner, res *result) error {
	return r.pool(res, limits{"payment-service", 100, 1000, 10, 30 * time.Millisecond})
}

func runSeedPoolOrder(r *runner, res *result) error {
	l := limits{"order-service", 200, 2000, 20, 50 * time.Millisecond}
	if err := r.pool(res, l); err != nil {
		return err
	}
	out, err := exec.Command("ip", "netns", "exec", r.world.caller.ns.name, "ss", "-tnoH", "dport", "=", fmt.Sprint(servicePort(l.service))).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ss: %w: %s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	n := strings.Count(string(out), "timer:(keepalive,119min") + strings.Count(string(out), "timer:(keepalive,120min")
	res.check(n == len(lines), "tcpKeepalive.time 7200s on every connection", "on %d of %d", n, len(lines))
	return nil
}

// pool observes the limits where they act: the callers' proxy connects to the
// applications themselves, which count connections.
func (r *runner) pool(res *result, l limits) error {
	s, err := seedSetup(nil, "09")
	s.caller = r.direct(l.service)
	c, err := r.startSeed(res, s, err, "09-circuit-breakers.yaml alone; the applications of us-central by EndpointSlice, without sidecars")
	if err != nil {
		return err
	}
	defer c.close()
	host := l.service + ".production.svc.cluster.local"
	for _, observe := range []func(*result, *client, string, limits) error{r.requestsPerConnection, r.connections, r.pendingRequests, r.connectTimeout} {
		if err := observe(res, c, host, l); err != nil {
			return err
		}
	}
	return nil
}

// direct is a Service with the applications of us-central as endpoints, and
// others at further addresses.
func (r *runner) direct(service string, more ...string) string {
	addresses := more
	for _, p := range r.world.cluster(central).pods {
		addresses = append(addresses, p.address)
	}
	return serviceResource(service) + fmt.Sprintf(`apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: %[1]s
  namespace: production
  labels: {kubernetes.io/service-name: %[1]s}
addressType: IPv4
ports: [{name: http, port: %[2]d}]
endpoints: [{addresses: ["%[3]s"]}]
`, service, servicePort(service), strings.Join(addresses, `"]}, {addresses: ["`))
}

func (r *runner) requestsPerConnection(res *result, c *client, host string, l limits) error {
	if err := r.world.turnAll(l.service, knobs{}); err != nil {
		return err
	}
	n := 10 * l.perOn
	replies := closedLoop(c, 1, n, host)
	most, fewest := 0, 0
	for _, p := range r.world.cluster(central).pods {
		seen, err := p.counts(l.service)
		if err != nil {
			return err
		}
		most = max(most, seen.MostOnOne)
		if fewest == 0 || seen.FewestOnEnded > 0 && seen.FewestOnEnded < fewest {
			fewest = seen.FewestOnEnded
		}
	}
	failed := len(replies) - byCluster(replies)[central]
	res.check(failed == 0 && most == l.perOn && fewest == l.perOn, fmt.Sprintf("maxRequestsPerConnection %d: the next one goes on a new connection", l.perOn),
		"%d requests, %d failed; at most %d on a connection, at least %d on one that has ended", n, failed, most, fewest)
	return nil
}

// burst sends n requests at once while the applications hold their replies,
// waits until so many are held there, looks, and lets them go.
func (r *runner) burst(c *client, host string, l limits, n int, look func(answered <-chan reply) error) ([]reply, error) {
	if err := r.world.turnAll(l.service, knobs{Hold: true}); err != nil {
		return nil, err
	}
	answered := make(chan reply, n) // never full
	for range n {
		go func() { answered <- c.timed(host) }() // ends with the reply, at the latest after replyTimeout
	}
	ctx, cancel := context.WithTimeout(r.ctx, 10*time.Second)
	defer cancel()
	err := poll(ctx, "the connections that may be opened", func() error {
		under, _, err := r.held(l.service)
		if err == nil && under < l.connections {
			err = fmt.Errorf("%d requests are held by the applications", under)
		}
		return err
	})
	if err == nil {
		err = look(answered)
	}
	if e := r.world.turnAll(l.service, knobs{}); err == nil {
		err = e
	}
	var replies []reply
	for range n - len(replies) {
		replies = append(replies, <-answered)
	}
	return replies, err
}

// held is how many requests the applications hold, and on how many
// connections.
func (r *runner) held(service string) (requests, connections int, err error) {
	for _, p := range r.world.cluster(central).pods {
		c, err := p.counts(service)
		if err != nil {
			return 0, 0, err
		}
		requests, connections = requests+c.Under, connections+c.Connections
	}
	return requests, connections, nil
}

// settle is how long something may take that must not happen.
const settle = 500 * time.Millisecond

func (r *runner) connections(res *result, c *client, host string, l limits) error {
	under, open := 0, 0
	replies, err := r.burst(c, host, l, l.connections+1, func(<-chan reply) (err error) {
		if err := r.sleep(settle); err != nil {
			return err
		}
		under, open, err = r.held(l.service)
		return err
	})
	res.check(under == l.connections && open == l.connections, fmt.Sprintf("maxConnections %d: one request more waits", l.connections),
		"%d requests on %d connections while %d wanted to be", under, open, l.connections+1)
	served := byCluster(replies)[central]
	res.check(served == len(replies), "it is served in its turn", "%d of %d served", served, len(replies))
	return err
}

func (r *runner) pendingRequests(res *result, c *client, host string, l limits) error {
	refused := 0
	n := l.connections + l.pending + 1
	replies, err := r.burst(c, host, l, n, func(answered <-chan reply) error {
		ctx, cancel := context.WithTimeout(r.ctx, 10*time.Second)
		defer cancel()
		if err := poll(ctx, "one request too many", func() error {
			if len(answered) == 0 {
				return fmt.Errorf("none of %d was refused", n)
			}
			return nil
		}); err != nil {
			return nil // said below
		}
		err := r.sleep(settle)
		refused = len(answered)
		return err
	})
	overloaded, served := 0, 0
	for _, x := range replies {
		switch {
		case x.status == http.StatusServiceUnavailable && x.header.Get("x-envoy-overloaded") == "true":
			overloaded++
		case !x.failed():
			served++
		}
	}
	res.check(refused == 1 && overloaded == 1, fmt.Sprintf("http1MaxPendingRequests %d: one request more gets 503 with x-envoy-overloaded at once", l.pending), "%d of %d were refused, %d so", refused, n, overloaded)
	res.check(served == n-1, "all others are served", "%d of %d", served, n)
	return err
}

// nobodyThere is an address of us-central that no pod has: nobody answers.
const nobodyThere = "10.77.1.200"

func (r *runner) connectTimeout(res *result, c *client, host string, l limits) error {
	s, err := seedSetup(nil, "09")
	if err != nil {
		return err
	}
	s.caller = r.direct(l.service, nobodyThere)
	if err := r.world.configure(s); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.ctx, 10*time.Second)
	defer cancel()
	if err := poll(ctx, "the callers' proxy reads its files anew", func() error {
		list, err := r.world.caller.endpoints()
		if err != nil {
			return err
		}
		for _, e := range list {
			if strings.HasPrefix(e.Address, nobodyThere+":") {
				return nil
			}
		}
		return errors.New("it knows no endpoint " + nobodyThere)
	}); err != nil {
		return err
	}
	// Connections to the others are kept; one in three requests goes to who is
	// not there, until that is known.
	slowest, failed := time.Duration(0), 0
	for range 50 {
		x := c.timed(host)
		slowest = max(slowest, x.took)
		if x.failed() {
			failed++
		}
	}
	res.check(failed == 0 && slowest >= l.connectTimeout && slowest < l.connectTimeout+50*time.Millisecond,
		fmt.Sprintf("connectTimeout %v: another endpoint answers then", l.connectTimeout), "%d of 50 failed, the slowest took %s", failed, ms(slowest))
	return nil
}
