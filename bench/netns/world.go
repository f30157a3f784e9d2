package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// The clusters. Their regions are those of the configuration in seedFolder.
const (
	central = "us-central" // where the callers are
	west    = "us-west"
	europe  = "eu-west"
)

// Delays of the links in one direction.
const (
	nearDelay = 5 * time.Millisecond  // us-central to us-west
	farDelay  = 15 * time.Millisecond // either to eu-west: a round trip to connect and one for the request take 60 ms
)

// world is three clusters on this machine, each a network namespace that
// routes, with a namespace for each pod.
type world struct {
	dir      string // configuration, keys, logs
	isthmus  string // the binary that is driven
	self     string
	clusters []*cluster
	links    []*link
	caller   *pod // a proxy without an application, in us-central
}

// newWorld makes namespaces and links; nothing runs in them yet.
func newWorld(dir, isthmus string) (*world, error) {
	w := &world{dir: dir, isthmus: isthmus}
	err := w.build()
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) build() (err error) {
	if w.self, err = os.Executable(); err != nil {
		return err
	}
	key, err := exec.Command(w.isthmus, "keygen").Output()
	if err != nil {
		return fmt.Errorf("%s keygen: %w", w.isthmus, err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "gossip.key"), key, 0o600); err != nil {
		return err
	}
	for i, name := range []string{central, west, europe} {
		c := &cluster{name: name, index: i + 1}
		w.clusters = append(w.clusters, c)
		if err := c.build(); err != nil {
			return err
		}
	}
	if w.caller, err = w.clusters[0].addPod("caller", 9); err != nil {
		return err
	}
	for _, pair := range []struct {
		a, b  int
		delay time.Duration
	}{{0, 1, nearDelay}, {0, 2, farDelay}, {1, 2, farDelay}} {
		l, err := newLink(w.clusters[pair.a], w.clusters[pair.b], pair.delay)
		if err != nil {
			return err
		}
		w.links = append(w.links, l)
	}
	return nil
}

// close ends all processes, links and namespaces.
func (w *world) close() error {
	var errs []error
	w.stop()
	for _, l := range w.links {
		l.close()
	}
	for _, p := range w.pods() {
		if p.ns != nil {
			errs = append(errs, p.ns.close())
		}
	}
	for _, c := range w.clusters {
		if c.ns != nil {
			errs = append(errs, c.ns.close())
		}
	}
	return errors.Join(errs...)
}

// pods are all pods, the callers' too.
func (w *world) pods() []*pod {
	all := w.applications()
	if w.caller != nil {
		all = append(all, w.caller)
	}
	return all
}

// applications are the pods that have one.
func (w *world) applications() []*pod {
	var all []*pod
	for _, c := range w.clusters {
		all = append(all, c.pods...)
	}
	return all
}

func (w *world) cluster(name string) *cluster {
	for _, c := range w.clusters {
		if c.name == name {
			return c
		}
	}
	panic("no such cluster: " + name)
}

// pod finds a pod by its name, as "us-west-0".
func (w *world) pod(name string) *pod {
	for _, p := range w.pods() {
		if p.name == name {
			return p
		}
	}
	panic("no such pod: " + name)
}

// link is the one between two clusters.
func (w *world) link(a, b string) *link {
	for _, l := range w.links {
		if x, y := l.ends[0].cluster.name, l.ends[1].cluster.name; x == a && y == b || x == b && y == a {
			return l
		}
	}
	panic("no such link: " + a + " " + b)
}

// start starts every application and proxy with a configuration, and waits
// until the callers' proxy knows all endpoints as healthy.
func (w *world) start(ctx context.Context, s setup) error {
	if err := w.configure(s); err != nil {
		return err
	}
	for _, p := range w.pods() {
		if err := w.startPod(p); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, p := range w.applications() {
		if err := w.serving(ctx, p); err != nil {
			return err
		}
	}
	return w.settled(ctx, s)
}

// stop kills everything that runs, and forgets how the links were.
func (w *world) stop() {
	for _, p := range w.pods() {
		p.kill()
	}
}

// serving waits until a pod's application answers.
func (w *world) serving(ctx context.Context, p *pod) error {
	return poll(ctx, "the application of "+p.name, func() error {
		if err := p.app.alive(); err != nil {
			return err
		}
		_, err := p.counts(services[0])
		return err
	})
}

// settled waits until the callers' proxy knows all pods of all services.
func (w *world) settled(ctx context.Context, s setup) error {
	return poll(ctx, "the callers' proxy knows every endpoint", func() error {
		if err := w.caller.proxy.alive(); err != nil {
			return err
		}
		list, err := w.caller.endpoints()
		if err != nil {
			return err
		}
		healthy := map[string]bool{}
		for _, e := range list {
			if e.Healthy {
				healthy[e.Service+" "+e.Address] = true
			}
		}
		for _, p := range w.applications() {
			for _, name := range s.services {
				if !healthy[name+".production "+p.address+":15006"] {
					return fmt.Errorf("%s of %s is not known as healthy", name, p.name)
				}
			}
		}
		return nil
	})
}

// poll calls f until it succeeds.
func poll(ctx context.Context, what string, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w: %w", what, ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// turnAll turns the knobs of a service everywhere.
func (w *world) turnAll(service string, k knobs) error {
	for _, p := range w.applications() {
		if err := p.turn(service, k); err != nil {
			return err
		}
	}
	return nil
}

// requests is how many requests all applications of a service have seen.
func (w *world) requests(service string) (int, error) {
	n := 0
	for _, p := range w.applications() {
		if p.app == nil {
			continue // killed
		}
		c, err := p.counts(service)
		if err != nil {
			return 0, err
		}
		n += c.Requests
	}
	return n, nil
}
