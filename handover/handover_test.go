package handover

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mode says what a successor of these tests does.
const mode = "HANDOVER_TEST_MODE"

// TestMain is also what runs in a successor.
func TestMain(m *testing.M) {
	before, err := Inherit()
	if before == nil && err == nil {
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(5)
	}
	switch os.Getenv(mode) {
	case "early":
		os.Exit(3)
	case "late":
		before.Prepare()
		os.Exit(4)
	case "mute":
		time.Sleep(time.Minute)
	}
	if _, again := os.LookupEnv(variable); again {
		os.Exit(6) // its own children would take it for theirs
	}
	l, err := before.Listen("outbound", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(5)
	}
	before.Prepare()
	before.Records().Seek(0, io.SeekStart)
	records, _ := io.ReadAll(before.Records())
	before.Ready()
	c, err := l.Accept()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(5)
	}
	fmt.Fprintf(c, "successor, with %s", records)
	c.Close()
}

func succeed(t *testing.T, as string) (s *Successor, address string) {
	t.Helper()
	t.Setenv(mode, as)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	socket, err := Duplicate("outbound", "127.0.0.1:0", l.(*net.TCPListener))
	if err != nil {
		t.Fatal(err)
	}
	defer Close([]Socket{socket})
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if s, err = Start(program, []Socket{socket}, ""); err != nil {
		t.Fatal(err)
	}
	return s, l.Addr().String()
}

// TestStart: a successor gets the sockets and what was written for it, and whoever connects
// before it accepts is not refused.
func TestStart(t *testing.T) {
	s, address := succeed(t, "")
	c, err := net.Dial("tcp", address) // nobody accepts here
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := s.Prepared(t.Context().Done()); err != nil {
		t.Fatal(err)
	}
	io.WriteString(s.Records(), "records")
	if err := s.Go(); err != nil {
		t.Fatal(err)
	}
	if err := s.Ready(t.Context().Done()); err != nil {
		t.Fatal(err)
	}
	s.Release()
	if said, err := io.ReadAll(c); string(said) != "successor, with records" {
		t.Errorf("%q, %v", said, err)
	}
	<-s.ended
}

// TestStart_Failure: what becomes of a successor that fails is said, and nothing is left.
func TestStart_Failure(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		mode, want string
		late       bool
		over       context.Context
	}{
		{"early", "it has ended (exit status 3)", false, t.Context()},
		{"late", "it has ended (exit status 4)", true, t.Context()},
		{"mute", "it takes too long", false, over},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			s, _ := succeed(t, tt.mode)
			err := s.Prepared(tt.over.Done())
			if tt.late && err == nil {
				if err = s.Go(); err == nil {
					err = s.Ready(tt.over.Done())
				}
			}
			if err == nil || err.Error() != tt.want {
				t.Errorf("%v, want %s", err, tt.want)
			}
			s.Kill()
			if s.state == nil {
				t.Error("it was not waited for")
			}
		})
	}
	if _, err := Start(filepath.Join(t.TempDir(), "none"), nil, ""); err == nil || !strings.Contains(err.Error(), "none: no such file") {
		t.Errorf("a program that is not there: %v", err)
	}
}

// TestProgram: a program is found again by the link that it was started by.
func TestProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link, other := filepath.Join(t.TempDir(), "current"), filepath.Join(t.TempDir(), "other")
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	name := os.Args[0]
	t.Cleanup(func() { os.Args[0] = name })
	for _, tt := range []struct {
		name, path, env, want string
		handed                bool
	}{
		{"a link", link, "", link, false},
		{"a name in PATH", "current", filepath.Dir(link), link, false},
		{"nothing", filepath.Join(t.TempDir(), "none"), "", self, false},
		{"just a name", other, "", self, false},
		{"a link to a program that has failed", other, "", other, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.env != "" {
				t.Setenv("PATH", tt.env)
			}
			if tt.handed {
				t.Setenv(variable, "{}")
			}
			os.Args[0] = tt.path
			if got := Program(); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

// TestInheritance_Socket: a listener gets its own socket, or that of its address, if that is
// one.
func TestInheritance_Socket(t *testing.T) {
	list := func() *Inheritance {
		i := &Inheritance{}
		for _, s := range []Socket{{Name: "outbound", Address: "127.0.0.1:0"}, {Name: "inbound", Address: "127.0.0.1:0"}, {Name: "gateway:80", Address: "0.0.0.0:8080"}} {
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			socket, err := Duplicate(s.Name, s.Address, f)
			f.Close()
			if err != nil {
				t.Fatal(err)
			}
			i.sockets = append(i.sockets, socket)
		}
		t.Cleanup(func() { Close(i.sockets) })
		return i
	}
	for _, tt := range []struct{ name, address, want string }{
		{"inbound", "127.0.0.1:0", "inbound"},
		{"admin", "127.0.0.1:0", ""},
		{"gateway:80", "0.0.0.0:8080", "gateway:80"},
		{"gateway:81", "0.0.0.0:8080", "gateway:80"}, // another Gateway's port is bound there now
		{"gateway:80", "0.0.0.0:80", ""},
	} {
		i := list()
		f := i.Socket(tt.name, tt.address)
		got := map[string]bool{"outbound": true, "inbound": true, "gateway:80": true}
		for _, s := range i.sockets {
			delete(got, s.Name)
		}
		if f != nil {
			f.Close()
		}
		if (f != nil) != (tt.want != "") || f != nil && (len(got) != 1 || !got[tt.want]) {
			t.Errorf("%s at %s: took %v, want %q", tt.name, tt.address, got, tt.want)
		}
	}
	var none *Inheritance
	if none.Socket("a", "b") != nil || none.Records() != nil {
		t.Error("none has something")
	}
	none.Prepare()
	none.Ready()
}

// TestNotify: a service manager hears it, under a path and under one of Linux' abstract
// names.
func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify("READY=1"); err != nil {
		t.Error("without one:", err)
	}
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@isthmus-test-" + fmt.Sprint(os.Getpid())} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		t.Setenv("NOTIFY_SOCKET", name)
		if err := Notify("READY=1"); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		if n, _, err := l.ReadFrom(b); string(b[:n]) != "READY=1" {
			t.Errorf("%s: %q, %v", name, b[:n], err)
		}
	}
}
