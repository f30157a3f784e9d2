package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestReport: a reader sees what was measured, what was missed, and what could
// not be carried out.
func TestReport(t *testing.T) {
	good := &result{
		scenario: scenario{name: "good", title: "Good"}, setting: "as it is", measured: true, showsClean: true, amplification: 1.004,
		event:   2 * time.Second,
		figures: evaluate(sampleReplies(), time.Second, 2*time.Second, 100*time.Millisecond),
	}
	good.amplified()
	bad := &result{scenario: scenario{name: "bad", title: "Bad"}, err: errors.New("one\ntwo | three")}
	bad.check(false, "this", "that %d", 1)
	r := report{command: "bin/netns -rate 300", rate: 300, results: []*result{good, bad}}
	page := r.page("A machine.")
	for _, want := range []string{
		"Made by `make netns`, which ran `bin/netns -rate 300`.\nA machine.\n",
		"| Good | 10 | 2 | 10 ms, 10 ms | 200 ms, 150 ms | -50 ms | 2130 ms | 1.00 | met |\n",
		"| good | retry amplification at most 1.2 | 1.00 | met |\n",
		"| bad | this | that 1 | **missed** |\n",
		"| bad | it can be carried out | one two / three | **missed** |\n",
		"## Good [good]\n\nSetting: as it is.\n\n- slowest request: 200 ms before, 150 ms after\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	if strings.Contains(page, "| Bad |") {
		t.Error("a scenario without a load has a line of figures")
	}
	if line := bad.line(); !strings.HasPrefix(line, "bad: **missed**\n") {
		t.Errorf("line %q", line)
	}
}

func TestResult_Share(t *testing.T) {
	for _, tt := range []struct {
		got int
		ok  bool
	}{{1600, true}, {1510, false}, {1515, true}, {1689, true}, {1690, false}} {
		res := &result{}
		res.share("x", tt.got, 2000, 0.8)
		if res.ok() != tt.ok {
			t.Errorf("%d of 2000 for 80 %%: %v", tt.got, res.ok())
		}
	}
}

func TestResult_EndsAfter(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		took   int
		ok     bool
	}{{"in time", 504, 2001, true}, {"too early", 504, 1900, false}, {"too late", 504, 2300, false}, {"other status", 503, 2001, false}} {
		res := &result{}
		res.endsAfter("x", sent(0, tt.took, tt.status, ""), 504, 2*time.Second)
		if res.ok() != tt.ok {
			t.Errorf("%s: %v", tt.name, res.ok())
		}
	}
}

func TestChooseScenarios(t *testing.T) {
	list, err := chooseScenarios("loss,latency")
	if err != nil || len(list) != 2 || list[0].name != "loss" {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := chooseScenarios("loss,nothing"); err == nil || !strings.Contains(err.Error(), "black-hole") {
		t.Errorf("an unknown name: %v", err)
	}
}

// TestOwner: only what this program made may be swept away.
func TestOwner(t *testing.T) {
	for name, want := range map[string]int{
		"isthmus-12-us-west-0": 12, "isthmus-12-us-west": 12,
		"isthmus-12": 0, "isthmus-x-us-west": 0, "isthmus--3-a": 0, "isthmus-0-a": 0, "other-12-a": 0, "isthmus-": 0,
	} {
		pid, ok := owner(name)
		if ok != (want != 0) || ok && pid != want {
			t.Errorf("%s: %d, %v; want %d", name, pid, ok, want)
		}
	}
}

func TestByCluster(t *testing.T) {
	got := byCluster([]reply{sent(0, 1, 200, "us-west-0"), sent(0, 1, 200, "us-west-1"), sent(0, 1, 200, ""), sent(0, 1, 503, "eu-west-0"), {err: "EOF"}})
	if got[west] != 2 || got["503"] != 1 || got["EOF"] != 1 || got[""] != 1 {
		t.Errorf("%v", got)
	}
}

// TestSeedSetup: each file is there, once.
func TestSeedSetup(t *testing.T) {
	s, err := seedSetup(seedServices, "04", "05", "09")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"latency-based-routing", "failover-routing", "advanced-circuit-breaker"} {
		if !strings.Contains(s.mesh, "name: "+name+"\n") {
			t.Errorf("no %s", name)
		}
	}
	if _, err := seedSetup(nil, "99"); err == nil {
		t.Error("a file that is not there is no error")
	}
	if slices.Contains(seedServices, "web") {
		t.Error("web is none of the configuration's services")
	}
}
