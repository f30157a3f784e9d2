// Command peers measures Isthmus beside HAProxy, nginx and, where they are
// installed, Caddy and Traefik: on loopback and one after the other. Each is
// started with one thread on CPU 0, gets the same requests from CPU 1, where
// the upstream is too, and is stopped again. Rounds alternate, so that a noisy
// moment hits all alike; the tables give medians and ratios of the same run.
//
// What counts is the CPU time of the proxy for each request (user and system,
// from /proc): it hardly depends on how fast the load is, which throughput
// does, since the load's CPU is the bottleneck here.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

func main() {
	log.SetFlags(0)
	isthmus := flag.String("isthmus", "bin/isthmus", "the binary to measure")
	names := flag.String("case", strings.Join(caseNames(), ","), "what to measure")
	rounds := flag.Int("rounds", 5, "how often each is measured")
	seconds := flag.Int("seconds", 4, "how long each time; [rate] takes 8 at least")
	out := flag.String("out", "", "Markdown file for the report, as well; its chart goes beside it, as .svg")
	serve := flag.String("serve", "", "be the upstream, at this address (started by the measurement itself)")
	serveGRPC := flag.String("serve-grpc", "", "be the upstream of calls, at this address (started by the measurement itself)")
	reverse := flag.String("reverse", "", "be net/http's reverse proxy, at this address (started by the measurement itself)")
	to := flag.String("upstream", "", "URL that -reverse sends to")
	certificate := flag.String("certificate", "", "file of -reverse's certificate and key")
	grpc := flag.Bool("grpc", false, "-reverse sends on in HTTP/2")
	generate := flag.Int("generate", 0, "send so many requests a second to -target (started by the measurement itself)")
	fresh := flag.Bool("fresh", false, "requests of -generate belong to no trace yet")
	slow := flag.Int("slow", 0, "hold so many half sent requests open at -target (started by the measurement itself)")
	streams := flag.Int("streams", -1, "-slow holds so many calls on each connection, of HTTP/2, instead (started by the measurement itself)")
	collects := flag.Bool("collect", false, "take spans and keep none (started by the measurement itself)")
	writes := flag.String("write", "", "write lines to this file and say what that took (started by the measurement itself)")
	target := flag.String("target", "", "address for -generate and -slow")
	flag.Parse()
	// However it ends, what it has started ends with it: nginx's workers would
	// survive their master.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	var err error
	switch {
	case *serve != "":
		err = upstream(*serve)
	case *serveGRPC != "":
		err = grpcUpstream(*serveGRPC)
	case *reverse != "":
		err = serveReverse(*reverse, *to, *certificate, *grpc)
	case *collects:
		err = collect()
	case *writes != "":
		err = writeFile(*writes)
	case *generate > 0:
		err = generateLoad(*target, *generate, *seconds, *fresh)
	case *slow > 0 && *streams >= 0:
		err = holdStreams(*target, *slow, *streams)
	case *slow > 0:
		err = holdSlow(*target, *slow)
	default:
		err = compare(ctx, *isthmus, *names, *rounds, *seconds, *out)
	}
	if ctx.Err() != nil {
		err = errors.New("interrupted: nothing written")
	}
	if err != nil {
		log.Fatal(err)
	}
}

// compare measures and reports.
func compare(ctx context.Context, isthmus, names string, rounds, seconds int, out string) error {
	if runtime.NumCPU() < 2 {
		return errors.New("two CPUs are needed: one for the proxy, one for the load")
	}
	if rounds < 1 || seconds < 1 {
		return errors.New("-rounds and -seconds have to be 1 or more")
	}
	cases, err := chooseCases(names)
	if err != nil {
		return err
	}
	if err := limitDescriptors(); err != nil {
		return err
	}
	path, err := filepath.Abs(isthmus)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%w: build it first, by make build, or say where it is by -isthmus", err)
	}
	list, missing, err := findPeers(path)
	if err != nil {
		return err
	}
	for i, c := range cases {
		cases[i] = c.against(list)
	}
	b := &bench{ctx: ctx, rounds: rounds, seconds: seconds, peers: list}
	res, err := b.measure(cases)
	if err != nil {
		return err
	}
	r := report{cases: cases, peers: list, missing: missing, rounds: rounds, seconds: seconds, results: res, troubles: b.troubles}
	fmt.Print(r.tables())
	if out != "" {
		err = r.write(out)
	}
	if b.failed {
		err = errors.Join(err, errors.New("not everything has figures; what failed is said above"))
	}
	return err
}

// write makes the page, and the chart beside it.
func (r report) write(out string) error {
	chart := strings.TrimSuffix(out, filepath.Ext(out)) + ".svg"
	if err := os.WriteFile(chart, []byte(r.chart()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(out, []byte(r.page(filepath.Base(chart))), 0o644)
}
