package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"isthmus/admin"
)

// What is before and behind the rows of a page: title, pages, an empty line,
// the table's head; an empty line, keys.
const topFrame = 6

// rows is how many rows of a table find room.
func (t *topState) rows() int { return max(1, t.height-topFrame) }

// frame is the whole screen.
func (t *topState) frame() string {
	var b strings.Builder
	b.WriteString("\x1b[H")
	lines := t.lines()
	for i := range t.height {
		line := ""
		if i < len(lines) {
			line = lines[i]
		}
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line + "\x1b[K")
	}
	return b.String()
}

// lines are those of the screen, from its top.
func (t *topState) lines() []string {
	st := &t.mesh.Status
	state := in(green, "ready")
	switch {
	case t.err != nil:
		state = in(red, strings.SplitN(t.err.Error(), "\n", 2)[0])
	case st.Node == "":
		state = in(faint, "asking the proxy")
	case !st.Ready:
		state = in(red, "not ready: "+st.Reason)
	}
	own := t.mesh.Own
	head := []cell{
		in(bold, "isthmus "+st.Node), state, t.problemCount(), // what is behind may be cut off
		text(fmt.Sprintf("snapshot %d", st.Snapshot.Number)),
		text(fmt.Sprintf("here %s/s, %s", admin.FormatRate(own.Requests), admin.FormatSuccess(own))),
	}
	if st.Node == "" {
		head = []cell{in(bold, "isthmus"), state} // of a proxy that has told nothing, nothing is right
	}
	out := []string{t.line(head, "  "), t.tabs(), ""}
	switch t.page {
	case topMesh:
		all := t.meshLines()
		out = append(out, all[min(t.first, len(all)):min(t.first+t.rows()+1, len(all))]...)
	case topServices:
		out = append(out, t.table(serviceHead, t.serviceRows())...)
	case topEndpoints:
		out = append(out, t.table(endpointHead, t.endpointRows())...)
	case topMembers:
		out = append(out, t.table(memberHead, t.memberRows())...)
	}
	if len(out) > t.height-1 {
		out = out[:max(0, t.height-1)]
	}
	for len(out) < t.height-1 {
		out = append(out, "")
	}
	return append(out, t.foot())
}

func (t *topState) problemCount() cell {
	switch n := len(t.mesh.Problems); {
	case t.err != nil:
		return in(amber, "what is below is from before")
	case n == 0:
		return in(faint, "nothing is wrong")
	case t.mesh.Problems[0].Severity == "critical":
		return in(red, fmt.Sprintf("%d wrong", n))
	default:
		return in(amber, fmt.Sprintf("%d to look at", n))
	}
}

func (t *topState) tabs() string {
	cells := make([]cell, topPages)
	for i, name := range topNames {
		cells[i] = text(fmt.Sprintf(" %d %s ", i+1, name))
		if i == t.page {
			cells[i].colour = bars
			if !t.colour {
				cells[i].text = fmt.Sprintf("[%d %s]", i+1, name)
			}
		}
	}
	return t.line(cells, " ")
}

func (t *topState) foot() string {
	if t.typing || t.search != "" {
		cursor := ""
		if t.typing {
			cursor = "_"
		}
		return t.line([]cell{text("/" + t.search + cursor), in(faint, "Enter keeps it, Esc ends it")}, "  ")
	}
	keys := "q ends  Tab page  ↑↓ move"
	switch t.page {
	case topServices:
		by := topSorts[t.sort]
		if by == "" {
			by = "what needs somebody"
		}
		keys += "  / search  s sort (by " + by + ")"
	case topEndpoints:
		keys += "  / search  u those that cannot serve"
		if t.unwell {
			keys += " (only these)"
		}
	case topMembers:
		keys += "  / search"
	}
	if t.first > 0 {
		keys += "  from row " + strconv.Itoa(t.first+1)
	}
	return t.line([]cell{in(faint, keys)}, "")
}

// meshLines are all of the first page.
func (t *topState) meshLines() []string {
	var out []string
	for _, p := range t.mesh.Problems {
		mark := in(amber, "▲")
		if p.Severity == "critical" {
			mark = in(red, "■")
		}
		for _, part := range wrap(printable(p.Text), t.width-2) {
			out = append(out, t.line([]cell{mark, {text: part}}, " "))
			mark = cell{text: " "}
		}
	}
	if len(out) > 0 {
		out = append(out, "")
	}
	var clusters, links [][]cell
	for _, c := range t.mesh.Clusters {
		proxies := figure(fmt.Sprintf("%d/%d", c.Ready, c.Proxies))
		if c.Ready+c.Silent < c.Proxies || c.Dead > 0 {
			proxies = proxies.coloured(amber)
		}
		dead := figure(strconv.Itoa(c.Dead))
		if c.Dead > 0 {
			dead = dead.coloured(red)
		}
		clusters = append(clusters, append([]cell{text(c.Name), proxies, dead, figure(strconv.Itoa(c.Services)), serving(c.Healthy, c.Endpoints)}, traffic(c.Traffic)...))
	}
	for _, l := range t.mesh.Links {
		to := text(l.To)
		if l.To == "" {
			to = in(faint, "no endpoint")
		}
		links = append(links, append([]cell{text(l.From), to}, traffic(l.Traffic)...))
	}
	out = append(out, t.table(append([]cell{text("CLUSTER"), figure("READY"), figure("DEAD"), figure("SERVICES"), figure("HEALTHY")}, trafficHead...), clusters)...)
	if len(links) > 0 {
		out = append(out, "")
		out = append(out, t.table(append([]cell{text("FROM"), text("TO")}, trafficHead...), links)...)
	}
	return out
}

var (
	trafficHead  = []cell{figure("REQUESTS/S"), figure("SUCCESS"), figure("P50"), figure("P99")}
	serviceHead  = append([]cell{text("SERVICE"), figure("HEALTHY"), text("CLUSTERS")}, trafficHead...)
	endpointHead = []cell{text("SERVICE"), text("ADDRESS"), text("CLUSTER"), text("HEALTH"), text("FROM"), figure("AGE")}
	memberHead   = append([]cell{{text: "MEMBER", ends: true}, text("STATE"), text("CONFIGURATION"), text("CERTIFICATE")}, trafficHead...)
)

func traffic(n admin.Traffic) []cell {
	if n.Requests == 0 {
		return []cell{in(faint, "-").toRight(), in(faint, "-").toRight(), in(faint, "-").toRight(), in(faint, "-").toRight()}
	}
	success := figure(admin.FormatSuccess(n))
	switch admin.Level(n) {
	case "critical":
		success = success.coloured(red)
	case "warning":
		success = success.coloured(amber)
	}
	return []cell{figure(admin.FormatRate(n.Requests)), success, figure(admin.FormatMillis(n.P50)), figure(admin.FormatMillis(n.P99))}
}

// serving shows how many of some endpoints can serve.
func serving(healthy, all int) cell {
	c := figure(fmt.Sprintf("%d/%d", healthy, all))
	switch {
	case all > 0 && healthy == 0:
		return c.coloured(red)
	case healthy < all:
		return c.coloured(amber)
	}
	return c
}

func (t *topState) serviceRows() (out [][]cell) {
	for _, s := range t.services {
		var clusters []string
		for _, c := range s.Clusters {
			if c.Endpoints > 0 {
				clusters = append(clusters, fmt.Sprintf("%s %d/%d", c.Cluster, c.Healthy, c.Endpoints))
			}
		}
		out = append(out, append([]cell{text(s.Name), serving(s.Healthy, s.Endpoints), text(strings.Join(clusters, ", "))}, traffic(s.Traffic)...))
	}
	return out
}

func (t *topState) endpointRows() (out [][]cell) {
	for _, e := range t.endpoints {
		health := in(green, "serves")
		if !e.Healthy {
			health = in(red, e.Reason)
		}
		out = append(out, []cell{
			text(fmt.Sprintf("%s:%d", e.Service, e.Port)), text(e.Address), text(e.Cluster), health, text(e.Source),
			figure((time.Duration(e.Age) * time.Second).String()),
		})
	}
	return out
}

func (t *topState) memberRows() (out [][]cell) {
	for _, m := range t.members {
		state, hash, ends, n := in(green, "ready"), "-", "-", admin.Traffic{}
		d := m.Digest
		switch {
		case m.State == "dead":
			state = in(red, m.State)
		case m.State != "alive":
			state = in(faint, m.State)
		case d == nil:
			state = in(faint, "alive, says nothing")
		case d.Refused:
			state = in(amber, "its files are refused")
		case !d.Ready:
			state = in(amber, "not ready")
		case d.Shed != "":
			state = in(amber, "sheds load")
		}
		if d != nil {
			hash, n = d.Hash[:min(8, len(d.Hash))], d.Total()
			if d.CertificateEnds != 0 {
				ends = time.Until(time.Unix(d.CertificateEnds, 0)).Truncate(time.Minute).String()
				ends = strings.TrimSuffix(ends, "0s")
			}
		}
		out = append(out, append([]cell{text(m.Name), state, text(hash), text(ends)}, traffic(n)...))
	}
	return out
}
