package main

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
)

// report is all that the page says.
type report struct {
	cases           []benchCase
	peers           []peer
	missing         []string
	rounds, seconds int
	results         results
	troubles        []string // see bench
}

// page is the Markdown document, with the chart of that name beside it.
func (r report) page(chart string) string {
	var b strings.Builder
	b.WriteString("# How fast is it?\n\n")
	fmt.Fprintf(&b, "Made by `bench/peers.sh -case %s -rounds %d -seconds %d -out FILE`.\n%s\n\n",
		strings.Join(r.names(), ","), r.rounds, r.seconds, machine())
	fmt.Fprintf(&b, "![CPU time, added latency and memory beside HAProxy's](%s)\n\n", chart)
	b.WriteString(r.tables())
	return b.String()
}

func (r report) names() []string {
	var names []string
	for _, c := range r.cases {
		names = append(names, c.name)
	}
	return names
}

// tables are the goals in short, the cases, and how it was done.
func (r report) tables() string {
	var b strings.Builder
	b.WriteString(r.inShort())
	for _, c := range r.cases {
		fmt.Fprintf(&b, "## %s [%s]\n\n", c.title, c.name)
		if c.about != "" {
			fmt.Fprintf(&b, "%s\n\n", c.about)
		}
		b.WriteString(r.table(c))
		b.WriteByte('\n')
	}
	b.WriteString(r.method())
	return b.String()
}

// inShort is one line for each goal.
func (r report) inShort() string {
	var b strings.Builder
	b.WriteString("## In short\n\n| | Isthmus | that is | goal | |\n| --- | --- | --- | --- | --- |\n")
	for _, c := range r.cases {
		r.short(&b, c)
		if c.also != "" {
			first := c.figures[0]
			first.goal = c.alsoGoal
			c.base, c.figures = c.also, []figure{first}
			r.short(&b, c)
		}
	}
	b.WriteByte('\n')
	return b.String()
}

func (r report) short(b *strings.Builder, c benchCase) {
	p := c.judged(r.peers)
	for _, f := range c.figures {
		if f.goal == goal0 {
			continue
		}
		fmt.Fprintf(b, "| [%s] %s | %s | %s | %s | %s |\n", c.name, f.title,
			r.value(c, p, f), r.ratioText(c, p, f, " of "+c.whose()), f.goal.text(c), r.verdict(c, p, f))
	}
}

// judged is the peer that a case's goals are for.
func (c benchCase) judged(all []peer) peer {
	list := c.who(all)
	for _, p := range list {
		if p.name != c.base && strings.HasPrefix(p.name, "isthmus") {
			return p
		}
	}
	return list[0]
}

// text says what a goal asks for.
func (g goal) text(c benchCase) string {
	if !g.ofOther {
		return fmt.Sprintf("≤ %.0f MiB", g.most)
	}
	return fmt.Sprintf("≤ %.2f of %s", g.most, c.whose())
}

// whose is the base of a case, in the possessive.
func (c benchCase) whose() string {
	switch {
	case c.without:
		return "the same without"
	case c.base == "isthmus":
		return "one route's"
	case c.base == "haproxy":
		return "HAProxy's"
	}
	return c.base + "'s"
}

// verdict says whether a goal is met. Added latency can be 0 or less, so that
// it compares values, not ratios; ratios are judged as they are printed. What has
// no figure meets nothing.
func (r report) verdict(c benchCase, p peer, f figure) string {
	if !r.measured(c, p.name, f) || f.goal.ofOther && !r.measured(c, c.base, f) {
		return "**not measured**"
	}
	own, limit := r.results.median(c.name, p.name, f.key), f.goal.most
	if f.goal.ofOther {
		limit = (f.goal.most + 0.005) * r.results.median(c.name, c.base, f.key)
	}
	if own <= limit {
		return "met"
	}
	return "**missed**"
}

// ratio is a figure of p beside the one it is compared with; ok is false where
// that makes no sense.
func (r report) ratio(c benchCase, p peer, f figure) (ratio float64, ok bool) {
	base := r.results.median(c.name, c.base, f.key)
	if base <= 0 || !r.measured(c, p.name, f) {
		return 0, false
	}
	return r.results.median(c.name, p.name, f.key) / base, true
}

func (r report) ratioText(c benchCase, p peer, f figure, suffix string) string {
	if x, ok := r.ratio(c, p, f); ok {
		return fmt.Sprintf("%.2f%s", x, suffix)
	}
	return ""
}

// table has a line for each peer; figures with a goal have a ratio and the
// goal beside them.
func (r report) table(c benchCase) string {
	var b strings.Builder
	cells := []string{""}
	for _, f := range c.figures {
		cells = append(cells, f.title)
		if f.goal != goal0 {
			cells = append(cells, "of "+c.whose(), "goal")
		}
	}
	writeRow(&b, cells)
	writeRow(&b, strings.Split(strings.Repeat("---,", len(cells)-1)+"---", ","))
	judged := c.judged(r.peers).name
	for _, p := range c.who(r.peers) {
		cells := []string{p.name}
		for _, f := range c.figures {
			cells = append(cells, r.value(c, p, f))
			if f.goal == goal0 {
				continue
			}
			verdict := ""
			if p.name == judged {
				verdict = f.goal.text(c) + ": " + r.verdict(c, p, f)
			}
			cells = append(cells, r.ratioText(c, p, f, ""), verdict)
		}
		writeRow(&b, cells)
	}
	return b.String()
}

// measured reports whether there is a figure of this peer's.
func (r report) measured(c benchCase, peer string, f figure) bool {
	return len(r.results[[3]string{c.name, peer, f.key}]) > 0
}

// value is a figure's median, or nothing if it was not measured.
func (r report) value(c benchCase, p peer, f figure) string {
	if !r.measured(c, p.name, f) {
		return ""
	}
	return fmt.Sprintf("%.*f", f.digits, r.results.median(c.name, p.name, f.key))
}

func writeRow(b *strings.Builder, cells []string) {
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

// method says how it was done, by which versions, and what went wrong.
func (r report) method() string {
	var b strings.Builder
	b.WriteString("## How it was measured\n\n")
	fmt.Fprintf(&b, "Medians over %s of %d s ([rate]: %d s), peer by peer in each round. One thread each, on a CPU of its own; load and upstream\n"+
		"share the other, which bounds the throughput. CPU is user and system time of the proxy. Every proxy sets one request header and removes\n"+
		"one reply header; Isthmus also matches request headers for three other routes, balances by locality, watches for outliers and counts\n"+
		"for its metrics.\n\n", plural(r.rounds, "round"), r.seconds, max(r.seconds, 8))
	for _, p := range r.peers {
		fmt.Fprintf(&b, "- %s: %s\n", p.name, p.versionLine())
	}
	for _, name := range r.missing {
		fmt.Fprintf(&b, "- %s: not installed, not measured\n", name)
	}
	for _, c := range r.cases {
		for _, p := range c.who(r.peers) {
			total := 0.0
			for _, n := range r.results[[3]string{c.name, p.name, lost}] {
				total += n
			}
			if total > 0 {
				fmt.Fprintf(&b, "- [%s] %s: %.0f requests got no reply\n", c.name, p.name, total)
			}
		}
	}
	for _, trouble := range r.troubles {
		fmt.Fprintf(&b, "- %s\n", trouble)
	}
	return b.String()
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// machine says what this was measured on.
func machine() string {
	model, kernel := "an unknown CPU", "an unknown kernel"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`model name\s*: (.*)`).FindSubmatch(b); m != nil {
			model = string(m[1])
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = strings.TrimSpace(string(b))
	}
	return fmt.Sprintf("%s, %d CPUs, Linux %s, %s.", model, runtime.NumCPU(), kernel, runtime.Version())
}
