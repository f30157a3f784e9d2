package main

import (
	"fmt"
	"os"
	"strings"
)

// limitsPage is the Markdown document of what rate limits have shown.
func (r report) limitsPage(machine string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Do rate limits hold?\n\nMade by `make limits-measured`, which ran `%s`.\n%s\n\n", r.command, machine)
	r.goals(&b)
	fmt.Fprintf(&b, `## How it was measured

With the built binary, each proxy in a network namespace. Requests are sent when they are due, and counted when they have been answered.
The sidecar is asked directly. The service is the real envoyproxy/ratelimit with a real Redis; between it and the gateway is a door that can
be closed, slow, silent or wrong. The four gateways have two clusters; the link between these takes %v in each direction. When it is
parted, packets are lost without a word. How limits are kept together: [the decision](adr/009-limits-across-clusters.md), with what a
simulation of up to 1,000 proxies shows.

`, nearDelay)
	for _, res := range r.results {
		r.details(&b, res)
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// write prints a report and keeps it in the file that is wished for.
func (o options) write(rep report) error {
	text, page := rep.text(), rep.page
	if o.limits {
		page = rep.limitsPage
		text = page(machine())
	}
	fmt.Print("\n", text)
	if o.out == "" {
		return nil
	}
	return os.WriteFile(o.out, []byte(page(machine())), 0o644)
}
