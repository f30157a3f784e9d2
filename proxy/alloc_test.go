//go:build !race

package proxy

import (
	"runtime"
	"testing"
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

func testExchangeAllocates(t *testing.T, o Options) {
	t.Helper()
	p := serve(t, o, entry("s.test", plainServer(t, okReply))+plainYAML)
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
