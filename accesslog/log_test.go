package accesslog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

func format(t testing.TB, s string) *Format {
	t.Helper()
	f, err := ParseFormat(s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

var all = Rule{Share: 1}

// log logs an exchange of a status.
func log(l *Log, status int) {
	e := known()
	e.Status = status
	l.Record(&all, e)
}

func count(t *testing.T, l *Log, written, lost uint64) {
	t.Helper()
	if w, n := l.Lines(); w != written || n != lost {
		t.Errorf("%d lines written and %d lost, want %d and %d", w, n, written, lost)
	}
}

// disk is a file that does what a test wants.
type disk struct {
	mu   sync.Mutex
	text bytes.Buffer
	room int           // how many bytes it takes; less than 0: any number
	gate chan struct{} // nil: it is never blocked
	each []int         // how many bytes it was given at a time
}

func (d *disk) Write(p []byte) (int, error) {
	if d.gate != nil {
		<-d.gate
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.each = append(d.each, len(p))
	if d.room >= 0 && len(p) > d.room {
		n, _ := d.text.Write(p[:d.room])
		d.room = 0
		return n, syscall.ENOSPC
	}
	if d.room >= 0 {
		d.room -= len(p)
	}
	return d.text.Write(p)
}

func (d *disk) Close() error { return nil }

func logTo(t *testing.T, d *disk) *Log {
	return New(Options{Format: format(t, "%RESPONSE_CODE%"), open: func(string) (io.WriteCloser, error) { return d, nil }})
}

// TestLog_Gathers: a line waits for others, but not for long.
func TestLog_Gathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{room: -1}
		l := logTo(t, d)
		defer l.Close()
		log(l, 200)
		synctest.Wait()
		log(l, 201)
		count(t, l, 0, 0)
		time.Sleep(gatherFor)
		synctest.Wait()
		count(t, l, 2, 0)
		if got := d.text.String(); got != "200\n201\n" {
			t.Errorf("%q", got)
		}
		const many = (writeFrom + recordSize - 1) / recordSize
		for range many {
			log(l, 202)
		}
		synctest.Wait()
		count(t, l, 2+many, 0) // at once
		log(l, 203)
		l.Close()
		count(t, l, 3+many, 0)
		log(l, 204)
		count(t, l, 3+many, 1)
	})
}

// TestLog_Blocked: whoever logs goes on although the disk does not, and what is
// lost is counted.
func TestLog_Blocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{room: -1, gate: make(chan struct{})}
		l := logTo(t, d)
		log(l, 200)
		time.Sleep(time.Second)
		const most = (maxGathered + recordSize - 1) / recordSize
		for range most + 10 {
			log(l, 200)
		}
		count(t, l, 0, 10)
		began := time.Now()
		l.Close()
		if waited := time.Since(began); waited != closeWithin {
			t.Errorf("Close waited for %v", waited)
		}
		close(d.gate)
		<-l.done
		count(t, l, most+1, 10)
	})
}

// TestLog_Full: a disk without room costs lines; what was written in part does
// not become a part of the next line.
func TestLog_Full(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{room: 6}
		l := logTo(t, d)
		defer l.Close()
		for range 3 {
			log(l, 200)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		count(t, l, 1, 2)
		log(l, 300)
		time.Sleep(time.Second)
		synctest.Wait()
		count(t, l, 1, 3)
		d.mu.Lock()
		d.room = -1
		d.mu.Unlock()
		log(l, 400)
		time.Sleep(time.Second)
		synctest.Wait()
		count(t, l, 2, 3)
		if got := d.text.String(); got != "200\n20\n400\n" {
			t.Errorf("%q", got)
		}
	})
}

// TestLog_Parts: the lines of a batch are written some at a time, whole and in their
// order, and a write that fails costs its own.
func TestLog_Parts(t *testing.T) {
	const many, size = 1000, 1024
	synctest.Test(t, func(t *testing.T) {
		d := &disk{room: writeSize + size + 100} // the second write finds room for a part of a line
		l := New(Options{
			Format: format(t, "%BYTES_SENT%"+strings.Repeat(".", size)),
			open: func(string) (io.WriteCloser, error) {
				return d, nil
			},
		})
		defer l.Close()
		e := known()
		for i := range many {
			e.ReplyBody = 1000 + int64(i)
			l.Record(&all, e)
		}
		const line = size + 4 + 1
		const perWrite = (writeSize + line - 1) / line
		time.Sleep(gatherFor)
		synctest.Wait()
		count(t, l, perWrite, many-perWrite)
		d.mu.Lock()
		d.room, d.each = -1, nil
		d.mu.Unlock()
		for i := range many {
			e.ReplyBody = 1000 + int64(i)
			l.Record(&all, e)
		}
		time.Sleep(gatherFor)
		synctest.Wait()
		count(t, l, perWrite+many, many-perWrite)
		for _, n := range d.each {
			if n > perWrite*line {
				t.Errorf("%d bytes are written at a time, with lines of %d", n, line)
			}
		}
		lines := strings.Split(strings.TrimSuffix(d.text.String(), "\n"), "\n")
		for i := range lines {
			want := i // of the first batch
			if i > perWrite {
				want = i - perWrite - 1
			}
			if i != perWrite && (len(lines[i]) != line-1 || !strings.HasPrefix(lines[i], fmt.Sprint(1000+want, "."))) {
				t.Fatalf("line %d of %d is %.10q, of %d bytes", i, len(lines), lines[i], len(lines[i]))
			}
		}
		if len(lines) != perWrite+1+many {
			t.Errorf("%d lines", len(lines))
		}
	})
}

// TestLog_Broken: a format that breaks costs its lines, and no others.
func TestLog_Broken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, told := &disk{room: -1}, bytes.Buffer{}
		l := New(Options{
			Format: format(t, "%DOWNSTREAM_REMOTE_ADDRESS%"), Logger: slog.New(slog.NewTextHandler(&told, nil)),
			open: func(string) (io.WriteCloser, error) { return d, nil },
		})
		l.Format().runs[0].scope = scopes // which is none
		log(l, 200)
		time.Sleep(time.Second)
		count(t, l, 0, 1)
		l.Move("", format(t, "%RESPONSE_CODE%"))
		log(l, 201)
		l.Close()
		count(t, l, 1, 1)
		if d.text.String() != "201\n" || !strings.Contains(told.String(), "panic while making lines") {
			t.Errorf("%q, and the log has %q", d.text.String(), told.String())
		}
	})
}

func TestLog_CannotBeOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken, d := true, &disk{room: -1}
		l := New(Options{Format: format(t, "%RESPONSE_CODE%"), open: func(string) (io.WriteCloser, error) {
			if broken {
				return nil, errors.New("no such folder")
			}
			return d, nil
		}})
		log(l, 200)
		time.Sleep(time.Second)
		synctest.Wait()
		count(t, l, 0, 1)
		broken = false
		log(l, 201)
		l.Close()
		count(t, l, 1, 1)
	})
}

// TestLog_Tells: the process's log has why lines are lost, at once, and once a minute
// while they are.
func TestLog_Tells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told bytes.Buffer
		broken, d := true, &disk{room: -1, gate: make(chan struct{})}
		l := New(Options{
			Format: format(t, "%RESPONSE_CODE%"), Logger: slog.New(slog.NewTextHandler(&told, nil)),
			open: func(string) (io.WriteCloser, error) {
				if broken {
					return nil, errors.New("no such folder")
				}
				return d, nil
			},
		})
		is := func(want ...string) {
			t.Helper()
			synctest.Wait()
			lines := strings.SplitAfter(told.String(), "\n")
			told.Reset()
			if len(lines)-1 != len(want) {
				t.Fatalf("got %q, want %q", lines, want)
			}
			for i, w := range want {
				if !strings.HasSuffix(lines[i], w+"\n") || !strings.Contains(lines[i], "lines of the access log are lost") {
					t.Errorf("got %q, want %q", lines[i], w)
				}
			}
		}
		log(l, 200)
		time.Sleep(time.Second)
		is(`lines=1 error="no such folder"`)
		for range 70 {
			log(l, 200)
			time.Sleep(time.Second)
		}
		is(`lines=60 error="no such folder"`)
		broken = false
		log(l, 200)
		time.Sleep(time.Minute)
		for range (maxGathered+recordSize-1)/recordSize + 10 {
			log(l, 200)
		}
		close(d.gate)
		time.Sleep(time.Second)
		is(`lines=20 error="` + errTooSlow.Error() + `"`)
		log(l, 200)
		l.Close()
		is()
	})
}

// TestLog_Rotation: a file that was moved away is left alone, with a word or
// without, and one that was there is appended to.
func TestLog_Rotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	if err := os.WriteFile(path, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := New(Options{Path: path, Format: format(t, "%RESPONSE_CODE%")})
	w := &writer{log: l}
	defer w.close()
	lines := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(b), "\n", " ")
	}
	w.write([]byte("1\n"), 1)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	w.write([]byte("2\n"), 1) // not noticed yet
	l.Reopen()
	w.write([]byte("3\n"), 1)
	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	w.looked = time.Time{} // a second has passed
	w.write([]byte("4\n"), 1)
	if got, want := lines(path+".1")+lines(path+".2")+lines(path), "before 1 2 3 4 "; got != want || lines(path) != "4 " {
		t.Errorf("%q, want %q", got, want)
	}
	l.Close()
}

func TestLog_Share(t *testing.T) {
	d := &disk{room: -1}
	l := logTo(t, d)
	half, e := Rule{Share: 0.5}, known()
	for range 10000 {
		l.Record(&half, e)
	}
	l.Close()
	if n, _ := l.Lines(); n < 4700 || n > 5300 { // six standard deviations
		t.Errorf("%d of 10000 lines", n)
	}
}

// TestLog_Many: lines of many that log at once are whole, and each one's stand in
// their order.
func TestLog_Many(t *testing.T) {
	const loggers, each = 8, 500
	d := &disk{room: -1}
	l := New(Options{Format: format(t, "%BYTES_RECEIVED%-%BYTES_SENT%"), open: func(string) (io.WriteCloser, error) { return d, nil }})
	var wg sync.WaitGroup
	for i := range loggers {
		wg.Go(func() {
			e := known()
			for j := range each {
				e.RequestBody, e.ReplyBody = int64(i), int64(j)
				l.Record(&all, e)
			}
		})
	}
	wg.Wait()
	l.Close()
	count(t, l, loggers*each, 0)
	var next [loggers]int
	for line := range strings.Lines(d.text.String()) {
		var i, j int
		if _, err := fmt.Sscanf(line, "%d-%d\n", &i, &j); err != nil || i >= loggers || j != next[i] {
			t.Fatalf("%q: %v; %v came before", line, err, next)
		}
		next[i]++
	}
}

// TestLog_Move: what is logged after that stands elsewhere, in another format.
func TestLog_Move(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	l := New(Options{Path: a, Format: format(t, "%RESPONSE_CODE%")})
	w := &writer{log: l}
	defer w.close()
	w.write([]byte("1\n"), 1)
	l.Move(b, format(t, "%RESPONSE_FLAGS%"))
	w.write([]byte("2\n"), 1)
	log(l, 200)
	l.Close()
	for path, want := range map[string]string{a: "1\n", b: "2\n-\n"} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", path, got, err, want)
		}
	}
}

// TestRecordSize holds the constant to what it says.
func TestRecordSize(t *testing.T) {
	if is := unsafe.Sizeof(record{}); is != recordSize {
		t.Errorf("a record takes %d bytes, not %d", is, recordSize)
	}
}

// TestLog_CannotBeWritten: a log whose file cannot be opened is told of when it
// starts, not with its first line. One that nobody has asked for opens nothing.
func TestLog_CannotBeWritten(t *testing.T) {
	for name, tt := range map[string]struct {
		on   bool
		want string
	}{
		"asked for": {true, "no such file or directory"},
		"off":       {false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var told bytes.Buffer
			l := New(Options{
				Format: format(t, "%RESPONSE_CODE%"), On: tt.on, Path: filepath.Join(t.TempDir(), "nobody", "log"),
				Logger: slog.New(slog.NewTextHandler(&told, nil)),
			})
			l.Close()
			if got := told.String(); !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("it says %q, want %q", got, tt.want)
			}
			count(t, l, 0, 0)
		})
	}
}
