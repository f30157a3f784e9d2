package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRatesBetween(t *testing.T) {
	moments := []time.Duration{999, 1000, 1500, 1999, 2000, 3100, 3499, 3500} // ms
	for i := range moments {
		moments[i] *= time.Millisecond
	}
	rate, list := ratesBetween(moments, time.Second, 3500*time.Millisecond)
	if rate != 2.4 || !slices.Equal(list, []int{3, 1}) { // the last half second is no whole one
		t.Errorf("%v a second, %v; want 2.4, [3 1]", rate, list)
	}
}

func TestLimitsPage(t *testing.T) {
	res := &result{scenario: limitScenarios[2], setting: "as it is"}
	res.check(true, "together", "100 a second")
	res.note("parted: %v", []int{150, 160})
	page := report{command: "bin/netns -limits", results: []*result{res}}.limitsPage("A machine.")
	for _, want := range []string{
		"Made by `make limits-measured`, which ran `bin/netns -limits`.\nA machine.\n",
		"| clusters | together | 100 a second | met |\n",
		"Setting: as it is.\n\n- parted: [150 160]\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
}
