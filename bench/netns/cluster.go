package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// cluster is a site: a namespace with a bridge for its pods.
type cluster struct {
	name  string
	index int // from 1
	ns    *namespace
	pods  []*pod // with an application each
}

func (c *cluster) subnet() string   { return fmt.Sprintf("10.77.%d.0/24", c.index) }
func (c *cluster) router() string   { return fmt.Sprintf("10.77.%d.1", c.index) }
func (c *cluster) locality() string { return c.name + "1/" + c.name + "1-a" }

// podsPerCluster is how many pods with an application each cluster has.
const podsPerCluster = 2

// build makes the cluster's namespace, its bridge and its pods.
func (c *cluster) build() (err error) {
	if c.ns, err = newNamespace(c.name); err != nil {
		return err
	}
	if err := c.ns.set("ipv4/ip_forward", "1"); err != nil {
		return err
	}
	for _, args := range []string{
		"link add br0 type bridge",
		"address add " + c.router() + "/24 dev br0",
		"link set br0 up",
	} {
		if err := c.ns.ip(strings.Fields(args)...); err != nil {
			return err
		}
	}
	for i := range podsPerCluster {
		p, err := c.addPod(fmt.Sprint(i), 10+i)
		if err != nil {
			return err
		}
		c.pods = append(c.pods, p)
	}
	return nil
}

// addPod makes a pod's namespace and its cable to the bridge.
func (c *cluster) addPod(suffix string, host int) (*pod, error) {
	p := &pod{name: c.name + "-" + suffix, address: fmt.Sprintf("10.77.%d.%d", c.index, host), cluster: c}
	var err error
	if p.ns, err = newNamespace(p.name); err != nil {
		return nil, err
	}
	p.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return p.ns.dial(ctx, address) },
	}}
	veth := "pod-" + suffix
	if err := c.ns.ip("link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", p.ns.name); err != nil {
		return p, err
	}
	if err := c.ns.ip("link", "set", veth, "master", "br0", "up"); err != nil {
		return p, err
	}
	for _, args := range []string{
		"address add " + p.address + "/24 dev eth0",
		"link set eth0 up",
		"route add default via " + c.router(),
	} {
		if err := p.ns.ip(strings.Fields(args)...); err != nil {
			return p, err
		}
	}
	return p, nil
}
