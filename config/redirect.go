package config

import (
	"fmt"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"isthmus/mesh"
)

// redirect reads Istio's HTTPRedirect.
func (d *document) redirect(r *networking.HTTPRedirect, path string) *mesh.Redirect {
	out := &mesh.Redirect{
		Authority: r.Authority, Scheme: r.Scheme, Port: r.GetPort(), Code: int(r.RedirectCode),
		RequestPort:  r.GetDerivePort() == networking.HTTPRedirect_FROM_REQUEST_PORT,
		ProtocolPort: r.GetDerivePort() == networking.HTTPRedirect_FROM_PROTOCOL_DEFAULT && r.RedirectPort != nil,
	}
	if prefix, ok := strings.CutPrefix(r.Uri, "%PREFIX()%"); ok {
		out.PrefixURI = d.rooted(prefix, path+".uri")
	} else {
		out.URI = d.rooted(r.Uri, path+".uri")
	}
	if r.PrefixRewrite != "" {
		if out.PrefixURI = d.rooted(r.PrefixRewrite, path+".prefixRewrite"); r.Uri != "" {
			d.error(path+".prefixRewrite", "cannot stand beside uri: only one of them")
		}
	}
	if _, ok := r.RedirectPort.(*networking.HTTPRedirect_Port); ok {
		out.ProtocolPort, out.RequestPort = false, false
		d.checkPort(out.Port, path+".port")
	}
	switch out.Code {
	case 0:
		out.Code = 301
	case 301, 302, 303, 307, 308:
	default:
		d.error(path+".redirectCode", fmt.Sprintf("%d is none of 301, 302, 303, 307, 308", out.Code))
	}
	for _, f := range [...][2]string{{"uri", r.Uri}, {"prefixRewrite", r.PrefixRewrite}, {"authority", r.Authority}, {"scheme", r.Scheme}} {
		if strings.ContainsAny(f[1], "\r\n\x00") {
			d.error(path+"."+f[0], "cannot hold line ends: it stands in a header of the reply")
		}
	}
	if r.Uri == "" && r.PrefixRewrite == "" && r.Authority == "" && r.Scheme == "" && r.RedirectPort == nil {
		d.error(path, "changes nothing: write uri, prefixRewrite, authority, port or scheme")
	}
	return out
}

// rooted is a path that stands behind a host: without a slash in between it would be a
// part of that.
func (d *document) rooted(text, path string) string {
	switch {
	case text == "" || text[0] == '/':
		return text
	case strings.Contains(text, "://"):
		d.find(Warning, ISM0069, path, fmt.Sprintf("%q is a path here, behind the host: write scheme, authority and uri each by itself", text))
	default:
		d.find(Warning, ISM0069, path, fmt.Sprintf("begins with no slash, and is taken for /%s: write that", text))
	}
	return "/" + text
}
