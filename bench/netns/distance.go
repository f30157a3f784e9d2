package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// The line between us-central and us-west while distance is measured. Its
// buffer is the rule of thumb: what the line carries in a round trip.
const (
	distanceDelay  = 20 * time.Millisecond // in one direction
	distanceRate   = 200e6 / 8             // bytes a second
	distanceBuffer = 2 * distanceDelay
	distanceLoss   = 0.01 // where packets are lost
)

// What goes over it.
const (
	distanceHost = "web.production.svc.cluster.remote"
	distancePod  = west + "-0"     // who serves: one pod, so that HTTP/2 has one connection
	smallRate    = 50              // small GETs a second
	largeStart   = 2 * time.Second // how long a large body has been coming when the small ones begin
	largeSize    = 1 << 40         // more than comes while it is watched
)

// congestion is Linux's default, whatever this machine's is. Routes may name one
// that /proc would not let a namespace have.
const congestion = "cubic"

// distance is what one protocol has shown over the line.
type distance struct {
	protocol string // between the proxies
	loss     float64
	alone    latencies // of small requests
	down, up beside
	failed   int // requests that got no 200
}

// beside is a large body and the small requests beside it.
type beside struct {
	large float64 // bytes a second of it, after largeStart
	small latencies
}

// distanceSetup is the configuration for a protocol between the proxies.
func distanceSetup(http2 bool) setup {
	policy := "DO_NOT_UPGRADE"
	if http2 {
		policy = "UPGRADE"
	}
	return setup{services: []string{"web"}, mesh: fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: production}
spec:
  host: %[1]s
  trafficPolicy:
    connectionPool: {http: {h2UpgradePolicy: %[2]s}}
  subsets:
  - {name: one, labels: {pod: %[3]s}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: production}
spec:
  hosts: [%[1]s]
  http:
  - route: [{destination: {host: %[1]s, subset: one}}]
`, distanceHost, policy, distancePod)}
}

// distances measures both protocols, without loss and with it.
func (r *runner) distances() ([]distance, error) {
	for _, p := range r.world.pods() {
		if err := p.ns.ip("route", "replace", "default", "via", p.cluster.router(), "congctl", congestion); err != nil {
			return nil, err
		}
	}
	var out []distance
	for _, loss := range []float64{0, distanceLoss} {
		for _, http2 := range []bool{false, true} {
			d, err := r.distance(loss, http2)
			if err != nil {
				return nil, err
			}
			fmt.Println(d)
			out = append(out, d)
		}
	}
	return out, nil
}

// distance measures one case: small requests alone, beside a large reply, and
// beside a large request.
func (r *runner) distance(loss float64, http2 bool) (d distance, err error) {
	d = distance{protocol: "HTTP/1.1", loss: loss}
	if http2 {
		d.protocol = "HTTP/2"
	}
	if err := r.reset(); err != nil {
		return d, err
	}
	if err := r.world.start(r.ctx, distanceSetup(http2)); err != nil {
		return d, err
	}
	r.world.link(central, west).set(condition{delay: distanceDelay, loss: loss, rate: distanceRate, buffer: distanceBuffer})
	c := newClient(r.world.caller.ns, outbound)
	defer c.close()
	if d.alone, err = r.small(c, &d); err != nil {
		return d, err
	}
	if d.down, err = r.beside(c, &d, r.download); err != nil {
		return d, fmt.Errorf("large reply over %s: %w", d.protocol, err)
	}
	if d.up, err = r.beside(c, &d, r.upload); err != nil {
		return d, fmt.Errorf("large request over %s: %w", d.protocol, err)
	}
	return d, nil
}

// small sends small requests for as long as it is watched. What opens the
// connections is not counted.
func (r *runner) small(c *client, d *distance) (latencies, error) {
	load := startOpenLoop(c, distanceHost, smallRate)
	err := r.sleep(time.Second + r.window)
	var took []time.Duration
	for _, x := range load.finish() {
		if x.failed() {
			d.failed++
		}
		if x.due >= time.Second {
			took = append(took, x.took)
		}
	}
	return latenciesOf(took), err
}

// beside sends small requests beside a large body.
func (r *runner) beside(c *client, d *distance, start func(*client) (*transfer, error)) (b beside, err error) {
	t, err := start(c)
	if err != nil {
		return b, err
	}
	defer t.close()
	if err := r.sleep(largeStart); err != nil {
		return b, err
	}
	b.large, err = t.rate(func() (err error) {
		b.small, err = r.small(c, d)
		return err
	})
	return b, err
}

// transfer is a large body under way, which ends when it is closed.
type transfer struct {
	conn  *clientConn
	moved func() (int64, error) // how much has come
	ended chan struct{}         // closed when it has, wanted or not
	why   error                 // it has
}

// transfer begins one on a connection of its own. Its goroutine moves bytes until
// the connection is closed.
func (c *client) transfer(head string, moved func() (int64, error), move func(*clientConn) error) (*transfer, error) {
	conn, err := c.take()
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, head); err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetDeadline(time.Time{}) // an earlier request's
	t := &transfer{conn: conn, moved: moved, ended: make(chan struct{})}
	go func() {
		t.why = move(conn)
		close(t.ended)
	}()
	return t, nil
}

// rate is how many bytes a second come while something is done.
func (t *transfer) rate(while func() error) (float64, error) {
	begin := time.Now()
	before, err := t.moved()
	if err == nil {
		err = while()
	}
	if err != nil {
		return 0, err
	}
	after, err := t.moved()
	if err != nil {
		return 0, err
	}
	select {
	case <-t.ended:
		return 0, fmt.Errorf("it has ended: %w", t.why)
	default:
	}
	return float64(after-before) / time.Since(begin).Seconds(), nil
}

func (t *transfer) close() {
	t.conn.Close()
	<-t.ended
}

// download asks for a large reply.
func (r *runner) download(c *client) (*transfer, error) {
	var came atomic.Int64
	return c.transfer(fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\n%s: %d\r\n\r\n", distanceHost, sizeHeader, largeSize),
		func() (int64, error) { return came.Load(), nil },
		func(conn *clientConn) error {
			res, err := http.ReadResponse(conn.in, nil)
			if err != nil {
				return err
			}
			if res.StatusCode != http.StatusOK {
				return fmt.Errorf("status %s", res.Status)
			}
			for buf := make([]byte, 64<<10); err == nil; {
				var n int
				n, err = res.Body.Read(buf)
				came.Add(int64(n))
			}
			return err
		})
}

// upload sends a large request; what has come of it the application says.
func (r *runner) upload(c *client) (*transfer, error) {
	return c.transfer("POST / HTTP/1.1\r\nHost: "+distanceHost+"\r\nContent-Length: "+strconv.Itoa(largeSize)+"\r\n\r\n",
		func() (int64, error) {
			n, err := r.world.pod(distancePod).counts("web")
			return n.Received, err
		},
		func(conn *clientConn) error {
			for buf := make([]byte, 64<<10); ; {
				if _, err := conn.Write(buf); err != nil {
					return err
				}
			}
		})
}
