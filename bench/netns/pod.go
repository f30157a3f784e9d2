package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"

	"isthmus/admin"
)

// pod is a namespace with a proxy and, for all but the callers', an
// application.
type pod struct {
	name    string
	address string
	cluster *cluster
	ns      *namespace
	client  *http.Client // for admin and control, from within the pod

	app, proxy *process
}

// startPod starts what runs in a pod.
func (w *world) startPod(p *pod) (err error) {
	log := filepath.Join(w.dir, p.name+".log")
	config := []string{"--config", filepath.Join(w.dir, "mesh")}
	if p == w.caller {
		config = append(config, "--config", filepath.Join(w.dir, "caller"))
	} else if p.app, err = startProcess(p.ns, "the application of "+p.name, log, w.self, "-app", p.name); err != nil {
		return err
	}
	p.proxy, err = startProcess(p.ns, "the proxy of "+p.name, log, append([]string{w.isthmus, "run", "--bootstrap", w.bootstrapFile(p)}, config...)...)
	return err
}

// kill ends what runs in a pod, without warning.
func (p *pod) kill() {
	p.proxy.kill()
	p.app.kill()
	p.proxy, p.app = nil, nil
}

// endpoints is what the pod's proxy says of all endpoints.
func (p *pod) endpoints() ([]admin.Endpoint, error) {
	var list []admin.Endpoint
	return list, p.ask("GET", "http://127.0.0.1:15000/endpoints?format=json", nil, &list)
}

// turn turns the knobs of one of the pod's services; its counts begin anew.
func (p *pod) turn(service string, k knobs) error {
	return p.ask("PUT", fmt.Sprintf("http://127.0.0.1:%d/%s", controlPort, service), k, nil)
}

// counts is what one of the pod's services has seen.
func (p *pod) counts(service string) (counts, error) {
	var c counts
	return c, p.ask("GET", fmt.Sprintf("http://127.0.0.1:%d/%s", controlPort, service), nil, &c)
}

// ask sends a request from within the pod, past the proxy.
func (p *pod) ask(method, url string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, url, bytes.NewReader(text))
	if err != nil {
		return err
	}
	res, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("%s %s in %s: %s: %s", method, url, p.name, res.Status, data)
	case answer == nil:
		return nil
	}
	return json.Unmarshal(data, answer)
}
