package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// usualHeaders are what requests carry beside Host.
var usualHeaders = []string{
	"User-Agent: bench/1.0 (X11; Linux x86_64)",
	"Accept: application/json, text/plain, */*",
	"Accept-Encoding: gzip, deflate",
	"Accept-Language: en-US,en;q=0.9",
	"X-Request-Id: 7f3c0a52-5f0e-4c0b-9a55-0c4f8f2d9e11",
	"Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}

// headersOf returns usualHeaders, without those of a trace for requests that belong to
// none yet.
func headersOf(fresh bool) []string {
	if !fresh {
		return usualHeaders
	}
	return slices.DeleteFunc(slices.Clone(usualHeaders), func(h string) bool { return strings.HasPrefix(h, "Traceparent:") })
}

// requestFor is the same request as wrk's, for load that we make ourselves.
func requestFor(host string, fresh bool) []byte {
	return fmt.Appendf(nil, "GET /1k HTTP/1.1\r\nHost: %s\r\n%s\r\n\r\n", host, strings.Join(headersOf(fresh), "\r\n"))
}

// load is what wrk is to do: connections that each ask again once they have
// the reply; or else the generator, at a rate.
type load struct {
	path        string
	connections int
	rate        int // requests a second, by openLoopConnections; 0: as wrk does
	headers     []string
	fresh       bool // requests belong to no trace yet, so that the proxy draws whether there is one

	// emptied is a file of the proxy's that is emptied before each turn. Without, a
	// virtual machine's host has to find memory for what the file grows by, which
	// takes as long as all else that a line costs.
	emptied string
}

// loadResult is what wrk has seen, or the generator.
type loadResult struct {
	requests, lost int
	rps, p50, p99  float64
}

// wrk sends requests for so many seconds.
func (b *bench) wrk(l load, t target, seconds int) (loadResult, error) {
	args := []string{"wrk", "-t", "1", "-c", strconv.Itoa(l.connections), "-d", strconv.Itoa(seconds), "--timeout", "10s", "--latency"}
	for _, h := range slices.Concat(headersOf(l.fresh), l.headers) {
		args = append(args, "-H", h)
	}
	args = append(args, t.url(l.path))
	out, err := pinned(b.ctx, loadCPU, args).CombinedOutput()
	if err != nil {
		return loadResult{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	return parseWrk(string(out))
}

var (
	wrkRequests = regexp.MustCompile(`(\d+) requests in`)
	wrkRate     = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkQuantile = regexp.MustCompile(`(?m)^\s+(50|99)%\s+([\d.]+)(us|ms|s|m) ?$`) // it pads units of one letter
	wrkLost     = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
)

// parseWrk reads the output. Replies that are not good make it an error, since
// those are cheap, and flatter who sends them.
func parseWrk(text string) (loadResult, error) {
	requests, rate := wrkRequests.FindStringSubmatch(text), wrkRate.FindStringSubmatch(text)
	quantiles := wrkQuantile.FindAllStringSubmatch(text, -1)
	if strings.Contains(text, "Non-2xx") {
		return loadResult{}, fmt.Errorf("not all replies were good:\n%s", text)
	}
	if requests == nil || rate == nil || len(quantiles) != 2 || requests[1] == "0" {
		return loadResult{}, fmt.Errorf("no result of wrk:\n%s", text)
	}
	var r loadResult
	r.requests, _ = strconv.Atoi(requests[1]) // digits, by the patterns
	r.rps, _ = strconv.ParseFloat(rate[1], 64)
	r.p50, r.p99 = microseconds(quantiles[0]), microseconds(quantiles[1])
	if lost := wrkLost.FindStringSubmatch(text); lost != nil {
		for _, n := range lost[1:] {
			v, _ := strconv.Atoi(n)
			r.lost += v
		}
	}
	return r, nil
}

// microseconds is the time in a match of wrkQuantile.
func microseconds(match []string) float64 {
	v, _ := strconv.ParseFloat(match[2], 64)
	return v * map[string]float64{"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}[match[3]]
}
