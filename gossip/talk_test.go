package gossip

import (
	"slices"
	"sync"
	"testing"
)

// overheard remembers messages.
type overheard struct {
	mu   sync.Mutex // guards list
	list []string
}

func (h *overheard) on(from string, message []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, from+": "+string(message))
}

func (h *overheard) has(text string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.list, text)
}

// TestTalk: members that listen hear each other, and records go on beside that;
// who does not listen, or is gone, is not among the talkers.
func TestTalk(t *testing.T) {
	var atA, atB overheard
	key := []byte("0123456789abcdef0123456789abcdef")
	listening := func(h *overheard, others ...*Gossip) func(*Options) {
		return func(o *Options) {
			joining(others...)(o)
			o.OnTalk, o.Keys = h.on, [][]byte{key}
		}
	}
	a := start(t, "a", listening(&atA))
	b := start(t, "b", listening(&atB, a))
	deaf := start(t, "deaf", func(o *Options) { joining(a)(o); o.Keys = [][]byte{key} })
	eventually(t, "all know each other", func() bool {
		return len(a.Members()) == 3 && len(b.Members()) == 3 && len(deaf.Members()) == 3
	})
	if got := a.Talkers(); !slices.Equal(got, []string{b.Name()}) {
		t.Errorf("a sees %q listen, want %q", got, b.Name())
	}
	eventually(t, "b hears a", func() bool { a.Talk(b.Name(), []byte("hello")); return atB.has(a.Name() + ": hello") })
	eventually(t, "a hears b", func() bool { b.Talk(a.Name(), []byte("")); return atA.has(b.Name() + ": ") })
	a.Talk("nobody", []byte("x"))
	a.Talk(deaf.Name(), []byte("x"))
	b.Announce(endpoints(3, "s"))
	eventually(t, "a hears of b's endpoints", func() bool { return len(of(a, b)) == 3 })
	b.Close()
	eventually(t, "b is gone", func() bool { return len(a.Talkers()) == 0 })
}

// TestTalk_TooLong: a message that is longer than anybody sends is not kept.
func TestTalk_TooLong(t *testing.T) {
	var h overheard
	a := start(t, "a", func(o *Options) { o.OnTalk = h.on })
	message := func(n int) []byte { return append([]byte{messageTalk, 1, 'x'}, make([]byte, n)...) }
	delegate{a}.NotifyMsg(message(maxTalk))
	if n := a.dropped.Load(); n != 1 {
		t.Errorf("%d messages are dropped, want 1", n)
	}
	delegate{a}.NotifyMsg(message(1000))
	eventually(t, "the next one is heard", func() bool { return h.has("x: " + string(make([]byte, 1000))) })
}

// FuzzTalk: whatever bytes come, taking them apart ends.
func FuzzTalk(f *testing.F) {
	f.Add([]byte("\x03abcx"))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, ok := parseTalk(b); ok && (m.from == "" || len(m.from)+len(m.message) >= len(b)) {
			t.Errorf("%q is %+v", b, m)
		}
	})
}
