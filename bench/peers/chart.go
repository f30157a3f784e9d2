package main

import (
	"fmt"
	"html"
	"strings"
)

// Sizes of the chart, in pixels.
const (
	chartLabels = 250 // where bars begin
	chartUnit   = 180 // length of a bar of ratio 1
	chartMost   = 3   // longer bars are cut off
	chartWidth  = chartLabels + chartMost*chartUnit + 70
	barHeight   = 13
	barStep     = 17
	groupGap    = 14
)

// chartStyle reads well on white and, for who prefers it, on black.
const chartStyle = `<style>
text { font: 12px sans-serif; fill: #24292f }
.group { font-weight: bold }
.axis { stroke: #6e7781; stroke-dasharray: 3 3 }
.isthmus { fill: #0969da }
.other { fill: #9aa4af }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.isthmus { fill: #4493f8 }
.other { fill: #656d76 }
}
</style>
`

// chart draws the ratios to HAProxy as bars: shorter is better.
func (r report) chart() string {
	var body strings.Builder
	y := 44
	for _, c := range r.cases {
		if c.base != "haproxy" {
			continue
		}
		for _, f := range c.figures {
			if f.goal == goal0 {
				continue
			}
			fmt.Fprintf(&body, "<text class=\"group\" x=\"8\" y=\"%d\">[%s] %s</text>\n", y+barHeight-2, c.name, html.EscapeString(f.title))
			y += barStep
			for _, p := range c.who(r.peers) {
				if x, ok := r.ratio(c, p, f); ok {
					body.WriteString(bar(p.name, x, y))
					y += barStep
				}
			}
			y += groupGap
		}
	}
	one := chartLabels + chartUnit
	var b strings.Builder
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\">\n", chartWidth, y, chartWidth, y)
	b.WriteString("<title>CPU time, added latency and memory beside HAProxy's</title>\n" + chartStyle)
	fmt.Fprintf(&b, "<text x=\"8\" y=\"20\">Beside HAProxy's, which is 1; shorter is better</text>\n")
	b.WriteString(body.String())
	fmt.Fprintf(&b, "<line class=\"axis\" x1=\"%d\" y1=\"32\" x2=\"%d\" y2=\"%d\"/>\n</svg>\n", one, one, y-groupGap)
	return b.String()
}

// bar is one peer's ratio.
func bar(name string, ratio float64, y int) string {
	class := "other"
	if name == "isthmus" {
		class = "isthmus"
	}
	length := int(max(0, min(ratio, chartMost)) * chartUnit)
	return fmt.Sprintf("<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>"+
		"<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/>"+
		"<text x=\"%d\" y=\"%d\">%.2f</text>\n",
		chartLabels-8, y+barHeight-2, html.EscapeString(name), class, chartLabels, y, length, barHeight,
		chartLabels+length+6, y+barHeight-2, ratio)
}
