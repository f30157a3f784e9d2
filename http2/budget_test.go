package http2

import (
	"errors"
	"sync"
	"testing"
	"time"
)

// TestBudget: bodies that nobody reads hold no more than the budget, over all
// connections; the fullest streams are reset, the others are served.
func TestBudget(t *testing.T) {
	const most = 1 << 20
	const conns, stuck = 8, 6
	budget := NewBudget(most)
	release := make(chan struct{})
	body := make([]byte, 4*defaultWindow)
	var wait sync.WaitGroup
	var mu sync.Mutex // guards reset
	reset := 0
	var all []*ends
	for range conns {
		e := join(Options{}, Options{Budget: budget}, func(s *Stream) {
			if fields, _, _ := s.Request(); string(fields[0].Value) == "GET" {
				<-release
				return
			}
			got, _ := readAll(s)
			s.Send(AppendStatus(nil, 200), got, true, time.Time{})
		})
		all = append(all, e)
		for range stuck {
			s := e.client.Open(0)
			s.Start(getBlock(), nil, false)
			wait.Go(func() { // ends with the reset, or the other side's end
				err := s.Write(body, true, time.Time{})
				var r ResetError
				if errors.As(err, &r) && r == (ResetError{CodeEnhanceYourCalm, true}) {
					mu.Lock()
					reset++
					mu.Unlock()
				}
				s.Close()
			})
		}
	}
	// Each of those that are stuck fills its window, if it is let.
	soon(t, "resets", func() bool { _, resets := budget.State(); return resets > 0 })
	soon(t, "room in the budget", func() bool { held, _ := budget.State(); return held <= most })
	for _, e := range all {
		// While others fill their windows, any may be the one that holds most.
		soon(t, "reply to a body that is read", func() bool {
			s := e.client.Open(0)
			defer s.Close()
			if s.Send(requestBlock(), body[:budgetStep/2], true, time.Time{}) != nil {
				return false
			}
			status, _, _, _ := readReply(s)
			return status == "200"
		})
	}
	lies := 0
	for _, e := range all {
		e.server.mu.Lock()
		lies += e.server.unread
		e.server.mu.Unlock()
	}
	if more := lies - most; more > conns*budgetStep {
		t.Errorf("%d bytes lie unread, %d more than the budget and what is not told of", lies, more)
	}
	close(release)
	for _, e := range all {
		e.close()
	}
	wait.Wait()
	held, resets := budget.State()
	if held != 0 || len(budget.told) != 0 {
		t.Errorf("in the end %d bytes of %d connections are held", held, len(budget.told))
	}
	if reset == 0 || uint64(reset) > resets {
		t.Errorf("%d clients were told of %d resets", reset, resets)
	}
}

// TestBudget_Whole: a body that had come whole, and was then thrown away, has no end
// that anybody could take it for whole by.
func TestBudget_Whole(t *testing.T) {
	c := NewServer(Options{Budget: NewBudget(1)})
	b := AppendSettings([]byte(Preface))
	start := len(b)
	b = EndHeaders(append(BeginHeaders(b), requestBlock()...), start, 1, false, maxFrame)
	b = append(AppendDataHeader(b, 1, true, 4), "body"...)
	if _, err := c.Receive(b); err != nil {
		t.Fatal(err)
	}
	s := c.Next()
	c.resetFullest()
	if s.Ended() {
		t.Error("the body has ended")
	}
	if n, err := s.Read(make([]byte, 9)); n != 0 || err != ErrShed {
		t.Errorf("read %d bytes, %v", n, err)
	}
	s.Close()
}

func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no ", what)
		}
	}
}
