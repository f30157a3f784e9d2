package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"maps"
	"regexp"
	"sync"
	"time"
)

const (
	sameLines = time.Minute // between two lines that say the same
	keptLines = 64          // texts that are told apart; all others are one
)

// memberlistLogger turns memberlist's lines, "[WARN] memberlist: text", into
// structured ones. It says of each packet to a member that cannot be reached that it
// could not be sent, some of them every second: what is said again within a minute is
// counted, and the next line has the number.
func memberlistLogger(l *slog.Logger) *log.Logger {
	return log.New(&lineLogger{log: l, said: map[string]*saidLine{}}, "", 0)
}

type lineLogger struct {
	log  *slog.Logger
	mu   sync.Mutex
	said map[string]*saidLine // by text, without ports
}

type saidLine struct {
	at    time.Time
	again int // since then
}

func (w *lineLogger) Write(line []byte) (int, error) {
	text := bytes.TrimSpace(line)
	level := slog.LevelDebug
	for _, l := range []struct {
		tag   string
		level slog.Level
	}{
		// memberlist calls an error what is everyday life in a network, a peer
		// that hung up for one.
		{"[ERR] ", slog.LevelWarn}, {"[WARN] ", slog.LevelInfo}, {"[INFO] ", slog.LevelDebug}, {"[DEBUG] ", slog.LevelDebug},
	} {
		if rest, ok := bytes.CutPrefix(text, []byte(l.tag)); ok {
			text, level = rest, l.level
			break
		}
	}
	if !w.log.Enabled(context.Background(), level) {
		return len(line), nil
	}
	text = bytes.TrimPrefix(text, []byte("memberlist: "))
	var args []any
	if level > slog.LevelDebug { // who asks for those wants all of them
		again, ok := w.due(text)
		if !ok {
			return len(line), nil
		}
		if again > 0 {
			args = []any{"again", again}
		}
	}
	w.log.Log(context.Background(), level, "gossip: "+string(text), args...)
	return len(line), nil
}

// ports are what follows an address of IPv4 or, in brackets, of IPv6, whose own colons
// belong to it: a peer's is another one each time.
var ports = regexp.MustCompile(`(\d\.\d+|\]):\d+\b`)

// due reports whether a text is to be said now, and how often it was not since it was
// said last.
func (w *lineLogger) due(text []byte) (again int, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	key := string(ports.ReplaceAll(text, []byte("$1")))
	s := w.said[key]
	if s == nil && len(w.said) >= keptLines {
		maps.DeleteFunc(w.said, func(_ string, s *saidLine) bool { return now.Sub(s.at) >= sameLines })
		if len(w.said) >= keptLines {
			key = "" // anybody can send packets that are no gossip
			s = w.said[key]
		}
	}
	switch {
	case s == nil:
		w.said[key] = &saidLine{at: now}
		return 0, true
	case now.Sub(s.at) < sameLines:
		s.again++
		return 0, false
	}
	again = s.again
	s.at, s.again = now, 0
	return again, true
}
