package main

import (
	"fmt"
	"slices"
	"strings"
)

// values are the figures of one measurement.
type values map[string]float64

// figure is one thing measured in a case, a column of its table.
type figure struct {
	key, title string
	digits     int
	goal       goal
}

// goal is what Isthmus is to reach. The zero goal is none.
type goal struct {
	most    float64
	ofOther bool // most is a ratio to what the case compares with
}

func ratio(most float64) goal { return goal{most, true} }
func mib(most float64) goal   { return goal{most, false} }

// benchCase is something to measure.
type benchCase struct {
	name, title, about string
	figures            []figure
	base               string // the peer to compare with
	without            bool   // that is the same without what the case is about
	better             string // who is compared with instead if it is there
	also               string // another peer to compare the first figure with, in short
	alsoGoal           goal
	who                func(all []peer) []peer
	run                func(b *bench, p peer) (values, error)
	together           func(b *bench, list []peer) ([]values, error) // instead of run: of peers that run at once
}

// lost is the figure for requests without a reply; it has no column, but is
// told when it is not 0.
const lost = "lost"

// closedLoop are the figures of a saturated proxy.
func closedLoop(goal goal) []figure {
	return []figure{
		{"cpu", "CPU µs a request", 1, goal}, {"rps", "requests a second", 0, goal0},
		{"p50", "p50 µs", 0, goal0}, {"p99", "p99 µs", 0, goal0},
	}
}

// perMiB are the figures of large replies.
func perMiB(goal goal) []figure {
	return []figure{{"cpuMiB", "CPU µs a MiB", 0, goal}, {"mibps", "MiB a second", 0, goal0}, {"p50", "p50 µs", 0, goal0}, {"p99", "p99 µs", 0, goal0}}
}

var goal0 goal

var keep = load{path: "/1k", connections: 64}

func everybody(all []peer) []peer { return all }

// everybodyAndSplicing is for replies that are large enough for splice(2), which
// Isthmus uses by itself, and HAProxy if it is told to.
func everybodyAndSplicing(all []peer) []peer {
	p := haproxy
	p.name = "haproxy, splicing"
	p.files = map[string]string{"haproxy.cfg": strings.Replace(haproxyConfig, "  option forwardfor\n", "  option forwardfor\n  option splice-response\n", 1)}
	return append(slices.Clone(all), p)
}

const aboutSplicing = "Isthmus has the kernel move the bytes of large bodies (splice). HAProxy does so with `option splice-response`; the last line is that."

var allCases = []benchCase{
	{
		name: "keep", title: "Keep-alive, 64 connections, 1 KiB", base: "haproxy", who: everybody,
		figures: closedLoop(ratio(1.0)), run: saturated(keep, 1),
	},
	{
		name: "routes", title: "The same over 10,000 routes and 10,000 endpoints", base: "isthmus",
		about:   "Isthmus alone, beside itself with one route and one endpoint; the route taken is the last, the endpoints are those of a hundred services.",
		who:     func(all []peer) []peer { return []peer{all[0], withManyRoutes(all[0])} },
		figures: closedLoop(ratio(1.03)), run: saturated(keep, 1),
	},
	{
		name: "observed", title: "The same with an access log and traces", base: "isthmus", without: true,
		about:   "Isthmus alone, beside itself without: a line of JSON for each request in a file, traces of one in a hundred to a Zipkin. Metrics count in both. " + aboutTurns + aboutWriting,
		who:     func(all []peer) []peer { return []peer{all[0], observed(all[0]), justFreed, longFree} },
		figures: closedLoop(ratio(1.1)), together: inTurnsAndAlone(load{path: "/1k", connections: 64, fresh: true, emptied: logName}),
	},
	{
		name: "observedtls", title: "The same by TLS with an access log and traces", base: "isthmus", without: true,
		about:   "As before; the clients' connections are encrypted, those to the upstream are not.",
		who:     func(all []peer) []peer { p := overTLS(all)[0]; return []peer{p, observed(p)} },
		figures: closedLoop(ratio(1.1)), together: inTurns(load{path: "/1k", connections: 64, fresh: true, emptied: logName}),
	},
	{
		name: "observedheavy", title: "40,000 requests a second with an access log and traces", base: "isthmus", without: true,
		about: "As the first of these, in an open loop with random gaps: more than half of what the proxy can do. In a closed loop a proxy that does more for each request gets " +
			"fewer of them, and has the load sleep, and woken, more often; here both get the same.",
		who:     func(all []peer) []peer { return []peer{all[0], observed(all[0])} },
		figures: closedLoop(ratio(1.1)), together: inTurns(load{path: "/1k", rate: 40_000, fresh: true, emptied: logName}),
	},
	{
		name: "observedload", title: "15,000 requests a second with an access log and traces", base: "isthmus", without: true,
		about:   "As before: a fifth of what the proxy can do.",
		who:     func(all []peer) []peer { return []peer{all[0], observed(all[0])} },
		figures: closedLoop(ratio(1.1)), together: inTurns(load{path: "/1k", rate: 15_000, fresh: true, emptied: logName}),
	},
	{
		name: "observedrate", title: "2,000 requests a second with an access log and traces", base: "isthmus", without: true,
		about:   "As before, at the rate of the next case.",
		who:     func(all []peer) []peer { return []peer{all[0], observed(all[0])} },
		figures: closedLoop(ratio(1.1)), together: inTurns(load{path: "/1k", rate: openLoopRate, fresh: true, emptied: logName}),
	},
	{
		name: "traced", title: "Keep-alive, 64 connections, 1 KiB, with traces of all requests", base: "isthmus", without: true,
		about:   "As the first of these, without a log. A trace has two spans, which go to the collector as JSON.",
		who:     func(all []peer) []peer { return []peer{all[0], traced(all[0])} },
		figures: closedLoop(goal0), together: inTurns(load{path: "/1k", connections: 64, fresh: true}),
	},
	{
		name: "rate", title: "2,000 requests a second, 16 connections, 1 KiB", base: "haproxy",
		about: "Open loop, with random gaps: latency counts from the moment when a request was due. Added is what is more than direct, the load straight to the upstream.",
		who:   func(all []peer) []peer { return append([]peer{direct}, all...) },
		figures: []figure{
			{"cpu", "CPU µs a request", 1, ratio(0.8)}, {"added50", "added p50 µs", 0, ratio(1)}, {"added99", "added p99 µs", 0, ratio(1)},
			{"p50", "p50 µs", 0, goal0}, {"p99", "p99 µs", 0, goal0},
		},
		run: (*bench).openLoop,
	},
	{
		name: "close", title: "A connection for each request, 1 KiB", base: "haproxy", who: everybody,
		figures: closedLoop(ratio(1.2)),
		run:     saturated(load{path: "/1k", connections: 64, headers: []string{"Connection: close"}}, 1),
	},
	{
		name: "tls", title: "Keep-alive by TLS, 64 connections, 1 KiB", base: "haproxy", who: overTLS,
		about:   "The same certificate, of a P-256 key; version and suite as each agrees on with wrk. A client's certificate changes handshakes alone.",
		figures: closedLoop(ratio(1.1)), run: saturated(keep, 1),
	},
	{
		name: "h2c", title: "HTTP/2 in plain text to HTTP/1.1, 8 connections with 32 requests each, 1 KiB", base: "haproxy", who: overHTTP2,
		figures: closedLoop(ratio(1.2)), also: "nginx", alsoGoal: ratio(0.7), run: shared("/1k"),
	},
	{
		name: "h2", title: "HTTP/2 over TLS to HTTP/1.1, likewise", base: "haproxy", who: overHTTP2AndTLS,
		figures: closedLoop(ratio(1.2)), also: "nginx", alsoGoal: ratio(0.7), run: shared("/1k"),
	},
	{
		name: "h2rate", title: "HTTP/2 in plain text to HTTP/1.1, 80,000 requests a second, 1 KiB", base: "haproxy", who: overHTTP2,
		about:   "Four fifths of what HAProxy can do here, over 8 connections with at most 32 requests at a time each; h2load sends what is due every 10 ms. net/http's proxy cannot do as many.",
		figures: []figure{{"cpu", "CPU µs a request", 1, goal0}, {"p50", "p50 µs", 0, goal0}, {"p99", "p99 µs", 0, ratio(1)}, {"rps", "requests a second", 0, goal0}},
		run:     steady("/1k", 80_000),
	},
	{
		name: "h2h2", title: "HTTP/2 in plain text on both sides, 8 connections with 32 requests each, 1 KiB", base: reverseProxy.name, better: traefik.name, who: handingOnHTTP2,
		figures: closedLoop(ratio(0.3)), run: shared("/1k"),
	},
	{
		name: "grpc", title: "Calls of gRPC, HTTP/2 on both sides, 8 connections with 32 calls each, 100 bytes", base: reverseProxy.name, better: traefik.name, who: handingOnHTTP2,
		figures: closedLoop(ratio(0.3)), run: shared(grpcPath),
	},
	{
		name: "64k", title: "Replies of 64 KiB, 16 connections", base: "haproxy", who: everybodyAndSplicing, about: aboutSplicing,
		figures: perMiB(ratio(0.95)), run: saturated(load{path: "/64k", connections: 16}, 1),
	},
	{
		name: "1m", title: "Replies of 1 MiB, 16 connections", base: "haproxy", who: everybodyAndSplicing, about: aboutSplicing,
		figures: perMiB(ratio(0.55)), run: saturated(load{path: "/1m", connections: 16}, 1),
	},
	{
		name: "h2rss", title: "Resident memory with 1,000 connections of HTTP/2", base: "haproxy", who: handingOnHTTP2,
		about:   "Without a request, and with ten calls of gRPC each that nobody answers: 10,000 streams.",
		figures: []figure{{"conns", "MiB without a request", 1, goal0}, {"streams", "MiB with 10,000 calls that wait", 1, goal0}},
		run:     (*bench).streamMemory,
	},
	{
		name: "rss", title: "Resident memory", base: "haproxy", who: everybody,
		about: "Of all processes of a proxy, pages that they share counted once (Pss). A slow connection has sent half of a request's head, and then nothing.",
		figures: []figure{
			{"idle", "MiB idle", 1, mib(20)}, {"busy", "MiB at 1,000 busy connections", 1, mib(45)}, {"slow", "MiB at 10,000 slow connections", 1, mib(150)},
		},
		run: (*bench).memory,
	},
	{
		name: "idle", title: "Without a request", base: "haproxy", who: everybody,
		about:   "What a proxy spends while nobody asks anything.",
		figures: []figure{{"idle", "CPU ms a second", 1, goal0}},
		run:     (*bench).idle,
	},
}

func caseNames() []string {
	var names []string
	for _, c := range allCases {
		names = append(names, c.name)
	}
	return names
}

// against says whom a case compares with, of those who are there.
func (c benchCase) against(all []peer) benchCase {
	if slices.ContainsFunc(all, func(p peer) bool { return p.name == c.better }) {
		c.base = c.better
	}
	return c
}

// chooseCases returns the cases of a comma separated list, in their own order.
func chooseCases(list string) ([]benchCase, error) {
	names := strings.Split(list, ",")
	for _, n := range names {
		if !slices.Contains(caseNames(), n) {
			return nil, fmt.Errorf("-case %s: there are %s", n, strings.Join(caseNames(), ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(allCases), func(c benchCase) bool { return !slices.Contains(names, c.name) }), nil
}
