package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
)

// memberlistLogger turns memberlist's lines, "[WARN] memberlist: text", into
// structured ones.
func memberlistLogger(l *slog.Logger) *log.Logger {
	return log.New(lineLogger{l}, "", 0)
}

type lineLogger struct{ log *slog.Logger }

func (w lineLogger) Write(line []byte) (int, error) {
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
	w.log.Log(context.Background(), level, "gossip: "+string(bytes.TrimPrefix(text, []byte("memberlist: "))))
	return len(line), nil
}
