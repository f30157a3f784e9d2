package main

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
	"testing"

	"isthmus/admin"
)

// topExample is what a reader of top looks at.
func topExample() *topState {
	t := &topState{topData: topData{mesh: admin.Mesh{
		Status:   admin.Status{Node: "c1/n/a", Ready: true, Snapshot: admin.Snapshot{Number: 7}},
		Problems: []admin.Problem{{Severity: "critical", Text: "web.n: none of 2 endpoints can serve"}, {Severity: "warning", Text: "a proxy died"}},
		Clusters: []admin.Cluster{{Name: "c1", Own: true, Proxies: 2, Ready: 2, Services: 1, Endpoints: 2, Healthy: 1, Traffic: admin.Traffic{Requests: 12.34, Errors: 1, P50: 1.5, P99: 80}}},
		Links:    []admin.Link{{From: "c1", To: "", Traffic: admin.Traffic{Requests: 1, Errors: 1}}},
	}}}
	t.width, t.height = 90, 16
	for i := range 8 {
		t.endpoints = append(t.endpoints, admin.Endpoint{Service: "web.n", Port: 80, Address: fmt.Sprintf("10.0.0.%d:80", i), Cluster: "c1", Healthy: i > 0, Reason: "connect failed: " + strings.Repeat("very ", 20) + "long", Source: "gossip", Age: 3700})
	}
	t.services = []admin.Service{{Name: "web.n", Endpoints: 2, Healthy: 1, Clusters: []admin.ServiceCluster{{Cluster: "c1", Endpoints: 2, Healthy: 1}}}}
	t.members = []admin.Member{{Name: "c1/n/a", State: "alive", Digest: &admin.Digest{Ready: true, Hash: "0123456789ab"}}, {Name: "c2/n/x", State: "dead"}}
	return t
}

func TestTop_Mesh(t *testing.T) {
	want := `isthmus c1/n/a  ready  2 wrong  snapshot 7  here 0/s, -
[1 Mesh]  2 Services   3 Endpoints   4 Members 

■ web.n: none of 2 endpoints can serve
▲ a proxy died

CLUSTER  READY  DEAD  SERVICES  HEALTHY  REQUESTS/S  SUCCESS     P50    P99
c1         2/2     0         1      1/2        12.3  91.90 %  1.5 ms  80 ms

FROM  TO           REQUESTS/S  SUCCESS   P50   P99
c1    no endpoint        1.00   0.00 %  0 µs  0 µs




q ends  Tab page  ↑↓ move`
	if got := strings.Join(topExample().lines(), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestTop_Narrow: what is wrong is there to its end, however long it is.
func TestTop_Narrow(t *testing.T) {
	s := topExample()
	s.width = 30
	s.mesh.Problems = []admin.Problem{
		{Severity: "critical", Text: "web.n: the only endpoint in c2 cannot serve: connection  refused"},
		{Severity: "warning", Text: strings.Repeat("x", 40)},
	}
	want := `■ web.n: the only endpoint in
  c2 cannot serve: connection
  refused
▲ xxxxxxxxxxxxxxxxxxxxxxxxxxxx
  xxxxxxxxxxxx

CLUSTER`
	if got := strings.Join(s.lines()[3:], "\n"); !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestTop_Members: those of one cluster are told apart on the narrowest usual terminal.
func TestTop_Members(t *testing.T) {
	s := topExample()
	s.page, s.width = topMembers, 80
	s.members = nil
	for _, name := range []string{"orders-6d4f5b7c9-x2x7p", "orders-6d4f5b7c9-zk4lq"} {
		s.members = append(s.members, admin.Member{Name: "us-central/production/" + name, State: "alive", Digest: &admin.Digest{Ready: true, Hash: "0123456789ab", Flows: []admin.Flow{{Traffic: admin.Traffic{Requests: 1234, P50: 2, P99: 80}}}}})
	}
	rows := s.lines()[4:6]
	for i, end := range []string{"x2x7p  ready", "zk4lq  ready"} {
		if !strings.HasPrefix(rows[i], "…") || !strings.Contains(rows[i], end) {
			t.Errorf("%q, want …%s", rows[i], end)
		}
	}
}

// TestTop_Unknown: of a proxy that has not answered, or does no longer, nobody
// says that nothing is wrong.
func TestTop_Unknown(t *testing.T) {
	s := &topState{}
	s.width, s.height = 90, 16
	if got := s.lines()[0]; got != "isthmus  asking the proxy" {
		t.Errorf("before it answers: %q", got)
	}
	s.err = errors.New("connection refused")
	if got := s.lines()[0]; got != "isthmus  connection refused" {
		t.Errorf("without an answer: %q", got)
	}
	s = topExample()
	s.err = errors.New("connection refused")
	if got := s.lines()[0]; got != "isthmus c1/n/a  connection refused  what is below is from before  snapshot 7  here 0/s, -" {
		t.Errorf("after an answer: %q", got)
	}
}

// TestTop_Fits: whatever the size, there is no line too long and none too many,
// and no name steers the terminal.
func TestTop_Fits(t *testing.T) {
	for page := range topPages {
		for _, size := range [][2]int{{200, 50}, {80, 24}, {40, 10}, {12, 4}, {1, 1}, {0, 0}} {
			s := topExample()
			s.page, s.width, s.height = page, size[0], size[1]
			s.endpoints[0].Reason = "\x1b]0;owned\x07\u202e" + s.endpoints[0].Reason
			s.services[0].Name, s.members[1].Name, s.mesh.Problems[0].Text = "\x1b[2J", "\r\n", "\x9b2J"
			if frame := s.frame(); strings.Count(frame, "\n") > max(0, size[1]-1) {
				t.Errorf("page %d at %v: %d lines", page, size, strings.Count(frame, "\n")+1)
			}
			for _, line := range s.lines() {
				if n := len([]rune(line)); n > size[0] {
					t.Errorf("page %d at %v: %d wide: %q", page, size, n, line)
				}
				if strings.ContainsAny(line, "\x1b\r\n\x07\u009b\u202e") {
					t.Errorf("page %d: %q steers the terminal", page, line)
				}
			}
		}
	}
}

func TestTop_Keys(t *testing.T) {
	for _, tt := range []struct {
		name, typed string
		want        topView
		ends        bool
	}{
		{"pages", "\t", topView{page: topServices}, false},
		{"back over the first", "\x1b[D", topView{page: topMembers}, false},
		{"a page by number", "3", topView{page: topEndpoints}, false},
		{"no such page", "9", topView{}, false},
		{"sorting", "2ss", topView{page: topServices, sort: 2}, false},
		{"what needs somebody", "3u", topView{page: topEndpoints, unwell: true}, false},
		{"a search", "3/10.q\x7f2\r", topView{page: topEndpoints, search: "10.2"}, false},
		{"a search given up", "3/abc\x1b", topView{page: topEndpoints}, false},
		{"a search is for its page", "3/abc\r4", topView{page: topMembers}, false},
		{"moving", "3\x1b[B", topView{page: topEndpoints, first: 1}, false},
		{"no further up", "3kk", topView{page: topEndpoints}, false},
		{"q", "q", topView{}, true},
		{"Ctrl-C while typing", "3/a\x03", topView{page: topEndpoints, search: "a"}, true},
		{"an unknown sequence", "\x1b[99~", topView{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := topExample()
			s.height = topFrame + 8
			ends := false
			for r := bufio.NewReader(strings.NewReader(tt.typed)); ; {
				k, err := readKey(r)
				if err != nil {
					break
				}
				before := s.topView
				changed, over := s.key(k)
				if ends = over; changed != (s.topView != before) {
					t.Errorf("key %q: changed is %v", k, changed)
				}
			}
			if s.topView != tt.want || ends != tt.ends {
				t.Errorf("got %+v, ends %v; want %+v, %v", s.topView, ends, tt.want, tt.ends)
			}
		})
	}
}

// TestTop_KeepsWhatWasKnown while the proxy does not answer.
func TestTop_KeepsWhatWasKnown(t *testing.T) {
	s := topExample()
	s.take(topData{err: errors.New("no isthmus answers\nat all")})
	if got := s.lines(); !strings.Contains(got[0], "no isthmus answers") || !strings.Contains(strings.Join(got, "\n"), "a proxy died") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	s.page, s.first = topEndpoints, 30
	s.take(topData{view: s.topView})
	if s.first >= 30 {
		t.Error("the end of a list that has become shorter is not gone back to")
	}
}
