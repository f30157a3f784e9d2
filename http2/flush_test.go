package http2

import (
	"bytes"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestFlush_Turns: of two large bodies over one connection each gets its share of
// it, however slow it is, and a small reply goes before what they still have
// to send.
func TestFlush_Turns(t *testing.T) {
	const each, writes = 4 << 20, 40 // the bodies do not end before the writes
	for _, tt := range []struct {
		name    string
		write   time.Duration // how long each takes
		gathers int           // the most that is written at once, after the first ones
	}{
		{"fast", 0, outSize},
		{"slow", 2 * slowWrite, 3 * maxFrame},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// Streams that other tests have given back would wait on channels from outside
			// of the bubble, and it for them. A pool is empty after two collections.
			runtime.GC()
			runtime.GC()
			synctest.Test(t, func(t *testing.T) {
				c := NewServer(Options{})
				widest := AppendSettings(AppendSettings([]byte(Preface)), Setting{SettingInitialWindowSize, maxWindow})
				widest = AppendWindowUpdate(widest, 0, maxWindow-protocolWindow)
				for id := uint32(1); id <= 5; id += 2 {
					start := len(widest)
					widest = EndHeaders(append(BeginHeaders(widest), requestBlock()...), start, id, true, maxFrame)
				}
				if _, err := c.Receive(widest); err != nil {
					t.Fatal(err)
				}
				var over atomic.Int32
				large := func(s *Stream) {
					s.Send(AppendStatus(nil, 200), nil, false, time.Time{})
					s.Write(make([]byte, each), true, time.Time{})
					over.Add(1)
				}
				go large(c.Next())
				go large(c.Next())
				small := c.Next()
				sent, count, asked := map[uint32]int{}, 0, 0
				err := c.Flush(func(p []byte) error {
					count++
					synctest.Wait() // all who can go on have
					if count > 3 && len(p) > tt.gathers {
						t.Errorf("write %d is of %d bytes, want %d at the most", count, len(p), tt.gathers)
					}
					frames(t, p, func(h FrameHeader) {
						if h.Type == FrameData {
							sent[h.Stream] += int(h.Length)
						}
					})
					switch {
					case count == writes:
						go func() { small.Send(AppendStatus(nil, 200), make([]byte, short), true, time.Time{}) }()
						synctest.Wait()
						asked = count
					case asked > 0 && sent[5] == short:
						return io.EOF
					case asked > 0 && count > asked+1:
						t.Error("the small reply is not in the next write but one")
						return io.EOF
					}
					time.Sleep(tt.write)
					return nil
				})
				if err != io.EOF {
					t.Error(err)
				}
				synctest.Wait()
				if over.Load() != 2 {
					t.Error("the connection is over, and somebody still writes")
				}
				// Who is woken first is up to the scheduler, which the race detector has
				// throw dice.
				if a, b := sent[1], sent[3]; 3*min(a, b) < max(a, b) {
					t.Errorf("one has sent %d bytes, the other one %d", a, b)
				}
			})
		})
	}
}

// frames reads the frames of a write, which holds whole ones.
func frames(t *testing.T, p []byte, f func(FrameHeader)) {
	for r := bytes.NewReader(p); r.Len() > 0; {
		var head [frameHeaderLen]byte
		io.ReadFull(r, head[:])
		h := ParseFrameHeader(head[:])
		f(h)
		if _, err := r.Seek(int64(h.Length), io.SeekCurrent); err != nil || r.Len() < 0 {
			t.Fatal("a write ends within a frame")
		}
	}
}
