package gossip

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestMemberlistLogger_Again: what memberlist says with each packet is said once a
// minute, of each peer, and of strangers without end once in all.
func TestMemberlistLogger_Again(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := memberlistLogger(slog.New(slog.NewTextHandler(&out, nil)))
		for range 90 {
			l.Printf("[ERR] memberlist: Failed to send gossip to 10.0.0.1:7946: network is unreachable")
			l.Printf("[ERR] memberlist: Failed to send gossip to 10.0.0.2:7946: network is unreachable")
			for peer := range 2 {
				l.Printf("[ERR] memberlist: Failed to send gossip to [2001:db8::%d]:7946: network is unreachable", peer+1)
			}
			l.Printf("[DEBUG] memberlist: Stream connection from=10.0.0.1:7946")
			time.Sleep(time.Second)
		}
		for _, want := range []string{"10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"} {
			if n := strings.Count(out.String(), want); n != 2 {
				t.Errorf("%d lines of %s in 90 s, want 2:\n%s", n, want, &out)
			}
		}
		if n := strings.Count(out.String(), "again=59"); n != 4 {
			t.Errorf("%d lines count those that were left out, want 4:\n%s", n, &out)
		}

		out.Reset()
		for i := range 300 {
			l.Printf("[ERR] memberlist: Failed to receive: EOF from=[2001:db8::1]:%d", 1024+i)
		}
		if n := strings.Count(out.String(), "EOF"); n != 1 {
			t.Errorf("%d lines of one peer's ports", n)
		}
		for i := range 1000 {
			l.Printf("[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=10.1.%d.%d:%d", i/250, i%250, 1024+i)
		}
		if n := strings.Count(out.String(), "Decrypt"); n > keptLines+1 {
			t.Errorf("%d lines of a thousand strangers", n)
		}
		if len(out.String()) == 0 {
			t.Error("nothing is said of strangers")
		}
	})
}
