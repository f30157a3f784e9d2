package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	meshconfig "istio.io/api/mesh/v1alpha1"

	"isthmus/mesh"
)

// meshConfigKey is where Istio's mesh configuration stands in its ConfigMap.
const meshConfigKey = "mesh"

// meshNetworksKey is where it says by which gateways other networks are reached.
const meshNetworksKey = "meshNetworks"

// meshConfig reads what is used of the mesh configuration: the authorization
// services and collectors that it names, how exchanges are traced, how paths
// are normalised, and what holds where resources do not say it. It reports whether there is any of that. The text is YAML within
// YAML: line is where it begins.
func (d *document) meshConfig(text string, line int) (used bool) {
	path := "data." + meshConfigKey
	root, at, err := inner(text, line)
	istios := d.name == "istio" || strings.HasPrefix(d.name, "istio-")
	switch {
	case err != nil && !istios:
		d.mark(Warning, "", at, path, "is not read as the mesh configuration: "+err.Error())
		return false
	case err != nil:
		d.errorAt(at, path, err.Error())
		return true
	}
	if root == nil {
		return false
	}
	if n := child(root, "pathNormalization"); n != nil {
		used = true
		var p meshconfig.MeshConfig_ProxyPathNormalization
		d.places[path+".pathNormalization"] = n.Line
		d.message(n, p.ProtoReflect(), path+".pathNormalization")
		d.pathNormalization(&p, path+".pathNormalization.normalization")
	}
	if n := child(root, "defaultConfig"); n != nil {
		if n = child(n, "tracing"); n != nil {
			used = true
			others := d.reader.config.Tracing.Collectors
			d.tracingConfig(n, path+".defaultConfig.tracing")
			if scalar(child(root, "enableTracing")) == "false" {
				d.reader.config.Tracing.Collectors = others
			}
		}
	}
	if n := child(root, "defaultProviders"); n != nil {
		var p meshconfig.MeshConfig_DefaultProviders
		d.message(n, p.ProtoReflect(), path+".defaultProviders")
		d.defaultCollector(p.Tracing, child(root, "extensionProviders"), path+".defaultProviders.tracing")
	}
	used = d.meshAccessLog(root, path) || used
	// An application's own ConfigMap may have a key of that name.
	if root.Kind == yaml.MappingNode && istios {
		used = d.readMeshDefaults(root, path) || used
	}
	list := child(root, "extensionProviders")
	if list == nil {
		return used
	}
	for i, item := range list.Content {
		at := fmt.Sprintf("%s.extensionProviders[%d]", path, i)
		item = resolve(item)
		collector := child(item, "zipkin") != nil || child(item, "opentelemetry") != nil
		if child(item, "envoyExtAuthzHttp") == nil && child(item, "envoyExtAuthzGrpc") == nil && !collector {
			d.otherProvider(item)
			continue
		}
		used = true
		var p meshconfig.MeshConfig_ExtensionProvider
		d.places[at] = item.Line
		d.message(item, p.ProtoReflect(), at)
		if collector {
			d.traceProvider(&p, at)
		} else if out := d.authorizationProvider(&p, at); out != nil {
			d.reader.config.AuthorizationProviders = append(d.reader.config.AuthorizationProviders, out)
		}
	}
	return used
}

// defaultCollector reads the names of collectors for which no Telemetry resource names one.
// Istio uses the first.
func (d *document) defaultCollector(names []string, providers *yaml.Node, path string) {
	if len(names) == 0 {
		return
	}
	if len(names) > 1 {
		d.warning(path+"[1]", "has no effect: spans go to the first one")
	}
	d.reader.config.DefaultCollector = names[0]
	if providers != nil {
		for _, item := range providers.Content {
			item = resolve(item)
			if scalar(child(item, "name")) == names[0] && (child(item, "zipkin") != nil || child(item, "opentelemetry") != nil) {
				return
			}
		}
	}
	d.warning(path+"[0]", fmt.Sprintf("no extensionProvider of kind zipkin or opentelemetry is called %q: spans go where tracing in the bootstrap file says, or defaultConfig", names[0]))
}

// otherProvider keeps the name of a provider that is not served, with its kind.
func (d *document) otherProvider(item *yaml.Node) {
	if item.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(item.Content); i += 2 {
		if kind := item.Content[i].Value; kind != "name" {
			d.reader.otherProviders[scalar(child(item, "name"))] = kind
		}
	}
}

func (d *document) pathNormalization(p *meshconfig.MeshConfig_ProxyPathNormalization, path string) {
	switch p.Normalization {
	case meshconfig.MeshConfig_ProxyPathNormalization_NONE:
		d.warning(path, "NONE has no effect: dot segments are always removed, so that what is judged is what is sent on")
	case meshconfig.MeshConfig_ProxyPathNormalization_MERGE_SLASHES:
		d.reader.config.PathNormalization = mesh.PathsMerged
	case meshconfig.MeshConfig_ProxyPathNormalization_DECODE_AND_MERGE_SLASHES:
		d.reader.config.PathNormalization = mesh.PathsDecodedOnce
	}
}

// inner reads YAML that stands within YAML, from a line on. It is nil where nothing
// is said; line is that of what is wrong.
func inner(text string, from int) (root *yaml.Node, line int, err error) {
	var doc yaml.Node
	data := fromJSON([]byte(text))
	if err := decodeSafely(yaml.NewDecoder(bytes.NewReader(data)), &doc); err != nil && !errors.Is(err, io.EOF) {
		line, message := yamlError(err, data)
		return nil, from + line, errors.New(message)
	}
	if len(doc.Content) == 0 {
		return nil, 0, nil
	}
	shift(&doc, from)
	if _, line, err := expand(doc.Content[0]); err != nil {
		return nil, line, err
	}
	return doc.Content[0], 0, nil
}

// shift moves the lines of nodes.
func shift(n *yaml.Node, by int) {
	n.Line += by
	for _, c := range n.Content {
		shift(c, by)
	}
}

// providerTimeout is how long an authorization service may take that says
// nothing else. Istio's default of 600 s would hold every request of an outage.
const providerTimeout = 10 * time.Second

// maxCheckedBody is how much of a request's body an authorization service can get, in bytes:
// what a proxy holds for another try, too.
const maxCheckedBody = 64 << 10

func (d *document) authorizationProvider(p *meshconfig.MeshConfig_ExtensionProvider, path string) *mesh.AuthorizationProvider {
	out := &mesh.AuthorizationProvider{Name: p.Name, Source: d.source(path), Timeout: providerTimeout, StatusOnError: 403}
	if p.Name == "" {
		d.error(path+".name", "is missing")
	}
	var status string
	kind := path + ".envoyExtAuthzHttp"
	var body *meshconfig.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationRequestBody
	if h := p.GetEnvoyExtAuthzHttp(); h != nil {
		out.Service, out.Port, out.FailOpen, out.PathPrefix = h.Service, h.Port, h.FailOpen, h.PathPrefix
		status, body = h.StatusOnError, h.IncludeRequestBodyInCheck
		if t := h.Timeout.AsDuration(); t > 0 {
			out.Timeout = t
		}
		//lint:ignore SA1019 still written by users
		out.RequestHeaders = append(h.IncludeRequestHeadersInCheck, h.IncludeHeadersInCheck...)
		for name, value := range h.IncludeAdditionalHeadersInCheck {
			out.AddedHeaders = append(out.AddedHeaders, mesh.NameValue{Name: strings.ToLower(name), Value: value})
		}
		out.UpstreamOnAllow, out.DownstreamOnDeny, out.DownstreamOnAllow = h.HeadersToUpstreamOnAllow, h.HeadersToDownstreamOnDeny, h.HeadersToDownstreamOnAllow
	} else {
		g := p.GetEnvoyExtAuthzGrpc()
		out.GRPC, kind = true, path+".envoyExtAuthzGrpc"
		out.Service, out.Port, out.FailOpen = g.Service, g.Port, g.FailOpen
		status, body = g.StatusOnError, g.IncludeRequestBodyInCheck
		if t := g.Timeout.AsDuration(); t > 0 {
			out.Timeout = t
		}
	}
	if body != nil {
		out.Body, out.BodyPartial, out.BodyAsBytes = body.MaxRequestBytes, body.AllowPartialMessage, body.PackAsBytes
		if out.Body > maxCheckedBody {
			d.warning(kind+".includeRequestBodyInCheck.maxRequestBytes", fmt.Sprintf("%d bytes of a body are not held: services get %d bytes at most, and longer bodies are a 413 unless allowPartialMessage is true",
				out.Body, maxCheckedBody))
			out.Body = maxCheckedBody
		}
	}
	if out.Service == "" {
		d.error(path+".service", "is missing: name the authorization service's host")
	}
	if !d.checkPort(out.Port, path+".port") {
		return nil
	}
	if status != "" {
		n, err := strconv.Atoi(status)
		if err != nil || n < 200 || n > 599 {
			d.error(path+".statusOnError", fmt.Sprintf("%q is no status between 200 and 599", status))
		}
		out.StatusOnError = n
	}
	return out
}
