package config

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"isthmus/accesslog"
	"isthmus/mesh"
)

// complete fills in what depends on other fields or on the machine, makes
// paths absolute from the file's folder, and checks all of it.
func (l *bootstrapLoader) complete(b *Bootstrap) error {
	for _, step := range []func(*Bootstrap) error{
		l.completeNames, l.checkListeners, l.completePlace, l.checkWords, l.checkTargets, l.checkBounds, l.checkAccessLog, l.checkTracing,
	} {
		if err := step(b); err != nil {
			return err
		}
	}
	l.completePaths(b)
	return nil
}

// completeNames says who this proxy is.
func (l *bootstrapLoader) completeNames(b *Bootstrap) error {
	if b.Node.Name == "" {
		name, err := os.Hostname()
		if err != nil {
			return l.fail("node.name", "is missing, and the machine tells no host name: %v", err)
		}
		b.Node.Name = name
	}
	for _, n := range []struct{ field, value string }{
		{"node.cluster", b.Node.Cluster}, {"node.namespace", b.Node.Namespace}, {"node.name", b.Node.Name}, {"node.serviceAccount", b.Node.ServiceAccount},
	} {
		if n.value == "" || strings.ContainsAny(n.value, "/ \t\r\n") {
			return l.fail(n.field, "%q must not be empty nor hold slashes or spaces", n.value)
		}
	}
	for i, d := range append([]string{b.TrustDomain}, b.TrustDomainAliases...) {
		field := "trustDomain"
		if i > 0 {
			field = fmt.Sprintf("trustDomainAliases[%d]", i-1)
		}
		if err := mesh.CheckTrustDomain(d); err != nil {
			return l.fail(field, "%v", err)
		}
	}
	return nil
}

// checkListeners looks at the addresses and ports that are listened at, or told to others.
func (l *bootstrapLoader) checkListeners(b *Bootstrap) error {
	for _, a := range []struct {
		field string
		value string
	}{
		{"listeners.outbound", b.Listeners.Outbound}, {"listeners.inbound", b.Listeners.Inbound}, {"listeners.admin", b.Listeners.Admin},
		{"listeners.metrics", b.Listeners.Metrics}, {"rateLimits.serve", b.RateLimits.Serve}, {"gossip.bind", b.Gossip.Bind}, {"gossip.advertise", b.Gossip.Advertise},
	} {
		if a.value == "" {
			continue
		}
		host, port, err := net.SplitHostPort(a.value)
		if i := strings.LastIndexByte(a.value, ':'); err != nil && i > 0 && strings.Count(a.value, ":") > 1 && !strings.Contains(a.value, "[") {
			return l.fail(a.field, "%q: an address of IPv6 stands in brackets: write [%s]:%s", a.value, a.value[:i], a.value[i+1:])
		}
		if err != nil {
			return l.fail(a.field, "%q must be an address and a port, such as 127.0.0.1:15001", a.value)
		}
		if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
			return l.fail(a.field, "%q: the port must be a number from 0 to 65535", a.value)
		}
		if a.field == "gossip.advertise" {
			if _, err := netip.ParseAddr(host); err != nil {
				return l.fail(a.field, "%q: others need an IP address", a.value)
			}
		}
	}
	for port, bound := range b.Listeners.Gateway.Ports {
		if port < 1 || port > 65535 || bound > 65535 {
			return l.fail("listeners.gateway.ports", "%d: %d is no pair of ports", port, bound)
		}
	}
	if b.Listeners.Gateway.Bind != "" {
		if _, err := netip.ParseAddr(b.Listeners.Gateway.Bind); err != nil {
			return l.fail("listeners.gateway.bind", "%q is no IP address", b.Listeners.Gateway.Bind)
		}
	}
	return nil
}

// completePlace says where this proxy is, to the others and in the world.
func (l *bootstrapLoader) completePlace(b *Bootstrap) error {
	if b.Node.Address == "" {
		b.Node.Address = ownAddress(b.Gossip.Advertise)
		l.warnElsewhere(b)
	}
	own, err := netip.ParseAddr(b.Node.Address)
	if err != nil {
		return l.fail("node.address", "%q is no IP address", b.Node.Address)
	}
	b.Node.Address = oneForm(own)
	for _, part := range strings.Split(b.Node.Locality, "/") {
		if part == "" && b.Node.Locality != "" || strings.ContainsAny(part, "* ") {
			return l.fail("node.locality", "%q must be region/zone/subzone", b.Node.Locality)
		}
	}
	return nil
}

// warnElsewhere warns of listeners that others are to come to and that listen at another
// address than the one that was found for this machine.
func (l *bootstrapLoader) warnElsewhere(b *Bootstrap) {
	if b.Gossip.Bind == "" || b.Gossip.Advertise != "" {
		return
	}
	for _, a := range []struct{ field, value string }{{"gossip.bind", b.Gossip.Bind}, {"listeners.inbound", b.Listeners.Inbound}} {
		at, err := netip.ParseAddrPort(a.value)
		if err != nil || at.Addr().IsUnspecified() || at.Addr().String() == b.Node.Address || a.field == "listeners.inbound" && b.Gossip.Announce == "none" {
			continue
		}
		l.warnings = append(l.warnings, l.fail(a.field, "others are told to come to %s, where %s does not listen: give node.address", b.Node.Address, a.value).Error())
	}
}

// ownAddress is where others reach this machine: the host of
// gossip.advertise, else the first address that is not loopback.
func ownAddress(advertise string) string {
	if host, _, err := net.SplitHostPort(advertise); err == nil {
		return host
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
			return p.Addr().String()
		}
	}
	return "127.0.0.1"
}

// checkWords looks at fields that take one of some words.
func (l *bootstrapLoader) checkWords(b *Bootstrap) error {
	switch b.Capture {
	case "none", "":
	case "redirect":
		return l.fail("capture", "redirect is not supported yet: send requests to listeners.outbound, as with http_proxy")
	default:
		return l.fail("capture", "%q is neither none nor redirect", b.Capture)
	}
	if !slices.Contains([]string{"own", "direct", "through", "none"}, b.Gossip.Announce) {
		return l.fail("gossip.announce", "%q is none of own, direct, through, none%s", b.Gossip.Announce, suggest(b.Gossip.Announce, []string{"own", "direct", "through", "none"}))
	}
	return nil
}

// checkTargets looks at the addresses of others.
func (l *bootstrapLoader) checkTargets(b *Bootstrap) error {
	for i, j := range b.Gossip.Join {
		if !isTarget(j) {
			return l.fail(fmt.Sprintf("gossip.join[%d]", i), "%q must be a name or address and a port, such as gossip.example:7946", j)
		}
	}
	for name, address := range b.Clusters {
		if !isTarget(address) {
			return l.fail("clusters."+name, "%q must be a name or address and a port, such as limits.example:8081", address)
		}
	}
	return nil
}

// isTarget reports whether a text is a name or an address, and a port.
func isTarget(s string) bool {
	host, port, err := net.SplitHostPort(s)
	n, notNumber := strconv.ParseUint(port, 10, 16)
	return err == nil && notNumber == nil && host != "" && n > 0
}

// checkBounds looks at numbers and durations.
func (l *bootstrapLoader) checkBounds(b *Bootstrap) error {
	if r := b.Probes.Remote; r.Interval != 0 && r.Interval < 100*time.Millisecond {
		return l.fail("probes.remote.interval", "must be 100ms or more, or 0 for none")
	} else if r.Timeout <= 0 {
		return l.fail("probes.remote.timeout", "must be more than 0")
	}
	if err := l.checkCanary(&b.Canary); err != nil {
		return err
	}
	if _, err := b.Overload.Bytes(); err != nil {
		return l.fail("overload.memory", "%v", err)
	}
	if b.NumTrustedProxies < 0 {
		return l.fail("numTrustedProxies", "must not be negative")
	}
	for _, n := range []struct {
		field    string
		negative bool
	}{
		{"drain.timeout", b.Drain.Timeout < 0}, {"why.slow", b.Why.Slow < 0},
		{"downstream.idleTimeout", b.Downstream.IdleTimeout < 0}, {"downstream.headTimeout", b.Downstream.HeadTimeout < 0},
		{"downstream.stallTimeout", b.Downstream.StallTimeout < 0}, {"downstream.maxBody", b.Downstream.MaxBody < 0},
		{"overload.connections", b.Overload.Connections < 0},
	} {
		if n.negative {
			return l.fail(n.field, "must not be negative")
		}
	}
	return nil
}

func (l *bootstrapLoader) checkAccessLog(b *Bootstrap) error {
	a := &b.AccessLog
	if _, err := accesslog.ParseFormat(a.Format); err != nil {
		return l.fail("accessLog.format", "%v", err)
	}
	if a.Filter != "" {
		if _, err := accesslog.ParseFilter(a.Filter); err != nil {
			return l.fail("accessLog.filter", "%v", err)
		}
	}
	if !(a.Sampling >= 0 && a.Sampling <= 100) {
		return l.fail("accessLog.sampling", "%v is no percentage from 0 to 100", a.Sampling)
	}
	if !a.IsOn() && a.Filter != "" {
		l.warnings = append(l.warnings, l.fail("accessLog.filter", "has no effect: no log is written; give accessLog.path, such as /dev/stdout").Error())
	}
	return nil
}

// completePaths has relative paths start at the file's folder.
func (l *bootstrapLoader) completePaths(b *Bootstrap) {
	dir := filepath.Dir(l.path)
	for _, p := range []*string{&b.AccessLog.Path, &b.Certificates.Cert, &b.Certificates.Key, &b.Certificates.CA, &b.CredentialDir, &b.RateLimits.Config, &b.StateDir} {
		*p = relativeTo(dir, *p)
	}
	for i := range b.Canary.Paths {
		b.Canary.Paths[i] = relativeTo(dir, b.Canary.Paths[i])
	}
	for i := range b.Gossip.Keys {
		b.Gossip.Keys[i] = relativeTo(dir, b.Gossip.Keys[i])
	}
}

func relativeTo(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
