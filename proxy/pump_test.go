package proxy

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestPump_Panic: what breaks while a body is sent on ends that exchange, and not
// the process.
func TestPump_Panic(t *testing.T) {
	var said bytes.Buffer
	p := &Proxy{log: slog.New(slog.NewTextHandler(&said, nil))}
	x := &exchange{conn: &conn{stream: &stream{}, client: &client{proxy: p, listener: &listener{name: "outbound"}}}}
	if k := x.pumpSafely(nil); k != ClientGone { // there is no upstream to write to
		t.Errorf("got %v", k)
	}
	if got := said.String(); !strings.Contains(got, "panic while serving a request") || !strings.Contains(got, "exchange).pump") {
		t.Errorf("the log says %q", got)
	}
}
