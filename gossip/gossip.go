// Package gossip tells the proxies of all clusters of each other's endpoints,
// over hashicorp/memberlist. There is no server: every proxy keeps the record
// of every other one.
//
// A proxy announces a record: its endpoints and a version that only grows. The
// record with the highest version of its owner holds; what was lost on the way
// is repaired by memberlist's push/pull between random pairs. A record that fits
// in a packet is broadcast; of a larger one only the version is, and whoever
// lacks it asks for it over TCP.
//
// Gossip is a hint. A member that leaves takes its endpoints along; one that
// dies keeps them, marked, since whoever still gets answers from them knows
// better than gossip does.
package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"isthmus/mesh"
)

// Options say who a member is and whom it joins.
type Options struct {
	Node      *mesh.Node
	Version   string // of the program, shown in Members
	Bind      string // host:port for UDP and TCP
	Advertise string // where others reach it; default: node.address and the port of Bind
	Join      []string
	Keys      [][]byte // 16, 24 or 32 bytes each; the first encrypts, all decrypt; none: plain text
	Dir       string   // a folder, made if need be, in which what the others announce is kept over restarts; "": nowhere
	Records   *os.File // what the process before has written ([Gossip.WriteRecords]), in the place of what is in Dir; nil or empty: none has
	Streams   int      // connections to the port at a time, at most; 0: 256, which is also the most
	Logger    *slog.Logger
	OnChange  func() // called after every change, by any goroutine; must not block

	// Digest says how this proxy is; gossip fills in whose it is. Nil: the others
	// are told nothing.
	Digest func() Digest

	// OnTalk is called for every message of another member, one after the other;
	// it must not block. Nil: this member does not listen to any.
	OnTalk func(from string, message []byte)

	// Fast shortens all intervals, for tests on one machine.
	Fast bool
}

// Gossip is a member of the gossip cluster.
type Gossip struct {
	options Options
	name    string
	log     *slog.Logger
	list    *memberlist.Memberlist
	keyring *memberlist.Keyring
	queue   memberlist.TransmitLimitedQueue // of records
	inbox   chan []byte
	talks   chan talk
	waiting atomic.Int64  // bytes of the messages in inbox
	dropped atomic.Uint64 // messages that were malformed or too many
	joining chan struct{} // of capacity 1, and full while seeds are asked to let us in
	stopped <-chan struct{}
	living  atomic.Int64 // members that are alive, this one included; changed under mu
	cancel  context.CancelFunc
	done    sync.WaitGroup

	digestQueue memberlist.TransmitLimitedQueue // gets the room that records leave

	mu      sync.Mutex // guards what is below
	own     *record
	records map[string]*record // by owner, the own one included once there is something to announce
	members map[string]*member
	wanted  map[string]uint64    // the newest version that was heard of, by owner
	asked   map[string]time.Time // when a record was last asked for, by owner
	sending map[string]*outgoing // beside, by what it is and the address
	digests map[string]*heard    // the latest, by owner; only of members

	strangers map[string]time.Time // since when the owner of a record that is no member has been gone

	distances map[string]Distance // by cluster
}

// Check returns what would keep Start from making such a member while another process has a
// port still, as far as it can be known then. taken is that one's Bind; "": there is none.
func Check(o Options, taken string) error {
	_, c, err := configured(o)
	if err != nil {
		return err
	}
	t, err := newTransport(c, o.Streams)
	if err == nil {
		return t.Shutdown()
	}
	if _, port, e := splitPort(taken); e == nil && port == c.BindPort && isErrno(err, syscall.EADDRINUSE) {
		return nil
	}
	return listenError(o.Bind, err)
}

// configured returns a member that does not run, and how it is to.
func configured(o Options) (*Gossip, *memberlist.Config, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.OnChange == nil {
		o.OnChange = func() {}
	}
	g := &Gossip{
		options: o, name: o.Node.Member(), log: o.Logger,
		inbox:   make(chan []byte, 4096),
		talks:   make(chan talk, maxTalks),
		joining: make(chan struct{}, 1),
		records: map[string]*record{},
		members: map[string]*member{},
		wanted:  map[string]uint64{},
		asked:   map[string]time.Time{},
		sending: map[string]*outgoing{},
		digests: map[string]*heard{},

		strangers: map[string]time.Time{},
		distances: map[string]Distance{},
		// A version from the clock is higher than any of an earlier life.
		own: &record{Owner: o.Node.Member(), Cluster: o.Node.Cluster, Version: uint64(time.Now().UnixNano())},
	}
	c, err := g.config()
	if err != nil {
		return nil, nil, err
	}
	if !areNames(g.name, o.Node.Cluster, o.Node.Locality.String()) {
		return nil, nil, fmt.Errorf("node: %q at %q: no name may have a control character, nor more than %d bytes", g.name, o.Node.Locality, maxText)
	}
	return g, c, nil
}

// Start opens the port and begins to join.
func Start(o Options) (*Gossip, error) {
	g, c, err := configured(o)
	if err != nil {
		return nil, err
	}
	g.queue = memberlist.TransmitLimitedQueue{NumNodes: g.alive, RetransmitMult: c.RetransmitMult}
	g.digestQueue = memberlist.TransmitLimitedQueue{NumNodes: g.alive, RetransmitMult: digestRetransmits}
	if err := g.restore(); err != nil {
		g.log.Warn("gossip: what others announced before the start is not known, or not all of it: the file in stateDir cannot be used", "error", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel, g.stopped = cancel, ctx.Done()
	if g.list, err = create(c, o.Streams); err != nil {
		cancel()
		return nil, listenError(o.Bind, err)
	}
	g.done.Go(func() { g.receive(ctx) })
	g.done.Go(func() { g.join(ctx) })
	if o.Dir != "" {
		g.done.Go(func() { g.keep(ctx) })
	}
	if g.alive() > 1 { // by what was handed on
		g.done.Go(func() {
			select {
			case <-ctx.Done():
			case <-time.After(trustHanded):
				g.mistrust()
			}
		})
	}
	if o.Digest != nil {
		g.done.Go(func() { g.tellDigests(ctx) })
	}
	if o.OnTalk != nil {
		g.done.Go(func() { g.listen(ctx) })
	}
	return g, nil
}

func (g *Gossip) config() (*memberlist.Config, error) {
	c := memberlist.DefaultLANConfig()
	c.Name = g.name
	c.Label = "isthmus" // other clusters of memberlist are strangers
	c.LogOutput = nil
	c.Logger = memberlistLogger(g.log)
	c.Delegate, c.Events, c.Conflict, c.Ping, c.Alive = delegate{g}, delegate{g}, delegate{g}, delegate{g}, delegate{g}
	c.DNSConfigPath = os.DevNull // names are resolved by us
	// A proxy that died may come back at another address, as pods do.
	c.DeadNodeReclaimTime = time.Second
	host, port, err := splitPort(g.options.Bind)
	if err != nil {
		return nil, fmt.Errorf("gossip.bind: %w", err)
	}
	c.BindAddr, c.BindPort = host, port
	c.AdvertiseAddr, c.AdvertisePort = g.options.Node.Address, port
	if a := g.options.Advertise; a != "" {
		if c.AdvertiseAddr, c.AdvertisePort, err = splitPort(a); err != nil {
			return nil, fmt.Errorf("gossip.advertise: %w", err)
		}
	}
	if len(g.options.Keys) > 0 {
		if c.Keyring, err = memberlist.NewKeyring(g.options.Keys, g.options.Keys[0]); err != nil {
			return nil, fmt.Errorf("gossip.keys: %w: make one with isthmus keygen", err)
		}
		g.keyring = c.Keyring
	}
	if g.options.Fast {
		c.GossipInterval, c.ProbeInterval, c.ProbeTimeout = 20*time.Millisecond, 100*time.Millisecond, 50*time.Millisecond
		c.PushPullInterval, c.SuspicionMult = 500*time.Millisecond, 1
		c.DeadNodeReclaimTime = time.Millisecond
	}
	return c, nil
}

func splitPort(addr string) (string, int, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.Atoi(port)
	return host, n, err
}

// Address returns where the member listens.
func (g *Gossip) Address() string { return g.list.LocalNode().FullAddress().Addr }

// SetKeys replaces the keys: the first encrypts from now on, all decrypt.
// Nothing changes unless all are good.
func (g *Gossip) SetKeys(keys [][]byte) error {
	if g.keyring == nil || len(keys) == 0 {
		return errors.New("encryption cannot be switched on or off while gossip runs: restart with the new gossip.keys")
	}
	for _, k := range keys {
		if err := memberlist.ValidateKey(k); err != nil {
			return fmt.Errorf("gossip.keys: %w", err)
		}
	}
	for _, k := range keys {
		if err := g.keyring.AddKey(k); err != nil {
			return err
		}
	}
	if err := g.keyring.UseKey(keys[0]); err != nil {
		return err
	}
	for _, old := range g.keyring.GetKeys() {
		if !slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, old) }) {
			if err := g.keyring.RemoveKey(old); err != nil {
				return err
			}
		}
	}
	return nil
}
