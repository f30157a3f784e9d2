package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const wrkSaid = `Running 1s test @ http://127.0.0.1:1/1k
  1 threads and 64 connections
  Latency Distribution
     50%  930.00us
     75%    1.10ms
     90%    1.50ms
     99%    5.15ms
  58879 requests in 1.00s, 64.00MB read
  Socket errors: connect 0, read 1, write 0, timeout 2
Requests/sec:  58879.50
`

func TestParseWrk(t *testing.T) {
	got, err := parseWrk(wrkSaid)
	if want := (loadResult{requests: 58879, lost: 3, rps: 58879.5, p50: 930, p99: 5150}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	slow := strings.NewReplacer("930.00us", "  2.54s ", "  5.15ms", "  1.02m ").Replace(wrkSaid) // as it writes them
	if got, err := parseWrk(slow); err != nil || got.p50 != 2.54e6 || got.p99 != 61.2e6 {
		t.Errorf("of seconds and minutes: got %+v, %v", got, err)
	}
	for _, bad := range []string{"", wrkSaid + "  Non-2xx or 3xx responses: 1\n", strings.Replace(wrkSaid, "58879 requests", "0 requests", 1)} {
		if _, err := parseWrk(bad); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

const h2loadSaid = `starting benchmark...
finished in 2.00s, 41469.50 req/s, 46.11MB/s
requests: 82950 total, 82970 started, 82939 done, 82939 succeeded, 1 failed, 2 errored, 3 timeout
status codes: 82939 2xx, 0 3xx, 0 4xx, 0 5xx
`

func TestParseH2load(t *testing.T) {
	got, err := parseH2load(h2loadSaid)
	if want := (loadResult{requests: 82939, lost: 6, rps: 41469.5}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", strings.Replace(h2loadSaid, " 0 5xx", " 1 5xx", 1), strings.Replace(h2loadSaid, "82939 succeeded", "0 succeeded", 1)} {
		if _, err := parseH2load(bad); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

// TestExchange has the generator talk to the upstream, at every size.
func TestExchange(t *testing.T) {
	for path, size := range bodies {
		here, there := net.Pipe()
		go answer(there, map[string][]byte{path: reply("200 OK", size)}) // ends with the pipe
		w := worker{conn: here, request: []byte("GET " + path + " HTTP/1.1\r\n\r\n"), buf: make([]byte, 4096)}
		for range 2 { // a rest of the first reply would spoil the second
			if err := w.exchange(); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		w.request = []byte("GET /other HTTP/1.1\r\n\r\n")
		if err := w.exchange(); err == nil {
			t.Error("a 404 is no error")
		}
		here.Close()
	}
}

func TestVerdict(t *testing.T) {
	c := benchCase{name: "c", base: "haproxy", who: everybody}
	relative, absolute := figure{key: "cpu", goal: ratio(0.8)}, figure{key: "rss", goal: mib(20)}
	for _, test := range []struct {
		own  float64
		f    figure
		want string
	}{
		{8, relative, "met"}, {8.1, relative, "**missed**"}, {20, absolute, "met"}, {20.1, absolute, "**missed**"},
	} {
		r := report{results: results{}}
		r.results.add("c", "isthmus", values{test.f.key: test.own})
		r.results.add("c", "haproxy", values{test.f.key: 10})
		if got := r.verdict(c, peer{name: "isthmus"}, test.f); got != test.want {
			t.Errorf("%v of %s: %s, want %s", test.own, test.f.key, got, test.want)
		}
	}
}

// TestInShort: a case may be compared with two others.
func TestInShort(t *testing.T) {
	c := benchCase{name: "c", base: "haproxy", who: everybody, figures: closedLoop(ratio(1.2)), also: "nginx", alsoGoal: ratio(0.7)}
	r := report{results: results{}, cases: []benchCase{c}, peers: []peer{{name: "isthmus"}, haproxy, nginx}}
	for name, cpu := range map[string]float64{"isthmus": 8, "haproxy": 10, "nginx": 10} {
		r.results.add("c", name, values{"cpu": cpu})
	}
	want := "| [c] CPU µs a request | 8.0 | 0.80 of HAProxy's | ≤ 1.20 of HAProxy's | met |\n| [c] CPU µs a request | 8.0 | 0.80 of nginx's | ≤ 0.70 of nginx's | **missed** |\n\n"
	if got := r.inShort(); !strings.HasSuffix(got, want) {
		t.Errorf("got\n%s\nwant it to end with\n%s", got, want)
	}
}

func TestManyEndpointsDiffer(t *testing.T) {
	seen := map[string]bool{}
	for i := range many {
		ip := net.ParseIP(loopback(i))
		if ip == nil || !ip.IsLoopback() || seen[ip.String()] {
			t.Fatalf("endpoint %d: %s", i, loopback(i))
		}
		seen[ip.String()] = true
	}
}

func TestAgainst(t *testing.T) {
	c := benchCase{base: "net/http", better: "traefik"}
	for _, test := range []struct {
		there []peer
		want  string
	}{
		{[]peer{haproxy, nginx}, "net/http"}, {[]peer{haproxy, nginx, traefik}, "traefik"},
	} {
		if got := c.against(test.there).base; got != test.want {
			t.Errorf("among %d: %s, want %s", len(test.there), got, test.want)
		}
	}
}

// TestRound_Fails: who cannot be measured costs nobody else's figures, and has neither
// a figure nor a goal that is met.
func TestRound_Fails(t *testing.T) {
	for _, test := range []struct {
		name, fails string
		times       int
		want        string // the verdict
		troubles    int
		failed      bool
	}{
		{"nobody", "", 0, "met", 0, false},
		{"Isthmus once", "isthmus", 1, "met", 1, false},
		{"Isthmus", "isthmus", tries, "**not measured**", tries, true},
		{"the one it is compared with", "haproxy", tries, "**not measured**", tries, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			left := test.times
			c := benchCase{name: "c", base: "haproxy", who: everybody, figures: closedLoop(ratio(1)), run: func(_ *bench, p peer) (values, error) {
				if p.name == test.fails && left > 0 {
					left--
					return nil, errors.New("no result of wrk:\nmuch text")
				}
				return values{"cpu": 1}, nil
			}}
			b := &bench{ctx: t.Context(), rounds: 1, peers: []peer{{name: "isthmus"}, haproxy, nginx}}
			res := results{}
			b.round(res, c, 0)
			if len(b.troubles) != test.troubles || b.failed != test.failed || res.median("c", "nginx", "cpu") != 1 {
				t.Errorf("troubles %q, failed %v, results %v", b.troubles, b.failed, res)
			}
			r := report{cases: []benchCase{c}, peers: b.peers, results: res, troubles: b.troubles}
			if got := r.verdict(c, b.peers[0], c.figures[0]); got != test.want {
				t.Errorf("verdict %s, want %s", got, test.want)
			}
		})
	}
}

// TestAlive: the dead have used no CPU, which is no figure.
func TestAlive(t *testing.T) {
	for _, test := range []struct {
		command string
		ends    bool
	}{
		{"exit 0", true}, {"sleep 60", false},
	} {
		p, err := start(proxyCPU, filepath.Join(t.TempDir(), "log"), []string{"sh", "-c", test.command})
		if err != nil {
			t.Skip(err) // no taskset
		}
		if test.ends {
			<-p.done
		}
		if err := p.alive(); (err != nil) != test.ends {
			t.Errorf("%s: %v", test.command, err)
		}
		p.stop()
	}
}

// TestSplicing: the option gets into the configuration.
func TestSplicing(t *testing.T) {
	list := everybodyAndSplicing([]peer{{name: "isthmus"}, haproxy})
	last := list[len(list)-1]
	if len(list) != 3 || !strings.Contains(last.files["haproxy.cfg"], "\n  option splice-response\n") || strings.Contains(haproxy.files["haproxy.cfg"], "splice") {
		t.Errorf("%d, the last %+v", len(list), last.files)
	}
}

// TestTarget_Complete: who has lost lines is not measured.
func TestTarget_Complete(t *testing.T) {
	p := target{home: t.TempDir()}
	if err := p.complete(logName, 3); err != nil {
		t.Errorf("without a file: %v", err)
	}
	if err := os.WriteFile(filepath.Join(p.home, logName), []byte("{}\n{}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := p.complete(logName, 2); err != nil {
		t.Errorf("two lines of two requests: %v", err)
	}
	if err := p.complete(logName, 3); err == nil {
		t.Error("two lines of three requests are enough")
	}
}
