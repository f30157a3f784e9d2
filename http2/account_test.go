package http2

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestConn_Account: whatever becomes of streams, the connection's window is what was
// granted, and what counts as unread is what lies there, in the end nothing.
func TestConn_Account(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		budget := NewBudget(1 << 30)
		c := NewServer(Options{Budget: budget})
		receive := func(b []byte) {
			t.Helper()
			if n, err := c.Receive(b); err != nil || n != len(b) {
				t.Fatalf("%d of %d bytes were taken: %v", n, len(b), err)
			}
		}
		receive(AppendSettingsAck(AppendSettings([]byte(Preface))))
		type open struct {
			s    *Stream
			id   uint32
			left int // of its window, as the client has it at the least
			over bool
		}
		var all []*open
		next := uint32(1)
		check := func() {
			t.Helper()
			c.mu.Lock()
			defer c.mu.Unlock()
			lies := 0
			for _, o := range all {
				lies += o.s.queue.len()
				if o.s.queue.len() > 0 && !o.s.listed {
					t.Fatalf("stream %d holds %d bytes and is not listed", o.id, o.s.queue.len())
				}
				if r := o.s.recv; o.s.err == nil && !o.s.remoteEnd && r.left+r.read+int64(o.s.queue.len()) != r.size {
					t.Fatalf("stream %d: %+v, %d bytes lie unread", o.id, r, o.s.queue.len())
				}
			}
			if lies != c.unread {
				t.Fatalf("%d bytes lie unread, %d are counted", lies, c.unread)
			}
			if r := c.recv; r.left+r.read+int64(c.withheld) != r.size {
				t.Fatalf("the connection's window %+v, %d withheld", r, c.withheld)
			}
			if held := budget.told[c]; max(held-lies, lies-held) >= budgetStep || lies == 0 && held != 0 {
				t.Fatalf("the budget was told of %d, %d lie there", held, lies)
			}
			if c.active != len(all) {
				t.Fatalf("%d streams are active, want %d", c.active, len(all))
			}
		}
		pick := func(t *rapid.T) *open {
			if len(all) == 0 {
				t.Skip("no stream")
			}
			return rapid.SampledFrom(all).Draw(t, "stream")
		}
		limit := time.Now().Add(time.Minute)
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { check() },
			"open": func(t *rapid.T) {
				if len(all) > 20 {
					t.Skip("enough")
				}
				b := EndHeaders(append(BeginHeaders(nil), requestBlock()...), 0, next, false, maxFrame)
				receive(b)
				all = append(all, &open{s: c.Next(), id: next, left: defaultWindow})
				c.Next()
				next += 2
			},
			"data": func(t *rapid.T) {
				o := pick(t)
				n, pad := rapid.SampledFrom([]int{0, 1, 300, 9000, 15_000}).Draw(t, "bytes"), rapid.IntRange(0, 255).Draw(t, "padding")
				if o.left < n+pad+1 || o.over {
					t.Skip("no window")
				}
				o.left -= n + pad + 1
				o.over = rapid.IntRange(0, 5).Draw(t, "end") == 0
				b := AppendFrameHeader(nil, FrameHeader{uint32(n + pad + 1), FrameData, endFlag(o.over) | FlagPadded, o.id})
				receive(append(append(b, byte(pad)), make([]byte, n+pad)...))
			},
			"trailers": func(t *rapid.T) {
				o := pick(t)
				if o.over {
					t.Skip("over")
				}
				o.over = true
				receive(EndHeaders(AppendField(BeginHeaders(nil), []byte("x-last"), []byte("word")), 0, o.id, true, maxFrame))
			},
			"reset by the client": func(t *rapid.T) {
				o := pick(t)
				if len(all) < 5 { // not all of them: it is a nuisance
					t.Skip("few")
				}
				o.over = true
				c.mu.Lock()
				o.s.opened = time.Time{}
				c.mu.Unlock()
				receive(AppendReset(nil, o.id, CodeCancel))
			},
			"read": func(t *rapid.T) {
				pick(t).s.Read(make([]byte, rapid.SampledFrom([]int{1, 1000, 50_000}).Draw(t, "most")))
			},
			"reply": func(t *rapid.T) {
				c.mu.Lock()
				c.out = c.out[:0]
				c.mu.Unlock()
				if s := pick(t).s; !s.localEnd {
					s.Send(AppendStatus(nil, 200), nil, rapid.Bool().Draw(t, "end"), limit)
				}
			},
			"reset":      func(t *rapid.T) { pick(t).s.Reset(CodeInternal) },
			"throw away": func(t *rapid.T) { c.resetFullest() },
			"close": func(t *rapid.T) {
				o := pick(t)
				for i := range all {
					if all[i] == o {
						all = append(all[:i], all[i+1:]...)
						break
					}
				}
				o.s.Close()
				if !o.over && o.left > 300 {
					receive(append(AppendDataHeader(nil, o.id, false, 300), make([]byte, 300)...)) // which was under way
				}
			},
		})
		for _, o := range all {
			o.s.Close()
		}
		all = nil
		check()
	})
}
