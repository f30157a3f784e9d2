package admin

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Mesh is the whole mesh as one proxy knows it by gossip.
type Mesh struct {
	Status   Status    `json:"status"`
	Problems []Problem `json:"problems"` // the worst first
	Clusters []Cluster `json:"clusters"` // by name
	Links    []Link    `json:"links"`    // those with most errors, then requests, first
	Own      Traffic   `json:"own"`      // of this proxy
	History  []Point   `json:"history"`  // likewise
	Pages    []string  `json:"pages"`    // of the console that have something to show
}

// Cluster is one cluster of the mesh.
type Cluster struct {
	Name      string  `json:"name"`
	Own       bool    `json:"own"`     // this proxy's
	Proxies   int     `json:"proxies"` // that live
	Ready     int     `json:"ready"`   // of them, as far as they tell
	Silent    int     `json:"silent"`  // of them: who have not told of late
	Dead      int     `json:"dead"`
	Services  int     `json:"services"`
	Endpoints int     `json:"endpoints"`
	Healthy   int     `json:"healthy"` // of the endpoints
	Traffic   Traffic `json:"traffic"` // to it, from everywhere
}

// Link is what the proxies of one cluster send to another, or to their own.
type Link struct {
	From string `json:"from"`
	To   string `json:"to"` // "": requests that reached no endpoint
	Traffic
}

// members are the gossip members; this proxy is there also if it does not
// gossip, and what it knows of itself needs no gossip.
func members(s State, st Status) []Member {
	list, own := s.Members(), s.Own()
	i := slices.IndexFunc(list, func(m Member) bool { return m.Name == st.Node })
	if i < 0 {
		cluster, _, _ := strings.Cut(st.Node, "/")
		list = append(list, Member{Name: st.Node, Cluster: cluster, State: "alive", Version: st.Version})
		i = len(list) - 1
	}
	list[i].Digest = &own
	return list
}

// look brings together what the proxy knows of the mesh.
func look(s State) Mesh {
	st := s.Status()
	members, endpoints := members(s, st), s.Endpoints()
	services := servicesOf(members, endpoints)
	m := Mesh{Status: st, History: s.Recent(), Pages: pages(s), Clusters: []Cluster{}, Links: []Link{}, Problems: []Problem{}}

	clusters, links := map[string]*Cluster{}, map[[2]string]*Link{}
	cluster := func(name string) *Cluster {
		if clusters[name] == nil {
			clusters[name] = &Cluster{Name: name}
		}
		return clusters[name]
	}
	for _, member := range members {
		c := cluster(member.Cluster)
		switch member.State {
		case "alive":
			c.Proxies++
		case "dead":
			c.Dead++
		}
		d := member.Digest
		if d == nil && member.State == "alive" {
			c.Silent++
		}
		if member.Name == st.Node {
			c.Own, m.Own = true, d.Total()
		}
		if d == nil {
			continue
		}
		if d.Ready && member.State == "alive" {
			c.Ready++
		}
		for _, f := range d.Flows {
			if f.Service != "" {
				continue
			}
			k := [2]string{member.Cluster, f.Cluster}
			if links[k] == nil {
				links[k] = &Link{From: k[0], To: k[1]}
			}
			links[k].Add(f.Traffic)
			if f.Cluster != "" {
				cluster(f.Cluster).Traffic.Add(f.Traffic)
			}
		}
	}
	for _, service := range services {
		for _, in := range service.Clusters {
			if in.Cluster == "" {
				continue
			}
			c := cluster(in.Cluster)
			c.Endpoints += in.Endpoints
			c.Healthy += in.Healthy
			if in.Endpoints > 0 {
				c.Services++
			}
		}
	}
	for _, c := range clusters {
		m.Clusters = append(m.Clusters, *c)
	}
	slices.SortFunc(m.Clusters, func(a, b Cluster) int { return strings.Compare(a.Name, b.Name) })
	for _, l := range links {
		m.Links = append(m.Links, *l)
	}
	slices.SortFunc(m.Links, func(a, b Link) int {
		return cmp.Or(cmp.Compare(b.Errors, a.Errors), cmp.Compare(b.Requests, a.Requests), strings.Compare(a.From+"\x00"+a.To, b.From+"\x00"+b.To))
	})
	m.Problems = problems(&m, members, services, s.Certificates(), s.Limits())
	return m
}

// WriteMesh writes the mesh for people.
func WriteMesh(w io.Writer, m Mesh) {
	for _, p := range m.Problems {
		fmt.Fprintf(w, "%s: %s\n", p.Severity, p.Text)
	}
	if len(m.Problems) > 0 {
		fmt.Fprintln(w)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CLUSTER\tPROXIES\tREADY\tDEAD\tSERVICES\tENDPOINTS\tHEALTHY\tREQUESTS/S\tSUCCESS\tP50\tP99")
	for _, c := range m.Clusters {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", c.Name, c.Proxies, c.Ready, c.Dead, c.Services, c.Endpoints, c.Healthy, c.Traffic.columns())
	}
	t.Flush()
	if len(m.Links) == 0 {
		return
	}
	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FROM\tTO\tREQUESTS/S\tSUCCESS\tP50\tP99")
	for _, l := range m.Links {
		fmt.Fprintf(t, "%s\t%s\t%s\n", l.From, dash(l.To), l.columns())
	}
	t.Flush()
}

// columns are the last four of a table.
func (t *Traffic) columns() string {
	if t.Requests == 0 {
		return "-\t-\t-\t-"
	}
	return FormatRate(t.Requests) + "\t" + FormatSuccess(*t) + "\t" + FormatMillis(t.P50) + "\t" + FormatMillis(t.P99)
}

// FormatRate writes a number a second with the figures that matter.
func FormatRate(n float64) string {
	switch {
	case n == 0 || n >= 99.95:
		return fmt.Sprintf("%.0f", n)
	case n >= 9.995:
		return fmt.Sprintf("%.1f", n)
	}
	return fmt.Sprintf("%.2f", n)
}

// FormatSuccess writes the share that did not fail. It says 100 % only if
// nothing did.
func FormatSuccess(t Traffic) string {
	good := 100 * (1 - t.failing())
	switch {
	case t.Requests == 0:
		return "-"
	case t.Errors == 0:
		return "100 %"
	case good > 99.99:
		return "99.99 %"
	}
	return fmt.Sprintf("%.2f %%", good)
}

// FormatMillis writes milliseconds as 340 µs, 12 ms, 3.2 s.
func FormatMillis(ms float64) string {
	switch {
	case ms < 1:
		return fmt.Sprintf("%.0f µs", 1000*ms)
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f s", ms/1000)
}
