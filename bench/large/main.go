// Command large measures what large configurations cost the built binary: the time
// of `isthmus validate`, and the memory of `isthmus run`, with a Sidecar and
// without one.
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	binary := flag.String("isthmus", "bin/isthmus", "the built binary")
	keep := flag.String("keep", "", "folder for the configurations, which is kept")
	out := flag.String("out", "", "file for the report; default: standard output")
	n := flag.Int("n", 10_000, "how many resources, and how many services")
	flag.Parse()
	if err := measure(*binary, *keep, *out, *n); err != nil {
		fmt.Fprintln(os.Stderr, "large:", err)
		os.Exit(1)
	}
}

func measure(binary, dir, out string, n int) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "isthmus-large-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# What do large configurations cost?

The built binary on %d cores (%s), by `+"`make large`"+`.

## Time: isthmus validate

%d resources in files of a hundred: Services, VirtualServices (a match by path and header, a subset, retries), DestinationRules,
AuthorizationPolicies and ServiceEntries, as many of each. The middle one of five runs.

| | real | CPU | memory at most |
| --- | --- | --- | --- |
`, runtime.NumCPU(), runtime.GOARCH, n)
	set := filepath.Join(dir, "mixed")
	if err := write(set, n, mixed); err != nil {
		return err
	}
	row, err := validate(binary, set)
	if err != nil {
		return err
	}
	fmt.Fprintf(&b, "| `isthmus validate` | %s |\n", row)
	fmt.Fprintf(&b, `
## Memory: isthmus run

Resident, three seconds after the proxy is ready (VmRSS): the middle one of five starts, the least and the most; and of it what is the
process's own (RssAnon). The rest is the binary.

| | VmRSS | RssAnon |
| --- | --- | --- |
`)
	for _, c := range memoryCases(n) {
		set := filepath.Join(dir, c.folder)
		if err := write(set, c.n, c.resources); err != nil {
			return err
		}
		if c.more != "" {
			if err := os.WriteFile(filepath.Join(set, "more.yaml"), []byte(c.more), 0o644); err != nil {
				return err
			}
		}
		row, err := resident(binary, set)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		fmt.Fprintf(&b, "| %s | %s |\n", c.name, row)
	}
	if out == "" {
		_, err = os.Stdout.WriteString(b.String())
		return err
	}
	return os.WriteFile(out, []byte(b.String()), 0o644)
}

// validate runs `isthmus validate` five times.
func validate(binary, set string) (row string, err error) {
	type run struct {
		real, cpu time.Duration
		memory    int64 // KiB
	}
	var runs []run
	for range 5 {
		cmd := exec.Command(binary, "validate", set)
		begin := time.Now()
		if text, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("validate: %w: %.300s", err, text)
		}
		real := time.Since(begin)
		use := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		runs = append(runs, run{real, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), use.Maxrss})
	}
	slices.SortFunc(runs, func(a, b run) int { return int(a.real - b.real) })
	r := runs[len(runs)/2]
	return fmt.Sprintf("%.2f s | %.2f s | %d MiB", r.real.Seconds(), r.cpu.Seconds(), r.memory>>10), nil
}

// memoryCase is a configuration whose memory is measured.
type memoryCase struct {
	name, folder string
	n            int
	resources    func(i int) string
	more         string
}

func memoryCases(n int) []memoryCase {
	return []memoryCase{
		{"one Service", "one", 1, service, ""},
		{fmt.Sprintf("%d Services", n), "services", n, service, ""},
		{"and a WorkloadEntry for each", "endpoints", n, func(i int) string { return service(i) + workload(i) }, ""},
		{fmt.Sprintf("the same, of which a Sidecar names %d", n/50), "scoped", n, func(i int) string { return service(i) + workload(i) },
			"apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default, namespace: ns0}\nspec: {egress: [{hosts: [./*]}]}\n"},
	}
}

// resident starts a proxy five times.
func resident(binary, set string) (row string, err error) {
	var total, own []float64
	for range 5 {
		t, o, err := start(binary, set)
		if err != nil {
			return "", err
		}
		total, own = append(total, t), append(own, o)
	}
	slices.Sort(total)
	slices.Sort(own)
	return fmt.Sprintf("%.1f MiB (%.1f to %.1f) | %.1f MiB", total[2], total[0], total[4], own[2]), nil
}

// start starts a proxy of namespace ns0 and looks at its memory, in MiB.
func start(binary, set string) (total, own float64, err error) {
	node := filepath.Join(filepath.Dir(set), "node.yaml")
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that no other proxy answers at
	if err != nil {
		return 0, 0, err
	}
	socket := l.Addr().String()
	l.Close()
	text := fmt.Sprintf("node: {name: large, address: 127.0.0.1, namespace: ns0}\nlisteners: {outbound: '127.0.0.1:0', inbound: '', admin: %q, metrics: ''}\n", socket)
	if err := os.WriteFile(node, []byte(text), 0o644); err != nil {
		return 0, 0, err
	}
	cmd := exec.Command(binary, "run", "--bootstrap", node, "--config", set)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	ended := make(chan struct{})
	go func() { // ends with the process
		cmd.Wait()
		close(ended)
	}()
	defer func() {
		cmd.Process.Kill()
		<-ended
	}()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if res, err := http.Get("http://" + socket + "/ready"); err == nil {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				break
			}
		}
		select {
		case <-ended:
			return 0, 0, fmt.Errorf("run: it has ended: %.300s", said.String())
		default:
		}
		if time.Now().After(deadline) {
			return 0, 0, fmt.Errorf("not ready within a minute")
		}
	}
	time.Sleep(3 * time.Second)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for name, to := range map[string]*float64{"VmRSS:": &total, "RssAnon:": &own} {
		_, rest, found := strings.Cut(string(status), name)
		if !found {
			return 0, 0, fmt.Errorf("run: no %s is told of it; has it ended?", name)
		}
		kib, err := strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			return 0, 0, err
		}
		*to = float64(kib) / 1024
	}
	return total, own, nil
}
