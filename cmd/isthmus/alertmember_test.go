package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// silent is a member of gossip that has a version of its record, as it tells
// whoever probes it, and sends the record to nobody, until it is told to. It speaks
// what gossip/delegate.go does.
type silent struct {
	list *memberlist.Memberlist
	name string
}

const silentVersion = 7

// joinSilent has one join a proxy at an address.
func joinSilent(t *testing.T, address string) *silent {
	t.Helper()
	s := &silent{name: "far/prod/silent"}
	c := memberlist.DefaultLocalConfig()
	c.Name, c.Label, c.BindAddr, c.BindPort = s.name, "isthmus", "127.0.0.1", 0
	c.Delegate, c.Ping, c.Logger = s, s, log.New(io.Discard, "", 0)
	var err error
	if s.list, err = memberlist.Create(c); err != nil {
		t.Fatal(err)
	}
	if _, err := s.list.Join([]string{address}); err != nil {
		t.Fatal(err)
	}
	return s
}

// speak sends the record to all others.
func (s *silent) speak(t *testing.T) {
	t.Helper()
	record, err := json.Marshal(map[string]any{"owner": s.name, "version": silentVersion, "cluster": "far"})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range s.list.Members() {
		if m.Name != s.name {
			if err := s.list.SendReliable(m, append([]byte{'R'}, record...)); err != nil {
				t.Error(err)
			}
		}
	}
}

func (s *silent) leave() {
	s.list.Leave(5 * time.Second)
	s.list.Shutdown()
}

func (s *silent) NodeMeta(int) []byte                                        { return []byte(`{"c":"far"}`) }
func (s *silent) NotifyMsg([]byte)                                           {}
func (s *silent) GetBroadcasts(int, int) [][]byte                            { return nil }
func (s *silent) LocalState(bool) []byte                                     { return []byte("[]") }
func (s *silent) MergeRemoteState([]byte, bool)                              {}
func (s *silent) AckPayload() []byte                                         { return binary.BigEndian.AppendUint64(nil, silentVersion) }
func (s *silent) NotifyPingComplete(*memberlist.Node, time.Duration, []byte) {}

// manyHosts are services with more endpoints between them than metrics tell apart.
const (
	manyHosts = 3
	manyEach  = 3500
)

// manyEndpoints are their ServiceEntries.
func manyEndpoints() string {
	var b strings.Builder
	for i := range manyHosts {
		fmt.Fprintf(&b, "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: many%d}\nspec:\n  hosts: [many%d.test]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  endpoints:\n", i, i)
		for j := range manyEach {
			n := i*manyEach + j
			fmt.Fprintf(&b, "  - {address: 127.1.%d.%d, labels: {version: v%d}}\n", n/250, 1+n%250, n)
		}
	}
	return b.String()
}
