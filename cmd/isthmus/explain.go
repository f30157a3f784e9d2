package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"isthmus/admin"
	"isthmus/config"
	"isthmus/explain"
	"isthmus/mesh"
	"isthmus/proxy"
	"isthmus/ratelimit"
	"isthmus/tls"
)

func newExplainCommand() *cobra.Command {
	var bootstrap, proxyURL, output, from, address string
	var paths, headers []string
	var q explain.Question
	cmd := &cobra.Command{
		Use:   "explain [--bootstrap FILE] --config PATH... [--listener outbound|inbound|gateway:PORT] [-X METHOD] [-H 'k: v']... URL",
		Short: "Say what a request would meet, without sending anything",
		Long: `Says which route, destinations, endpoints and policies a request would meet, and from which FILE:LINE each comes.
Nothing is sent: the configuration is compiled as "isthmus run" would, and asked. With --admin, a running proxy is
asked, which knows what gossip has brought and which endpoints it has found to be dead.
Exit status 0 also when the answer is a refusal.`,
		Example: `  isthmus explain --config mesh.yaml http://web.example/old
  isthmus explain --config mesh/ --bootstrap node.yaml --listener inbound --from production/user-service-sa -X POST http://orders/api
  isthmus explain --admin http://127.0.0.1:15000 -H 'geo-location: us-west' http://user-service.example.com/`,
		Args: usage(func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 && len(paths) > 0 {
				return nil // --config a b c URL, as a shell expands --config *
			}
			return cobra.ExactArgs(1)(cmd, args)
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			last := len(args) - 1
			paths = append(paths, args[:last]...)
			q.URL = args[last]
			if scheme, _, ok := strings.Cut(q.URL, "://"); !ok || strings.ContainsAny(scheme, "/?#") {
				q.URL = "http://" + q.URL
			}
			if err := fillQuestion(&q, headers, address); err != nil {
				return err
			}
			var e *explain.Explanation
			var err error
			switch {
			case proxyURL != "" && len(paths) > 0:
				return usageError{errors.New("--config and --admin: either files are asked or a running proxy")}
			case proxyURL != "":
				q.Caller = from
				e, err = explainByAdmin(proxyURL, &q)
			case len(paths) == 0:
				return usageError{errors.New("--config is missing: name a file or a folder of resources, or --admin and a running proxy")}
			default:
				e, err = explainFiles(cmd.ErrOrStderr(), bootstrap, paths, &q, from)
			}
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), e)
			}
			return admin.WritePrintable(cmd.OutOrStdout(), func(w io.Writer) { explain.Write(w, e) })
		},
	}
	cmd.Flags().StringVar(&bootstrap, "bootstrap", "", "bootstrap `FILE` of the proxy that the request comes to")
	cmd.Flags().StringArrayVar(&paths, "config", nil, "file or folder of resources, `PATH`; may be given several times")
	cmd.Flags().StringVar(&proxyURL, "admin", "", "`URL` of the admin listener of a running proxy, which is asked instead of files")
	cmd.Flags().StringVar(&q.Listener, "listener", "", "outbound, inbound or gateway:PORT; default: outbound, or the Gateway's port that has the host")
	cmd.Flags().StringVarP(&q.Method, "request", "X", "GET", "method of the request")
	cmd.Flags().StringArrayVarP(&headers, "header", "H", nil, "header of the request, `'NAME: VALUE'`")
	cmd.Flags().StringVar(&from, "from", "", "who calls by mTLS: `NAMESPACE/SERVICE-ACCOUNT`, or a SPIFFE ID")
	cmd.Flags().StringVar(&address, "peer", "", "IP `ADDRESS` of the client")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

// fillQuestion reads headers and the client's address.
func fillQuestion(q *explain.Question, headers []string, address string) error {
	for _, h := range headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok || name == "" {
			return usageError{fmt.Errorf("-H %q: write 'NAME: VALUE'", h)}
		}
		q.Fields = append(q.Fields, explain.Field{Name: name, Value: strings.TrimSpace(value)})
	}
	if address != "" {
		a, err := netip.ParseAddr(address)
		if err != nil {
			return usageError{fmt.Errorf("--peer %q is no IP address", address)}
		}
		q.Address = a
	}
	return nil
}

// callerOf makes a SPIFFE ID of NAMESPACE/SERVICE-ACCOUNT.
func callerOf(from, trustDomain string) (string, error) {
	if from == "" || strings.HasPrefix(from, "spiffe://") {
		return from, nil
	}
	namespace, account, ok := strings.Cut(from, "/")
	id := mesh.Identity{TrustDomain: trustDomain, Namespace: namespace, ServiceAccount: account}.String()
	if _, whole := mesh.ParseIdentity(id); !ok || !whole {
		return "", usageError{fmt.Errorf("--from %q: write NAMESPACE/SERVICE-ACCOUNT, or a SPIFFE ID", from)}
	}
	return id, nil
}

// explainFiles asks a proxy that is made of files and listens nowhere.
func explainFiles(warn io.Writer, bootstrap string, paths []string, q *explain.Question, from string) (*explain.Explanation, error) {
	p, err := idleProxy(warn, bootstrap, paths)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if q.Caller, err = callerOf(from, p.Node().TrustDomain); err != nil {
		return nil, err
	}
	e, err := p.Explain(*q)
	if err != nil {
		return nil, usageError{err}
	}
	e.Notes = append(e.Notes, fromFiles(e)...)
	return e, nil
}

// fromFiles says what files cannot know of an answer.
func fromFiles(e *explain.Explanation) []string {
	for _, d := range e.Destinations {
		if len(d.Endpoints) == 0 && d.Problem != "" {
			return []string{"files alone are asked: in a running mesh gossip brings endpoints, too; --admin asks a proxy that knows them"}
		}
		for _, ep := range d.Endpoints {
			if ep.ByName {
				return []string{"DNS is not asked here: a running proxy sends to the addresses that it gives for the name, as far as it gives any; --admin asks one"}
			}
		}
	}
	return nil
}

// idleProxy makes a proxy of files that can only be asked.
func idleProxy(warn io.Writer, bootstrap string, paths []string) (*proxy.Proxy, error) {
	b, warnings, err := config.LoadBootstrap(bootstrap, os.Environ())
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		fmt.Fprintf(warn, "isthmus: warning: %s\n", w)
	}
	node := b.MeshNode()
	r := load(paths, node)
	if r.HasErrors() {
		for _, f := range r.Findings {
			if f.Severity == config.Error {
				fmt.Fprintln(warn, f)
			}
		}
		// What is wrong with this one proxy, such as certificates that it has not,
		// does not change what the set means.
		if r = load(paths, nil); r.HasErrors() {
			return nil, errors.New("the configuration has errors, so a proxy would not run with it")
		}
	}
	s := &mesh.Snapshot{
		Number: 1, Time: time.Now(), Node: node, Config: r.Config,
		Registry: mesh.NewRegistry(mesh.Known{Node: node, Config: r.Config, Unasked: true, Now: time.Now()}),
		Rules:    mesh.NewRules(node, r.Config.DestinationRules),
	}
	var limits *ratelimit.Shared // of which it is only looked whether they are there
	if b.RateLimits != (config.RateLimits{}) {
		limits = new(ratelimit.Shared)
	}
	return proxy.NewIdle(proxy.Options{
		Clusters: b.Clusters, Limits: limits,
		Outbound: b.Listeners.Outbound, Inbound: b.Listeners.Inbound, // of which ListenerAt tells
		Node: node, GatewayBind: b.Listeners.Gateway.Bind, GatewayPorts: b.Listeners.Gateway.Ports, NumTrustedProxies: b.NumTrustedProxies,
		Downstream: proxy.Downstream(b.Downstream), Through: b.Gossip.Announce == "through", Credentials: tls.NewStore(b.CredentialDir, nil),
		Logger: slog.New(slog.DiscardHandler),
	}, s), nil
}

// explainByAdmin asks a running proxy.
func explainByAdmin(address string, q *explain.Question) (*explain.Explanation, error) {
	v := url.Values{"url": {q.URL}, "method": {q.Method}}
	for name, value := range map[string]string{"listener": q.Listener, "from": q.Caller} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if q.Address.IsValid() {
		v.Set("peer", q.Address.String())
	}
	for _, f := range q.Fields {
		v.Add("header", f.Name+": "+f.Value)
	}
	at := question{url: address, output: "json"}
	body, err := at.ask("/explain?" + v.Encode())
	if err != nil {
		return nil, err
	}
	var e explain.Explanation
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, fmt.Errorf("%s/explain: not the answer of an isthmus: %w", address, err)
	}
	return &e, nil
}

// Explain implements admin.State.
func (s *server) Explain(v url.Values) (*explain.Explanation, error) {
	q := explain.Question{Listener: v.Get("listener"), Method: cmp.Or(v.Get("method"), "GET"), URL: v.Get("url")}
	err := fillQuestion(&q, v["header"], v.Get("peer"))
	if err == nil {
		q.Caller, err = callerOf(v.Get("from"), s.node.TrustDomain)
	}
	if err != nil {
		return nil, err
	}
	return s.proxy.Explain(q)
}

var _ admin.State = (*server)(nil)
