package config

import (
	beta "istio.io/api/networking/v1beta1"
	telemetry "istio.io/api/telemetry/v1alpha1"
)

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
