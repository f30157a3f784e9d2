package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"isthmus/admin"
)

// The clusters. Their regions are those of the configuration in seedFolder.
const (
	central = "us-central" // where the callers are
	west    = "us-west"
	europe  = "eu-west"
)

// domains say which cluster the suffixes of host names mean in us-central.
const domains = "{cluster.local: us-central, cluster.remote: us-west, cluster.backup: eu-west, cluster.premium: eu-west}"

// podsPerCluster is how many pods with an application each cluster has.
const podsPerCluster = 2

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

// cluster is a site: a namespace with a bridge for its pods.
type cluster struct {
	name  string
	index int // from 1
	ns    *namespace
	pods  []*pod // with an application each
}

func (c *cluster) subnet() string   { return fmt.Sprintf("10.77.%d.0/24", c.index) }
func (c *cluster) router() string   { return fmt.Sprintf("10.77.%d.1", c.index) }
func (c *cluster) locality() string { return c.name + "1/" + c.name + "1-a" }

// pod is a namespace with a proxy and, for all but the callers', an
// application.
type pod struct {
	name    string
	address string
	cluster *cluster
	ns      *namespace
	client  *http.Client // for admin and control, from within the pod

	app, proxy *process
}

// setup is the configuration that a scenario runs with.
type setup struct {
	services []string // that have sidecars, and so are known to all by gossip
	mesh     string   // resources that every proxy reads
	caller   string   // resources that the callers' proxy reads besides

	labels    map[string]string // of every pod, besides
	bootstrap string            // fields of every proxy's bootstrap file, besides
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

// build makes the cluster's namespace, its bridge and its pods.
func (c *cluster) build() (err error) {
	if c.ns, err = newNamespace(c.name); err != nil {
		return err
	}
	if err := c.ns.set("ipv4/ip_forward", "1"); err != nil {
		return err
	}
	for _, args := range []string{
		"link add br0 type bridge",
		"address add " + c.router() + "/24 dev br0",
		"link set br0 up",
	} {
		if err := c.ns.ip(strings.Fields(args)...); err != nil {
			return err
		}
	}
	for i := range podsPerCluster {
		p, err := c.addPod(fmt.Sprint(i), 10+i)
		if err != nil {
			return err
		}
		c.pods = append(c.pods, p)
	}
	return nil
}

// addPod makes a pod's namespace and its cable to the bridge.
func (c *cluster) addPod(suffix string, host int) (*pod, error) {
	p := &pod{name: c.name + "-" + suffix, address: fmt.Sprintf("10.77.%d.%d", c.index, host), cluster: c}
	var err error
	if p.ns, err = newNamespace(p.name); err != nil {
		return nil, err
	}
	p.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return p.ns.dial(ctx, address) },
	}}
	veth := "pod-" + suffix
	if err := c.ns.ip("link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", p.ns.name); err != nil {
		return p, err
	}
	if err := c.ns.ip("link", "set", veth, "master", "br0", "up"); err != nil {
		return p, err
	}
	for _, args := range []string{
		"address add " + p.address + "/24 dev eth0",
		"link set eth0 up",
		"route add default via " + c.router(),
	} {
		if err := p.ns.ip(strings.Fields(args)...); err != nil {
			return p, err
		}
	}
	return p, nil
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

// configure writes what the proxies read.
func (w *world) configure(s setup) error {
	var known strings.Builder
	for _, name := range s.services {
		known.WriteString(serviceResource(name))
	}
	for file, text := range map[string]string{"mesh/services.yaml": known.String(), "mesh/rules.yaml": s.mesh, "caller/rules.yaml": s.caller} {
		file = filepath.Join(w.dir, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := replaceFile(file, text); err != nil {
			return err
		}
	}
	for _, p := range w.pods() {
		if err := os.WriteFile(w.bootstrapFile(p), []byte(w.bootstrap(p, s)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// replaceFile writes a file that a proxy may be reading: it sees the one before
// or the new one.
func replaceFile(file, text string) error {
	if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// serviceResource is a Service whose pods bear its name as a label.
func serviceResource(name string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %s, namespace: production}
spec:
  selector: {%s: "yes"}
  ports: [{name: http, port: 80, targetPort: %d}]
---
`, name, name, servicePort(name))
}

func (w *world) bootstrapFile(p *pod) string { return filepath.Join(w.dir, p.name+".yaml") }

func (w *world) bootstrap(p *pod, s setup) string {
	labels := map[string]string{"pod": p.name}
	maps.Copy(labels, s.labels)
	if p != w.caller {
		for _, name := range s.services {
			labels[name] = "yes"
		}
	}
	text, _ := json.Marshal(labels) // a map of strings
	var join []string
	for _, c := range w.clusters {
		join = append(join, c.pods[0].address+":7946")
	}
	return fmt.Sprintf(`node:
  name: %s
  address: %s
  cluster: %s
  locality: %s
  namespace: production
  labels: %s
domains: %s
listeners:
  outbound: 127.0.0.1:15001
  inbound: 0.0.0.0:15006
  gateway: {bind: 127.0.0.1}
  admin: 127.0.0.1:15000
  metrics: ""
gossip:
  bind: 0.0.0.0:7946
  advertise: %s:7946
  join: [%s]
  keys: [gossip.key]
%s`, p.name, p.address, p.cluster.name, p.cluster.locality(), text, domains, p.address, strings.Join(join, ", "), s.bootstrap)
}

// startPod starts what runs in a pod.
func (w *world) startPod(p *pod) (err error) {
	log := filepath.Join(w.dir, p.name+".log")
	config := []string{"--config", filepath.Join(w.dir, "mesh")}
	if p == w.caller {
		config = append(config, "--config", filepath.Join(w.dir, "caller"))
	} else if p.app, err = startProcess(p.ns, "the application of "+p.name, log, w.self, "-app", p.name); err != nil {
		return err
	}
	p.proxy, err = startProcess(p.ns, "the proxy of "+p.name, log, append([]string{w.isthmus, "run", "--bootstrap", w.bootstrapFile(p)}, config...)...)
	return err
}

// kill ends what runs in a pod, without warning.
func (p *pod) kill() {
	p.proxy.kill()
	p.app.kill()
	p.proxy, p.app = nil, nil
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

// endpoints is what the pod's proxy says of all endpoints.
func (p *pod) endpoints() ([]admin.Endpoint, error) {
	var list []admin.Endpoint
	return list, p.ask("GET", "http://127.0.0.1:15000/endpoints?format=json", nil, &list)
}

// turn turns the knobs of one of the pod's services; its counts begin anew.
func (p *pod) turn(service string, k knobs) error {
	return p.ask("PUT", fmt.Sprintf("http://127.0.0.1:%d/%s", controlPort, service), k, nil)
}

// counts is what one of the pod's services has seen.
func (p *pod) counts(service string) (counts, error) {
	var c counts
	return c, p.ask("GET", fmt.Sprintf("http://127.0.0.1:%d/%s", controlPort, service), nil, &c)
}

// ask sends a request from within the pod, past the proxy.
func (p *pod) ask(method, url string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, url, bytes.NewReader(text))
	if err != nil {
		return err
	}
	res, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("%s %s in %s: %s: %s", method, url, p.name, res.Status, data)
	case answer == nil:
		return nil
	}
	return json.Unmarshal(data, answer)
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
