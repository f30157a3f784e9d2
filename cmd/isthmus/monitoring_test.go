package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"isthmus/config"
	"isthmus/proxy"
)

// TestMonitoring_NamesExist: every metric that alerts and dashboards of deploy
// ask for is one that a proxy shows, or that the rules record, and so is each label; and
// each metric of our own is in the documentation.
func TestMonitoring_NamesExist(t *testing.T) {
	b, _, err := config.LoadBootstrap("", []string{
		"ISTHMUS_LISTENERS_OUTBOUND=127.0.0.1:0", "ISTHMUS_LISTENERS_INBOUND=", "ISTHMUS_LISTENERS_ADMIN=", "ISTHMUS_LISTENERS_METRICS=", "ISTHMUS_GOSSIP_BIND=",
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := start(b, proxy.Overload{}, []string{t.TempDir()}, slog.New(slog.NewTextHandler(io.Discard, nil)), new(slog.LevelVar), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	known := map[string]bool{"up": true} // Prometheus' own
	descs := make(chan *prometheus.Desc)
	go func() { // ends with what there is to describe
		s.registry().Describe(descs)
		close(descs)
	}()
	labels := map[string]bool{"job": true, "instance": true} // likewise
	know := func(text string) {
		for _, l := range regexp.MustCompile(`[a-z_]+`).FindAllString(text, -1) {
			labels[l] = true
		}
	}
	name := regexp.MustCompile(`fqName: "([^"]+)".*variableLabels: {([^}]*)}`)
	for d := range descs {
		found := name.FindStringSubmatch(d.String())
		known[found[1]] = true
		know(found[2])
	}

	// Labels of requests are there when there has been one; those of upstreams and links
	// have a line of the documentation.
	if res, err := http.Get("http://" + s.Status().Listeners["outbound"]); err != nil {
		t.Fatal(err)
	} else {
		res.Body.Close()
	}
	page := httptest.NewRecorder()
	s.metrics().ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	for _, f := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(page.Body.String(), -1) {
		known[f[1]] = true
	}

	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^\w+{(.*)} `)
	for _, f := range line.FindAllStringSubmatch(page.Body.String(), -1) {
		know(regexp.MustCompile(`"[^"]*"`).ReplaceAllString(f[1], ""))
	}
	for _, f := range regexp.MustCompile("[`{](envoy_cluster_name|source_cluster|source_locality|destination_locality|outcome|reason)[`}]").FindAllStringSubmatch(string(doc), -1) {
		know(f[1])
	}
	for m := range known {
		if strings.HasPrefix(m, "isthmus_") && !strings.Contains(string(doc), "`"+m) {
			t.Errorf("docs/metrics.md does not have %s", m)
		}
	}

	asked := map[string][]string{} // by place
	var rules struct {
		Groups []struct {
			Rules []struct{ Record, Alert, Expr string }
		}
	}
	text, err := os.ReadFile("../../deploy/prometheus/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &rules); err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Record != "" {
				known[r.Record] = true
			}
			place := "rules.yaml " + r.Alert + r.Record
			asked[place] = append(asked[place], r.Expr)
		}
	}
	boards, err := filepath.Glob("../../deploy/grafana/*.json")
	if err != nil || len(boards) == 0 {
		t.Fatal(err, boards)
	}
	for _, file := range boards {
		var board struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &board); err != nil {
			t.Fatal(err)
		}
		for _, p := range board.Panels {
			for _, q := range p.Targets {
				asked[filepath.Base(file)+" "+p.Title] = append(asked[filepath.Base(file)+" "+p.Title], q.Expr)
			}
		}
	}
	metric := regexp.MustCompile(`\b(?:istio|isthmus|envoy_cluster|envoy_server|process|go)[_:][a-z0-9_:]+`)
	quoted := regexp.MustCompile(`"[^"]*"|\b(?:by|without|on|ignoring) ?\([^)]*\)`)
	label := regexp.MustCompile(`(\w+) ?(?:=|!=|=~|!~) ?"|\b(?:by|without|on|ignoring) ?\(([^)]*)\)`)
	n := 0
	for place, list := range asked {
		for _, expr := range list {
			for _, l := range label.FindAllStringSubmatch(expr, -1) {
				for l := range strings.FieldsFuncSeq(l[1]+l[2], func(r rune) bool { return r == ',' || r == ' ' }) {
					if !labels[l] {
						t.Errorf("%s asks for the label %s, which nothing has", place, l)
					}
				}
			}
			for _, m := range metric.FindAllString(quoted.ReplaceAllString(expr, ""), -1) {
				n++
				if m == "envoy_cluster_name" || known[m] {
					continue
				}
				base := m
				for _, suffix := range []string{"_bucket", "_sum", "_count"} {
					base = strings.TrimSuffix(base, suffix)
				}
				if !known[base] {
					t.Errorf("%s asks for %s, which nobody shows", place, m)
				}
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d names found", n)
	}
}
