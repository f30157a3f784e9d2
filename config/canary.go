package config

import (
	"fmt"
	"path/filepath"
	"strings"

	"isthmus/canary"
)

func defaultCanary() Canary {
	p := canary.DefaultPlan
	return Canary{
		Shadow: p.Shadow, Sample: p.Sample, Steps: p.Steps, Step: p.Step, Requests: int(p.Requests), Sticky: p.Sticky, Proxies: p.Proxies,
		Guard: CanaryGuard(p.Guard),
	}
}

// Plan returns how a candidate is tried.
func (c *Canary) Plan() canary.Plan {
	return canary.Plan{
		Shadow: c.Shadow, Sample: c.Sample, Steps: c.Steps, Step: c.Step, Requests: uint64(c.Requests), Sticky: strings.ToLower(c.Sticky), Proxies: c.Proxies,
		Guard: canary.Guard(c.Guard),
	}
}

func (l *bootstrapLoader) checkCanary(c *Canary) error {
	for _, n := range []struct {
		field   string
		percent float64
	}{{"canary.sample", c.Sample}, {"canary.proxies", c.Proxies}, {"canary.guard.failed", c.Guard.Failed}, {"canary.guard.refused", c.Guard.Refused}} {
		if !(n.percent >= 0 && n.percent <= 100) {
			return l.fail(n.field, "must be a percentage, from 0 to 100")
		}
	}
	if len(c.Steps) == 0 {
		return l.fail("canary.steps", "must name one percentage at least, such as [1, 10, 50]")
	}
	for i, s := range c.Steps {
		if !(s > 0 && s <= 100) || i > 0 && s <= c.Steps[i-1] {
			return l.fail("canary.steps", "must be percentages above 0, each larger than the one before")
		}
	}
	switch {
	case c.Shadow < 0:
		return l.fail("canary.shadow", "must not be negative")
	case c.Step <= 0:
		return l.fail("canary.step", "must be more than 0")
	case c.Requests < 0:
		return l.fail("canary.requests", "must not be negative")
	case !(c.Guard.Slower >= 0):
		return l.fail("canary.guard.slower", "must not be negative")
	case c.Sticky == "" || strings.ContainsAny(c.Sticky, " :\t\r\n"):
		return l.fail("canary.sticky", "%q is no name of a header", c.Sticky)
	}
	return nil
}

// CheckCandidate refuses a candidate's path that lies within the configuration's,
// where it would be in force at once, or around it.
func CheckCandidate(paths, candidate []string) error {
	for _, p := range paths {
		for _, c := range candidate {
			if within(p, c) || within(c, p) {
				return fmt.Errorf("the candidate's path %s and the configuration's %s lie within each other: put the candidate into a folder of its own", c, p)
			}
		}
	}
	return nil
}

// within reports whether a path is another or lies below it.
func within(outer, inner string) bool {
	a, errA := filepath.Abs(outer)
	b, errB := filepath.Abs(inner)
	if errA != nil || errB != nil {
		return false
	}
	rel, err := filepath.Rel(a, b)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}
