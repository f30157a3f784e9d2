#!/usr/bin/env bash
# limits.sh measures rate limits of the built binary (make limits-measured): it
# installs Redis and envoyproxy/ratelimit, which bin/netns drives.
set -euo pipefail
cd "$(dirname "$0")/.."
need() { command -v "$1" > /dev/null || { apt-get update -qq; apt-get install -y -qq "$2" > /dev/null; }; }
need redis-server redis-server
need ip iproute2
if [ ! -x bin/ratelimit ]; then
  mkdir -p bin/tmp
  GOBIN=$PWD/bin/tmp go install github.com/envoyproxy/ratelimit/src/service_cmd@latest
  mv bin/tmp/service_cmd bin/ratelimit
  rmdir bin/tmp
fi
exec bin/netns -limits "$@"
