#!/usr/bin/env bash
# Isthmus beside HAProxy and nginx, and beside Caddy and Traefik if they are in PATH: installs what is missing of the
# others (Debian), builds, measures for a quarter of an hour, and writes docs/performance.md with docs/performance.svg.
# Arguments go to the measurement: bench/peers.sh -case keep,rate -rounds 1 (which writes no page without -out FILE); -help lists them.
set -euo pipefail
cd "$(dirname "$0")/.."
missing=()
for tool in haproxy:haproxy nginx:nginx-light wrk:wrk taskset:util-linux h2load:nghttp2-client; do
  command -v "${tool%%:*}" >/dev/null || missing+=("${tool##*:}")
done
if ((${#missing[@]})); then
  apt-get update -qq && apt-get install -y -qq "${missing[@]}"
fi
CGO_ENABLED=0 go build -trimpath -o bin/isthmus ./cmd/isthmus
CGO_ENABLED=0 go build -o bin/peers ./bench/peers
page=(-out docs/performance.md)
for arg; do
  [[ $arg != -case ]] || page=() # some cases are no page, unless -out says so
done
exec bin/peers -isthmus bin/isthmus "${page[@]}" "$@"
