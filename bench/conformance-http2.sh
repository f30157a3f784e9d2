#!/usr/bin/env bash
# Isthmus between the clients and servers of others: installs the suites for HTTP/2 and gRPC at the versions below into
# bin/conformance, and what is missing of curl, nghttp2 and Chromium (Debian), builds, and runs all of it (10 minutes).
# Arguments go to the run: bench/conformance-http2.sh -suite "connect" -v; -help lists them.
set -euo pipefail
cd "$(dirname "$0")/.."
h2spec=v2.2.1+incompatible
grpc=v1.85.0
connect=v1.0.7

missing=()
for tool in curl:curl nghttp:nghttp2-client h2load:nghttp2-client chromium:chromium; do
  command -v "${tool%%:*}" >/dev/null || missing+=("${tool##*:}")
done
if ((${#missing[@]})); then
  apt-get update -qq && apt-get install -y -qq "${missing[@]}"
fi
tools=$PWD/bin/conformance
mkdir -p "$tools"
if [ "$(cat "$tools/versions" 2>/dev/null)" != "$h2spec $grpc $connect" ]; then
  export GOBIN=$tools
  go install "github.com/summerwind/h2spec/cmd/h2spec@$h2spec"
  for name in connectconformance referenceserver grpcserver; do
    go install "connectrpc.com/conformance/cmd/$name@$connect"
  done
  # Client and server of interop are both called after their folders, so they are built from a module of their own.
  module=$(mktemp -d)
  trap 'rm -rf "$module"' EXIT
  (
    cd "$module"
    go mod init interop
    go get "google.golang.org/grpc/interop/client@$grpc" "google.golang.org/grpc/interop/server@$grpc"
    for side in client server; do go build -o "$tools/interop-$side" "google.golang.org/grpc/interop/$side"; done
  )
  echo "$h2spec $grpc $connect" >"$tools/versions"
fi
CGO_ENABLED=0 go build -trimpath -o bin/isthmus ./cmd/isthmus
CGO_ENABLED=0 go build -o "$tools/conformance" ./bench/conformance
exec "$tools/conformance" -isthmus bin/isthmus -tools "$tools" "$@"
