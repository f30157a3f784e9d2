package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// site is where one peer runs: a folder of its own and the ports it uses.
type site struct {
	home                    string
	port, metrics, upstream int
	grpc                    int // the upstream that speaks HTTP/2
}

// fill writes the site into a configuration.
func (s site) fill(text string) string {
	return strings.NewReplacer(
		"@HOME@", s.home, "@PORT@", strconv.Itoa(s.port),
		"@METRICS@", strconv.Itoa(s.metrics), "@UPSTREAM@", strconv.Itoa(s.upstream), "@GRPC@", strconv.Itoa(s.grpc),
	).Replace(text)
}

// peer is a proxy to measure.
type peer struct {
	name    string
	version []string              // command that prints it
	files   map[string]string     // configuration by file name, to be filled
	args    func(s site) []string // command that runs it in the foreground
	direct  bool                  // no proxy at all: the load asks the upstream
	tls     bool                  // the load speaks TLS
	h2      bool                  // the load speaks HTTP/2
}

// direct is what proxies are compared with where latency counts.
var direct = peer{name: "direct", direct: true}

// Every peer does the same work: no access log, keep-alive to the upstream,
// X-Forwarded-For, one request header set and one reply header removed. The
// latter is what checkReply looks for, so that no rule is silently without
// effect.
var (
	haproxy = peer{
		name: "haproxy", version: []string{"haproxy", "-v"},
		files: map[string]string{"haproxy.cfg": haproxyConfig},
		args: func(s site) []string {
			return []string{"haproxy", "-db", "-f", filepath.Join(s.home, "haproxy.cfg")}
		},
	}
	nginx = peer{
		name: "nginx", version: []string{"nginx", "-v"},
		files: map[string]string{"nginx.conf": nginxConfig},
		args: func(s site) []string {
			return []string{"nginx", "-p", s.home, "-e", filepath.Join(s.home, "error.log"), "-c", filepath.Join(s.home, "nginx.conf")}
		},
	}
	caddy = peer{
		name: "caddy", version: []string{"caddy", "version"},
		files: map[string]string{"Caddyfile": caddyConfig},
		args: func(s site) []string {
			return []string{"caddy", "run", "--adapter", "caddyfile", "--config", filepath.Join(s.home, "Caddyfile")}
		},
	}
	traefik = peer{
		name: "traefik", version: []string{"traefik", "version"},
		files: map[string]string{"traefik.yml": traefikConfig, "routes.yml": traefikRoutes},
		args: func(s site) []string {
			return []string{"traefik", "--configfile=" + filepath.Join(s.home, "traefik.yml")}
		},
	}
)

// findPeers returns who can be measured here, and who of the optional ones is
// not installed.
func findPeers(isthmus string) (list []peer, missing []string, err error) {
	for _, p := range []peer{haproxy, nginx} {
		if _, err := exec.LookPath(p.name); err != nil {
			return nil, nil, fmt.Errorf("%w: bench/peers.sh installs it", err)
		}
	}
	list = []peer{isthmusPeer(isthmus), haproxy, nginx}
	for _, p := range []peer{caddy, traefik} {
		if _, err := exec.LookPath(p.name); err != nil {
			missing = append(missing, p.name)
		} else {
			list = append(list, p)
		}
	}
	return list, missing, nil
}

// versionLine is the first line of what a peer says of its version.
func (p peer) versionLine() string {
	out, err := exec.Command(p.version[0], p.version[1:]...).CombinedOutput()
	if err != nil {
		return "of an unknown version"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return strings.TrimSuffix(strings.Join(strings.Fields(line), " "), " - https://haproxy.org/")
}

// Without strict-limits, since maxconn would ask for two descriptors for each
// of 11,000 connections, of which the slow ones need only one.
const haproxyConfig = `global
  nbthread 1
  maxconn 11000
  no strict-limits
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
  option forwardfor
frontend in
  bind 127.0.0.1:@PORT@
  default_backend out
backend out
  http-request set-header X-Route stable
  http-response del-header X-Powered-By
  server s1 127.0.0.1:@UPSTREAM@
`

const nginxConfig = `daemon off;
worker_processes 1;
pid @HOME@/nginx.pid;
error_log @HOME@/error.log error;
events { worker_connections 16384; }
http {
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path @HOME@/cb; proxy_temp_path @HOME@/pt; fastcgi_temp_path @HOME@/ft; uwsgi_temp_path @HOME@/ut; scgi_temp_path @HOME@/st;
  upstream out { server 127.0.0.1:@UPSTREAM@; keepalive 2048; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:@PORT@ backlog=4096;
    location / {
      proxy_pass http://out;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Route stable;
      proxy_hide_header X-Powered-By;
      proxy_buffers 16 16k;
      proxy_max_temp_file_size 0;
    }
  }
}
`

const caddyConfig = `{
	admin off
	persist_config off
	auto_https off
	storage file_system @HOME@/storage
	log {
		output discard
	}
	servers {
		protocols h1
	}
}
http://:@PORT@ {
	bind 127.0.0.1
	reverse_proxy 127.0.0.1:@UPSTREAM@ {
		header_up X-Route stable
		header_down -X-Powered-By
		transport http {
			keepalive_idle_conns_per_host 2048
			keepalive_idle_conns 4096
			compression off
		}
	}
}
`

const traefikConfig = `global: {checkNewVersion: false, sendAnonymousUsage: false}
log: {level: ERROR}
entryPoints: {web: {address: "127.0.0.1:@PORT@"}}
providers: {file: {filename: "@HOME@/routes.yml", watch: false}}
`

const traefikRoutes = `http:
  routers:
    all: {rule: "PathPrefix(` + "`/`" + `)", service: out, entryPoints: [web], middlewares: [headers]}
  middlewares:
    headers:
      headers:
        customRequestHeaders: {X-Route: stable}
        customResponseHeaders: {X-Powered-By: ""}
  services:
    out: {loadBalancer: {serversTransport: kept, servers: [{url: "http://127.0.0.1:@UPSTREAM@"}]}}
  serversTransports:
    kept: {maxIdleConnsPerHost: 2048}
`
