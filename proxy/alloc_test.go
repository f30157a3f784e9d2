//go:build !race

package proxy

import (
	"runtime"
	"strings"
	"testing"

	"isthmus/mesh"
	"isthmus/ratelimit"
)

// TestExchange_AllocatesNothing holds the promise of the hot path: a plain
// request over kept connections costs no allocation and no goroutine.
// The race detector empties pools at random, so it is left out there.
func TestExchange_AllocatesNothing(t *testing.T) {
	testExchangeAllocates(t, Options{})
}

// TestExchange_AllocatesNothingLogged: nor if it is logged.
func TestExchange_AllocatesNothingLogged(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		log, _ := newLog(t, format, true)
		testExchangeAllocates(t, Options{AccessLog: log})
	}
}

// TestExchange_AllocatesNothingUnsampled: nor if traces are told of others.
func TestExchange_AllocatesNothingUnsampled(t *testing.T) {
	testExchangeAllocates(t, Options{Tracing: newZipkin(t).tracing(0)})
}

// TestExchange_AllocatesNothingChanged: nor if rules change headers, which most
// routes of gateways have.
func TestExchange_AllocatesNothingChanged(t *testing.T) {
	const rules = `
    headers: {request: {set: {x-set: a, user-agent: b, x-forwarded-proto: https}, add: {x-add: c}, remove: [accept, x-gone]}, response: {set: {x-set: d}, remove: [server, x-gone]}}
    route: [{destination: {host: s.test}, headers: {request: {set: {x-set: e}}}}]`
	testRouteAllocates(t, Options{}, strings.Replace(plainYAML, "route: [{destination: {host: s.test}}]", strings.TrimSpace(rules), 1))
}

// TestExchange_AllocatesNothingLimited: nor if it is counted by descriptors, by this
// proxy or, as long as it has tokens, by all together.
func TestExchange_AllocatesNothingLimited(t *testing.T) {
	const actions = `rate_limits:
          - actions: [{source_cluster: {}}, {destination_cluster: {}}]
          - actions: [{generic_key: {descriptor_value: all}}, {remote_address: {}}]
          - actions: [{masked_remote_address: {v4_prefix_mask_len: 8}}, {header_value_match: {descriptor_value: any, headers: [{name: ":path", present_match: true}]}}]`
	t.Run("local", func(t *testing.T) {
		testExchangeAllocates(t, Options{}, limitFilter(`token_bucket: {max_tokens: 1000000, fill_interval: 1s}
          descriptors:
          - {entries: [{key: generic_key, value: all}, {key: remote_address}], token_bucket: {max_tokens: 1000000, fill_interval: 1s}}
          `+actions, ""))
	})
	t.Run("together", func(t *testing.T) {
		o := Options{Limits: ratelimit.NewShared(alone{})}
		t.Cleanup(o.Limits.Close)
		limit := &mesh.ServiceLimit{Requests: 1 << 30, Unit: mesh.UnitSecond}
		o.Limits.SetRules(ratelimit.NewRules([]*mesh.LimitDomain{{Domain: "d", Descriptors: []*mesh.LimitRule{
			{Key: "source_cluster", Children: []*mesh.LimitRule{{Key: "destination_cluster", Limit: limit}}},
			{Key: "generic_key", Value: "all", Children: []*mesh.LimitRule{{Key: "remote_address", Limit: limit}}},
		}}}))
		testExchangeAllocates(t, o, strings.ReplaceAll(globalFilter(actions, ""), "GATEWAY", "SIDECAR_OUTBOUND"))
	})
}

// alone are the peers of a proxy that keeps limits by itself.
type alone struct{}

func (alone) Self() string        { return "me" }
func (alone) Others() []string    { return nil }
func (alone) Send(string, []byte) {}

func testExchangeAllocates(t *testing.T, o Options, more ...string) {
	t.Helper()
	testRouteAllocates(t, o, plainYAML+strings.Join(more, ""))
}

func testRouteAllocates(t *testing.T, o Options, rules string) {
	t.Helper()
	p := serve(t, o, entry("s.test", plainServer(t, okReply))+rules)
	send := plainClient(t, p.address("outbound"), plainRequest)
	send() // opens the upstream's connection
	goroutines := runtime.NumGoroutine()
	if n := testing.AllocsPerRun(5000, send); n != 0 {
		t.Errorf("%v allocations for an exchange, want none", n)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines after 5000 exchanges, %d before", n, goroutines)
	}
}

// TestHTTP2_AllocatesNothing: nor does a plain exchange over HTTP/2 on either
// side, and none of them starts a goroutine.
func TestHTTP2_AllocatesNothing(t *testing.T) {
	for name, yaml := range map[string]string{
		"to HTTP/1.1": entry("s.test", plainServer(t, okReply)) + plainYAML,
		"to HTTP/2":   overHTTP2(entry("s.test", replyingStreams(t))) + plainYAML,
	} {
		t.Run(name, func(t *testing.T) {
			p := serve(t, Options{}, yaml)
			send := plainStreams(t, p.address("outbound"), 1)
			for range 200 {
				send() // opens the upstream's connection, starts the worker, fills pools
			}
			goroutines := runtime.NumGoroutine()
			if n := testing.AllocsPerRun(5000, send); n != 0 {
				t.Errorf("%v allocations for an exchange, want none", n)
			}
			if n := runtime.NumGoroutine(); n > goroutines {
				t.Errorf("%d goroutines after 5000 exchanges, %d before", n, goroutines)
			}
		})
	}
}
