package config

import (
	stdtls "crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"

	"isthmus/mesh"
)

// serverTLS reads how a server terminates TLS.
func (d *document) serverTLS(t *networking.ServerTLSSettings, path string) *mesh.ServerTLS {
	out := &mesh.ServerTLS{Source: d.source(path), SubjectAltNames: t.SubjectAltNames, RootsFrom: t.CaCertCredentialName, SkipVerify: t.InsecureSkipVerify.GetValue()}
	switch t.Mode {
	case networking.ServerTLSSettings_SIMPLE:
	case networking.ServerTLSSettings_OPTIONAL_MUTUAL:
		out.ClientCerts = mesh.OptionalClientCerts
	case networking.ServerTLSSettings_MUTUAL:
		out.ClientCerts = mesh.NeedClientCerts
	case networking.ServerTLSSettings_ISTIO_MUTUAL:
		out.ClientCerts, out.Mesh = mesh.NeedClientCerts, true
	}
	d.serverCredentials(out, t, path)
	d.unaskedRoots(out, t, path)
	out.MinVersion = d.tlsVersion(t.MinProtocolVersion, path+".minProtocolVersion")
	out.MaxVersion = d.tlsVersion(t.MaxProtocolVersion, path+".maxProtocolVersion")
	if out.MaxVersion != 0 && out.MinVersion > out.MaxVersion {
		d.error(path+".maxProtocolVersion", "is lower than minProtocolVersion")
	}
	for i, name := range t.CipherSuites {
		if id, ok := cipherSuite(name); ok {
			out.CipherSuites = append(out.CipherSuites, id)
		} else {
			d.warning(fmt.Sprintf("%s.cipherSuites[%d]", path, i), fmt.Sprintf("%s is not offered: it is unknown, or not safe; those of TLS 1.3 need not be named", name))
		}
	}
	if len(t.CipherSuites) > 0 && len(out.CipherSuites) == 0 {
		d.error(path+".cipherSuites", "leaves none: name one of "+strings.Join(cipherNames(), ", "))
	}
	for i, text := range t.VerifyCertificateSpki {
		sum, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(sum) != 32 {
			d.error(fmt.Sprintf("%s.verifyCertificateSpki[%d]", path, i), "is no SHA-256 sum in base64")
		}
		out.KeySums = append(out.KeySums, sum)
	}
	for i, text := range t.VerifyCertificateHash {
		sum, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
		if err != nil || len(sum) != 32 {
			d.error(fmt.Sprintf("%s.verifyCertificateHash[%d]", path, i), "is no SHA-256 sum in hexadecimal")
		}
		out.CertificateSums = append(out.CertificateSums, sum)
	}
	return out
}

// passedOn says of settings of TLS that ends here that it does not.
func (d *document) passedOn(t *networking.ServerTLSSettings, path string) {
	if proto.Equal(t, &networking.ServerTLSSettings{Mode: t.Mode, HttpsRedirect: t.HttpsRedirect}) {
		return
	}
	why := "by mode " + t.Mode.String()
	if !d.has(path + ".mode") {
		why = "as no mode is named, which means PASSTHROUGH"
	}
	d.warning(path, "has no effect, in Istio neither: TLS is passed on as it comes, "+why+"; write mode: SIMPLE, or MUTUAL, if it is to end here")
}

// unaskedRoots names what says whose certificates clients may have where none is asked
// for it.
func (d *document) unaskedRoots(out *mesh.ServerTLS, t *networking.ServerTLSSettings, path string) {
	for _, f := range []struct {
		field         string
		set           bool
		ofCredentials bool // a credential brings its own
	}{
		{"caCertificates", t.CaCertificates != "", true},
		{"caCrl", t.CaCrl != "", true},
		{"caCertCredentialName", t.CaCertCredentialName != "", false},
		{"insecureSkipVerify", t.InsecureSkipVerify.GetValue(), false},
	} {
		switch {
		case !f.set || out.Mesh:
		case out.ClientCerts == mesh.NoClientCerts:
			d.warning(path+"."+f.field, "has no effect: it is about clients' certificates, which mode SIMPLE does not ask for; write mode: MUTUAL if they are meant")
		case f.ofCredentials && (len(out.Credentials) > 0 || out.RootsFrom != ""):
			d.warning(path+"."+f.field, "has no effect beside a credential: ca.crt and ca.crl of that hold")
		}
	}
}

// serverCredentials reads where the certificates are: in one of four ways.
func (d *document) serverCredentials(out *mesh.ServerTLS, t *networking.ServerTLSSettings, path string) {
	ways := 0
	if t.CredentialName != "" {
		ways++
		out.Credentials = []string{t.CredentialName}
	}
	if len(t.CredentialNames) > 0 {
		ways++
		out.Credentials = t.CredentialNames
	}
	file := func(certificate, key, roots, path string) {
		for _, f := range []struct{ name, value string }{{"serverCertificate", certificate}, {"privateKey", key}} {
			if f.value == "" {
				d.error(path+"."+f.name, "is missing: serverCertificate and privateKey belong together")
			}
		}
		out.Files = append(out.Files, mesh.TLSFiles{Certificate: certificate, Key: key, Roots: roots, Revoked: t.CaCrl})
	}
	if t.ServerCertificate != "" || t.PrivateKey != "" {
		ways++
		file(t.ServerCertificate, t.PrivateKey, t.CaCertificates, path)
	}
	if len(t.TlsCertificates) > 0 {
		ways++
		for i, c := range t.TlsCertificates {
			roots := c.CaCertificates
			if roots == "" {
				roots = t.CaCertificates
			}
			file(c.ServerCertificate, c.PrivateKey, roots, fmt.Sprintf("%s.tlsCertificates[%d]", path, i))
		}
	}
	switch {
	case out.Mesh && ways+len(t.CaCertificates)+len(t.CaCertCredentialName)+len(t.CaCrl) > 0:
		d.error(path, "mode ISTIO_MUTUAL takes no certificates: the proxy's own are shown")
	case out.Mesh:
	case ways == 0:
		d.error(path, "names no certificate: write credentialName, or serverCertificate and privateKey")
	case ways > 1:
		d.error(path, "credentialName, credentialNames, serverCertificate and tlsCertificates exclude each other")
	case len(out.Credentials) > 2 || len(out.Files) > 2:
		d.error(path, "names more than two certificates")
	}
	if !out.Mesh && out.ClientCerts != mesh.NoClientCerts && len(out.Files) > 0 && out.Files[0].Roots == "" && out.RootsFrom == "" && !out.SkipVerify {
		d.error(path+".caCertificates", "is missing: "+t.Mode.String()+" needs roots to judge clients by")
	}
	if out.ClientCerts == mesh.NoClientCerts && len(t.SubjectAltNames)+len(t.VerifyCertificateSpki)+len(t.VerifyCertificateHash) > 0 {
		d.error(path+".subjectAltNames", "and sums are about clients' certificates, which mode SIMPLE does not ask for: write mode: MUTUAL")
	}
}

// tlsVersion reads a version. TLS 1.2 is the floor, whatever is written.
func (d *document) tlsVersion(v networking.ServerTLSSettings_TLSProtocol, path string) uint16 {
	switch v {
	case networking.ServerTLSSettings_TLSV1_2:
		return stdtls.VersionTLS12
	case networking.ServerTLSSettings_TLSV1_3:
		return stdtls.VersionTLS13
	case networking.ServerTLSSettings_TLSV1_0, networking.ServerTLSSettings_TLSV1_1:
		d.warning(path, v.String()+" is not spoken: TLS 1.2 is the lowest version")
		return stdtls.VersionTLS12
	}
	return 0
}

// openSSLNames are the names under which Envoy knows the suites of TLS 1.2 that
// are still safe: forward secret, and authenticated encryption.
var openSSLNames = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": stdtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-RSA-AES128-GCM-SHA256":   stdtls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": stdtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-RSA-AES256-GCM-SHA384":   stdtls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": stdtls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-RSA-CHACHA20-POLY1305":   stdtls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

func cipherSuite(name string) (uint16, bool) {
	id, ok := openSSLNames[strings.ToUpper(name)]
	return id, ok
}

func cipherNames() []string { return slices.Sorted(maps.Keys(openSSLNames)) }
