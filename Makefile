# Every target sets itself up: Go is all that has to be there, and a C compiler for -race.
SHELL       := bash
.SHELLFLAGS := -o pipefail -c # what fails before a pipe has failed
GO       ?= go
FUZZTIME ?= 5m # on two cores, ten minutes of CPU for each target
SOAK     ?= 10m
COUNT    ?= 6
NETNS    ?= -out docs/failover-measured.md # flags of bin/netns; others: -scenario black-hole -keep

.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "%-20s %s\n", $$1, $$2}'

build: ## bin/isthmus, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/isthmus ./cmd/isthmus

demo: build ## two clusters on this machine, and a story about them
	bin/isthmus demo

test: ## all tests
	$(GO) test ./...

check: fmt vet ## what every change has to pass
	$(GO) test -race ./...
	$(GO) test -run Allocates ./... # the race detector allocates by itself
	$(MAKE) --no-print-directory fuzz FUZZTIME=20000x # counted: at the end of a time, go test fails now and then by itself

fmt:
	@files=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$files" ]; then echo "not formatted, run gofmt -w:" $$files; exit 1; fi
	$(GO) mod tidy -diff

vet:
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

bench: ## benchmarks of the hot path, COUNT times
	$(GO) test -run '^$$' -bench . -benchmem -count $(COUNT) ./http1 ./balancer ./ratelimit ./telemetry ./accesslog ./auth ./extauthz ./proxy

bench-peers: build ## the binary beside HAProxy, nginx, Caddy, Traefik; writes docs/performance.md
	bench/peers.sh

conformance: ## h2spec, grpc-go's interop, Connect's suite, curl, nghttp, h2load, Chromium through the binary; installs them (10 minutes)
	bench/conformance-http2.sh -out docs/conformance.md

netns: build ## links cut, clusters killed, under load; needs Linux and root; writes docs/failover-measured.md (5 minutes)
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/netns ./bench/netns
	bin/netns $(NETNS)

distance: build ## HTTP/1.1 and HTTP/2 over a long line; needs Linux and root; writes docs/distance-measured.md (3 minutes)
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/netns ./bench/netns
	bin/netns -distance -seconds 10 -out docs/distance-measured.md

large: build ## time and memory of 10,000 resources and services; writes docs/large-measured.md (3 minutes)
	$(GO) run ./bench/large -out docs/large-measured.md

websocket: build ## WebSockets through the binary as without it, by npm's ws; needs Node.js (1 minute)
	cd bench/websocket && npm ci --no-audit --no-fund && node suite.js ../../bin/isthmus

rotate: ## 50 rotations of leaf and root certificates under load, on two clusters (4 minutes)
	ISTHMUS_ROTATIONS=50 $(GO) test -timeout 15m -count 1 -v -run TestSecurity_Rotation ./cmd/isthmus | grep -v '^=== '

testssl: ## testssl.sh against a gateway; needs that (half a minute)
	ISTHMUS_TESTSSL="$$(command -v testssl.sh || command -v testssl)" $(GO) test -count 1 -v -run TestSecurity_Testssl ./cmd/isthmus | grep -v '^=== '

console-test: build ## the console in headless Chromium, pictures in bin/console; needs Node, npm and /usr/bin/chromium
	mkdir -p bin/console && cp bench/console/package.json bench/console/console.mjs bin/console/
	cd bin/console && npm install --no-audit --no-fund --silent && node console.mjs ../isthmus .

rules-test: ## the alert rules, each fired and over; needs promtool
	promtool check rules deploy/prometheus/rules.yaml
	promtool check config deploy/prometheus/prometheus.yaml
	promtool test rules deploy/prometheus/rules_test.yaml

alerts: ## each alert fires and is over, by a real Prometheus; needs prometheus (some minutes)
	ISTHMUS_PROMETHEUS="$$(command -v prometheus)" $(GO) test -timeout 30m -count 1 -v -run TestAlerts ./cmd/isthmus | grep -v '^=== '

conformance-metrics: ## metrics in a real Prometheus, traces in a real collector; installs both (root, Debian; 3 minutes)
	bench/conformance.sh

simulate: ## limits of a thousand proxies, and ten million keys (5 minutes)
	ISTHMUS_SIMULATE=1 $(GO) test -timeout 20m -count 1 -v -run 'Shared_Steady|Bounded' ./ratelimit | grep -v '^=== '

limits-measured: build ## rate limits: 30 s of the example, the real envoyproxy/ratelimit with Redis, clusters parted; needs Linux and root; writes docs/limits-measured.md (4 minutes)
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/netns ./bench/netns
	bench/limits.sh -out docs/limits-measured.md

soak: ## two clusters, killed, reloaded and left over and over under load, for SOAK
	ISTHMUS_SOAK=$(SOAK) $(GO) test -timeout 12h -count 1 -v -run TestSoak ./cmd/isthmus | grep -v '^=== '

fuzz: ## every fuzz target for FUZZTIME, a time or a count of runs
	@set -e; for f in $$(grep -rlE '^func Fuzz' --include='*_test.go' .); do \
	  for t in $$(grep -oE '^func Fuzz[A-Za-z0-9_]+' $$f | cut -d' ' -f2); do \
	    echo "fuzz $$t in $$(dirname $$f)"; \
	    $(GO) test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s $$(dirname $$f); \
	  done; done

clean: ## what the targets have made
	rm -rf bin

.PHONY: help build demo test check fmt vet bench bench-peers conformance netns distance large websocket rotate testssl rules-test console-test alerts conformance-metrics simulate limits-measured soak fuzz clean
