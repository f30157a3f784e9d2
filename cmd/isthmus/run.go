package main

import (
	"context"
	stdtls "crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"isthmus/accesslog"
	"isthmus/admin"
	"isthmus/auth"
	"isthmus/config"
	"isthmus/control"
	"isthmus/gossip"
	"isthmus/handover"
	"isthmus/history"
	"isthmus/mesh"
	"isthmus/proxy"
	"isthmus/ratelimit"
	"isthmus/telemetry"
	"isthmus/tls"
)

func newRunCommand() *cobra.Command {
	var bootstrap, level string
	var paths, candidate []string
	cmd := &cobra.Command{
		Use:   "run [--bootstrap FILE] --config PATH...",
		Short: "Run the proxy",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			paths = append(paths, args...) // --config a b c, as a shell expands --config *
			if len(paths) == 0 {
				return usageError{errors.New("--config is missing: name a file or a folder of resources")}
			}
			said := newPatientLog(os.Stderr)
			defer said.close()
			log, threshold, err := newLogger(said, level)
			if err != nil {
				return err
			}
			b, warnings, err := config.LoadBootstrap(bootstrap, os.Environ())
			if err != nil {
				return err
			}
			for _, w := range warnings {
				log.Warn(w)
			}
			if len(candidate) > 0 {
				b.Canary.Paths = candidate
			}
			if err := config.CheckCandidate(paths, b.Canary.Paths); err != nil {
				return usageError{err}
			}
			overload, err := bounds(b.Overload, log)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			context.AfterFunc(ctx, func() { time.AfterFunc(oneSignal, stop) }) // a second one ends the process at once, while it starts, too
			told := newWishes()
			before, err := handover.Inherit()
			if err != nil {
				return err
			}
			s, err := start(b, overload, paths, log, threshold, before)
			if err != nil {
				return err
			}
			forgetStart()
			if err := handover.Notify("READY=1"); err != nil {
				log.Warn("the service manager is not told that the proxy is ready", "error", err)
			}
			fmt.Fprintf(said, "isthmus ready: %s\n", s.addresses())
			s.wait(ctx, told)
			return nil
		},
	}
	cmd.Flags().StringVar(&bootstrap, "bootstrap", "", "`FILE` that says what this proxy is")
	cmd.Flags().StringArrayVar(&paths, "config", nil, "file or folder of resources, `PATH`; may be given several times")
	cmd.Flags().StringArrayVar(&candidate, "canary", nil, "file or folder of resources to be tried beside, `PATH`; in the place of canary.paths of the bootstrap file")
	cmd.Flags().StringVar(&level, "log-level", os.Getenv("ISTHMUS_LOG_LEVEL"), "debug, info, warn or error")
	return cmd
}

// oneSignal is how close together signals are one: timeout(1) sends two, to the process
// and to its group, and so does who ends both.
const oneSignal = 100 * time.Millisecond

// server is a running proxy with everything that belongs to it.
type server struct {
	bootstrap *config.Bootstrap
	overload  proxy.Overload
	node      *mesh.Node
	log       *slog.Logger
	level     *slog.LevelVar // of log
	proxy     *proxy.Proxy
	control   *control.Controller
	gossip    *gossip.Gossip    // nil: none
	limits    *ratelimit.Shared // that all proxies keep together; nil: none
	limitFile config.Seen       // before it was first read
	peers     *limitPeers       // likewise
	identity  *tls.Own          // nil: none
	store     *tls.Store
	keys      *auth.Keys
	accessLog *accesslog.Log
	logged    mesh.AccessLog // what the mesh configuration last said of it; publish alone looks
	history   *history.Store
	meter     *telemetry.Meter
	admin     []*http.Server
	pages     []opened // that they serve
	listening map[string]string
	before    *handover.Inheritance // of the process whose place this one takes; nil: of none
	cancel    context.CancelFunc    // of what follows files, and of the meter; nil: there is none, or no more
	quit      chan struct{}         // closed by Quit
	quitOnce  sync.Once
	handing   handing
	leaving   chan struct{} // closed by Drain
	leaveOnce sync.Once
}

// start builds the proxy: the data plane, the control that feeds it, gossip
// that feeds control, and admin that looks at all of them. before is of the process whose
// place it takes; nil: of none.
func start(b *config.Bootstrap, o proxy.Overload, paths []string, log *slog.Logger, level *slog.LevelVar, before *handover.Inheritance) (*server, error) {
	s := &server{before: before, bootstrap: b, overload: o, node: b.MeshNode(), log: log, level: level, listening: map[string]string{}, quit: make(chan struct{}), leaving: make(chan struct{})}
	if err := s.build(paths); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *server) build(paths []string) (err error) {
	b, log := s.bootstrap, s.log
	if s.identity, err = loadIdentity(b.Certificates, s.node, log.Warn); err != nil {
		return err
	}
	s.store = tls.NewStore(b.CredentialDir, log)
	s.keys = auth.NewKeys(auth.KeysOptions{
		Logger: log, Dir: stateIn(b.StateDir, "keysets"),
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			return s.proxy.Dial(ctx, network, address)
		},
	})
	seenKeys := config.See(b.Gossip.Keys)
	keys, err := readKeys(b.Gossip.Keys)
	if err != nil {
		return err
	}
	if s.accessLog, err = newAccessLog(b.AccessLog, log); err != nil {
		return err
	}
	if err := s.makeLimits(); err != nil {
		return err
	}
	s.proxy, err = proxy.New(proxy.Options{
		Node: s.node, Outbound: b.Listeners.Outbound, Inbound: b.Listeners.Inbound,
		Identity: s.identity, Credentials: s.store, Keys: s.keys,
		GatewayBind: b.Listeners.Gateway.Bind, GatewayPorts: b.Listeners.Gateway.Ports,
		Clusters: b.Clusters, Limits: s.limits,
		NumTrustedProxies: b.NumTrustedProxies, Downstream: proxy.Downstream(b.Downstream), Overload: s.overload, Through: b.Gossip.Announce == "through", Slow: b.Why.Slow, AccessLog: s.accessLog, Tracing: b.Tracing.Mesh(), Logger: log,
		Predecessor: s.before,
	})
	if err != nil {
		return err
	}
	s.history, err = history.Open(stateIn(b.StateDir, "history"), log)
	if err != nil {
		return fmt.Errorf("stateDir of the bootstrap file: %w", err)
	}
	s.meter = telemetry.NewMeter(s.proxy.Requests().List, s.proxy.Overload)
	s.control, err = control.New(control.Options{
		Node: s.node, Paths: paths, Announce: b.Gossip.Announce, Inbound: b.Listeners.Inbound,
		Publish: s.publish, History: s.history, Successor: s.before != nil, Judge: judgeKeySets,
		Candidates: control.Candidates{Paths: b.Canary.Paths, Plan: b.Canary.Plan(), Counted: s.proxy.Canary}, Logger: log, Remote: control.RemoteProbes(b.Probes.Remote), MeshTLS: s.probeTLS,
	})
	if err != nil {
		return err
	}
	if err := s.open(); err != nil {
		return err
	}
	o := gossip.Options{
		Node: s.node, Version: version().Version, Bind: b.Gossip.Bind, Advertise: b.Gossip.Advertise, Join: b.Gossip.Join,
		Keys: keys, Dir: stateIn(b.StateDir, "gossip"), Records: s.before.Records(), Streams: visitorsFor(raiseFileLimit(log)), Logger: log, OnChange: s.control.Wake, Digest: s.digest,
	}
	s.joinLimits(&o)
	if err := s.prepare(o); err != nil {
		return err
	}
	var feed control.Gossip // a nil interface where there is no gossip
	if b.Gossip.Bind != "" {
		if s.gossip, err = gossip.Start(o); err != nil {
			return err
		}
		s.peers.know(s.gossip, s.limits)
		feed = s.gossip
	}
	s.control.Start(feed)
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go s.meter.Run(ctx)
	go s.proxy.Requests().Follow(ctx)
	go s.proxy.Connections().Follow(ctx)
	if s.identity != nil {
		go s.identity.Follow(ctx, log)
	}
	s.followKeys(ctx, b.Gossip.Keys, seenKeys)
	s.followLimits(ctx)
	metrics := s.metrics()
	s.serve("admin", admin.New(s, metrics), admin.LongestAnswer)
	s.serve("metrics", admin.Metrics(s, metrics), longestPage)
	s.proxy.Accept()
	s.before.Ready()
	return nil
}

// stateIn is a folder of the stateDir; "" if there is none.
func stateIn(dir, name string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, name)
}

// loadIdentity reads who this proxy is, and puts that into node; nil if it has no
// certificate. What the bootstrap file says of that ought to be the same: the
// certificate is what others believe.
func loadIdentity(c config.Certificates, node *mesh.Node, warn func(message string, args ...any)) (*tls.Own, error) {
	if c == (config.Certificates{}) {
		return nil, nil
	}
	own, err := tls.NewOwn(c.Cert, c.Key, c.CA, slices.Concat([]string{node.TrustDomain}, node.TrustAliases)...)
	if err != nil {
		return nil, fmt.Errorf("certificates of the bootstrap file: %w", err)
	}
	id := own.Identity().ID
	if id != node.Identity {
		warn("the certificate is for somebody else than the bootstrap file says: other proxies go by the certificate, so callers may refuse this one", "certificate", id, "bootstrap", node.Identity)
	}
	node.Identity = id
	return own, nil
}

// probeTLS is how another proxy is asked what is behind it, whoever it is.
func (s *server) probeTLS() (*stdtls.Config, error) {
	id := s.identity.Identity()
	if id == nil {
		return nil, errors.New("this proxy has no certificate")
	}
	return id.Client("", tls.ProtocolHTTP, tls.Expected{}, nil), nil
}

// followKeys takes new gossip keys over when their files change, since they were seen
// before they were read.
func (s *server) followKeys(ctx context.Context, files []string, seen config.Seen) {
	if s.gossip == nil || len(files) == 0 {
		return
	}
	config.Watch(ctx, files, seen, func() {
		keys, err := readKeys(files)
		if err == nil {
			err = s.gossip.SetKeys(keys)
		}
		if err != nil {
			s.log.Error("the new gossip keys are not used", "error", err)
			return
		}
		s.log.Info("gossip keys read anew", "keys", len(keys))
	})
}

func (s *server) addresses() string {
	all := s.Status().Listeners
	var out []string
	for name, a := range all {
		out = append(out, name+" "+a)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}
