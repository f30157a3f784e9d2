package main

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"isthmus/tls"
)

// overTLS is Isthmus and HAProxy with TLS before them: the same certificate, of
// a P-256 key, and whatever version and suite they agree on with wrk.
func overTLS(all []peer) []peer {
	secure := func(p peer, change func(text string) string) peer {
		files := map[string]string{}
		for name, text := range p.files {
			files[name] = change(text)
		}
		p.files, p.tls = files, true
		return p
	}
	return []peer{
		secure(all[0], func(text string) string {
			return strings.Replace(text, `protocol: HTTP}, hosts: ["*"]`, `protocol: HTTPS}, hosts: ["*"], tls: {mode: SIMPLE, serverCertificate: @HOME@/tls.crt, privateKey: @HOME@/tls.key}`, 1)
		}),
		secure(haproxy, func(text string) string {
			return strings.Replace(text, "bind 127.0.0.1:@PORT@", "bind 127.0.0.1:@PORT@ ssl crt @HOME@/both.pem", 1)
		}),
	}
}

// writeCertificate puts a certificate into a folder, as both like it.
func writeCertificate(dir string) error {
	os.Remove(filepath.Join(dir, "ca.crt"))
	os.Remove(filepath.Join(dir, "ca.key"))
	a, err := tls.InitAuthority(dir, "bench.test")
	if err != nil {
		return err
	}
	if _, err := a.Issue(tls.Request{ID: "spiffe://bench.test/ns/bench/sa/proxy", DNSNames: []string{"s.bench"}, TTL: time.Hour}); err != nil {
		return err
	}
	var both []byte
	for _, name := range []string{"tls.crt", "tls.key"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		both = append(both, b...)
	}
	return os.WriteFile(filepath.Join(dir, "both.pem"), both, 0o600)
}
