package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Where the parts of the rate limit service are, in the callers' pod.
const (
	redisPort   = 6379
	serviceGRPC = 8082
	doorAddress = "127.0.0.1:8081" // what the gateway asks
)

// exampleTimeout is how long the example's gateway waits for the service, and
// answered what a request may take besides on a busy machine.
const (
	exampleTimeout = 100 * time.Millisecond
	answered       = exampleTimeout + 150*time.Millisecond
)

// dailyLimit is the limit that the service keeps: what is let in of some requests
// at any time of day.
const dailyLimit = 3

// runLimitsService has the example's gateway ask envoyproxy/ratelimit with Redis,
// as the example is written and with failure_mode_deny.
func runLimitsService(r *runner, res *result) error {
	res.setting = fmt.Sprintf("%s, envoyproxy/ratelimit and Redis beside the gateway, a limit of %d a day", exampleLimits, dailyLimit)
	for _, deny := range []bool{false, true} {
		if err := r.limitsService(res, deny); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) limitsService(res *result, deny bool) error {
	s, err := seedSetup(nil, "08")
	if err != nil {
		return err
	}
	how, failed := "as it is written", 200
	if deny {
		how, failed = "with failure_mode_deny", 500
		s.mesh = strings.Replace(s.mesh, "domain: production\n", "domain: production\n          failure_mode_deny: true\n", 1)
	}
	s.labels, s.mesh, s.bootstrap = gatewayLabels, s.mesh+limitGateway, fmt.Sprintf("clusters: {rate_limit_service: %q}\n", doorAddress)
	p := r.world.caller
	if err := r.startLimits(s, p); err != nil {
		return err
	}
	stop, err := r.startService(p)
	defer stop()
	if err != nil {
		return err
	}
	d, err := newDoor(p.ns)
	if err != nil {
		return err
	}
	defer d.close()
	c := newClient(p.ns, gatewayListen)
	defer c.close()

	statuses := func(n int) (list []int, longest time.Duration) {
		for range n {
			x := c.timed(limitHost)
			list, longest = append(list, x.status), max(longest, x.took)
		}
		return list, longest
	}
	all := func(status int) string { return fmt.Sprint([]int{status, status, status, status, status}) }
	list, _ := statuses(5)
	res.check(fmt.Sprint(list) == "[200 200 200 429 429]", how+": the service lets three in", "%v", list)
	for _, tt := range []struct {
		what   string
		do     doing
		status int
	}{
		{"answers 50 ms late", doing{delay: 50 * time.Millisecond}, 429},
		{"is off", doing{refuse: true}, failed},
		{"is slow by 120 ms", doing{delay: 120 * time.Millisecond}, failed}, // with 100 ms, either could come first
		{"says nothing", doing{silent: true}, failed},
		{"is wrong: it answers with HTTP/1.1", doing{garbage: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"}, failed},
	} {
		d.set(tt.do)
		if tt.status == 429 {
			c.get(limitHost) // opens a connection anew
		}
		list, longest := statuses(5)
		res.check(fmt.Sprint(list) == all(tt.status) && longest < answered, fmt.Sprintf("%s: the service %s: %d, within the time-out", how, tt.what, tt.status), "%v, the slowest in %s", list, ms(longest))
		d.set(doing{})
		r.asksAgain(res, c, how, tt.what)
	}
	return r.withoutRedis(res, c, how, failed)
}

// asksAgain waits until the service is asked again, after what is over.
func (r *runner) asksAgain(res *result, c *client, how, what string) {
	ctx, cancel := context.WithTimeout(r.ctx, 5*time.Second)
	defer cancel()
	begin := time.Now()
	err := poll(ctx, "the service", func() error {
		if x := c.get(limitHost); x.status != 429 {
			return fmt.Errorf("%s", x.outcome())
		}
		return nil
	})
	res.check(err == nil, fmt.Sprintf("%s: after it %s, the service is asked again", how, what), "%s later", ms(time.Since(begin)))
}

// withoutRedis has the service answer with errors.
func (r *runner) withoutRedis(res *result, c *client, how string, failed int) error {
	r.redis.kill()
	r.redis = nil
	var list []int
	for range 5 {
		list = append(list, c.get(limitHost).status)
	}
	ok := true
	for _, status := range list {
		ok = ok && status == failed
	}
	res.check(ok, fmt.Sprintf("%s: the service answers with errors, its Redis being gone: %d", how, failed), "%v", list)
	return nil
}

// startService starts Redis and envoyproxy/ratelimit in a pod; stop kills them.
func (r *runner) startService(p *pod) (stop func(), err error) {
	log := filepath.Join(r.world.dir, "service.log")
	var service *process
	stop = func() {
		service.kill()
		r.redis.kill()
		r.redis = nil
	}
	limits := filepath.Join(r.world.dir, "ratelimit", "config")
	if err := os.MkdirAll(limits, 0o755); err != nil {
		return stop, err
	}
	if err := os.WriteFile(filepath.Join(limits, "production.yaml"), []byte(limitText("day", dailyLimit)), 0o644); err != nil {
		return stop, err
	}
	if r.redis, err = startProcess(p.ns, "redis", log, "redis-server", "--port", fmt.Sprint(redisPort), "--bind", "127.0.0.1", "--save", "", "--dir", r.world.dir); err != nil {
		return stop, err
	}
	ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	if err := p.listens(ctx, r.redis, redisPort); err != nil {
		return stop, err
	}
	if service, err = startProcess(p.ns, "the rate limit service", log, "env", "USE_STATSD=false", "REDIS_SOCKET_TYPE=tcp", fmt.Sprintf("REDIS_URL=127.0.0.1:%d", redisPort),
		"RUNTIME_ROOT="+r.world.dir, "RUNTIME_SUBDIRECTORY=ratelimit", "RUNTIME_WATCH_ROOT=false", "HOST=127.0.0.1", "GRPC_HOST=127.0.0.1", "DEBUG_HOST=127.0.0.1",
		fmt.Sprintf("GRPC_PORT=%d", serviceGRPC), "DEBUG_PORT=6070", "PORT=8083", r.service); err != nil {
		return stop, err
	}
	return stop, p.listens(ctx, service, serviceGRPC)
}

// listens waits until a process of the pod listens.
func (p *pod) listens(ctx context.Context, of *process, port int) error {
	return poll(ctx, of.name, func() error {
		if err := of.alive(); err != nil {
			return err
		}
		c, err := p.ns.dial(ctx, fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
		}
		return err
	})
}

// doing is what a door does to those who come.
type doing struct {
	delay   time.Duration // of what comes back
	refuse  bool          // closes
	silent  bool          // takes everything and says nothing
	garbage string        // says this
}

// door is where the gateway finds the service: it passes connections on, unless
// it is told otherwise.
type door struct {
	ns       *namespace
	listener net.Listener
	open     sync.WaitGroup

	mu    sync.Mutex // guards what is below
	now   doing
	conns map[net.Conn]bool
}

// newDoor opens it. Its goroutines end with close.
func newDoor(n *namespace) (*door, error) {
	d := &door{ns: n, conns: map[net.Conn]bool{}}
	err := n.do(func() (err error) {
		d.listener, err = net.Listen("tcp", doorAddress)
		return err
	})
	if err != nil {
		return nil, err
	}
	d.open.Go(func() {
		for {
			c, err := d.listener.Accept()
			if err != nil {
				return
			}
			d.open.Go(func() { d.serve(c) })
		}
	})
	return d, nil
}

// set changes what it does, and ends the connections that there are.
func (d *door) set(now doing) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = now
	for c := range d.conns {
		c.Close()
	}
}

func (d *door) close() {
	d.listener.Close()
	d.set(doing{refuse: true})
	d.open.Wait()
}

// serve ends when either side does.
func (d *door) serve(c net.Conn) {
	d.mu.Lock()
	do := d.now
	d.conns[c] = true
	d.mu.Unlock()
	defer func() {
		c.Close()
		d.mu.Lock()
		delete(d.conns, c)
		d.mu.Unlock()
	}()
	if do.refuse {
		return
	}
	if do.silent || do.garbage != "" {
		c.Write([]byte(do.garbage))
		for b := make([]byte, 4<<10); ; {
			if _, err := c.Read(b); err != nil {
				return
			}
		}
	}
	up, err := d.ns.dial(context.Background(), fmt.Sprintf("127.0.0.1:%d", serviceGRPC))
	if err != nil {
		return
	}
	d.open.Go(func() { pass(up, c, 0) })
	pass(c, up, do.delay)
}

// pass copies from one to the other, each piece so much after it has come, and
// closes both. Its goroutine ends with from.
func pass(to, from net.Conn, delay time.Duration) {
	type piece struct {
		due  time.Time
		data []byte
	}
	pieces := make(chan piece, 16)
	go func() {
		defer close(pieces)
		for {
			b := make([]byte, 4<<10)
			n, err := from.Read(b)
			if err != nil {
				return
			}
			pieces <- piece{time.Now().Add(delay), b[:n]}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.data); err != nil {
			break
		}
	}
	to.Close()
	from.Close()
	for range pieces { // lets the other goroutine end
	}
}
