package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func newDemoCommand() *cobra.Command {
	var seconds int
	cmd := &cobra.Command{
		Use:   "demo [--seconds N]",
		Short: "Show the whole thing on this machine: two clusters on loopback, a killed cluster, commands to try",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if seconds < 0 {
				return usageError{fmt.Errorf("--seconds %d: must not be negative", seconds)}
			}
			// However it ends, what it has started and written goes with it: by Ctrl-C,
			// with its terminal, or because nobody reads its output any more.
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
			defer stop()
			if seconds > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
				defer cancel()
			}
			return runDemo(ctx, cmd.OutOrStdout())
		},
	}
	cmd.Flags().IntVar(&seconds, "seconds", 0, "stop by itself after so many seconds")
	return cmd
}

// demo tells a story on the terminal.
type demo struct {
	ctx    context.Context
	out    io.Writer
	colour bool
	mesh   *demoMesh
}

// runDemo tells the story, then waits for ctx. Being told to stop is no error.
func runDemo(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp("", "isthmus-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m, err := newDemoMesh(dir, untraced)
	if err != nil {
		return err
	}
	d := &demo{ctx: ctx, out: out, colour: isTerminal(out), mesh: m}
	defer func() {
		fmt.Fprintln(out)
		d.say("Stopping every process.")
		m.stop()
	}()
	for _, chapter := range []func() error{d.begin, d.geo, d.weights, d.localities, d.kill, d.end} {
		err := chapter()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// untraced has no spans sent: nobody runs the collector that the example's
// 11-tracing.yaml sends all to.
const untraced = "tracing: {sampling: 0}\n"

func (d *demo) paint(code, text string) string {
	if !d.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (d *demo) title(n int, text string) {
	fmt.Fprintf(d.out, "\n%s\n", d.paint("1;36", fmt.Sprintf("%d. %s", n, text)))
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, "   "+format+"\n", args...) }

// pause lets people read. Its length is the reader's, not the program's, so it
// is short where nobody watches.
func (d *demo) pause(seconds float64) {
	if !d.colour {
		seconds /= 4
	}
	select {
	case <-d.ctx.Done():
	case <-time.After(time.Duration(seconds * float64(time.Second))):
	}
}

// bars shows who served how many.
func (d *demo) bars(counts map[string]int) {
	total := 0
	for _, n := range counts {
		total += n
	}
	for _, by := range slices.Sorted(maps.Keys(counts)) {
		n := counts[by]
		code := "32"
		if strings.HasSuffix(by, west) {
			code = "34"
		}
		if !strings.Contains(by, ".") {
			code = "31" // a status, not a service
		}
		width := max(1, n*40/max(total, 1))
		d.say("%-32s %s %d", by, d.paint(code, strings.Repeat("█", width)), n)
	}
}

func (d *demo) curl(port int, host, more string) string {
	if more != "" {
		more = " " + more
	}
	return d.paint("2", fmt.Sprintf("$ curl -H 'Host: %s'%s http://127.0.0.1:%d/", host, more, port))
}

func (d *demo) begin() error {
	fmt.Fprintln(d.out, d.paint("1", "Isthmus: two clusters on one machine"))
	fmt.Fprint(d.out, `
        us-central                              us-west
   ┌───────────────────┐                  ┌───────────────────┐
   │ callers' proxy    │ ◄──── gossip ───►│ callers' proxy    │
   │ gateway, outbound │                  │ gateway, outbound │
   │        │          │                  │        │          │
   │ users    + proxy  │                  │ users    + proxy  │
   │ services + proxy  │ ◄─── requests ──►│ services + proxy  │
   │ orders   + proxy  │                  │ orders   + proxy  │
   └───────────────────┘                  └───────────────────┘

`)
	d.say("Each proxy is a process of its own: isthmus run, with the same Istio resources.")
	d.say("They speak mTLS, with certificates as isthmus certs makes them, and take nothing else (06-encryption.yaml).")
	start := time.Now()
	ctx, cancel := context.WithTimeout(d.ctx, 30*time.Second)
	defer cancel()
	if err := d.mesh.start(ctx); err != nil {
		return err
	}
	d.say("%d proxies are up and know each other's endpoints, %.1f s after the first start.", len(d.mesh.nodes), time.Since(start).Seconds())
	d.pause(2)
	return nil
}

func (d *demo) callers(cluster string) *demoNode { return d.mesh.node(cluster, "callers") }

func (d *demo) geo() error {
	d.title(1, "A header decides on the cluster (03-geo-routing.yaml)")
	port := d.callers(central).gateway
	client := newDemoClient(port)
	for _, location := range []string{"us-central", "us-west", ""} {
		var header []string
		more := ""
		if location != "" {
			header = []string{"geo-location", location}
			more = fmt.Sprintf("-H 'geo-location: %s'", location)
		}
		status, by, err := client.get("user-service.example.com", "/", header...)
		if err != nil {
			return err
		}
		fmt.Fprintf(d.out, "   %s\n", d.curl(port, "user-service.example.com", more))
		d.say("%d, served by %s", status, d.paint("1", by))
		d.pause(1)
	}
	return nil
}

func (d *demo) weights() error {
	d.title(2, "70 % here, 30 % there (04-latency-routing.yaml)")
	fmt.Fprintf(d.out, "   %s\n", d.curl(d.callers(central).outbound, "payment-service.production.global", ""))
	d.bars(newDemoClient(d.callers(central).outbound).count(500, "payment-service.production.global"))
	d.pause(1.5)
	return nil
}

func (d *demo) localities() error {
	d.title(3, "80 % stay near by, seen from either side (localityLbSetting)")
	for _, cluster := range []string{central, west} {
		d.say("from %s:", cluster)
		d.bars(newDemoClient(d.callers(cluster).outbound).count(500, "order-service.production.global"))
	}
	d.pause(1.5)
	return nil
}

func (d *demo) kill() error {
	d.title(4, "A cluster is killed, and nobody notices")
	client := newDemoClient(d.callers(central).outbound)
	load := client.steady(8, 5*time.Millisecond,
		"order-service.production.global", "catalog-service.production.global", "inventory-service.production.global")
	defer load.stop()
	before := func() map[string]int { _, _, by := load.now(); return by }
	watch := func(seconds int) error {
		for range seconds {
			then := before()
			select {
			case <-d.ctx.Done():
				return d.ctx.Err()
			case <-time.After(time.Second):
			}
			sent, failures, by := load.now()
			perSecond := map[string]int{}
			for who, n := range by {
				_, cluster, _ := strings.Cut(who, ".")
				perSecond[cluster] += n - then[who]
			}
			failed := d.paint("32", "0 failed")
			if len(failures) > 0 {
				failed = d.paint("31", fmt.Sprintf("%d failed", len(failures)))
			}
			d.say("us-central %4d/s   us-west %4d/s   %d sent, %s", perSecond[central], perSecond[west], sent, failed)
		}
		return nil
	}
	if err := watch(2); err != nil {
		return err
	}
	d.say("%s", d.paint("1;31", "SIGKILL to every service and sidecar of us-central"))
	d.mesh.killCluster(central)
	if err := watch(4); err != nil {
		return err
	}
	d.say("%s", d.paint("1;32", "us-central starts again"))
	if err := d.mesh.startCluster(central, false); err != nil {
		return err
	}
	if err := watch(4); err != nil {
		return err
	}
	load.stop()
	sent, failures, _ := load.now()
	if len(failures) > 0 {
		return fmt.Errorf("%d of %d requests failed, the first: %w", len(failures), sent, errors.New(failures[0]))
	}
	d.say("%d requests, none failed. inventory-service's destination of weight 0 was its standby.", sent)
	return nil
}

func (d *demo) end() error {
	c, w := d.callers(central), d.callers(west)
	d.title(5, "Try it yourself")
	for _, line := range []string{
		fmt.Sprintf("curl -i -H 'Host: user-service.example.com' -H 'geo-location: us-west' http://127.0.0.1:%d/", c.gateway),
		fmt.Sprintf("curl -H 'Host: catalog-service.production.global' -H 'user-type: premium' http://127.0.0.1:%d/", c.outbound),
		fmt.Sprintf("curl -H 'Host: user-service.production.svc.cluster.remote' http://127.0.0.1:%d/", w.outbound),
		fmt.Sprintf("curl -i http://127.0.0.1:%d/    # plain text at a sidecar: STRICT, no answer", d.mesh.node(west, "users").inbound),
		fmt.Sprintf("%s top --admin http://127.0.0.1:%d    # or http://127.0.0.1:%d/ in a browser", d.mesh.program, c.admin, c.admin),
		fmt.Sprintf("%s endpoints --admin http://127.0.0.1:%d", d.mesh.program, c.admin),
		fmt.Sprintf("%s routes --admin http://127.0.0.1:%d", d.mesh.program, c.admin),
		fmt.Sprintf("%s members --admin http://127.0.0.1:%d", d.mesh.program, c.admin),
		fmt.Sprintf("ls %s/%s    # edit a file: it takes effect at once", d.mesh.dir, central),
	} {
		fmt.Fprintf(d.out, "   %s\n", line)
	}
	fmt.Fprintln(d.out)
	d.say("Ctrl-C ends it.")
	return nil
}
