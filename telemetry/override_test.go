package telemetry

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lines are those of a metric, without what Istio's other labels say.
func lines(t *testing.T, s Source, name string, labels ...string) (out []string) {
	t.Helper()
	for line := range strings.Lines(page(t, s, "")) {
		m := regexp.MustCompile(`^` + name + `\{(.*)\} (\S+)\n$`).FindStringSubmatch(line)
		if m == nil {
			continue
		}
		var shown []string
		for _, label := range labels {
			if v := regexp.MustCompile(`(?:^|,)` + label + `="([^"]*)"`).FindStringSubmatch(m[1]); v != nil {
				shown = append(shown, v[1])
			} else {
				shown = append(shown, "none")
			}
		}
		out = append(out, strings.Join(append(shown, m[2]), " "))
	}
	return out
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// TestOverride: a metric is hidden, another one loses labels, so that what they
// kept apart counts together, and gets some; the others stay as they are.
func TestOverride(t *testing.T) {
	s := newStore()
	other := labels
	other.Destination.Workload = "other"
	before := s.Of(labels)
	s.Override(&Overrides{Source: map[string]Override{
		"istio_response_bytes": {Hidden: true},
		"istio_requests_total": {Tags: []Tag{
			{Name: "build", Value: "7"}, {Name: "destination_workload", Remove: true}, {Name: "response_code", Remove: true},
			{Name: "source_app", From: 2}, {Name: "tenant", From: 1},
		}},
	}})
	for i, r := range []*Requests{before, before, s.Of(other)} {
		e := plain(200+100*i, time.Millisecond)
		e.Tags = []string{"a", "app"}
		r.Record(e)
	}
	e := plain(200, time.Millisecond)
	e.Tags = []string{"b", "app"}
	before.Record(e)
	got := lines(t, s, "istio_requests_total", "build", "destination_workload", "response_code", "source_app", "tenant", "source_workload")
	if len(got) == 2 && got[0] > got[1] {
		got[0], got[1] = got[1], got[0]
	}
	same(t, "changed", got, "7 none none app a client 3", "7 none none app b client 1")
	same(t, "hidden", lines(t, s, "istio_response_bytes_count", "response_code"))
	if got := lines(t, s, "istio_request_bytes_count", "response_code", "tenant"); len(got) != 3 {
		t.Errorf("untouched: %q", got)
	}
	s.Override(&Overrides{})
	if got := lines(t, s, "istio_requests_total", "response_code", "tenant"); len(got) != 3 {
		t.Errorf("taken back: %q", got)
	}
}

// TestOverride_Each: whichever of Istio's labels is removed, what is shown is what was shown with it,
// added up: no two series look alike, which whoever scrapes would refuse, and none is lost.
func TestOverride_Each(t *testing.T) {
	base := Labels{Reporter: "destination"}
	var all []Labels
	change := func(of func(*Labels) reflect.Value) {
		for i := range of(&base).NumField() {
			l := base
			switch f := of(&l).Field(i); {
			case f.Kind() == reflect.Bool:
				f.SetBool(true)
			case f.Kind() == reflect.String && of(&base).Type().Field(i).Name != "Reporter":
				f.SetString("x")
			default:
				continue
			}
			all = append(all, l)
		}
	}
	change(func(l *Labels) reflect.Value { return reflect.ValueOf(l).Elem() })
	change(func(l *Labels) reflect.Value { return reflect.ValueOf(&l.Source).Elem() })
	change(func(l *Labels) reflect.Value { return reflect.ValueOf(&l.Destination).Elem() })
	all = append(all, base)
	shown := func(tags ...Tag) []string {
		s, said := newStore(), map[string]Override{"istio_requests_total": {Tags: tags}}
		for _, f := range (*Requests)(nil).families() {
			if f.name != "istio_requests_total" {
				said[f.name] = Override{Hidden: true}
			}
		}
		s.Override(&Overrides{Destination: said})
		for _, l := range all {
			s.Of(l).Record(plain(200, 0))
		}
		for _, e := range []*Exchange{{Status: 503, Flag: NoFlag, GRPC: NoGRPC}, {Status: 200, Flag: "UH", GRPC: NoGRPC}, {Status: 200, Flag: NoFlag}, {Status: 200, Flag: NoFlag, GRPC: 5}, {Status: 200, Flag: NoFlag, GRPC: GRPCNoStatus}} {
			s.Of(base).Record(e)
		}
		var out []string
		for line := range strings.Lines(page(t, s, "")) {
			if strings.HasPrefix(line, "istio_requests_total{") {
				out = append(out, strings.TrimSpace(line))
			}
		}
		return out
	}
	before := shown()
	for _, removed := range labelNames {
		if removed == "reporter" { // each has its own
			continue
		}
		label, sums := regexp.MustCompile(`\b`+removed+`="[^"]*",?`), map[string]int{}
		for _, line := range before {
			name, n, _ := strings.Cut(strings.Replace(label.ReplaceAllString(line, ""), ",}", "}", 1), "} ")
			count, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(err)
			}
			sums[name] += count
		}
		var want []string
		for name, n := range sums {
			want = append(want, name+"} "+strconv.Itoa(n))
		}
		got := shown(Tag{Name: removed, Remove: true})
		slices.Sort(got)
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Errorf("without %s:\n%s\nwant\n%s", removed, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// TestOverride_Amid: overrides come and go while requests are counted and pages are
// made.
func TestOverride_Amid(t *testing.T) {
	s := newStore()
	r := s.Of(labels)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 200 {
			r.Record(plain(200, 0))
			s.Of(labels)
		}
	})
	wg.Go(func() {
		for range 20 {
			page(t, s, "")
		}
	})
	for i := range 50 {
		o := &Overrides{}
		if i%2 == 0 {
			o.Source = map[string]Override{"istio_requests_total": {Tags: []Tag{{Name: "n", Value: fmt.Sprint(i)}, {Name: "source_app", Remove: true}}}}
		}
		s.Override(o)
	}
	wg.Wait()
	same(t, "afterwards", lines(t, s, "istio_requests_total", "n"), "none 200")
}

// TestOverride_Bounded: whatever requests hold, the series are not too many.
func TestOverride_Bounded(t *testing.T) {
	s := newStore()
	s.Override(&Overrides{Source: map[string]Override{"istio_requests_total": {Tags: []Tag{{Name: "path", From: 1}}}}})
	r := s.Of(labels)
	for i := range maxLabels + 10 {
		e := plain(200, 0)
		e.Tags = []string{fmt.Sprint(i)}
		r.Record(e)
	}
	v := r.others()[0]
	rest := v.other[outcome{status: 200, flag: NoFlag, grpc: NoGRPC, tags: unknown}]
	if len(v.other) != maxLabels+1 || rest == nil || rest.took.count() != 10 {
		t.Errorf("%d series, %+v", len(v.other), rest)
	}
	if n := s.Overflowed(); n != 10 {
		t.Errorf("%d exchanges on top, want 10", n)
	}
}

// TestOverride_RoomAgain: what is forgotten makes room for others.
func TestOverride_RoomAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.Override(&Overrides{Source: map[string]Override{"istio_requests_total": {Tags: []Tag{{Name: "path", From: 1}}}}})
		go s.Follow(t.Context())
		for round := range 2 {
			l := labels
			l.Destination.Workload = fmt.Sprint(round)
			r := s.Of(l)
			for i := range maxLabels {
				e := plain(200, 0)
				e.Tags = []string{fmt.Sprint(i)}
				r.Record(e)
			}
			time.Sleep(4 * KeptFor)
		}
		if n := s.Overflowed(); n != 0 {
			t.Errorf("%d exchanges on top", n)
		}
	})
}

// TestOverride_Forgets: what is shown otherwise goes when what it stands for does.
func TestOverride_Forgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.Override(&Overrides{Source: map[string]Override{"istio_requests_total": {Tags: []Tag{{Name: "source_app", Remove: true}}}}})
		s.Of(labels).Record(plain(200, 0))
		for _, want := range []int{1, 0} {
			if got := lines(t, s, "istio_requests_total"); len(got) != want {
				t.Errorf("%q, want %d", got, want)
			}
			time.Sleep(KeptFor + time.Second)
			page(t, s, "")
		}
	})
}

func TestOverride_Connections(t *testing.T) {
	s := NewStore(NewConnections, func(func(*Connections)) {})
	s.Override(&Overrides{Source: map[string]Override{
		"istio_tcp_connections_closed_total": {Tags: []Tag{{Name: "response_flags", Remove: true}, {Name: "tenant", From: 1}}}, "istio_tcp_sent_bytes_total": {Hidden: true},
	}})
	c := s.Of(labels)
	c.Open()
	c.Sent(5)
	c.Received(6)
	c.Close("UF")
	c.Close(NoFlag)
	same(t, "changed", lines(t, s, "istio_tcp_connections_closed_total", "response_flags", "tenant"), "none unknown 2")
	same(t, "hidden", lines(t, s, "istio_tcp_sent_bytes_total"))
	same(t, "untouched", lines(t, s, "istio_tcp_received_bytes_total", "response_flags"), "- 6")
}
