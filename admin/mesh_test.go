package admin

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"isthmus/telemetry"
)

// world is a proxy in a mesh as a test wants it.
type world struct {
	state
	members      []Member
	endpoints    []Endpoint
	own          Digest
	certificates []Certificate
	limits       []Limit
}

func (w *world) Members() []Member           { return slices.Clone(w.members) }
func (w *world) Endpoints() []Endpoint       { return slices.Clone(w.endpoints) }
func (w *world) Own() Digest                 { return w.own }
func (w *world) Certificates() []Certificate { return w.certificates }
func (w *world) Limits() []Limit             { return w.limits }

func flow(service, cluster string, requests, errors float64) Flow {
	return Flow{Service: service, Cluster: cluster, Traffic: Traffic{Requests: requests, Errors: errors, P50: 1, P99: 10}}
}

// twoClusters is a mesh in which nothing is wrong. This proxy is c1/n/a.
func twoClusters() *world {
	w := &world{
		members: []Member{
			{Name: "c1/n/a", Cluster: "c1", State: "alive"},
			{Name: "c1/n/b", Cluster: "c1", State: "alive", Digest: &Digest{Ready: true, Flows: []Flow{
				flow("", "c1", 3, 0), flow("", "c2", 1, 0), flow("web.n", "c1", 3, 0), flow("web.n", "c2", 1, 0),
			}}},
			{Name: "c2/n/c", Cluster: "c2", State: "alive", Digest: &Digest{Ready: true, Flows: []Flow{
				{Service: "web.n", Cluster: "c2", Inbound: true, Traffic: Traffic{Requests: 5, P99: 3}},
				{Service: "quiet.n", Cluster: "c2", Inbound: true, Traffic: Traffic{Requests: 7}},
			}}},
		},
		endpoints: []Endpoint{
			{Service: "quiet.n", Cluster: "c2", Healthy: true},
			{Service: "web.n", Cluster: "c1", Healthy: true}, {Service: "web.n", Cluster: "c1", Healthy: true}, {Service: "web.n", Cluster: "c2", Healthy: true},
		},
		own: Digest{Ready: true, Flows: []Flow{flow("", "c2", 4, 0), flow("web.n", "c2", 4, 0)}},
	}
	w.status = Status{Node: "c1/n/a", Ready: true}
	return w
}

func TestLook(t *testing.T) {
	m := look(twoClusters())
	if len(m.Problems) != 0 {
		t.Errorf("problems: %+v", m.Problems)
	}
	want := []Cluster{
		{Name: "c1", Own: true, Proxies: 2, Ready: 2, Services: 1, Endpoints: 2, Healthy: 2, Traffic: Traffic{3, 0, 1, 10}},
		{Name: "c2", Proxies: 1, Ready: 1, Services: 2, Endpoints: 2, Healthy: 2, Traffic: Traffic{5, 0, 1, 10}},
	}
	if !slices.Equal(m.Clusters, want) {
		t.Errorf("clusters\n%+v, want\n%+v", m.Clusters, want)
	}
	links := []Link{{"c1", "c2", Traffic{5, 0, 1, 10}}, {"c1", "c1", Traffic{3, 0, 1, 10}}}
	if !slices.Equal(m.Links, links) {
		t.Errorf("links %+v, want %+v", m.Links, links)
	}
	if m.Own.Requests != 4 {
		t.Errorf("own traffic %+v", m.Own)
	}
}

// TestLook_Silent: of who says nothing nobody knows that it is not ready.
func TestLook_Silent(t *testing.T) {
	w := twoClusters()
	w.members = append(w.members, Member{Name: "c2/n/quiet", Cluster: "c2", State: "alive"}, Member{Name: "c2/n/gone", Cluster: "c2", State: "dead"})
	if c := look(w).Clusters[1]; c.Proxies != 2 || c.Ready != 1 || c.Silent != 1 || c.Dead != 1 {
		t.Errorf("%+v", c)
	}
}

// TestServicesOf: what callers report outweighs what arrived, and who needs
// somebody comes first.
func TestServicesOf(t *testing.T) {
	w := twoClusters()
	w.endpoints = append(w.endpoints, Endpoint{Service: "zombie.n", Cluster: "c2", Reason: "connection refused"})
	got := servicesOf(members(w, w.status), w.endpoints)
	var names []string
	for _, s := range got {
		names = append(names, s.Name)
	}
	if want := []string{"zombie.n", "web.n", "quiet.n"}; !slices.Equal(names, want) {
		t.Fatalf("order %v, want %v", names, want)
	}
	if s := got[0]; s.Healthy != 0 || s.Reason != "connection refused" {
		t.Errorf("zombie.n: %+v", s)
	}
	if s := got[1]; s.Requests != 8 || s.Clusters[1].Requests != 5 || s.Endpoints != 3 {
		t.Errorf("web.n: %+v", s)
	}
	if s := got[2]; s.Requests != 7 {
		t.Errorf("quiet.n, which only its own proxy reports: %+v", s)
	}
	sortServices(got, "name")
	if got[0].Name != "quiet.n" {
		t.Errorf("by name, the first is %s", got[0].Name)
	}
}

// TestLook_Alone: a proxy without gossip is a mesh of one.
func TestLook_Alone(t *testing.T) {
	w := &world{own: Digest{Ready: true, Flows: []Flow{flow("", "home", 2, 0)}}}
	w.status = Status{Node: "home/default/n", Ready: true}
	m := look(w)
	if len(m.Clusters) != 1 || m.Clusters[0].Name != "home" || m.Clusters[0].Ready != 1 || m.Links[0].Requests != 2 {
		t.Errorf("%+v", m)
	}
	if len(w.Members()) != 0 {
		t.Error("the list of gossip members has changed")
	}
}

func TestLook_Problems(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*world)
		want   []string // severity and text, the worst first
	}{
		{"not ready", func(w *world) { w.status.Ready, w.status.Reason = false, "draining" }, []string{"warning: this proxy is not ready: draining"}},
		{"files refused", func(w *world) { w.status.Snapshot.Error = "a.yaml:3: error\nand more" }, []string{"critical: the files have changed and are not used: a.yaml:3: error"}},
		{"nobody can serve", func(w *world) {
			w.endpoints = append(w.endpoints, Endpoint{Service: "x.n", Cluster: "c1", Reason: "ejected"})
		}, []string{"critical: x.n: the only endpoint cannot serve: ejected"}},
		{"one cluster cannot serve", func(w *world) { w.endpoints[3].Healthy, w.endpoints[3].Reason = false, "gone" }, []string{"warning: web.n: the only endpoint in c2 cannot serve, others can: gone"}},
		{"one of two", func(w *world) { w.endpoints[1].Healthy, w.endpoints[1].Reason = false, "gone" }, []string{"warning: web.n: 1 of 2 endpoints in c1 cannot serve: gone"}},
		{"none of several", func(w *world) {
			w.endpoints = append(w.endpoints, Endpoint{Service: "x.n", Cluster: "c1", Reason: "ejected"}, Endpoint{Service: "x.n", Cluster: "c1"})
		}, []string{"critical: x.n: none of 2 endpoints can serve: ejected"}},
		{"a cluster's part of many services", func(w *world) {
			for i := range 40 {
				name := fmt.Sprintf("s%02d.n", i)
				w.endpoints = append(w.endpoints, Endpoint{Service: name, Cluster: "c1", Healthy: true}, Endpoint{Service: name, Cluster: "c2", Reason: "gone"})
			}
		}, []string{"warning: 40 services have no endpoint in c2 that can serve, others can: s00.n, s01.n, s02.n and 37 more"}},
		{"a link fails", func(w *world) { w.own.Flows = []Flow{flow("", "c2", 9, 1)} }, []string{"critical: from c1 to c2, 10.0 % of requests fail"}},
		{"a link fails a little", func(w *world) { w.own.Flows = []Flow{flow("", "c2", 99, 2)} }, []string{"warning: from c1 to c2, 2.0 % of requests fail"}},
		{"a service fails", func(w *world) { w.own.Flows = []Flow{flow("web.n", "c2", 96, 50)} }, []string{"critical: web.n: 50.0 % of requests fail"}},
		{"nobody to send to", func(w *world) { w.own.Flows = []Flow{flow("", "", 2, 2)} }, []string{"critical: from c1, 2.00 requests a second reach no endpoint"}},
		{"one request of a minute failed", func(w *world) { w.own.Flows = []Flow{flow("", "c3", 0.1, 0.1)} }, nil},
		{"a member died", func(w *world) { w.members[1].State, w.members[1].Digest = "dead", nil }, []string{"warning: 1 proxy of c1 died: c1/n/b"}},
		{"a cluster died", func(w *world) { w.members[2].State, w.members[2].Digest = "dead", nil }, []string{"critical: no proxy of c2 is to be reached any more"}},
		{"a member left", func(w *world) { w.members[2].State, w.members[2].Digest = "left", nil }, nil},
		{"a member is silent", func(w *world) { w.members[2].Digest = nil }, nil},
		{"others' files refused", func(w *world) { w.members[1].Digest.Refused, w.members[2].Digest.Refused = true, true }, []string{"warning: 2 proxies cannot use the files as they are now: c1/n/b, c2/n/c"}},
		{"another not ready", func(w *world) { w.members[1].Digest.Ready = false }, []string{"warning: 1 proxy not ready: c1/n/b"}},
		{"own memory taken", func(w *world) { w.own.Shed = telemetry.ShedRequest }, []string{"critical: requests are refused for want of memory by 1 proxy: c1/n/a"}},
		{"others are overloaded", func(w *world) {
			w.members[1].Digest.Shed, w.members[2].Digest.Shed = telemetry.ShedConnection, telemetry.ShedConnection
			w.own.Shed = telemetry.ShedIdleConnection
		}, []string{
			"critical: new connections of clients are refused at their limit by 2 proxies: c1/n/b, c2/n/c",
			"warning: idle connections of clients are ended at their limit by 1 proxy: c1/n/a",
		}},
		{"bodies that nobody reads", func(w *world) { w.members[1].Digest.Shed = telemetry.ShedStream }, []string{"warning: requests whose bodies nobody reads are reset for want of memory by 1 proxy: c1/n/b"}},
		{"what a later version tells", func(w *world) { w.members[1].Digest.Shed = "sleep" }, nil},
		{"another's certificate", func(w *world) { w.members[1].Digest.CertificateEnds = time.Now().Add(-time.Hour).Unix() }, []string{"critical: the certificate of c1/n/b ends in 0s"}},
		{"a limit", func(w *world) { w.limits = []Limit{{Name: "l"}, {Name: "m", State: "its service does not answer"}} }, []string{"warning: the limit m: its service does not answer"}},
		{"own certificates", func(w *world) {
			w.certificates = []Certificate{
				{Name: "late", Ends: time.Now().Add(5*time.Hour + time.Minute), Usable: true}, {Name: "ended", Ends: time.Now().Add(-time.Hour), Usable: true},
				{Name: "good", Ends: time.Now().Add(24 * time.Hour), Usable: true}, {Name: "broken", Ends: time.Now().Add(24 * time.Hour)},
				{Name: "never"},
			}
		}, []string{"critical: the certificate ended has ended", "critical: the certificate never cannot be used, and there is no earlier one", "warning: the certificate late ends in 5h", "warning: the certificate broken cannot be used as its files are now; an earlier one is"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := twoClusters()
			tt.change(w)
			var got []string
			m := look(w)
			for _, p := range m.Problems {
				got = append(got, p.Severity+": "+p.Text)
				if !slices.Contains(m.Pages, p.Page) {
					t.Errorf("page %q of %q is not there: %v", p.Page, p.Text, m.Pages)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestFormat(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{FormatRate(0.123), "0.12"}, {FormatRate(12.34), "12.3"}, {FormatRate(1234.5), "1234"},
		{FormatSuccess(Traffic{}), "-"}, {FormatSuccess(Traffic{Requests: 3}), "100 %"}, {FormatSuccess(Traffic{Requests: 1e9, Errors: 1}), "99.99 %"},
		{FormatSuccess(Traffic{Requests: 4, Errors: 1}), "75.00 %"},
		{FormatMillis(0.34), "340 µs"}, {FormatMillis(3.21), "3.2 ms"}, {FormatMillis(12.3), "12 ms"}, {FormatMillis(3210), "3.2 s"},
		{count(2, "proxy"), "2 proxies"}, {some([]string{"a", "b", "c", "d"}), "a, b, c and 1 more"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

// TestMemberProblems_Order: what is said stays in its place while it is said, so that
// a reader of the console finds it there two seconds later.
func TestMemberProblems_Order(t *testing.T) {
	var members []Member
	for _, cluster := range []string{"d", "b", "e", "a", "c"} {
		members = append(members, Member{Name: cluster + "/n/x", Cluster: cluster, State: "dead"})
	}
	for range 20 {
		var got []string
		memberProblems("own", members, func(_, _, search, _ string, _ ...any) { got = append(got, search) })
		if strings.Join(got, "") != "abcde" {
			t.Fatalf("in the order %q", got)
		}
	}
}
