package proxy

import (
	"testing"
	"time"

	"isthmus/mesh"
)

// TestMakeUpstream_TableBefore: a request of a table before, or of a candidate
// before, that is the first of its table to use an upstream harms nothing of the
// one in force.
func TestMakeUpstream_TableBefore(t *testing.T) {
	key, goneKey := upstreamKey{host: "s.test", port: 80, namespace: "default"}, upstreamKey{host: "gone.test", port: 80, namespace: "default"}
	other := func(yaml string) string {
		return yaml + destinationRule("s.test", "connectionPool: {tcp: {connectTimeout: 6s}}")
	}
	before := entry("s.test", "127.0.0.1:1") + entry("gone.test", "127.0.0.1:3")
	after := entry("s.test", "127.0.0.1:1", "127.0.0.1:2")
	for _, tt := range []struct {
		name    string
		publish func(p *Proxy) (old, new *table)
	}{
		{"in force", func(p *Proxy) (old, new *table) {
			publish(t, p, before)
			old = p.table.Load()
			publish(t, p, after)
			return old, p.table.Load()
		}},
		{"candidate", func(p *Proxy) (old, new *table) {
			all := mesh.Candidate{Share: mesh.AllRequests}
			beside(t, p, after, other(before), all)
			old = p.table.Load().trialTable()
			beside(t, p, after, other(after), all)
			return old, p.table.Load().trialTable()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := serve(t, Options{}, "")
			old, new := tt.publish(p)
			u := p.makeUpstream(new, new.targets[key])
			if u.set.Usable() != 2 {
				t.Fatalf("%d usable, want 2", u.set.Usable())
			}
			p.makeUpstream(old, old.targets[key])
			if n := u.set.Usable(); n != 2 {
				t.Errorf("%d usable after a request of the table before, want 2", n)
			}
			u.members[0].host.Eject("test", time.Hour, false)
			if n := u.set.Usable(); n != 1 {
				t.Errorf("%d usable after one was ejected, want 1", n)
			}
			u.members[1].host.Eject("test", time.Second, true)
			for deadline := time.Now().Add(20 * time.Second); u.set.Usable() != 1; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("a host was closed that is in use")
				}
			}

			gone := p.makeUpstream(old, old.targets[goneKey])
			if gone.set.Usable() != 1 || p.upstreams[goneKey] != gone {
				t.Errorf("what is gone: %d usable, kept %v; want one, and to be ended", gone.set.Usable(), p.upstreams[goneKey] == gone)
			}
			publish(t, p, after)
			if p.upstreams[goneKey] != nil || !gone.members[0].pool.closed {
				t.Error("what is gone is not ended")
			}
		})
	}
}
