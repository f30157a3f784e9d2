package admin

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"isthmus/telemetry"
)

// Problem is one thing that an operator should know at once.
type Problem struct {
	Severity string `json:"severity"` // "critical": requests fail, or soon will; "warning"
	Text     string `json:"text"`
	Page     string `json:"page"`             // of the console that shows more
	Search   string `json:"search,omitempty"` // what to look for there
}

const (
	critical = "critical"
	warning  = "warning"

	// Shares of requests that fail. deploy/prometheus/rules.yaml has the same.
	failing      = 0.01
	failingBadly = 0.05

	// fewRequests a second say nothing of a share.
	fewRequests = 0.2

	// Certificates are renewed when a third of their life is left at the latest;
	// isthmus certs gives them a day.
	endsSoon, endsNow = 6 * time.Hour, time.Hour

	// namedAtMost is how many names a problem tells.
	namedAtMost = 3
)

// problems finds what is wrong in the mesh, the worst first.
func problems(m *Mesh, members []Member, services []Service, certificates []Certificate, limits []Limit) []Problem {
	out := []Problem{}
	add := func(severity, page, search, format string, args ...any) {
		out = append(out, Problem{severity, fmt.Sprintf(format, args...), page, search})
	}
	st := &m.Status
	if !st.Ready {
		add(warning, "configuration", "", "this proxy is not ready: %s", st.Reason)
	}
	if st.Snapshot.Error != "" {
		first, _, _ := strings.Cut(st.Snapshot.Error, "\n")
		add(critical, "configuration", "", "the files have changed and are not used: %s", first)
	}
	serviceProblems(services, add)
	for _, l := range m.Links {
		if severity := Level(l.Traffic); severity != "" && l.Requests >= fewRequests {
			if l.To == "" {
				add(severity, "services", "", "from %s, %s requests a second reach no endpoint", l.From, FormatRate(l.Errors))
				continue
			}
			add(severity, "mesh", "", "from %s to %s, %.1f %% of requests fail", l.From, l.To, 100*l.failing())
		}
	}
	memberProblems(st.Node, members, add)
	for _, l := range limits {
		if l.State != "" {
			add(warning, "limits", l.Name, "the limit %s: %s", l.Name, l.State)
		}
	}
	for _, c := range certificates {
		if c.Ends.IsZero() {
			add(critical, "certificates", c.Name, "the certificate %s cannot be used, and there is no earlier one", c.Name)
			continue
		}
		switch left := time.Until(c.Ends); {
		case left < 0:
			add(critical, "certificates", c.Name, "the certificate %s has ended", c.Name)
		case left < endsSoon:
			add(bySoon(left), "certificates", c.Name, "the certificate %s ends in %s", c.Name, age(left.Seconds()))
		}
		if !c.Usable {
			add(warning, "certificates", c.Name, "the certificate %s cannot be used as its files are now; an earlier one is", c.Name)
		}
	}
	slices.SortStableFunc(out, func(a, b Problem) int { return strings.Compare(a.Severity, b.Severity) })
	return out
}

func bySoon(left time.Duration) string {
	if left < endsNow {
		return critical
	}
	return warning
}

// serviceProblems says which services lack endpoints, and whose requests fail.
// Many that ail alike are one line: a cluster that dies takes part of every
// service along.
func serviceProblems(services []Service, add func(severity, page, search, format string, args ...any)) {
	type ailment struct {
		cluster string // "": in all
		all     bool   // of the endpoints there
	}
	var order []ailment
	ill := map[ailment][]*Service{}
	note := func(a ailment, s *Service) {
		if ill[a] == nil {
			order = append(order, a)
		}
		ill[a] = append(ill[a], s)
	}
	for i := range services {
		s := &services[i]
		if s.Endpoints > 0 && s.Healthy == 0 {
			note(ailment{all: true}, s)
			continue
		}
		for _, c := range s.Clusters {
			if c.Healthy < c.Endpoints {
				note(ailment{c.Cluster, c.Healthy == 0}, s)
			}
		}
		if severity := Level(s.Traffic); severity != "" && s.Requests >= fewRequests {
			add(severity, "services", s.Name, "%s: %.1f %% of requests fail", s.Name, 100*s.failing())
		}
	}
	for _, a := range order {
		list := ill[a]
		severity, in, others := warning, " in "+a.cluster, ", others can"
		if a.cluster == "" {
			severity, in, others = critical, "", ""
		}
		if len(list) > namedAtMost {
			names := make([]string, len(list))
			for i, s := range list {
				names[i] = s.Name
			}
			what := "endpoints" + in + " that cannot serve"
			if a.all {
				what = "no endpoint" + in + " that can serve" + others
			}
			add(severity, "services", a.cluster, "%d services have %s: %s", len(list), what, some(names))
			continue
		}
		for _, s := range list {
			n, bad, reason := s.Endpoints, s.Endpoints-s.Healthy, s.Reason
			if i := slices.IndexFunc(s.Clusters, func(c ServiceCluster) bool { return c.Cluster == a.cluster }); a.cluster != "" {
				n, bad, reason = s.Clusters[i].Endpoints, s.Clusters[i].Endpoints-s.Clusters[i].Healthy, s.Clusters[i].Reason
			}
			search := strings.TrimSpace(s.Name + " " + a.cluster)
			switch {
			case !a.all:
				add(severity, "endpoints", search, "%s: %d of %d endpoints%s cannot serve: %s", s.Name, bad, n, in, reason)
			case n == 1:
				add(severity, "endpoints", search, "%s: the only endpoint%s cannot serve%s: %s", s.Name, in, others, reason)
			default:
				add(severity, "endpoints", search, "%s: none of %d endpoints%s can serve%s: %s", s.Name, n, in, others, reason)
			}
		}
	}
}

// shedding is how it is told what proxies refuse or end since their clients take too
// much.
var shedding = []struct {
	what           telemetry.Shed
	severity, text string
}{
	{telemetry.ShedRequest, critical, "requests are refused for want of memory"},
	{telemetry.ShedConnection, critical, "new connections of clients are refused at their limit"},
	{telemetry.ShedStream, warning, "requests whose bodies nobody reads are reset for want of memory"},
	{telemetry.ShedIdleConnection, warning, "idle connections of clients are ended at their limit"},
}

// memberProblems says what ails proxies, many of one ailment in one line.
func memberProblems(own string, members []Member, add func(severity, page, search, format string, args ...any)) {
	dead := map[string][]string{} // by cluster
	var refused, notReady []string
	sheds := map[telemetry.Shed][]string{}
	lives := map[string]bool{}
	for _, m := range members {
		switch d := m.Digest; {
		case m.State == "dead":
			dead[m.Cluster] = append(dead[m.Cluster], m.Name)
			continue
		case m.State != "alive":
			continue
		case d == nil || m.Name == own:
		case d.Refused:
			refused = append(refused, m.Name)
		case !d.Ready:
			notReady = append(notReady, m.Name)
		}
		lives[m.Cluster] = true
		if d := m.Digest; d != nil && d.Shed != "" {
			sheds[d.Shed] = append(sheds[d.Shed], m.Name)
		}
		if d := m.Digest; d != nil && d.CertificateEnds != 0 && m.Name != own {
			if left := time.Until(time.Unix(d.CertificateEnds, 0)); left < endsSoon {
				add(bySoon(left), "members", m.Name, "the certificate of %s ends in %s", m.Name, age(max(0, left.Seconds())))
			}
		}
	}
	for _, cluster := range slices.Sorted(maps.Keys(dead)) {
		names := dead[cluster]
		if !lives[cluster] {
			add(critical, "members", cluster, "no proxy of %s is to be reached any more", cluster)
			continue
		}
		add(warning, "members", "dead", "%s of %s died: %s", count(len(names), "proxy"), cluster, some(names))
	}
	for _, s := range shedding {
		if names := sheds[s.what]; len(names) > 0 {
			add(s.severity, "members", cmp.Or(only(names), "sheds load"), s.text+" by %s: %s", count(len(names), "proxy"), some(names))
		}
	}
	if len(refused) > 0 {
		add(warning, "members", cmp.Or(only(refused), "refused"), "%s cannot use the files as they are now: %s", count(len(refused), "proxy"), some(refused))
	}
	if len(notReady) > 0 {
		add(warning, "members", cmp.Or(only(notReady), "not ready"), "%s not ready: %s", count(len(notReady), "proxy"), some(notReady))
	}
}

func only(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return ""
}

// some writes the first few of many names.
func some(names []string) string {
	if len(names) > namedAtMost {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:namedAtMost], ", "), len(names)-namedAtMost)
	}
	return strings.Join(names, ", ")
}

// count writes "1 proxy", "2 proxies", "3 endpoints".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if base, ok := strings.CutSuffix(noun, "y"); ok {
		noun = base + "ie"
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
