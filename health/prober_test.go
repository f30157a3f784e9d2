package health

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"isthmus/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// probing is a readiness probe with Kubernetes' defaults.
func probing() *mesh.Probe {
	return &mesh.Probe{Port: 80, Path: "/", Timeout: time.Second, Period: 10 * time.Second, SuccessThreshold: 1, FailureThreshold: 3}
}

func subject(n int) Subject {
	return Subject{Group: "default/g", Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 0)}
}

// script answers looks one after the other, the last word for ever.
type script struct {
	mu    sync.Mutex // guards what is below
	words []string   // "" is a success
	times []time.Time
	most  int // looks at once
	now   int
	takes time.Duration
}

func (s *script) look(ctx context.Context, _ Job) Found {
	s.mu.Lock()
	s.times = append(s.times, time.Now())
	s.now++
	s.most = max(s.most, s.now)
	word := ""
	if len(s.words) > 0 {
		word = s.words[0]
	}
	if len(s.words) > 1 {
		s.words = s.words[1:]
	}
	s.mu.Unlock()
	if s.takes > 0 {
		select {
		case <-ctx.Done():
			word = "no answer in time"
		case <-time.After(s.takes):
		}
	}
	s.mu.Lock()
	s.now--
	s.mu.Unlock()
	switch word {
	case "":
		return Found{}
	case "degraded":
		return Found{Degraded: true}
	}
	return Found{Err: errors.New(word)}
}

// TestProber_Thresholds: Kubernetes' rules, look by look.
func TestProber_Thresholds(t *testing.T) {
	patient := probing()
	patient.SuccessThreshold, patient.FailureThreshold = 2, 2
	for _, tt := range []struct {
		name   string
		probe  *mesh.Probe
		finds  []string
		states []string
	}{
		{"one success is enough", probing(), []string{""}, []string{"ready"}},
		{"two failures are not", probing(), []string{"", "a", "a", "", "a"}, []string{"ready", "ready", "ready", "ready", "ready"}},
		{"three are", probing(), []string{"", "a", "b", "c", "d", ""}, []string{"ready", "ready", "ready", "c", "d", "ready"}},
		{"nothing is known at first", probing(), []string{"a", "a", "a", ""}, []string{"unknown", "unknown", "a", "ready"}},
		{"two successes", patient, []string{"", "", "a", "a", "", "a", "", ""}, []string{"unknown", "ready", "ready", "a", "a", "a", "a", "ready"}},
		{"degraded", probing(), []string{"degraded", "", "degraded"}, []string{"degraded", "ready", "degraded"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{words: tt.finds}
				changes := 0
				p := NewProber(ProberOptions{Look: s.look, Concurrent: 1, Changed: func() { changes++ }})
				defer p.Close()
				p.Watch([]Job{{subject(1), tt.probe}})
				last, want := "unknown", 0
				for i, state := range tt.states {
					synctest.Wait()
					got := describe(p.State(subject(1)))
					if got != state {
						t.Errorf("after look %d: %s, want %s", i+1, got, state)
					}
					if state != last {
						want++
					}
					last = state
					time.Sleep(tt.probe.Period)
				}
				if changes < want {
					t.Errorf("told of %d changes, want %d", changes, want)
				}
			})
		})
	}
}

func describe(s State) string {
	switch {
	case s.Failing != "":
		return s.Failing
	case s.Degraded:
		return "degraded"
	case s.Known:
		return "ready"
	}
	return "unknown"
}

// TestProber_Times: the delay before the first look, the period from start to
// start, the time-out, and when a failure began.
func TestProber_Times(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := probing()
		probe.InitialDelay = 5 * time.Second
		s := &script{takes: time.Hour}
		p := NewProber(ProberOptions{Look: s.look, Concurrent: 4})
		defer p.Close()
		begin := time.Now()
		p.Watch([]Job{{subject(1), probe}})
		time.Sleep(27 * time.Second)
		synctest.Wait()
		var starts []time.Duration
		for _, at := range s.times {
			starts = append(starts, at.Sub(begin))
		}
		if want := []time.Duration{5 * time.Second, 15 * time.Second, 25 * time.Second}; !slices.Equal(starts, want) {
			t.Errorf("looks at %v, want %v", starts, want)
		}
		if st := p.State(subject(1)); st.Failing != "no answer in time" || st.Since.Sub(begin) != 5*time.Second {
			t.Errorf("state %+v, want silence since the first look", st)
		}
		if ok, failed := p.Counts(); ok != 0 || failed != 3 {
			t.Errorf("counts %d and %d, want 0 and 3", ok, failed)
		}
	})
}

// TestProber_Watch: what is watched on keeps its state and its counts, unless
// its probe has become another; what is not is forgotten.
func TestProber_Watch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{words: []string{"", "a"}}
		p := NewProber(ProberOptions{Look: s.look, Concurrent: 4})
		defer p.Close()
		p.Watch([]Job{{subject(1), probing()}})
		time.Sleep(21 * time.Second) // a success, two failures
		moved := probing()
		moved.Source.Line = 7
		p.Watch([]Job{{subject(1), moved}, {subject(1), moved}})
		time.Sleep(10 * time.Second)
		if got := describe(p.State(subject(1))); got != "a" {
			t.Errorf("%s, want the third failure to count: the probe only stands elsewhere", got)
		}
		faster := probing()
		faster.Period = time.Second
		s.mu.Lock()
		s.words = []string{""}
		s.mu.Unlock()
		p.Watch([]Job{{subject(1), faster}})
		if got := describe(p.State(subject(1))); got != "a" {
			t.Errorf("%s, want the state to last until the new probe has found something", got)
		}
		synctest.Wait()
		if got := describe(p.State(subject(1))); got != "ready" {
			t.Errorf("%s, want what the new probe finds", got)
		}
		p.Watch(nil)
		n := len(s.times)
		time.Sleep(time.Minute)
		if len(s.times) != n || p.State(subject(1)).Known {
			t.Error("still looked at, or known")
		}
	})
}

// TestProber_Bounds: looks under way and their rate are bounded, everybody has
// a turn, and the first ones are spread.
func TestProber_Bounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{takes: 300 * time.Millisecond}
		p := NewProber(ProberOptions{Look: s.look, Concurrent: 8, Spacing: 50 * time.Millisecond, Spread: time.Second})
		defer p.Close()
		var jobs []Job
		for i := range 400 {
			jobs = append(jobs, Job{subject(i), probing()})
		}
		p.Watch(jobs)
		begin := time.Now()
		time.Sleep(40 * time.Second)
		synctest.Wait()
		for i := range jobs {
			if !p.State(subject(i)).Known {
				t.Fatalf("target %d has not been looked at", i)
			}
		}
		if s.most > 8 {
			t.Errorf("%d looks at once", s.most)
		}
		if n := len(s.times); n > 800 {
			t.Errorf("%d looks in 40 s, want 20 a second at most", n)
		}
		if s.times[0].Equal(begin) && s.times[1].Equal(begin) {
			t.Error("the first looks are not spread")
		}
	})
}

// TestProber_Close ends looks that are under way, and they say nothing.
func TestProber_Close(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{takes: time.Hour}
		p := NewProber(ProberOptions{Look: s.look, Concurrent: 1, Changed: func() { t.Error("a state has changed") }})
		probe := probing()
		probe.FailureThreshold = 1
		p.Watch([]Job{{subject(1), probe}})
		synctest.Wait()
		p.Close()
		if got := fmt.Sprint(p.Counts()); got != "0 0" {
			t.Errorf("counts %s", got)
		}
	})
}

// TestProber_NoFiles: looks for which this process has no descriptor left say nothing of
// what was to be looked at.
func TestProber_NoFiles(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	port := portOf(server.Listener.Addr().String())
	jobs := map[string]Job{
		"tcp":     {own, &mesh.Probe{Kind: mesh.ProbeTCP, Port: port, Timeout: time.Minute}},
		"http":    {own, &mesh.Probe{Kind: mesh.ProbeHTTP, Port: port, Path: "/", Timeout: time.Minute}},
		"grpc":    {own, &mesh.Probe{Kind: mesh.ProbeGRPC, Port: port, Timeout: time.Minute}},
		"exec":    {own, &mesh.Probe{Kind: mesh.ProbeExec, Command: []string{"/bin/true"}, Timeout: time.Minute}},
		"through": {Subject{Address: netip.MustParseAddrPort(server.Listener.Addr().String()), Service: "a.b", Port: 80}, &mesh.Probe{Timeout: time.Minute}},
	}
	found := map[string]error{}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	for name, j := range jobs {
		found[name] = Looker{}.Look(t.Context(), j).Err
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	for name, err := range found {
		t.Run(name, func(t *testing.T) {
			if !errors.Is(err, unix.EMFILE) {
				t.Fatalf("the look ended with %v", err)
			}
			synctest.Test(t, func(t *testing.T) {
				looks := 0
				p := NewProber(ProberOptions{Concurrent: 1, Look: func(context.Context, Job) Found {
					if looks++; looks == 1 {
						return Found{}
					}
					return Found{Err: err}
				}})
				defer p.Close()
				j := Job{subject(1), probing()}
				p.Watch([]Job{j})
				time.Sleep(time.Minute)
				synctest.Wait()
				if s := p.State(j.Subject); looks < 5 || !s.Known || s.Failing != "" {
					t.Errorf("after %d looks: %+v", looks, s)
				}
			})
		})
	}
}
