package ratelimit

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"isthmus/mesh"
)

// local is a limit of max tokens, and perFill more every interval.
func local(max, perFill uint32, interval time.Duration) *mesh.LocalRateLimit {
	return &mesh.LocalRateLimit{
		Bucket: &mesh.Bucket{MaxTokens: max, TokensPerFill: perFill, FillInterval: interval}, Enabled: mesh.AllRequests, Enforced: mesh.AllRequests, MaxDynamic: 20,
	}
}

// pass counts how many of n requests are let in.
func pass(l *Local, n int, d *Descriptors) (passed int) {
	for range n {
		if !l.Take(time.Now(), d, nil).Refused {
			passed++
		}
	}
	return passed
}

// descriptors makes lists of key, value, key, value.
func descriptors(lists ...[]string) *Descriptors {
	d := &Descriptors{}
	for _, l := range lists {
		for i := 0; i < len(l); i += 2 {
			d.Add(l[i], []byte(l[i+1]))
		}
		d.End(1)
	}
	return d
}

// TestLocal_Take: the burst first, then as many as are filled in.
func TestLocal_Take(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLocal(local(1000, 100, time.Second))
		if n := pass(l, 5000, nil); n != 1000 {
			t.Errorf("%d of the first requests pass, want the burst of 1000", n)
		}
		for range 30 {
			time.Sleep(time.Second)
			if n := pass(l, 500, nil); n != 100 {
				t.Fatalf("%d pass a second later, want 100", n)
			}
		}
		time.Sleep(time.Hour)
		if n := pass(l, 5000, nil); n != 1000 {
			t.Errorf("%d pass an hour later, want the burst of 1000", n)
		}
		rare := NewLocal(local(1<<30, 1, 365*24*time.Hour))
		o := rare.Take(time.Now(), nil, nil)
		if limit, left, reset, ok := o.State(time.Now()); !ok || limit != 1<<30 || left != limit-1 || reset != 365*24*time.Hour {
			t.Errorf("of a bucket that is filled once a year: %d, %d left, all of it in %v", limit, left, reset)
		}
		pass(rare, 1000, nil)
		if _, _, reset, _ := o.State(time.Now()); reset < 292*365*24*time.Hour {
			t.Errorf("all of it is there in %v, want 1000 years, or as far as durations go", reset)
		}
		if a, r := l.Counts.Allowed.Load(), l.Counts.Enforced.Load(); a != 5000 || r != 20_000 {
			t.Errorf("counted %d and %d, want 5000 and 20000", a, r)
		}
	})
}

// TestLocal_ClockStep: a clock that is set back neither fills a bucket nor keeps
// it shut: instants are monotonic, and an older one fills nothing.
func TestLocal_ClockStep(t *testing.T) {
	l := NewLocal(local(1, 1, time.Second))
	begin := time.Now()
	for _, tt := range []struct {
		at   time.Duration
		pass bool
	}{{0, true}, {-time.Hour, false}, {999 * time.Millisecond, false}, {time.Second + time.Millisecond, true}} {
		if got := !l.Take(begin.Add(tt.at), nil, nil).Refused; got != tt.pass {
			t.Errorf("at %v: passes is %v, want %v", tt.at, got, tt.pass)
		}
	}
}

// TestLocal_Fractions counts and refuses only parts.
func TestLocal_Fractions(t *testing.T) {
	const n = 20_000
	const half = mesh.AllRequests / 2
	for _, tt := range []struct {
		name              string
		enabled, enforced mesh.Fraction
		want              float64 // part that passes, with an empty bucket
	}{
		{"all", mesh.AllRequests, mesh.AllRequests, 0}, {"nothing counts", 0, mesh.AllRequests, 1},
		{"nothing is refused", mesh.AllRequests, 0, 1}, {"half counts", half, mesh.AllRequests, .5}, {"half of a half is refused", half, half, .75},
	} {
		rule := local(1, 1, 1000*time.Hour)
		rule.Enabled, rule.Enforced = tt.enabled, tt.enforced
		l := NewLocal(rule)
		pass(l, 100, nil) // the bucket is empty now, whatever the draws
		got := float64(pass(l, n, nil)) / n
		if math.Abs(got-tt.want) > 5*math.Sqrt(tt.want*(1-tt.want)/n)+1e-3 {
			t.Errorf("%s: %.3f pass, want %.3f", tt.name, got, tt.want)
		}
	}
}

// TestLocal_Descriptors: which bucket a request takes from.
func TestLocal_Descriptors(t *testing.T) {
	bucket := func(n uint32) mesh.Bucket {
		return mesh.Bucket{MaxTokens: n, TokensPerFill: 1, FillInterval: 1000 * time.Hour}
	}
	limit := func(change func(*mesh.LocalRateLimit)) *Local {
		rule := local(50, 1, 1000*time.Hour)
		rule.Descriptors = []mesh.BucketDescriptor{
			{Entries: []mesh.DescriptorEntry{{Key: "user", Value: "a"}}, Bucket: bucket(10)},
			{Entries: []mesh.DescriptorEntry{{Key: "user", Value: "a"}, {Key: "path", Value: "/"}}, Bucket: bucket(5)},
			{Entries: []mesh.DescriptorEntry{{Key: "user"}}, Bucket: bucket(3)},
			{Entries: []mesh.DescriptorEntry{{Key: "counted", Value: "only"}}, Bucket: bucket(1), Shadow: true},
		}
		if change != nil {
			change(rule)
		}
		return NewLocal(rule)
	}
	alone := func(r *mesh.LocalRateLimit) { r.DescriptorsOnly = true }
	for _, tt := range []struct {
		name   string
		change func(*mesh.LocalRateLimit)
		d      *Descriptors
		want   int
	}{
		{"no descriptor", nil, nil, 50},
		{"another key", nil, descriptors([]string{"x", "a"}), 50},
		{"a value", nil, descriptors([]string{"user", "a"}), 10},
		{"one entry more", nil, descriptors([]string{"user", "a", "path", "/"}), 5},
		{"in another order", nil, descriptors([]string{"path", "/", "user", "a"}), 50},
		{"a wildcard", nil, descriptors([]string{"user", "b"}), 3},
		{"a value, after a wildcard", func(r *mesh.LocalRateLimit) { slices.Reverse(r.Descriptors) }, descriptors([]string{"user", "a"}), 10},
		{"the narrowest of two", nil, descriptors([]string{"user", "a"}, []string{"user", "a", "path", "/"}), 5},
		{"a descriptor that only counts", nil, descriptors([]string{"counted", "only"}), 50},
		{"without the common bucket", func(r *mesh.LocalRateLimit) { alone(r); r.Bucket.MaxTokens = 1 }, descriptors([]string{"user", "a"}), 10},
		{"with the common bucket", func(r *mesh.LocalRateLimit) { r.Bucket.MaxTokens = 1 }, descriptors([]string{"user", "a"}), 1},
		{"no common bucket at all", func(r *mesh.LocalRateLimit) { r.Bucket = nil }, descriptors([]string{"x", "a"}), 100},
	} {
		if got := pass(limit(tt.change), 100, tt.d); got != tt.want {
			t.Errorf("%s: %d of 100 pass, want %d", tt.name, got, tt.want)
		}
	}
	var room Descriptors // asks whether there is any
	room.Add("user", []byte("a"))
	room.End(0)
	asked := limit(nil)
	if before, in, after := pass(asked, 20, &room), pass(asked, 20, descriptors([]string{"user", "a"})), pass(asked, 20, &room); before != 20 || in != 10 || after != 0 {
		t.Errorf("%d of 20 are told that there is room, then %d pass, then %d are told so; want 20, 10 and 0", before, in, after)
	}
	l := limit(nil)
	if b, c := pass(l, 100, descriptors([]string{"user", "b"})), pass(l, 100, descriptors([]string{"user", "c"})); b != 3 || c != 3 {
		t.Errorf("two values of a wildcard: %d and %d pass, want 3 each", b, c)
	}
}

// TestLocal_WildcardIsBounded: many values, and no more memory than for those
// that are kept.
func TestLocal_WildcardIsBounded(t *testing.T) {
	const n = 300_000
	rule := local(1, 1, time.Second)
	rule.Bucket, rule.MaxDynamic = nil, 1000
	rule.Descriptors = []mesh.BucketDescriptor{{Entries: []mesh.DescriptorEntry{{Key: "user"}}, Bucket: mesh.Bucket{MaxTokens: 1, TokensPerFill: 1, FillInterval: time.Second}}}
	l := NewLocal(rule)
	d, at, value := &Descriptors{}, time.Now(), []byte(nil)
	take := func(from, to int) {
		for i := from; i < to; i++ {
			d.Reset()
			value = fmt.Appendf(value[:0], "user-%d", i)
			d.Add("user", value)
			d.End(1)
			l.Take(at, d, nil)
		}
	}
	take(0, 2000)
	before := heapSize()
	take(2000, n)
	if after := heapSize(); after > before+1<<20 {
		t.Errorf("%d KiB after %d values, %d KiB after 2000", after>>10, n, before>>10)
	}
	if got := len(l.States(at)); got != maxShown {
		t.Errorf("%d buckets are shown, want %d", got, maxShown)
	}
}

func heapSize() uint64 {
	runtime.GC()
	runtime.GC() // what the first has finalised
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestLocal_PerConnection(t *testing.T) {
	rule := local(10, 1, time.Hour)
	rule.PerConnection = true
	l := NewLocal(rule)
	for range 3 {
		b, passed := l.NewBuckets(), 0
		for range 100 {
			if !l.Take(time.Now(), nil, b).Refused {
				passed++
			}
		}
		if passed != 10 {
			t.Errorf("%d of a connection's requests pass, want 10", passed)
		}
	}
}

func TestLocal_AllocatesNothing(t *testing.T) {
	l, at := NewLocal(local(1, 1, time.Hour)), time.Now()
	if n := testing.AllocsPerRun(1000, func() { l.Take(at, nil, nil) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkLocal: alone, and 16 goroutines at one bucket.
func BenchmarkLocal(b *testing.B) {
	b.Run("1", func(b *testing.B) {
		l, at := NewLocal(local(1<<30, 1<<30, time.Second)), time.Now()
		b.ReportAllocs()
		for b.Loop() {
			l.Take(at, nil, nil)
		}
	})
	b.Run("16", func(b *testing.B) {
		l, at := NewLocal(local(1<<30, 1<<30, time.Second)), time.Now()
		b.ReportAllocs()
		b.SetParallelism(max(16/runtime.GOMAXPROCS(0), 1))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				l.Take(at, nil, nil)
			}
		})
	})
}

// TestLocal_OutOfOrder: requests that get to a bucket in another order than they came in
// do not fill it twice.
func TestLocal_OutOfOrder(t *testing.T) {
	rule := mesh.LocalRateLimit{
		Bucket: &mesh.Bucket{MaxTokens: 10, TokensPerFill: 10, FillInterval: time.Second}, Enabled: mesh.AllRequests, Enforced: mesh.AllRequests,
		Descriptors:     []mesh.BucketDescriptor{{Entries: []mesh.DescriptorEntry{{Key: "a", Value: "b"}}, Bucket: mesh.Bucket{MaxTokens: 10, TokensPerFill: 10, FillInterval: time.Second}}},
		DescriptorsOnly: true,
	}
	var d Descriptors
	d.Add("a", []byte("b"))
	d.End(1)
	for name, counted := range map[string]*Descriptors{"all": nil, "by a descriptor": &d} {
		l := NewLocal(&rule)
		begin, passed := time.Now(), 0
		for i := range 1000 {
			if o := l.Take(begin.Add(time.Duration(i%2)*time.Second), counted, nil); !o.Limited {
				passed++
			}
		}
		if passed < 10 || passed > 20 {
			t.Errorf("%s: %d pass in a second of 10 a second that begins with 10", name, passed)
		}
	}
}

// TestLocal_States: buckets are shown with what they are for and what is in them; they and
// the counts live on with the next snapshot.
func TestLocal_States(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := func(n uint32) mesh.Bucket {
			return mesh.Bucket{MaxTokens: n, TokensPerFill: 1, FillInterval: 1000 * time.Hour}
		}
		rule := local(5, 1, 1000*time.Hour)
		rule.DescriptorsOnly = true
		rule.Descriptors = []mesh.BucketDescriptor{
			{Entries: []mesh.DescriptorEntry{{Key: "user", Value: "a"}, {Key: "path", Value: "/"}}, Bucket: bucket(10)},
			{Entries: []mesh.DescriptorEntry{{Key: "user"}, {Key: "path"}}, Bucket: bucket(3), Shadow: true},
		}
		l := NewLocal(rule)
		if n := pass(l, 4, descriptors([]string{"user", "x y", "path", "/b"})); n != 4 {
			t.Errorf("%d pass a limit that only counts, want 4", n)
		}
		if c := l.Counts; c.Allowed.Load() != 4 || c.Shadow.Load() != 1 || c.Limited.Load() != 0 || c.Enforced.Load() != 0 {
			t.Errorf("counted %d, %d that would have been too many, %d and %d that were", c.Allowed.Load(), c.Shadow.Load(), c.Limited.Load(), c.Enforced.Load())
		}
		shown := func(l *Local) (out []string) {
			for _, s := range l.States(time.Now()) {
				out = append(out, fmt.Sprintf("%s: %g of %d, %v %v", s.Descriptor, s.Tokens, s.Bucket.MaxTokens, s.Shadow, s.PerConnection))
			}
			return out
		}
		want := []string{": 5 of 5, false false", "user=a path=/: 10 of 10, false false", `user="x y" path=/b: 0 of 3, true false`}
		if got := shown(l); !slices.Equal(got, want) {
			t.Errorf("shown are %q, want %q", got, want)
		}
		next := NewLocal(rule)
		if next.Adopt(l); next.Counts != l.Counts || !slices.Equal(shown(next), want) {
			t.Errorf("of the next snapshot: %q", shown(next))
		}
		each := *rule
		each.PerConnection = true
		if got := shown(NewLocal(&each)); !slices.Equal(got, []string{": 5 of 5, false true", "user=a path=/: 10 of 10, false true"}) {
			t.Errorf("of each connection: %q", got)
		}
	})
}

// TestText: what clients have written cannot be taken for something else where it is shown.
func TestText(t *testing.T) {
	long := fmt.Sprintf("%0100d", 0)
	for s, want := range map[string]string{
		"a": "a", "": "", "!/é": "!/é", "a b": `"a b"`, "a=b": `"a=b"`, "a,b": `"a,b"`, `a"b`: `"a\"b"`, "a\nb": `"a\nb"`, "a\x7f": `"a\x7f"`, "a\x1f": `"a\x1f"`,
		long: long, long + "0": long + "...",
	} {
		if got := text(s); got != want {
			t.Errorf("%q is shown as %s, want %s", s, got, want)
		}
	}
}
