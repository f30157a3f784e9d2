package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"isthmus/mesh"
)

// certificateSpec is what is read of cert-manager's CertificateSpec.
type certificateSpec struct {
	CommonName  string        `yaml:"commonName"`
	DNSNames    []string      `yaml:"dnsNames"`
	IPAddresses []string      `yaml:"ipAddresses"`
	URIs        []string      `yaml:"uris"`
	Duration    time.Duration `yaml:"duration"`
	IsCA        bool          `yaml:"isCA"`
}

// ReadCertificates reads the cert-manager Certificates of a file, which "isthmus
// certs issue --from" acts on.
func ReadCertificates(f File) ([]*mesh.Certificate, []Finding) {
	rd := newReader()
	rd.issues = true
	rd.readFile(f)
	var findings []Finding
	for _, finding := range rd.findings {
		if finding.Kind == "Certificate" || finding.Kind == "" { // the rest is another command's business
			findings = append(findings, finding)
		}
	}
	return rd.certificates, sortFindings(findings)
}

// certificate reads one. In a proxy's configuration that is cert-manager's
// business: it is only looked at whether an identity could come of it.
func (d *document) certificate() {
	before := len(d.reader.findings)
	c := d.readCertificate()
	if d.failed() {
		if !d.reader.issues {
			d.reader.findings = d.reader.findings[:before]
		}
		return
	}
	d.reader.certificates = append(d.reader.certificates, c)
	for _, name := range c.DNSNames {
		if suffix, ok := strings.CutPrefix(name, "*."); ok && aboveServices(suffix) {
			d.find(Info, ISM0023, "dnsNames", fmt.Sprintf("%q fits no service, whose names are longer: in a certificate * stands for one label (RFC 6125), in Istio's hosts for any number", name))
		}
	}
	switch identities := c.Identities(); {
	case c.Authority:
	case identities == 0:
		d.find(Info, ISM0024, "uris", "has no SPIFFE ID (spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT): the certificate may serve at a gateway, but cannot be a proxy's identity in the mesh")
	case identities > 1:
		d.find(Warning, ISM0024, "uris", "has several SPIFFE IDs: an identity is the only one of a certificate, so this cannot be one")
	}
}

// aboveServices reports whether services' names have two labels or more before a
// suffix: name.namespace.global, name.namespace.svc.cluster.local.
func aboveServices(suffix string) bool {
	first, _, _ := strings.Cut(suffix, ".")
	return suffix == "global" || first == "cluster" || first == "svc"
}

func (d *document) readCertificate() *mesh.Certificate {
	spec := child(d.root, "spec")
	if spec == nil {
		d.error("spec", "is missing")
		return nil
	}
	for i := 0; i+1 < len(spec.Content); i += 2 {
		d.places[spec.Content[i].Value] = spec.Content[i].Line
	}
	var s certificateSpec
	if err := spec.Decode(&s); err != nil {
		line, message := yamlError(err, nil)
		d.errorAt(max(line, d.line), "spec", strings.TrimPrefix(message, "not YAML: "))
		return nil
	}
	out := &mesh.Certificate{Meta: d.meta(), CommonName: s.CommonName, DNSNames: s.DNSNames, Duration: s.Duration, Authority: s.IsCA}
	for i, text := range s.IPAddresses {
		a, err := netip.ParseAddr(text)
		if err != nil {
			d.error("ipAddresses", fmt.Sprintf("[%d]: %q is no IP address", i, text))
			continue
		}
		out.Addresses = append(out.Addresses, a)
	}
	for i, text := range s.URIs {
		u, err := url.Parse(text)
		if err != nil || u.Scheme == "" {
			d.error("uris", fmt.Sprintf("[%d]: %q is no URI", i, text))
			continue
		}
		out.URIs = append(out.URIs, u)
	}
	return out
}
