#!/usr/bin/env bash
# What others make of what Isthmus tells: installs Prometheus (Debian) and builds OpenTelemetry's collector (a minute),
# and runs two clusters of the built binary beside them. The collector stays in bin/otelcol.
set -euo pipefail
cd "$(dirname "$0")/.."
version=v0.161.0
if ! command -v prometheus >/dev/null; then
  apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus
fi
if [ ! -x bin/otelcol ]; then
  dir=$(mktemp -d)
  trap 'rm -rf "$dir"' EXIT
  cat >"$dir/builder.yaml" <<YAML
dist: {name: otelcol, output_path: $dir/out, version: ${version#v}}
receivers:
- gomod: go.opentelemetry.io/collector/receiver/otlpreceiver $version
- gomod: github.com/open-telemetry/opentelemetry-collector-contrib/receiver/zipkinreceiver $version
exporters:
- gomod: github.com/open-telemetry/opentelemetry-collector-contrib/exporter/fileexporter $version
YAML
  GOBIN="$dir" go install "go.opentelemetry.io/collector/cmd/builder@$version"
  "$dir/builder" --config "$dir/builder.yaml"
  mkdir -p bin && mv "$dir/out/otelcol" bin/otelcol
fi
ISTHMUS_PROMETHEUS=$(command -v prometheus) ISTHMUS_OTELCOL=$PWD/bin/otelcol \
  go test -timeout 15m -count 1 -v -run TestConformance ./cmd/isthmus "$@" | grep -v '^=== '
