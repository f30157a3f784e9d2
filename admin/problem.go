package admin

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
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
func problems(m *Mesh, members []Member, services []Service, certificates []Certificate) []Problem {
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
	for i := range services {
		serviceProblems(&services[i], add)
	}
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

func serviceProblems(s *Service, add func(severity, page, search, format string, args ...any)) {
	if s.Endpoints > 0 && s.Healthy == 0 {
		add(critical, "endpoints", s.Name, "%s: none of %s can serve: %s", s.Name, count(s.Endpoints, "endpoint"), s.Reason)
		return
	}
	for _, c := range s.Clusters {
		if c.Endpoints > 0 && c.Healthy == 0 {
			add(warning, "endpoints", s.Name+" "+c.Cluster, "%s: none of %s in %s can serve, others do: %s", s.Name, count(c.Endpoints, "endpoint"), c.Cluster, c.Reason)
		} else if c.Healthy < c.Endpoints {
			add(warning, "endpoints", s.Name+" "+c.Cluster, "%s: %d of %s in %s cannot serve: %s", s.Name, c.Endpoints-c.Healthy, count(c.Endpoints, "endpoint"), c.Cluster, c.Reason)
		}
	}
	if severity := Level(s.Traffic); severity != "" && s.Requests >= fewRequests {
		add(severity, "services", s.Name, "%s: %.1f %% of requests fail", s.Name, 100*s.failing())
	}
}

// memberProblems says what ails proxies, many of one ailment in one line.
func memberProblems(own string, members []Member, add func(severity, page, search, format string, args ...any)) {
	dead := map[string][]string{} // by cluster
	var refused, notReady []string
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
		if d := m.Digest; d != nil && d.CertificateEnds != 0 && m.Name != own {
			if left := time.Until(time.Unix(d.CertificateEnds, 0)); left < endsSoon {
				add(bySoon(left), "members", m.Name, "the certificate of %s ends in %s", m.Name, age(max(0, left.Seconds())))
			}
		}
	}
	for cluster, names := range dead {
		if !lives[cluster] {
			add(critical, "members", cluster, "no proxy of %s is to be reached any more", cluster)
			continue
		}
		add(warning, "members", "dead", "%s of %s died: %s", count(len(names), "proxy"), cluster, some(names))
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
