// Command netns breaks what joins clusters, and the clusters, under load, and
// says what became of the requests: three clusters in network namespaces of
// this machine, links between them that delay, lose and drop packets, and in
// the midst of it the built binary, as users run it.
//
// It needs Linux and root, and leaves nothing behind however it ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	isthmus, scenarios, out string
	service                 string
	rate, seconds           int
	keep, distance, limits  bool
}

func main() {
	log.SetFlags(0)
	var o options
	flag.StringVar(&o.isthmus, "isthmus", "bin/isthmus", "the binary to drive")
	flag.StringVar(&o.scenarios, "scenario", strings.Join(scenarioNames(), ","), "what to try")
	flag.IntVar(&o.rate, "rate", 300, "requests a second")
	flag.IntVar(&o.seconds, "seconds", 8, "how long to watch after an event")
	flag.StringVar(&o.out, "out", "", "Markdown file for the report, as well")
	flag.BoolVar(&o.keep, "keep", false, "leave the last scenario's clusters running, to look at, until interrupted")
	flag.BoolVar(&o.distance, "distance", false, "measure what protocols make of a long line, instead of scenarios")
	flag.BoolVar(&o.limits, "limits", false, "measure rate limits, instead of scenarios")
	flag.StringVar(&o.service, "service", "bin/ratelimit", "the binary of envoyproxy/ratelimit, for -limits")
	app := flag.String("app", "", "be the application of this pod (started by the program itself)")
	guarded := flag.String("guard", "", "clean up after the program and this folder of it (started by the program itself)")
	flag.Parse()
	var err error
	switch {
	case flag.NArg() > 0:
		err = fmt.Errorf("%s: only flags are expected, see -help", flag.Arg(0))
	case *app != "":
		err = serveApp(*app)
	case *guarded != "":
		err = guard(*guarded)
	default:
		err = o.run()
	}
	if err != nil {
		log.Fatal(err)
	}
}

// errMissed is the end of a run that was complete but not good enough.
var errMissed = errors.New("not all goals are met")

// run tries the scenarios and reports. Interrupts end it in order.
func (o options) run() error {
	if err := o.check(); err != nil {
		return err
	}
	list, err := chooseScenarios(o.scenarios)
	if o.limits {
		list = limitScenarios
	}
	for _, file := range []*string{&o.isthmus, &o.service} {
		if err == nil {
			*file, err = filepath.Abs(*file)
		}
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := sweep(0); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	pipe, err := startGuard(dir)
	if err != nil {
		return err
	}
	defer pipe.Close()
	return o.inWorld(ctx, dir, list)
}

// inWorld runs the scenarios in a world that ends with it.
func (o options) inWorld(ctx context.Context, dir string, list []scenario) (err error) {
	w, err := newWorld(dir, o.isthmus)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	r := &runner{ctx: ctx, world: w, service: o.service, rate: o.rate, window: time.Duration(o.seconds) * time.Second}
	if o.distance {
		return o.distances(r)
	}
	rep := report{command: o.command(), rate: o.rate}
	good := true
	for _, s := range list {
		res := r.run(s)
		if ctx.Err() != nil {
			return errors.New("interrupted: nothing written")
		}
		fmt.Print(res.line())
		rep.results = append(rep.results, res)
		good = good && res.ok()
	}
	if err := o.write(rep); err != nil {
		return err
	}
	if o.keep {
		fmt.Printf("The clusters run on. Look at them by, for example,\n  ip netns exec %s %s endpoints\nConfiguration and logs are in %s. Interrupt to end it.\n", w.caller.ns.name, o.isthmus, dir)
		<-ctx.Done()
	}
	if !good {
		return errMissed
	}
	return nil
}

// command is how to run the same again.
func (o options) command() string {
	s := fmt.Sprintf("bin/netns -rate %d -seconds %d", o.rate, o.seconds)
	if o.distance {
		s = fmt.Sprintf("bin/netns -distance -seconds %d", o.seconds)
	}
	if o.limits {
		s = "bin/netns -limits"
	}
	if o.scenarios != strings.Join(scenarioNames(), ",") {
		s += " -scenario " + o.scenarios
	}
	if o.out != "" {
		s += " -out " + o.out
	}
	return s
}

// check says what is missing on this machine.
func (o options) check() error {
	if o.rate < 1 || o.seconds < 1 {
		return errors.New("-rate and -seconds have to be 1 or more")
	}
	var missing []string
	if runtime.GOOS != "linux" {
		missing = append(missing, "Linux, for network namespaces")
	}
	if os.Geteuid() != 0 {
		missing = append(missing, "root: run it by sudo")
	}
	for _, tool := range []string{"ip", "ss"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, "the command "+tool+": install iproute2")
		}
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		missing = append(missing, "/dev/net/tun: load the kernel's module tun")
	}
	if _, err := os.Stat(o.isthmus); err != nil {
		missing = append(missing, o.isthmus+": build it by make build, or say where it is by -isthmus")
	}
	if o.limits {
		if _, err := os.Stat(o.service); err != nil {
			missing = append(missing, o.service+": make limits-measured builds it, or say where it is by -service")
		}
		if _, err := exec.LookPath("redis-server"); err != nil {
			missing = append(missing, "the command redis-server: install it")
		}
	}
	if len(missing) > 0 {
		return errors.New("netns needs what is not here:\n  " + strings.Join(missing, "\n  "))
	}
	return nil
}
