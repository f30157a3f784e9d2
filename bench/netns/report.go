package main

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"syscall"
)

// report is what all scenarios have shown.
type report struct {
	command string
	rate    int
	results []*result
}

// page is the Markdown document.
func (r report) page(machine string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# What happens to requests when something fails?\n\nMade by `make netns`, which ran `%s`.\n%s\n\n", r.command, machine)
	b.WriteString(r.text())
	return b.String()
}

// text is the tables, and what each scenario showed.
func (r report) text() string {
	var b strings.Builder
	r.summary(&b)
	r.goals(&b)
	r.method(&b)
	for _, res := range r.results {
		r.details(&b, res)
	}
	return b.String()
}

// summary is a line for each scenario with a load.
func (r report) summary(b *strings.Builder) {
	rows := 0
	for _, res := range r.results {
		if !res.measured {
			continue
		}
		if rows == 0 {
			b.WriteString("## In short\n\n")
			writeRow(b, "", "sent", "failed", "p50 before, after", "p99 before, after", "p99 added", "last request delayed or failed by it", "requests seen / sent", "goals")
			writeRow(b, "---", "---:", "---:", "---", "---", "---:", "---:", "---:", "---")
		}
		rows++
		f := res.figures
		clean := "n/a"
		if res.showsClean {
			clean = ms(f.clean)
			if len(f.touched) == 0 {
				clean = "none"
			}
		}
		writeRow(b, res.scenario.title, fmt.Sprint(f.sent), fmt.Sprint(f.failed), ms(f.before.p50)+", "+ms(f.during.p50), ms(f.before.p99)+", "+ms(f.during.p99),
			ms(f.added()), clean, fmt.Sprintf("%.2f", res.amplification), verdict(res.ok()))
	}
	if rows > 0 {
		b.WriteByte('\n')
	}
}

// goals is a line for each thing that has to hold.
func (r report) goals(b *strings.Builder) {
	b.WriteString("## Goals\n\n")
	writeRow(b, "scenario", "what has to hold", "measured", "")
	writeRow(b, "---", "---", "---", "---")
	for _, res := range r.results {
		for _, c := range res.checks {
			writeRow(b, res.scenario.name, c.what, c.got, verdict(c.ok))
		}
		if res.err != nil {
			writeRow(b, res.scenario.name, "it can be carried out", oneLine(res.err.Error()), verdict(false))
		}
	}
	b.WriteByte('\n')
}

func verdict(ok bool) string {
	if ok {
		return "met"
	}
	return "**missed**"
}

// method says how it was done.
func (r report) method(b *strings.Builder) {
	fmt.Fprintf(b, `## How it was measured

Three clusters on one machine: a network namespace for each of %d pods with an application and its sidecar, and one for the caller's proxy
in %s; one that routes for each cluster; links between these of %v (%s to %s) and %v (to %s) in one direction, made of TUN
devices and a relay that delays and drops packets. Every scenario starts all processes anew. The load is %d GETs a second, sent when
they are due, and latency counts from then; the caller's own client never repeats a request. The event comes %v after the first %v,
which are not counted. All processes share the machine's CPUs: differences below 20 ms say nothing.

A request counts as delayed when it took most of a try's time-out (80 %%) or failed; the last of them says how long an event is felt.

`, podsPerCluster*3, central, nearDelay, central, west, farDelay, europe, r.rate, calm, warmUp)
}

// details is what a scenario showed besides its figures.
func (r report) details(b *strings.Builder, res *result) {
	if res.setting == "" && len(res.notes) == 0 {
		return
	}
	fmt.Fprintf(b, "## %s [%s]\n\n", res.scenario.title, res.scenario.name)
	if res.setting != "" {
		fmt.Fprintf(b, "Setting: %s.\n\n", res.setting)
	}
	if res.measured {
		fmt.Fprintf(b, "- slowest request: %s before, %s after\n", ms(res.figures.before.max), ms(res.figures.during.max))
	}
	for _, n := range res.notes {
		fmt.Fprintf(b, "- %s\n", n)
	}
	if res.measured || len(res.notes) > 0 {
		b.WriteByte('\n')
	}
}

// line is a scenario's outcome in short, for who waits for the next one.
func (r *result) line() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", r.scenario.name, verdict(r.ok()))
	if r.err != nil {
		fmt.Fprintf(&b, "    %v\n", r.err)
	}
	for _, c := range r.checks {
		fmt.Fprintf(&b, "    %-10s %s: %s\n", verdict(c.ok), c.what, c.got)
	}
	return b.String()
}

func writeRow(b *strings.Builder, cells ...string) {
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

// oneLine fits a message into a cell.
func oneLine(s string) string {
	return strings.NewReplacer("\n", " ", "|", "/").Replace(s)
}

var modelName = regexp.MustCompile(`(?m)^model name\s*: (.+)$`)

// machine says what it was measured on.
func machine() string {
	model := "unknown CPU"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := modelName.FindSubmatch(b); m != nil {
			model = string(m[1])
		}
	}
	release := ""
	var u syscall.Utsname
	if syscall.Uname(&u) == nil {
		for _, c := range u.Release {
			if c == 0 {
				break
			}
			release += string(rune(c))
		}
	}
	return fmt.Sprintf("%s, %d CPUs, Linux %s, %s.", model, runtime.NumCPU(), release, runtime.Version())
}
