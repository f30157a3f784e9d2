package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// bench is one run of all measurements.
type bench struct {
	ctx             context.Context
	rounds, seconds int
	peers           []peer
	self            string // this program, which is upstream and load too
	dir             string
	upstream, grpc  int // its ports, for HTTP/1.1 and for calls of gRPC

	troubles []string // what was begun once more, and what has no figures, in a line each
	failed   bool     // something has no figures
}

// target is a peer that runs.
type target struct {
	proc *process // nil if the load goes straight to the upstream
	port int
	tls  bool
	home string // where its files are
}

// url is where the load asks.
func (t target) url(path string) string {
	if t.tls {
		return "https://" + localAddress(t.port) + path
	}
	return "http://" + localAddress(t.port) + path
}

// results are the figures of every round, by case, peer and figure.
type results map[[3]string][]float64

func (r results) add(c, peer string, v values) {
	for figure, x := range v {
		key := [3]string{c, peer, figure}
		r[key] = append(r[key], x)
	}
}

// median returns 0 for what was not measured.
func (r results) median(c, peer, figure string) float64 {
	v := slices.Sorted(slices.Values(r[[3]string{c, peer, figure}]))
	if len(v) == 0 {
		return 0
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// measure does all rounds of all cases. What fails there is left out, and is one of
// b.troubles; an error is of the run as a whole.
func (b *bench) measure(cases []benchCase) (results, error) {
	var err error
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "peers-"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(b.dir)
	if err := os.Chmod(b.dir, 0o755); err != nil { // nginx's worker is another user
		return nil, err
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	b.upstream, b.grpc = ports[0], ports[1]
	up, err := start(loadCPU, filepath.Join(b.dir, "upstream.log"), []string{b.self, "-serve", fmt.Sprintf("0.0.0.0:%d", b.upstream)})
	if err != nil {
		return nil, err
	}
	defer up.stop()
	if err := up.waitFor(b.ctx, b.upstream); err != nil {
		return nil, err
	}
	calls, err := start(loadCPU, filepath.Join(b.dir, "grpc.log"), []string{b.self, "-serve-grpc", localAddress(b.grpc)})
	if err != nil {
		return nil, err
	}
	defer calls.stop()
	if err := calls.waitFor(b.ctx, b.grpc); err != nil {
		return nil, err
	}
	res := results{}
	for round := range b.rounds {
		for _, c := range cases {
			b.round(res, c, round)
			if err := b.ctx.Err(); err != nil {
				return nil, err
			}
		}
	}
	return res, nil
}

// tries is how often one measurement is begun before it is given up: a virtual
// machine that stands still for a second costs a reply, not the figure.
const tries = 3

// insist measures once more where something goes wrong, and reports whether it
// went well in the end.
func (b *bench) insist(what string, measure func() error) bool {
	for try := 1; ; try++ {
		err := measure()
		if err == nil || b.ctx.Err() != nil {
			return err == nil
		}
		then := "begun once more"
		if try == tries {
			then = "no figures"
			b.failed = true
		}
		log.Printf("%s, %s: %v", what, then, err)
		first, _, _ := strings.Cut(err.Error(), "\n") // the rest is what others said
		b.troubles = append(b.troubles, fmt.Sprintf("%s, %s: %s", what, then, strings.TrimSuffix(first, ":")))
		if try == tries {
			return false
		}
	}
}

// round measures a case with one peer after the other.
func (b *bench) round(res results, c benchCase, round int) {
	if c.together != nil {
		b.roundTogether(res, c, round)
		return
	}
	var straight values
	for _, p := range c.who(b.peers) {
		var v values
		if !b.insist(fmt.Sprintf("round %d of %d [%s] %s", round+1, b.rounds, c.name, p.name), func() (err error) {
			v, err = c.run(b, p)
			return err
		}) {
			continue
		}
		if p.direct {
			straight = v
		} else if straight != nil {
			v["added50"], v["added99"] = v["p50"]-straight["p50"], v["p99"]-straight["p99"]
		}
		b.note(res, c, p, round, v)
	}
}

// note adds figures to the results, and says them.
func (b *bench) note(res results, c benchCase, p peer, round int, v values) {
	res.add(c.name, p.name, v)
	var line []string
	for _, f := range c.figures {
		if x, ok := v[f.key]; ok {
			line = append(line, fmt.Sprintf("%s %.*f", f.title, f.digits, x))
		}
	}
	log.Printf("round %d of %d [%s] %s: %s", round+1, b.rounds, c.name, p.name, strings.Join(line, ", "))
}

// with starts a peer, asks it for path once, and lets work use it. A peer that ends
// meanwhile makes it an error, since the dead have used no CPU.
func (b *bench) with(p peer, path string, work func(t target) error) error {
	t := target{port: b.upstream}
	if !p.direct {
		ports, err := freePorts(2)
		if err != nil {
			return err
		}
		s := site{home: filepath.Join(b.dir, folderName.Replace(p.name)), port: ports[0], metrics: ports[1], upstream: b.upstream, grpc: b.grpc}
		if t, err = b.launch(p, s); err != nil {
			return err
		}
		defer t.proc.stop()
	}
	if err := b.checkReply(t, p, path); err != nil {
		return err
	}
	if err := work(t); err != nil || t.proc == nil {
		return err
	}
	return t.proc.alive()
}

// folderName makes a folder's name of a peer's.
var folderName = strings.NewReplacer(" ", "-", "/", "-", ",", "")

// launch writes a peer's files and starts it.
func (b *bench) launch(p peer, s site) (target, error) {
	if err := os.MkdirAll(s.home, 0o755); err != nil {
		return target{}, err
	}
	if p.tls {
		if err := writeCertificate(s.home); err != nil {
			return target{}, err
		}
	}
	for name, text := range p.files {
		if err := os.WriteFile(filepath.Join(s.home, name), []byte(s.fill(text)), 0o644); err != nil {
			return target{}, err
		}
	}
	proc, err := start(proxyCPU, filepath.Join(s.home, "log"), p.args(s))
	if err != nil {
		return target{}, err
	}
	if err := proc.waitFor(b.ctx, s.port); err != nil {
		proc.stop()
		return target{}, err
	}
	return target{proc, s.port, p.tls, s.home}, nil
}

// checkReply asks once, and again while the peer answers with an error, since
// some listen before they have their routes. Who gives wrong replies is not
// measured.
func (b *bench) checkReply(t target, p peer, path string) error {
	var err error
	for range 50 {
		if p.h2 {
			err = askHTTP2Once(localAddress(t.port), path, p.tls)
		} else {
			err = askOnce(t.url(path), bodies[path], p.direct)
		}
		if err == nil {
			return nil
		}
		if stopped := b.sleep(100 * time.Millisecond); stopped != nil {
			return stopped
		}
	}
	if t.proc != nil {
		return t.proc.failed("%v", err)
	}
	return err
}

// askOnce checks the reply to one request, and that the header rule has had
// its effect unless the upstream itself answers.
func askOnce(url string, size int, direct bool) error {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	res, err := client.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %s: %.200s", url, res.Status, body)
	case len(body) != size:
		return fmt.Errorf("%s: a body of %d bytes, not %d", url, len(body), size)
	case res.Header.Get("X-Powered-By") != "" && !direct:
		return fmt.Errorf("%s: the rule that removes X-Powered-By has no effect", url)
	}
	return nil
}

// saturated measures a load that is as fast as the replies come, after warm
// seconds of the same.
func saturated(l load, warm int) func(b *bench, p peer) (values, error) {
	return func(b *bench, p peer) (v values, err error) {
		err = b.with(p, l.path, func(t target) error {
			if _, err := b.wrk(l, t, warm); err != nil {
				return err
			}
			before := t.proc.cpu()
			r, err := b.wrk(l, t, b.seconds)
			if err != nil {
				return err
			}
			cpu := (t.proc.cpu() - before) / float64(r.requests) * 1e6
			size := float64(bodies[l.path]) / (1 << 20)
			v = values{"cpu": cpu, "rps": r.rps, "p50": r.p50, "p99": r.p99, "cpuMiB": cpu / size, "mibps": r.rps * size, lost: float64(r.lost)}
			return nil
		})
		return v, err
	}
}

// empty empties one of the proxy's files, if it has that.
func (t target) empty(file string) error {
	if file == "" {
		return nil
	}
	err := os.Truncate(filepath.Join(t.home, file), 0)
	if errors.Is(err, fs.ErrNotExist) { // the peer that logs nothing
		return nil
	}
	return err
}

// complete holds that a file which was emptied before a load, if the proxy has that, has a
// line for each of its requests: one that loses lines is not measured.
func (t target) complete(file string, requests int) error {
	if file == "" {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(t.home, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if lines := bytes.Count(b, []byte("\n")); err == nil && lines < requests {
		return fmt.Errorf("%s has %d lines of %d requests", file, lines, requests)
	}
	return err
}

// openLoopRate is how many requests a second are far from what a proxy can do.
const openLoopRate = 2000

// openLoop measures a load of that rate.
func (b *bench) openLoop(p peer) (v values, err error) {
	l := load{rate: openLoopRate}
	err = b.with(p, "/1k", func(t target) error {
		if _, err := b.generate(t, l, 1); err != nil {
			return err
		}
		before := 0.0
		if t.proc != nil {
			before = t.proc.cpu()
		}
		r, err := b.generate(t, l, max(b.seconds, 8))
		if err != nil {
			return err
		}
		v = values{"p50": r.P50, "p99": r.P99}
		if t.proc != nil {
			v["cpu"] = (t.proc.cpu() - before) / float64(r.Requests) * 1e6
		}
		return nil
	})
	return v, err
}

// generate runs the open loop in a process of its own.
func (b *bench) generate(t target, l load, seconds int) (r generated, err error) {
	args := []string{b.self, "-generate", strconv.Itoa(l.rate), "-seconds", strconv.Itoa(seconds), "-target", localAddress(t.port)}
	if l.fresh {
		args = append(args, "-fresh")
	}
	cmd := pinned(b.ctx, loadCPU, args)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("the generator: %w", err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("the generator: %w", err)
	}
	if r.Requests < l.rate*seconds*9/10 {
		return r, fmt.Errorf("the generator made %d requests only; is the machine busy?", r.Requests)
	}
	return r, nil
}

func (b *bench) sleep(d time.Duration) error {
	select {
	case <-b.ctx.Done():
		return b.ctx.Err()
	case <-time.After(d):
		return nil
	}
}
