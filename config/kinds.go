package config

import (
	"fmt"
	"slices"
	"strings"

	"isthmus/mesh"
)

// kind says how resources of one kind are read.
type kind struct {
	group string // API group; "" is Kubernetes' core
	read  func(*document)
}

// kinds are those that Isthmus reads itself.
var kinds = map[string]kind{
	"Service":       {"", readService},
	"ConfigMap":     {"", readConfigMap},
	"Endpoints":     {"", readEndpoints},
	"EndpointSlice": {"discovery.k8s.io", readEndpointSlice},

	"ServiceEntry":    {"networking.istio.io", readServiceEntry},
	"WorkloadEntry":   {"networking.istio.io", readWorkloadEntry},
	"WorkloadGroup":   {"networking.istio.io", readWorkloadGroup},
	"Gateway":         {"networking.istio.io", readGateway},
	"VirtualService":  {"networking.istio.io", readVirtualService},
	"DestinationRule": {"networking.istio.io", readDestinationRule},
	"EnvoyFilter":     {"networking.istio.io", readEnvoyFilter},
	"Sidecar":         {"networking.istio.io", readSidecar},
	"ProxyConfig":     {"networking.istio.io", readProxyConfig},

	"PeerAuthentication":    {"security.istio.io", readPeerAuthentication},
	"RequestAuthentication": {"security.istio.io", readRequestAuthentication},
	"AuthorizationPolicy":   {"security.istio.io", readAuthorizationPolicy},

	"Telemetry": {"telemetry.istio.io", readTelemetry},
}

// versions are those that Isthmus reads, by API group.
var versions = map[string][]string{
	"":                    {"v1"},
	"discovery.k8s.io":    {"v1"},
	"networking.istio.io": {"v1", "v1beta1", "v1alpha3"},
	"security.istio.io":   {"v1", "v1beta1"},
	"telemetry.istio.io":  {"v1", "v1alpha1"},
}

// operators own kinds that Isthmus leaves to them.
var operators = map[string]string{
	"cert-manager.io":       "cert-manager acts on it; Isthmus reads the Secret's files that it makes",
	"monitoring.coreos.com": "the Prometheus operator acts on it; Isthmus serves what it scrapes",
	"jaegertracing.io":      "the Jaeger operator acts on it",
}

// groupVersion takes apiVersion apart.
func (d *document) groupVersion() (group, version string) {
	group, version, ok := strings.Cut(d.apiVersion, "/")
	if !ok {
		return "", d.apiVersion
	}
	return group, version
}

// kindOf returns how resources like the document are read; ok is false if Isthmus
// does not read them. A group of Istio's stands for the others.
func (d *document) kindOf() (k kind, ok bool) {
	group, _ := d.groupVersion()
	k, ok = kinds[d.kind]
	return k, ok && (group == k.group || strings.HasSuffix(group, ".istio.io") && strings.HasSuffix(k.group, ".istio.io"))
}

// read sends a document to the reader of its kind.
func (d *document) read() {
	group, version := d.groupVersion()
	if who, ok := operators[group]; ok {
		if !d.reader.issues {
			d.find(Info, ISM0005, "", who)
		}
		switch d.kind {
		case "Certificate":
			d.certificate()
		case "ServiceMonitor":
			d.readMonitor()
		}
		return
	}
	k, ok := d.kindOf()
	switch {
	case !ok:
		names := make([]string, 0, len(kinds))
		for n := range kinds {
			names = append(names, n)
		}
		slices.Sort(names)
		hint := suggest(d.kind, names)
		if k, known := kinds[d.kind]; known {
			hint = ", which reads a " + d.kind + " of apiVersion " + strings.TrimPrefix(k.group+"/", "/") + versions[k.group][0]
		}
		if d.kind == "IstioOperator" && child(child(d.root, "spec"), "meshConfig") != nil {
			hint = ", which takes the mesh configuration from a ConfigMap with the key mesh, as Istio makes it of spec.meshConfig"
		}
		d.find(Warning, ISM0006, "", fmt.Sprintf("%s %s is not read by Isthmus%s", d.apiVersion, d.kind, hint))
		return
	case group != k.group:
		d.find(Warning, ISM0007, "apiVersion", fmt.Sprintf("%s belongs to %s, not %s; read all the same", d.kind, k.group, group))
	case !slices.Contains(versions[group], version):
		d.find(Warning, ISM0007, "apiVersion", fmt.Sprintf("version %q is unknown; read as %s/%s", version, group, versions[group][0]))
	}
	key := d.key()
	if before, ok := d.reader.seen[key]; ok {
		d.error("metadata.name", fmt.Sprintf("the name is taken: there is another %s in %s", key, before))
		return
	}
	d.reader.seen[key] = mesh.Source{File: d.file, Line: d.line}
	d.findBlanks()
	d.findAnnotations()
	d.note()
	k.read(d)
}

func (d *document) meta() mesh.Meta {
	return mesh.Meta{
		Kind: d.kind, Namespace: d.namespace, Name: d.name,
		Labels: d.labels, Annotations: d.annotations, Source: d.source(""),
	}
}

// source is the place of a field.
func (d *document) source(path string) mesh.Source {
	return mesh.Source{File: d.file, Line: d.lineOf(path)}
}

// fullHost makes a host name full: a name without a dot is a service of the
// resource's namespace.
func (d *document) fullHost(host string) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "*" || host == "" || strings.Contains(host, ".") {
		return host
	}
	return host + "." + d.namespace + ".svc." + mesh.LocalDomain
}

// checkHost refuses what is no host name: "*" may only be the first label, and
// alone only where bare says so.
func (d *document) checkHost(host, path string, bare bool) bool {
	rest := strings.TrimPrefix(host, "*.")
	problem := ""
	switch {
	case host == "*":
		if bare {
			return true
		}
		problem = `"*" alone is not allowed here`
	case host == "":
		problem = "is empty"
	case len(host) > 253:
		problem = "is longer than 253 characters"
	case strings.Contains(rest, "*"):
		problem = fmt.Sprintf("%q: a * may only stand for the first label", host)
	default:
		for label := range strings.SplitSeq(strings.TrimSuffix(rest, "."), ".") {
			if !validLabel(label) {
				problem = fmt.Sprintf("%q is no host name", host) + asHost(host)
			}
		}
	}
	if problem != "" {
		d.error(path, problem)
		return false
	}
	return true
}

func validLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

func (d *document) checkPort(n uint32, path string) bool {
	if n < 1 || n > 65535 {
		d.error(path, fmt.Sprintf("port %d is not between 1 and 65535", n))
		return false
	}
	return true
}

// checkNumber is checkPort for ports as Kubernetes' types have them.
func (d *document) checkNumber(n int32, path string) bool {
	if n < 0 {
		d.error(path, fmt.Sprintf("port %d is not between 1 and 65535", n))
		return false
	}
	return d.checkPort(uint32(n), path)
}

// export notes a namespace that the resource is exported to by name.
func (d *document) export(path, namespace string) {
	if !slices.Contains([]string{"*", ".", "~", d.namespace}, namespace) {
		d.reader.exports = append(d.reader.exports, export{d, path, namespace})
	}
}

func (d *document) checkExportTo(list []string) {
	for i, e := range list {
		if e != "*" && e != "." && e != "~" && !validLabel(e) {
			d.error(fmt.Sprintf("exportTo[%d]", i), fmt.Sprintf(`%q is neither a namespace nor ".", "*" or "~"`, e))
			continue
		}
		d.export(index("exportTo", i), e)
	}
}
