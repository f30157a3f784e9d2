package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScript runs the stories in testdata/script with the built binary. Beside
// testscript's own commands they know:
//
//	usage COMMAND...          the command ends with exit status 2
//	ready ADMIN               waits until the proxy at the address is ready
//	ask ADDRESS HOST STATUS   waits until a request gets this status
//	refused ADDRESS HOST STATUS  sends a request that gets this status; $ID is its x-request-id
//	status ADMIN REGEXP       waits until the status page matches
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			var outbound, admin int
			if err := freePorts([]*int{&outbound, &admin}); err != nil {
				return err
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			e.Defer(func() { l.Close() })
			e.Setenv("OUTBOUND", fmt.Sprintf("127.0.0.1:%d", outbound))
			e.Setenv("ADMIN", fmt.Sprintf("127.0.0.1:%d", admin))
			e.Setenv("ADMIN_PORT", fmt.Sprint(admin))
			e.Setenv("TAKEN", l.Addr().String())
			e.Setenv("HOME_CLUSTER", "c1")
			e.Setenv("PATH", filepath.Dir(program)+string(os.PathListSeparator)+os.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"usage": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec(args[0], args[1:]...)
				if err == nil || err.Error() != "exit status 2" {
					ts.Fatalf("%v: %v, want exit status 2", args, err)
				}
			},
			"ready": func(ts *testscript.TestScript, _ bool, args []string) {
				soon(ts, "ready", func() string {
					s, _ := page("http://"+args[0]+"/ready", "")
					return fmt.Sprint(s == http.StatusOK)
				}, "true")
			},
			"ask": func(ts *testscript.TestScript, _ bool, args []string) {
				soon(ts, "status of "+args[1], func() string {
					s, _ := page("http://"+args[0]+"/", args[1])
					return fmt.Sprint(s)
				}, args[2])
			},
			"refused": func(ts *testscript.TestScript, _ bool, args []string) {
				req, err := http.NewRequest("GET", "http://"+args[0]+"/", nil)
				ts.Check(err)
				req.Host = args[1]
				res, err := http.DefaultClient.Do(req)
				ts.Check(err)
				res.Body.Close()
				id := res.Header.Get("X-Request-Id")
				if fmt.Sprint(res.StatusCode) != args[2] || id == "" {
					ts.Fatalf("status %d, id %q; want %s and an id", res.StatusCode, id, args[2])
				}
				ts.Setenv("ID", id)
			},
			"status": func(ts *testscript.TestScript, _ bool, args []string) {
				re := regexp.MustCompile(args[1])
				soon(ts, "status page", func() string {
					_, text := page("http://"+args[0]+"/status", "")
					if re.MatchString(text) {
						return args[1]
					}
					return text
				}, args[1])
			},
		},
	})
}

// soon waits until what it is told to look at is as wanted.
func soon(ts *testscript.TestScript, what string, look func() string, want string) {
	got := ""
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if got = look(); got == want {
			return
		}
	}
	ts.Fatalf("%s: %s, want %s", what, got, want)
}

func page(url, host string) (int, string) {
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return 0, err.Error()
	}
	req.Host = host
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(b)
}
