package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"isthmus/gossip"
	"isthmus/health"
	"isthmus/mesh"
)

// still makes a controller that follows nothing by itself: a test takes its
// steps.
func still(t *testing.T, announce, yaml string, change ...func(*Options)) (*Controller, *consumer, *crowd, string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "mesh.yaml")
	write(t, file, yaml)
	use, g := &consumer{}, &crowd{}
	o := Options{
		Node: node(), Paths: []string{dir}, Announce: announce, Inbound: "0.0.0.0:15006", Publish: use.publish,
		Logger: slog.New(slog.DiscardHandler), ResolvConf: os.DevNull, Hosts: os.DevNull,
		look: func(context.Context, health.Job) health.Found { return health.Found{} },
	}
	for _, f := range change {
		f(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.closeSources)
	c.gossip = g
	c.step()
	return c, use, g, file
}

// hear has a neighbour announce n endpoints.
func (c *crowd) hear(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.others = nil
	for i := range n {
		c.others = append(c.others, gossip.Announced{Endpoint: mesh.Endpoint{
			Service: "far.default", Port: mesh.Port{Number: 80}, Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 80),
			Cluster: "c2", Weight: 1, Source: mesh.SourceGossip, Owner: "c2/default/x",
		}})
	}
}

// tryRefused takes the step of the time when what was refused is tried again.
func tryRefused(c *Controller) time.Duration {
	c.denied = c.denied.Add(-tryAgain)
	return c.step()
}

func known(use *consumer) int { return len(use.snapshot().Registry.All()) }

const broken = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {prots: []}\n"

// TestController_BrokenFilesStayTold: news from gossip take effect while the
// files are broken, and do not hide that they are.
func TestController_BrokenFilesStayTold(t *testing.T) {
	c, use, g, file := still(t, "none", webService)
	write(t, file, broken)
	c.Reload()
	g.hear(2) // gathered together with the broken files
	c.step()
	if n := known(use); n != 2 {
		t.Errorf("%d endpoints, want the 2 that gossip brought with the broken files", n)
	}
	if e := c.Status().Snapshot.Error; !strings.Contains(e, "mesh.yaml:4") {
		t.Errorf("error %q after the step of the broken files, want their line", e)
	}
	g.hear(3)
	c.step()
	if n := known(use); n != 3 {
		t.Errorf("%d endpoints, want 3", n)
	}
	if e := c.Status().Snapshot.Error; !strings.Contains(e, "mesh.yaml:4") {
		t.Errorf("error %q after news from gossip, want that of the files, which are broken still", e)
	}
	number := use.snapshot().Number
	write(t, file, webService) // as it was
	c.Reload()
	c.step()
	if s := c.Status().Snapshot; s.Error != "" || s.Number != number {
		t.Errorf("files as they were: snapshot %d with error %q, want %d and none", s.Number, s.Error, number)
	}
}

// TestController_Rests: in a mesh that is so large that a step takes its time, and where
// something changes all the time, most of that is not the controller's; what changes after
// a while is taken in at once.
func TestController_Rests(t *testing.T) {
	const takes = 200 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		var busy time.Duration
		c, use, g, _ := still(t, "none", webService, func(o *Options) {
			publish := o.Publish
			o.Publish = func(s *mesh.Snapshot) error {
				time.Sleep(takes)
				busy += takes
				return publish(s)
			}
		})
		ctx, cancel := context.WithCancel(context.Background())
		go c.run(ctx)
		defer func() {
			cancel()
			<-c.done
		}()
		time.Sleep(time.Minute)
		begin := time.Now()
		busy = 0
		for n := 1; time.Since(begin) < 10*time.Second; n++ {
			g.hear(1 + n%9)
			c.Wake()
			time.Sleep(15 * time.Millisecond)
		}
		if busy > 3*time.Second {
			t.Errorf("busy for %v of 10 s", busy)
		}
		time.Sleep(time.Minute)
		g.hear(20)
		c.Wake()
		time.Sleep(gather + takes + time.Millisecond)
		if n := known(use); n != 20 {
			t.Errorf("%d endpoints are known after a while without changes, want 20", n)
		}
	})
}

// TestController_FilesBeingWritten: files that somebody is writing are left alone
// until he is done, whatever else happens; if he never is, that is told.
func TestController_FilesBeingWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, use, g, file := still(t, "none", webService)
		next := func() time.Duration {
			wait := c.await()
			c.step()
			return wait
		}
		names := func() (out string) {
			for _, s := range use.snapshot().Config.Services {
				out += s.Name + " "
			}
			return out
		}
		write(t, file, "")
		c.Reload()
		g.hear(2)
		if wait := next(); wait == 0 || known(use) != 2 || names() != "web " {
			t.Errorf("an empty file: again after %v, %d endpoints, services %s", wait, known(use), names())
		}
		write(t, file, renamed("api"))
		for wait := next(); wait > 0; wait = next() {
			time.Sleep(wait)
		}
		if names() != "api " {
			t.Errorf("services %s, want the new one", names())
		}
		c.Reload()
		begin := time.Now()
		for text := renamed("more"); c.Status().Snapshot.Error == ""; text += "# more\n" {
			write(t, file, text)
			time.Sleep(next())
		}
		if e := c.Status().Snapshot.Error; !strings.Contains(e, "mesh.yaml: error: has been written for more than 10s") || names() != "api " {
			t.Errorf("after %v: error %q, services %s", time.Since(begin), e, names())
		}
		for wait := next(); wait > 0; wait = next() {
			time.Sleep(wait)
		}
		if e := c.Status().Snapshot.Error; e != "" || names() != "more " {
			t.Errorf("he has stopped: error %q, services %s", e, names())
		}
	})
}

// TestController_SameFiles: files that say the same make no snapshot.
func TestController_SameFiles(t *testing.T) {
	c, use, _, file := still(t, "none", webService)
	before := use.snapshot()
	write(t, file, webService)
	c.Reload()
	c.step()
	if after := use.snapshot(); after != before {
		t.Errorf("snapshot %d after %d, and nothing has changed", after.Number, before.Number)
	}
}

// TestController_RefusedSetIsNotAnnounced: what the data plane refuses is not
// promised to others, and does not hold up news from gossip, for which it is not tried anew.
func TestController_RefusedSetIsNotAnnounced(t *testing.T) {
	c, use, g, file := still(t, "own", webService)
	use.mu.Lock()
	use.refuse = errors.New("port in use")
	use.acceptHash = use.last.Config.Hash // all but this one
	use.mu.Unlock()
	write(t, file, strings.Replace(webService, "name: web}", "name: api}", 1))
	c.Reload()
	g.hear(2)
	if c.step() == 0 {
		t.Error("the step went well")
	}
	g.mu.Lock()
	said := summary(g.announced)
	g.mu.Unlock()
	if said != "web.default 127.0.0.1:15006 via" {
		t.Errorf("announced %q, want web.default alone, which is served", said)
	}
	if n := known(use); n != 3 {
		t.Errorf("%d endpoints, want the own one and the 2 of gossip", n)
	}
	if e := c.Status().Snapshot.Error; e != "port in use" {
		t.Errorf("error %q, want port in use", e)
	}
	use.mu.Lock()
	use.refuse = nil
	use.mu.Unlock()
	read := c.read
	g.hear(3)
	if again := c.step(); again <= 0 || again > tryAgain || known(use) != 4 || c.read != read {
		t.Errorf("news meanwhile: again after %v, %d endpoints, %d resources read", again, known(use), c.read-read)
	}
	if e := c.Status().Snapshot.Error; e != "port in use" {
		t.Errorf("error %q after the news, want port in use", e)
	}
	if tryRefused(c) != 0 { // the port is free now, which nobody tells
		t.Error("the step did not go well")
	}
	if _, ok := use.snapshot().Registry.View("api.default"); !ok || c.Status().Snapshot.Error != "" {
		t.Errorf("the files are not used later: error %q", c.Status().Snapshot.Error)
	}
}

// TestController_Gathers: what comes within a moment is one snapshot.
func TestController_Gathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, use, g, _ := still(t, "none", webService)
		ctx, cancel := context.WithCancel(t.Context())
		go c.run(ctx)
		before := use.snapshot().Number
		for i := range 40 {
			g.hear(i + 1)
			c.Wake()
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n, count := use.snapshot().Number-before, known(use); n != 1 || count != 40 {
			t.Errorf("40 changes within 40 ms made %d snapshots with %d endpoints, want 1 with 40", n, count)
		}
		cancel()
		<-c.done
	})
}

// TestController_DropsDead: an endpoint of a dead member that fails for too
// long is gone, and back when it answers.
func TestController_DropsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		c, use, g, _ := still(t, "none", "", net.probed)
		g.hear(1)
		g.others[0].OwnerDead = true
		c.step()
		state := func() string {
			for _, e := range use.snapshot().Registry.All() {
				return fmt.Sprintf("%q", e.Unready)
			}
			return "gone"
		}
		for _, tt := range []struct {
			name, finds string
			wait        time.Duration
			want        string
		}{
			{"answers", "", 0, `""`},
			{"refuses", "connection refused", 0, `"c2/default/x died; connection refused"`},
			{"refuses long", "connection refused", dropAfter - 10*time.Second, `"c2/default/x died; connection refused"`},
			{"refuses too long", "connection refused", 10 * time.Second, "gone"},
			{"answers again", "", 0, `""`},
		} {
			net.answer("192.0.2.0:80", tt.finds)
			time.Sleep(tt.wait + 2*suspectProbe.Period)
			synctest.Wait()
			c.step()
			if got := state(); got != tt.want {
				t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
			}
		}
		g.hear(0) // gossip has forgotten it
		c.step()
		before := net.looks()
		time.Sleep(time.Minute)
		if n := net.looks() - before; n != 0 {
			t.Errorf("%d looks at endpoints that nobody knows", n)
		}
	})
}

// TestController_DeadLongAgo: an endpoint of a member that was dead long before this
// proxy heard of it is a last resort until it has been looked at.
func TestController_DeadLongAgo(t *testing.T) {
	for _, tt := range []struct {
		name, finds   string
		gone          time.Duration
		before, after string
	}{
		{"just now", "connection refused", time.Minute, "", "c2/default/x died; connection refused"},
		{"long ago", "connection refused", dropAfter + time.Second, "c2/default/x died long ago; not looked at yet", "c2/default/x died; connection refused"},
		{"long ago, and answers", "", dropAfter + time.Second, "c2/default/x died long ago; not looked at yet", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var net network
				c, use, g, _ := still(t, "none", "", net.probed)
				net.answer("192.0.2.0:80", tt.finds)
				g.hear(1)
				g.others[0].OwnerDead, g.others[0].OwnerGone = true, tt.gone
				c.step()
				if got := use.snapshot().Registry.All()[0].Unready; got != tt.before {
					t.Errorf("at first: %q, want %q", got, tt.before)
				}
				time.Sleep(2 * suspectProbe.Period)
				synctest.Wait()
				c.step()
				if got := use.snapshot().Registry.All()[0].Unready; got != tt.after {
					t.Errorf("after a look: %q, want %q", got, tt.after)
				}
			})
		})
	}
}

// TestController_ForgetsRefusal: what was refused once is not told of any
// longer when a new set is in force.
func TestController_ForgetsRefusal(t *testing.T) {
	c, use, g, file := still(t, "none", webService)
	use.mu.Lock()
	use.refuse = errors.New("out of memory")
	use.mu.Unlock()
	g.hear(1) // a snapshot of the files in force is refused
	c.step()
	if e := c.Status().Snapshot.Error; e != "out of memory" {
		t.Errorf("error %q, want that of the refusal", e)
	}
	use.mu.Lock()
	use.refuse = nil
	use.mu.Unlock()
	write(t, file, strings.Replace(webService, "name: web}", "name: api}", 1))
	c.Reload()
	c.step()
	if e := c.Status().Snapshot.Error; e != "" || known(use) != 1 {
		t.Errorf("error %q and %d endpoints, want none and 1", e, known(use))
	}
}

// TestController_RefusedSetKeepsAddresses: what DNS has given for names that a set lacks
// which the data plane refuses stays with those in force.
func TestController_RefusedSetKeepsAddresses(t *testing.T) {
	hosts := filepath.Join(t.TempDir(), "hosts")
	write(t, hosts, "192.0.2.1 partner.test\n")
	c, use, _, file := still(t, "none", `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: partner}
spec: {hosts: [partner.test], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
`, func(o *Options) { o.Hosts = hosts })
	eventually(t, "the name is resolved", func() bool { c.step(); return known(use) == 1 })
	if err := os.Remove(hosts); err != nil { // nor does a name server answer from here on
		t.Fatal(err)
	}
	use.mu.Lock()
	use.refuse = errors.New("port in use")
	use.acceptHash = use.last.Config.Hash
	use.mu.Unlock()
	write(t, file, webService)
	c.Reload()
	for range 3 {
		if c.step() == 0 {
			t.Error("the step went well")
		}
		if n := known(use); n != 1 {
			t.Fatalf("%d endpoints, want the one that was resolved", n)
		}
	}
}

// TestStep_NotAllYet: a set that names what is not there, as between two files of one
// change, waits for the rest of it; if none comes, it is what somebody means.
func TestStep_NotAllYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec: {hosts: [web], http: [{route: [{destination: {host: web, subset: %s}}]}]}\n"
		const rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d}\nspec: {host: web, subsets: [{name: %s, labels: {v: a}}]}\n"
		c, use, _, file := still(t, "own", webService)
		routes, rules := filepath.Join(filepath.Dir(file), "routes.yaml"), filepath.Join(filepath.Dir(file), "rules.yaml")
		look := func() (again time.Duration) {
			again = c.await()
			if due := c.step(); again == 0 {
				again = due
			}
			return again
		}
		subsets := func() (list []string) {
			for _, v := range use.snapshot().Config.VirtualServices {
				list = append(list, v.HTTP[0].Route[0].Subset)
			}
			return list
		}
		change := func() {
			c.Reload()
			time.Sleep(time.Second)
			synctest.Wait()
		}

		write(t, routes, fmt.Sprintf(route, "one"))
		change()
		for range 3 { // the first finds that it changes, the second that it does not fit
			if look() == 0 || len(subsets()) != 0 {
				t.Fatalf("routes in force: %v, though more may come", subsets())
			}
			time.Sleep(100 * time.Millisecond)
		}
		write(t, rules, fmt.Sprintf(rule, "one"))
		change()
		for look() != 0 {
			time.Sleep(100 * time.Millisecond)
		}
		if got := subsets(); len(got) != 1 || got[0] != "one" {
			t.Errorf("routes in force: %v, want the one that is whole", got)
		}

		write(t, routes, fmt.Sprintf(route, "two"))
		change()
		began := time.Now()
		for look() != 0 {
			time.Sleep(100 * time.Millisecond)
		}
		if got := subsets(); len(got) != 1 || got[0] != "two" {
			t.Errorf("routes in force: %v, want what is meant", got)
		}
		if waited := time.Since(began); waited < 2*time.Second || waited > 4*time.Second {
			t.Errorf("it has waited for %v", waited)
		}

		write(t, routes, fmt.Sprintf(route, "two")+"  # touched\n")
		change()
		for n := 0; look() != 0; n++ {
			if n > 3 {
				t.Fatal("what has been missing before is waited for")
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

// TestStep_NeverAll: a set that names what is not there comes into force though somebody
// does not stop writing files, and without a set that fits the next one waits as well.
func TestStep_NeverAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec: {hosts: [web], http: [{route: [{destination: {host: web, subset: %s}}]}]}\n"
		c, use, _, file := still(t, "own", webService)
		routes, other := filepath.Join(filepath.Dir(file), "routes.yaml"), filepath.Join(filepath.Dir(file), "other.yaml")
		n := 0
		until := func(subset string) (took time.Duration) {
			write(t, routes, fmt.Sprintf(route, subset))
			began := time.Now()
			for ; time.Since(began) < time.Minute; time.Sleep(50 * time.Millisecond) {
				if n++; n%40 == 0 { // every two seconds
					write(t, other, fmt.Sprintf("# %d\n%s", n, strings.ReplaceAll(webService, "name: web}", "name: other}")))
				}
				c.Reload()
				c.await()
				c.step()
				if v := use.snapshot().Config.VirtualServices; len(v) == 1 && v[0].HTTP[0].Route[0].Subset == subset {
					return time.Since(began)
				}
			}
			t.Fatalf("subset %s is not in force after a minute", subset)
			return 0
		}
		for _, subset := range []string{"one", "two"} {
			if took := until(subset); took < 5*time.Second || took > 15*time.Second {
				t.Errorf("subset %s came into force after %v", subset, took)
			}
		}
	})
}
