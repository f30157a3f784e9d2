package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"isthmus/canary"
	"isthmus/history"
)

// rollBack asks for a rollback and takes the steps for it.
func rollBack(t *testing.T, c *Controller, number uint64) error {
	t.Helper()
	out := make(chan error, 1)
	go func() { // ends with the steps below
		_, err := c.Rollback(context.Background(), number)
		out <- err
	}()
	for {
		select {
		case err := <-out:
			return err
		case <-c.wake:
			c.step()
		}
	}
}

// catchUp takes the steps that are due.
func catchUp(c *Controller) {
	for {
		select {
		case <-c.wake:
			c.step()
		default:
			return
		}
	}
}

func renamed(name string) string {
	return strings.Replace(webService, "name: web}", "name: "+name+"}", 1)
}

func onDisk(t *testing.T, dir string) func(*Options) {
	return func(o *Options) {
		s, err := history.Open(dir, o.Logger)
		if err != nil {
			t.Fatal(err)
		}
		o.History = s
	}
}

// TestController_History: what was accepted and what was refused are both kept,
// each once, with what changed.
func TestController_History(t *testing.T) {
	c, use, _, file := still(t, "none", webService)
	change := func(text string) {
		write(t, file, text)
		c.Reload()
		catchUp(c)
	}
	change(broken)
	change(broken + "\n") // refused as well, with other content
	c.Reload()
	catchUp(c) // read again, and no other
	change(renamed("api"))
	use.mu.Lock()
	use.refuse = errors.New("a port is in use")
	use.mu.Unlock()
	change(renamed("more"))
	tryRefused(c)
	use.mu.Lock()
	use.refuse = nil
	use.mu.Unlock()
	tryRefused(c)

	list := c.history.List()
	var got []string
	for _, r := range list {
		changes := ""
		for _, l := range [][]history.Resource{r.Changes.Removed, r.Changes.Added} {
			for _, x := range l {
				changes += " " + x.Name
			}
		}
		got = append(got, strings.TrimSpace(strings.SplitN(r.Error+"\n", "\n", 2)[0])+changes)
	}
	if len(list) != 6 || !list[0].InForce || !strings.HasSuffix(got[0], " api more") || got[1] != "a port is in use api more" || got[2] != " web api" ||
		!strings.Contains(got[3], "mesh.yaml:4") || !strings.Contains(got[4], "mesh.yaml:4") {
		t.Errorf("%q", got)
	}
	if s := c.Status().Snapshot; s.Revision != list[0].Number || s.Rollback != 0 {
		t.Errorf("status %+v", s)
	}
}

// TestController_TellsWarnings: of a configuration that comes into force the log says
// how many warnings it has, once, and one of them.
func TestController_TellsWarnings(t *testing.T) {
	var log bytes.Buffer // step writes to it, in this goroutine
	c, _, _, file := still(t, "none", webService, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	told := func() int { return strings.Count(log.String(), "has warnings") }
	if told() != 0 {
		t.Errorf("a good one: %s", log.String())
	}
	write(t, file, webService+"---\napiVersion: v1\nkind: Sevrice\nmetadata: {name: other}\n")
	for range 2 { // the second time nothing has changed
		c.Reload()
		catchUp(c)
	}
	if got := log.String(); told() != 1 || !strings.Contains(got, "warnings=1 ") || !strings.Contains(got, "Sevrice") {
		t.Errorf("told %d times: %s", told(), got)
	}
}

// TestController_Rollback: it holds until the files change, over touched files
// and restarts, and gives way to what is new.
func TestController_Rollback(t *testing.T) {
	dir := t.TempDir()
	c, use, _, file := still(t, "none", webService, onDisk(t, dir))
	name := func() string { return use.snapshot().Config.Services[0].Name }
	first := c.Status().Snapshot.Hash
	write(t, file, renamed("api"))
	c.Reload()
	catchUp(c)
	if name() != "api" {
		t.Fatalf("%s in force, want api", name())
	}
	for number, want := range map[uint64]string{2: "is what is in force", 9: "no such revision"} {
		if err := rollBack(t, c, number); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("to %d: %v, want %q", number, err, want)
		}
	}
	if err := rollBack(t, c, 1); err != nil {
		t.Fatal(err)
	}
	check := func(when, want string, rollback uint64) {
		t.Helper()
		if s := c.Status().Snapshot; name() != want || s.Rollback != rollback || s.Error != "" {
			t.Errorf("%s: %s in force, status %+v; want %s, rollback %d", when, name(), s, want, rollback)
		}
	}
	check("rolled back", "web", 1)
	if h := c.Status().Snapshot.Hash; h != first {
		t.Errorf("hash %s, want that of the revision, %s", h, first)
	}
	c.Reload()
	catchUp(c)
	check("read again", "web", 1)

	again := func() {
		t.Helper()
		o := c.options
		onDisk(t, dir)(&o)
		next, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(next.closeSources)
		c = next
	}
	again()
	check("started again", "web", 1)
	write(t, file, broken)
	c.Reload()
	catchUp(c)
	if s := c.Status().Snapshot; name() != "web" || s.Rollback != 1 || s.Error == "" {
		t.Errorf("broken files: %s in force, status %+v", name(), s)
	}
	write(t, file, renamed("more"))
	c.Reload()
	catchUp(c)
	check("changed", "more", 0)
	again()
	check("started again", "more", 0)
	if n := c.Status().Snapshot.Revision; n != 5 {
		t.Errorf("revision %d, want 5: two of files, one brought back, one refused, and this", n)
	}

	use.mu.Lock()
	use.refuse = errors.New("a port is in use")
	use.mu.Unlock()
	if err := rollBack(t, c, 1); err == nil || err.Error() != "a port is in use" {
		t.Errorf("a rollback that the data plane refuses: %v", err)
	}
	use.mu.Lock()
	use.refuse = nil
	use.mu.Unlock()
	c.step()
	check("not rolled back", "more", 0)
}

// TestController_RollbackWhileWritten: who brings a revision back does not wait for who is
// writing the files, or a candidate's; nor does anybody else. What is written comes into
// force when it is whole, if it is a change.
func TestController_RollbackWhileWritten(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"to something else", renamed("more"), "more"},
		{"as they were", renamed("api"), "web"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				c, use, _, file := still(t, "none", webService, func(o *Options) {
					o.Candidates = Candidates{Paths: []string{dir}, Plan: canary.DefaultPlan}
				})
				settled := func() {
					for wait := c.await(); wait > 0; wait = c.await() {
						time.Sleep(wait)
					}
					catchUp(c)
				}
				write(t, filepath.Join(dir, "c.yaml"), renamed("candidate"))
				write(t, file, renamed("api"))
				c.Reload()
				settled()
				write(t, file, "")
				write(t, filepath.Join(dir, "c.yaml"), "")
				c.Reload()
				if c.await() == 0 {
					t.Fatal("files that are being written are taken for whole")
				}
				began := time.Now()
				if err := rollBack(t, c, 1); err != nil {
					t.Fatal(err)
				}
				catchUp(c)
				if waited := time.Since(began); waited > 0 || use.snapshot().Config.Services[0].Name != "web" {
					t.Errorf("it has waited for %v; %s in force", waited, use.snapshot().Config.Services[0].Name)
				}
				write(t, file, tt.text)
				write(t, filepath.Join(dir, "c.yaml"), renamed("candidate"))
				c.Reload()
				settled()
				if got := use.snapshot().Config.Services[0].Name; got != tt.want {
					t.Errorf("when they are whole: %s in force, want %s", got, tt.want)
				}
			})
		})
	}
}

// TestController_RollbackToTheOldest: it holds over a restart though what it has brought back
// has made room for it in the history.
func TestController_RollbackToTheOldest(t *testing.T) {
	dir := t.TempDir()
	c, use, _, file := still(t, "none", webService, onDisk(t, dir))
	write(t, file, renamed("api"))
	c.Reload()
	catchUp(c)
	for n := len(c.history.List()); n < 200; n++ { // the history is full
		c.history.Add(history.Revision{Hash: fmt.Sprint(n), Origin: history.FromFiles}, nil, nil)
	}
	if err := rollBack(t, c, 1); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := c.history.Content(1); err == nil {
		t.Fatal("the history keeps more than it did: the first revision is there")
	}
	o := c.options
	onDisk(t, dir)(&o)
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.closeSources)
	if s := c.Status().Snapshot; use.snapshot().Config.Services[0].Name != "web" || s.Rollback != 1 || s.Revision != 201 {
		t.Errorf("started again: %s in force, status %+v; want what was brought back", use.snapshot().Config.Services[0].Name, s)
	}
}

// TestController_RollbackBesideBrokenFiles: files that change and cannot be used do not end
// it, be it that the process is started again meanwhile.
func TestController_RollbackBesideBrokenFiles(t *testing.T) {
	dir := t.TempDir()
	c, use, _, file := still(t, "none", webService, onDisk(t, dir))
	check := func(when, want string, rollback uint64, broken bool) {
		t.Helper()
		if s := c.Status().Snapshot; use.snapshot().Config.Services[0].Name != want || s.Rollback != rollback || (s.Error != "") != broken {
			t.Errorf("%s: %s in force, status %+v; want %s, rollback %d", when, use.snapshot().Config.Services[0].Name, s, want, rollback)
		}
	}
	change := func(text string) {
		write(t, file, text)
		c.Reload()
		catchUp(c)
	}
	change(renamed("api"))
	if err := rollBack(t, c, 1); err != nil {
		t.Fatal(err)
	}
	write(t, file, broken)
	for range 2 {
		o := c.options
		onDisk(t, dir)(&o)
		next, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(next.closeSources)
		c = next
		check("started beside broken files", "web", 1, true)
	}
	if r := c.history.List()[0]; !r.Refused() || r.Number != 4 {
		t.Errorf("the history has %+v, want the broken files, once", r)
	}
	change(renamed("api"))
	check("files as they were", "web", 1, false)
	change(broken)
	change(renamed("more"))
	check("good ones", "more", 0, false)
}

// TestController_Secrets: a Secret among the files is not kept.
func TestController_Secrets(t *testing.T) {
	c, _, _, _ := still(t, "none", webService+"---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2}\n")
	_, files, resources, err := c.history.Content(1)
	if err != nil || len(files) != 1 || len(resources) != 1 || strings.Contains(string(files[0].Data), "hunter2") {
		t.Errorf("kept %+v, %v, %v", files, resources, err)
	}
	for name, text := range map[string]string{
		"in a List": "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {password: hunter2}}\n",
		"disguised": "apiVersion: v1\nkind: \"\\u0053ecret\"\nmetadata: {name: s}\nstringData: {password: hunter2}\n",
	} {
		t.Run(name, func(t *testing.T) {
			c, _, _, _ := still(t, "none", webService+"---\n"+text)
			if r := c.history.List()[0]; r.Kept || !r.InForce {
				t.Errorf("%+v", r)
			}
		})
	}
}
