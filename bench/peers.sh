#!/usr/bin/env bash
# Isthmus beside HAProxy and nginx: installs what is missing (Debian), builds, measures, and writes docs/performance.md.
set -euo pipefail
cd "$(dirname "$0")/.."
missing=()
for tool in haproxy:haproxy nginx:nginx-light wrk:wrk taskset:util-linux; do
  command -v "${tool%%:*}" >/dev/null || missing+=("${tool##*:}")
done
if ((${#missing[@]})); then
  apt-get update -qq && apt-get install -y -qq "${missing[@]}"
fi
CGO_ENABLED=0 go build -trimpath -o bin/isthmus ./cmd/isthmus
CGO_ENABLED=0 go build -o bin/peers ./bench/peers
exec bin/peers -isthmus bin/isthmus -out docs/performance.md "$@"
