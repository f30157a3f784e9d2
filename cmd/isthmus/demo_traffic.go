package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"isthmus/admin"
)

// demoClient sends requests to one listener of a proxy, whatever their host.
type demoClient struct {
	address string
	client  *http.Client
}

func newDemoClient(port int) *demoClient {
	address := fmt.Sprintf("127.0.0.1:%d", port)
	transport := &http.Transport{
		MaxIdleConnsPerHost: 64,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}
	return &demoClient{address: address, client: &http.Client{Transport: transport, Timeout: 10 * time.Second}}
}

// get asks a host for a path. by is who served it, "service.cluster", or what is
// said in the place of a 200.
func (c *demoClient) get(host, path string, header ...string) (status int, by string, err error) {
	req, err := http.NewRequest("GET", "http://"+host+path, nil)
	if err != nil {
		return 0, "", err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return res.StatusCode, string(body), nil
	}
	return res.StatusCode, res.Header.Get("x-served-by"), nil
}

// count sends n requests and counts who served them; what was no 200 counts
// under its status or error.
func (c *demoClient) count(n int, host string, header ...string) map[string]int {
	out := map[string]int{}
	for range n {
		status, by, err := c.get(host, "/", header...)
		switch {
		case err != nil:
			by = err.Error()
		case status != http.StatusOK:
			by = http.StatusText(status)
		}
		out[by]++
	}
	return out
}

// steadyLoad is requests sent at a steady pace until it is stopped.
type steadyLoad struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex // guards what is below
	by       map[string]int
	failures []string
	sent     int
}

// steady starts workers, each of which sends a request every pause.
func (c *demoClient) steady(workers int, pause time.Duration, hosts ...string) *steadyLoad {
	ctx, cancel := context.WithCancel(context.Background())
	l := &steadyLoad{cancel: cancel, by: map[string]int{}}
	for i := range workers {
		l.done.Go(func() {
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for n := i; ; n++ {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				host := hosts[n%len(hosts)]
				status, by, err := c.get(host, "/")
				l.mu.Lock()
				l.sent++
				switch {
				case err != nil:
					l.failures = append(l.failures, host+": "+err.Error())
				case status != http.StatusOK:
					l.failures = append(l.failures, fmt.Sprintf("%s: %d %s", host, status, by))
				default:
					l.by[by]++
				}
				l.mu.Unlock()
			}
		})
	}
	return l
}

// now returns how many requests were sent and who served them so far.
func (l *steadyLoad) now() (sent int, failures []string, by map[string]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	by = map[string]int{}
	for k, v := range l.by {
		by[k] = v
	}
	return l.sent, append([]string(nil), l.failures...), by
}

func (l *steadyLoad) stop() {
	l.cancel()
	l.done.Wait()
}

// endpoints asks a proxy for the endpoints that it knows.
func (n *demoNode) endpoints() ([]admin.Endpoint, error) {
	q := question{url: fmt.Sprintf("http://127.0.0.1:%d", n.admin), output: "json"}
	body, err := q.ask("/endpoints")
	if err != nil {
		return nil, err
	}
	var list []admin.Endpoint
	return list, json.Unmarshal(body, &list)
}
