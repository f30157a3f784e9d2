package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"isthmus/accesslog"
	"isthmus/mesh"
)

// LoadBootstrap reads a bootstrap file, or only defaults and environment for a
// path of "". Environment variables win: ISTHMUS_ and the path of a field in
// upper snake case, ISTHMUS_NODE_SERVICE_ACCOUNT. ${VAR} within a value is
// taken from the environment, $${ stands for ${. environ is as os.Environ
// gives it. warnings name what has no effect.
func LoadBootstrap(path string, environ []string) (b *Bootstrap, warnings []string, err error) {
	env := map[string]string{}
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	b = defaults()
	l := &bootstrapLoader{path: path, env: env, lines: map[string]int{}, variables: map[string]string{}}
	if path != "" {
		if err := l.read(b); err != nil {
			return nil, nil, err
		}
	}
	if err := l.override(b); err != nil {
		return nil, nil, err
	}
	if err := l.complete(b); err != nil {
		return nil, nil, err
	}
	return b, l.warnings, nil
}

type bootstrapLoader struct {
	path     string
	env      map[string]string
	lines    map[string]int // field path -> line
	warnings []string

	variables map[string]string // field path -> the environment variable that has set it
}

// fail makes an error that names the place of a field: the variable that it comes from,
// or its line.
func (l *bootstrapLoader) fail(field, format string, args ...any) error {
	message := fmt.Sprintf(format, args...)
	if name := l.variables[field]; name != "" {
		return fmt.Errorf("environment variable %s: %s", name, message)
	}
	if field != "" {
		message = field + ": " + message
	}
	switch line := l.lines[field]; {
	case line > 0:
		return fmt.Errorf("%s:%d: %s", l.path, line, message)
	case l.path != "":
		return fmt.Errorf("%s: %s", l.path, message)
	}
	return fmt.Errorf("%s", message)
}

func (l *bootstrapLoader) read(b *Bootstrap) error {
	data, err := os.ReadFile(l.path)
	if err != nil {
		return fmt.Errorf("bootstrap file %s: %s", l.path, readError(err))
	}
	root, err := l.only(data)
	if root == nil || err != nil {
		return err
	}
	if _, line, err := expand(root); err != nil {
		l.lines[""] = line
		return l.fail("", "%s", err)
	}
	if err := l.walk(root, reflect.TypeFor[Bootstrap](), ""); err != nil {
		return err
	}
	if g := child(root, "gossip"); g != nil && child(g, "bind") == nil {
		b.Gossip.Bind = "0.0.0.0:7946"
	}
	if err := root.Decode(b); err != nil {
		line, message := yamlError(err, nil)
		l.lines[""] = line
		return l.fail("", "%s", strings.TrimPrefix(message, "not YAML: "))
	}
	return nil
}

// only returns the document of the file; nil if there is none.
func (l *bootstrapLoader) only(data []byte) (root *yaml.Node, err error) {
	data = fromJSON(data)
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var doc yaml.Node
		err := decodeSafely(dec, &doc)
		switch {
		case errors.Is(err, io.EOF):
			return root, nil
		case err != nil:
			line, message := yamlError(err, data)
			l.lines[""] = line
			return nil, l.fail("", "%s", message)
		case len(doc.Content) == 0 || doc.Content[0].Tag == "!!null":
			continue
		case root != nil:
			l.lines[""] = doc.Content[0].Line
			return nil, l.fail("", "a second document begins here: a bootstrap file is one")
		}
		root = doc.Content[0]
	}
}

// walk refuses unknown fields, notes the places of the others and puts
// variables in.
func (l *bootstrapLoader) walk(n *yaml.Node, t reflect.Type, path string) error {
	n = resolve(n)
	if n.Kind == yaml.ScalarNode {
		if err := l.expand(n, path); err != nil {
			return err
		}
		giveUnit(n, t)
	}
	if wrong := mismatch(n, t); wrong != "" {
		l.lines[path] = n.Line
		return l.fail(path, "%s", wrong)
	}
	if n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice {
		for i, item := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			l.lines[at] = item.Line
			if err := l.walk(item, t.Elem(), at); err != nil {
				return err
			}
		}
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		at := join(path, key.Value)
		l.lines[at] = key.Line
		elem := t
		switch t.Kind() {
		case reflect.Map:
			if t.Key().Kind() != reflect.String {
				key.Tag, key.Style = "", 0 // keys may be quoted, as in JSON they are
				key.Tag = key.ShortTag()
			}
			if wrong := mismatch(key, t.Key()); wrong != "" {
				return l.fail(at, "%s", wrong)
			}
			elem = t.Elem()
		case reflect.Struct:
			f, names := fieldByTag(t, key.Value)
			if f == nil {
				return l.fail(at, "unknown field%s", suggest(key.Value, names))
			}
			elem = f.Type
		}
		if err := l.walk(n.Content[i+1], elem, at); err != nil {
			return err
		}
	}
	return nil
}

// giveUnit gives 0 its unit where a duration is wanted: the only number that needs none.
func giveUnit(n *yaml.Node, t reflect.Type) {
	if t == reflect.TypeFor[time.Duration]() && n.Value == "0" {
		n.Value, n.Tag = "0s", "!!str"
	}
}

// mismatch says what a value must be that the bootstrap file cannot have in a field
// of a type; "" if it can.
func mismatch(n *yaml.Node, t reflect.Type) string {
	if n.Tag == "!!null" {
		return ""
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Struct, reflect.Map:
		return wrongType(n, t)
	}
	if n.Kind != yaml.ScalarNode {
		if t.Kind() == reflect.Interface {
			return ""
		}
		return "must be a single value, not " + describe(n)
	}
	if n.Decode(reflect.New(t).Interface()) == nil {
		return ""
	}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "must be a duration such as 5s, 30ms or 1h, not " + describe(n) + asDuration(n)
	case t.Kind() == reflect.Bool:
		return "must be true or false, not " + describe(n)
	case t.Kind() == reflect.Float64:
		return "must be a number, not " + describe(n)
	case t.Kind() == reflect.String:
		return "must be a string, not " + describe(n)
	}
	return "must be a whole number, not " + describe(n)
}

func fieldByTag(t reflect.Type, name string) (*reflect.StructField, []string) {
	var names []string
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("yaml")
		if tag == name {
			return &f, nil
		}
		names = append(names, tag)
	}
	return nil, names
}

// complete fills in what depends on other fields or on the machine, makes
// paths absolute from the file's folder, and checks all of it.
func (l *bootstrapLoader) complete(b *Bootstrap) error {
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
	if err := l.completeAccessLog(&b.AccessLog); err != nil {
		return err
	}
	if err := l.completeTracing(&b.Tracing); err != nil {
		return err
	}
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
	return nil
}

func (l *bootstrapLoader) completeAccessLog(a *AccessLog) error {
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

// isTarget reports whether a text is a name or an address, and a port.
func isTarget(s string) bool {
	host, port, err := net.SplitHostPort(s)
	n, notNumber := strconv.ParseUint(port, 10, 16)
	return err == nil && notNumber == nil && host != "" && n > 0
}

func relativeTo(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
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
