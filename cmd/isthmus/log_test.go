package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// sluggish takes nothing until its gate opens.
type sluggish struct {
	gate chan struct{}
	mu   sync.Mutex
	text strings.Builder
}

func (s *sluggish) Write(p []byte) (int, error) {
	<-s.gate
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// TestPatientLog: nobody waits for a log that is not taken. What there is room for comes
// in order when it is, and what there was none for is counted.
func TestPatientLog(t *testing.T) {
	line := strings.Repeat("x", 1<<10-8)
	for _, tt := range []struct {
		name        string
		lines, lost int
		never       bool // the gate stays shut
	}{
		{"a few", 3, 0, false},
		{"too many", 2 * maxWaiting >> 10, maxWaiting>>10 - 1, false}, // one is on its way
		{"for ever", 2 * maxWaiting >> 10, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				to := &sluggish{gate: make(chan struct{})}
				l := newPatientLog(to)
				began := time.Now()
				for i := range tt.lines {
					fmt.Fprintf(l, "%06d %s\n", i, line)
					synctest.Wait() // the first is taken out
				}
				if took := time.Since(began); took != 0 {
					t.Errorf("the lines took %v", took)
				}
				if !tt.never {
					close(to.gate)
				}
				l.close()
				if took := time.Since(began); tt.never != (took == flushWithin) {
					t.Errorf("the end took %v", took)
				}
				if tt.never {
					close(to.gate) // for the goroutine
					<-l.done
					return
				}
				to.mu.Lock()
				defer to.mu.Unlock()
				got := strings.Split(strings.TrimSuffix(to.text.String(), "\n"), "\n")
				whole := tt.lines - tt.lost
				for i, text := range got[:whole] {
					if want := fmt.Sprintf("%06d %s", i, line); text != want {
						t.Fatalf("line %d is %.20q", i, text)
					}
				}
				rest := strings.Join(got[whole:], "\n")
				if want := fmt.Sprintf("lines=%d", tt.lost); tt.lost > 0 && !strings.HasSuffix(rest, want) || tt.lost == 0 && rest != "" {
					t.Errorf("at the end %.100q, want %q", rest, want)
				}
			})
		})
	}
}

// TestPatientLog_Long: a line that is longer than all that may wait comes where nothing
// does.
func TestPatientLog_Long(t *testing.T) {
	to := &sluggish{gate: make(chan struct{})}
	close(to.gate)
	l := newPatientLog(to)
	line := strings.Repeat("x", 2*maxWaiting) + "\n"
	fmt.Fprint(l, line)
	l.close()
	if got := to.text.String(); got != line {
		t.Errorf("%d bytes came, want %d: %.100q", len(got), len(line), got)
	}
}
