package config

import (
	beta "istio.io/api/networking/v1beta1"
	security "istio.io/api/security/v1beta1"
	telemetry "istio.io/api/telemetry/v1alpha1"
)

const notEnforced = "is not enforced yet: isthmus run refuses to start with it, since it would let pass what this forbids"

// refuse notes a policy that a proxy must not run without enforcing.
func (d *document) refuse(path, what string) {
	d.warning(path, what+notEnforced)
	m := d.meta()
	m.Source = d.source(path)
	d.reader.unenforced = append(d.reader.unenforced, m)
}

func readRequestAuthentication(d *document) {
	var p security.RequestAuthentication
	if d.decode(&p) {
		d.refuse("", "")
	}
}

func readAuthorizationPolicy(d *document) {
	var p security.AuthorizationPolicy
	if d.decode(&p) {
		d.refuse("", "")
	}
}

func readProxyConfig(d *document) {
	var p beta.ProxyConfig
	if d.decode(&p) {
		d.warning("", "has no effect: the bootstrap file says what a proxy is")
	}
}

func readTelemetry(d *document) {
	var t telemetry.Telemetry
	if d.decode(&t) {
		d.warning("", "has no effect yet")
	}
}
