package http2

import (
	"testing"
	"time"
)

// TestGlitches has peers behave well and badly for a minute each, a millisecond
// after the other.
func TestGlitches(t *testing.T) {
	type peer func(ms int, did func(times int, g glitch))
	// often is what is done so many times a second, which is at least 1000 or a
	// part of it.
	often := func(perSecond int, g glitch) peer {
		return func(ms int, did func(int, glitch)) {
			if perSecond >= 1000 {
				did(perSecond/1000, g)
			} else if ms%(1000/perSecond) == 0 {
				did(1, g)
			}
		}
	}
	all := func(peers ...peer) peer {
		return func(ms int, did func(int, glitch)) {
			for _, p := range peers {
				p(ms, did)
			}
		}
	}
	once := func(times int, g glitch) peer {
		return func(ms int, did func(int, glitch)) {
			if ms == 30_000 {
				did(times, g)
			}
		}
	}
	for _, tt := range []struct {
		name string
		peer peer
		ends bool
	}{
		{"10000 requests a second, a tenth cancelled", all(often(9000, workRequest), often(1000, glitchReset)), false},
		{"10000 requests a second, half of them hedges", all(often(5000, workRequest), often(5000, glitchReset)), false},
		{"a page left, 250 requests cancelled", once(250, glitchReset), false},
		{"PING to keep a connection alive, each second", often(1, glitchPing), false},
		{"PING and a small update for each small reply", all(often(10_000, glitchPing), often(10_000, glitchWindow), often(10_000, workData), often(10_000, workRequest)), false},
		{"PING and a small update for each message of a stream", all(often(10_000, glitchPing), often(10_000, glitchWindow), often(10_000, workData)), false},
		{"ten small updates for each reply", all(often(10_000, glitchWindow), often(1000, workRequest)), false},
		{"PRIORITY for each request", all(often(5000, glitchPriority), often(5000, workRequest)), false},
		{"settings changed each second", often(1, glitchSettings), false},
		{"heads of 60 KiB", all(often(3000, glitchContinuation), often(2000, workRequest)), false},
		{"a bad request each second", often(1, glitchProvoked), false},
		{"a cookie too large, ten requests a second", often(10, glitchLarge), false},
		{"trailers behind a refusal", all(often(100, glitchStray), often(1000, workRequest)), false},
		{"PRIORITY_UPDATE for each request", all(often(1000, glitchUnknown), often(1000, workRequest)), false},
		{"ten frames behind the end of each reply", all(often(10_000, glitchIdle), often(1000, workRequest)), false},

		{"rapid reset", often(1000, glitchReset), true},
		{"rapid reset, slowly", often(100, glitchReset), true},
		{"rapid reset, among requests", all(often(1000, workRequest), often(5000, glitchReset)), true},
		{"rapid reset at once", once(600, glitchReset), true},
		{"resets provoked", often(100, glitchProvoked), true},
		{"resets provoked among requests", all(often(1000, workRequest), often(1000, glitchProvoked)), true},
		{"HPACK bombs", often(500, glitchLarge), true},
		{"HPACK bombs, slowly", often(50, glitchLarge), true},
		{"bombs on a stream that was reset", often(1000, glitchStray), true},
		{"CONTINUATION flood", often(5000, glitchContinuation), true},
		{"PING flood", often(5000, glitchPing), true},
		{"SETTINGS flood", often(1000, glitchSettings), true},
		{"empty frames", often(5000, glitchEmpty), true},
		{"PRIORITY flood", often(5000, glitchPriority), true},
		{"windows of a byte", often(5000, glitchWindow), true},
		{"unknown frames", often(5000, glitchUnknown), true},
		{"answers that nobody waits for", often(5000, glitchIdle), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b glitches
			start := time.Unix(1, 0)
			ended := -1
			for ms := 0; ms < 60_000 && ended < 0; ms++ {
				tt.peer(ms, func(times int, g glitch) {
					for range times {
						if b.add(g, start.Add(time.Duration(ms)*time.Millisecond)) && ended < 0 {
							ended = ms
						}
					}
				})
			}
			if ended >= 0 != tt.ends {
				t.Errorf("ended after %d ms, want an end: %v; level %d", ended, tt.ends, b.level)
			}
		})
	}
}

// TestGlitches_Budget holds what is done without anything good to the table
// beside glitchCosts.
func TestGlitches_Budget(t *testing.T) {
	at := time.Unix(1, 0)
	for g, want := range map[glitch]int{glitchReset: 500, glitchProvoked: 200, glitchContinuation: 1000, glitchPing: 2000, glitchSettings: 1000,
		glitchEmpty: 2000, glitchRefused: 2000, glitchPriority: 5000, glitchWindow: 5000, glitchUnknown: 5000, glitchIdle: 5000} {
		var b glitches
		n := 0
		for !b.add(g, at) {
			n++
		}
		if n != want {
			t.Errorf("%d: %d at once, want %d", g, n, want)
		}
		// After ten seconds all is forgotten, and no more than that.
		n = 0
		for !b.add(g, at.Add(time.Hour)) {
			n++
		}
		if n != want {
			t.Errorf("%d: %d after an hour, want %d", g, n, want)
		}
	}
	var b glitches
	for range 1000 {
		b.add(workRequest, at)
	}
	if b.level != 0 {
		t.Errorf("good work is saved up: %d", b.level)
	}
}

func TestGlitches_Reset(t *testing.T) {
	at := time.Unix(1, 0)
	for _, tt := range []struct {
		name    string
		open    time.Duration
		replied bool
		want    int32
	}{
		{"just made", 0, false, glitchCosts[glitchReset]},
		{"after the deadline", time.Second, false, 0},
		{"a stream stopped", 0, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b glitches
			if b.addReset(tt.open, tt.replied, at) || b.level != tt.want {
				t.Errorf("%v, level %d, want %d", tt, b.level, tt.want)
			}
		})
	}
}

func TestGlitches_Update(t *testing.T) {
	var b glitches
	at := time.Unix(1, 0)
	if b.addUpdate(windowGlitch, at) || b.level != 0 {
		t.Errorf("an update of %d comes to %d", windowGlitch, b.level)
	}
	if b.addUpdate(windowGlitch-1, at) || b.level != glitchCosts[glitchWindow] {
		t.Errorf("a smaller one comes to %d", b.level)
	}
}

// TestGlitches_ManySettings: a frame that says a setting again and again costs no more work
// on streams than one that says it once.
func TestGlitches_ManySettings(t *testing.T) {
	c := NewServer(Options{MaxStreams: 256})
	in := AppendSettings([]byte(Preface))
	for i := range uint32(256) {
		start := len(in)
		in = EndHeaders(append(BeginHeaders(in), getBlock()...), start, 2*i+1, false, maxFrame)
	}
	if n, err := c.Receive(in); err != nil || n != len(in) || c.Active() != 256 {
		t.Fatal(n, err, c.Active())
	}
	took := func(settings int) time.Duration {
		var list []Setting
		for i := range settings {
			list = append(list, Setting{SettingInitialWindowSize, uint32(1000 + i%2)})
		}
		least := time.Hour
		for i := range uint32(10) {
			list[settings-1].Value = 2000 + i
			frame := AppendSettings(nil, list...)
			begun := time.Now()
			if _, err := c.Receive(frame); err != nil {
				t.Fatal(err)
			}
			least = min(least, time.Since(begun))
			if got := c.streams.get(1).send.left; got != int64(2000+i) {
				t.Fatalf("the window is %d, want %d", got, 2000+i)
			}
		}
		return least
	}
	once, often := took(1), took(maxFrame/settingLen)
	if often > 100*once {
		t.Errorf("%v for a frame of many, %v for one of one", often, once)
	}
}
