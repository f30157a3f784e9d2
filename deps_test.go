package isthmus

import (
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// floors are the storeys of the house: a package may import those below its
// own only, never a neighbour.
var floors = [][]string{
	{"http1", "jsonstring"}, // the message model, on which the other protocol stands
	{"mesh", "history", "canary", "http2", "sni", "breaker", "telemetry", "accesslog", "explain", "rpc", "handover", "deploy"},
	{"balancer", "health", "config", "gossip", "admin", "tls", "auth", "extauthz", "ratelimit", "tracing"},
	{"proxy", "control"},
	{"cmd/isthmus", "bench/peers", "bench/netns", "bench/conformance", "bench/large"},
}

// onlyIn says which package alone may import a library.
var onlyIn = map[string]string{
	"github.com/hashicorp/memberlist": "gossip",
	"istio.io/api":                    "config",
	"k8s.io/":                         "config",
	"github.com/spf13/cobra":          "cmd/isthmus",
	"github.com/miekg/dns":            "control",
	"github.com/fsnotify/fsnotify":    "config",
	"github.com/sony/gobreaker":       "breaker",
	"github.com/lestrrat-go/":         "auth",
	"github.com/spiffe/go-spiffe":     "tls",
}

// neverIn says what a package must not import, and why.
var neverIn = map[string][]string{
	"proxy": {"net/http"}, // the request path is ours
	"http1": {"net/http"},
	"http2": {"net/http", "golang.org/x/net/http2"}, // which imports it
	// 6 MiB of memory in every proxy, where a few small messages are what is wanted.
	"auth":      {"google.golang.org/grpc"},
	"extauthz":  {"google.golang.org/grpc", "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"},
	"rpc":       {"google.golang.org/grpc"},
	"ratelimit": {"google.golang.org/grpc", "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"},
}

// TestFloors holds the structure that docs/architecture.md describes.
func TestFloors(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	floor := map[string]int{}
	for i, packages := range floors {
		for _, p := range packages {
			floor[p] = i
		}
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, "isthmus/")
		if name == "isthmus" {
			continue
		}
		own, known := floor[name]
		if !known {
			t.Errorf("%s stands on no floor", name)
			continue
		}
		for _, imported := range p.Imports {
			if other, ours := strings.CutPrefix(imported, "isthmus/"); ours && floor[other] >= own {
				t.Errorf("%s imports %s, which is not below it", name, other)
			}
			for library, only := range onlyIn {
				if strings.HasPrefix(imported, library) && name != only {
					t.Errorf("%s imports %s, which is for %s alone", name, imported, only)
				}
			}
			if slices.Contains(neverIn[name], imported) {
				t.Errorf("%s imports %s", name, imported)
			}
		}
	}
}
