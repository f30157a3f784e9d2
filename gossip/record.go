package gossip

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"isthmus/mesh"
)

// record is what one proxy announces: all of it, versioned by its owner. JSON,
// since another version of Isthmus must be able to skip fields it does not
// know, and since memberlist compresses it.
type record struct {
	Owner     string     `json:"owner"`
	Version   uint64     `json:"version"`
	Cluster   string     `json:"cluster"`
	Endpoints []endpoint `json:"endpoints,omitempty"`

	// Left says goodbye. memberlist itself does not tell its users a member that
	// has left from one that has died.
	Left bool `json:"left,omitempty"`

	// Signature is reserved: the owner's, over everything else.
	Signature []byte `json:"signature,omitempty"`
}

// endpoint is a mesh.Endpoint on its way.
type endpoint struct {
	Service  string            `json:"service"`
	Port     mesh.Port         `json:"port"`
	Address  netip.AddrPort    `json:"address"`
	Locality mesh.Locality     `json:"locality,omitzero"`
	Labels   map[string]string `json:"labels,omitempty"`
	Weight   uint32            `json:"weight,omitempty"`
	Hostname string            `json:"hostname,omitempty"`
	Identity string            `json:"identity,omitempty"`
	Via      bool              `json:"via,omitempty"`
	Relayed  bool              `json:"relayed,omitempty"`
	Unready  string            `json:"unready,omitempty"`
	Degraded bool              `json:"degraded,omitempty"`
}

// Bounds on what is accepted from others.
const (
	maxRecord    = 4 << 20 // bytes
	maxEndpoints = 20_000  // in a record
	maxOwners    = 10_000
	maxText      = 1 << 10 // bytes of any one name
	maxLabels    = 64

	// maxAhead is how far ahead of the clock a version may be. Versions begin with
	// their owner's clock, so one beyond that is forged, and if it were the highest
	// that there is, its owner could never say anything newer. The bound moves on
	// with the clock: what is forged just below it is outdone.
	maxAhead = 10 * 365 * 24 * time.Hour
)

// earliest is a time that is past: clocks that have not been set yet say less.
var earliest = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// believable reports whether an owner may have got to a version.
func believable(version uint64) bool {
	now := time.Now()
	if now.Before(earliest) {
		now = earliest
	}
	return version <= uint64(now.Add(maxAhead).UnixNano())
}

func encode(r *record) []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic("a record always encodes: " + err.Error())
	}
	return b
}

var errRecord = errors.New("malformed record")

// decode reads a record that somebody sent. It is never trusted: whatever is
// out of bounds makes it invalid as a whole.
func decode(b []byte) (*record, error) {
	if len(b) > maxRecord {
		return nil, fmt.Errorf("%w: %d bytes", errRecord, len(b))
	}
	var r record
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&r); err != nil {
		return nil, fmt.Errorf("%w: %v", errRecord, err)
	}
	if dec.More() {
		return nil, fmt.Errorf("%w: bytes after its end", errRecord)
	}
	switch {
	case r.Owner == "" || !areNames(r.Owner, r.Cluster):
		return nil, fmt.Errorf("%w: no owner", errRecord)
	case !believable(r.Version):
		return nil, fmt.Errorf("%w: %s has no version %d", errRecord, r.Owner, r.Version)
	case len(r.Endpoints) > maxEndpoints:
		return nil, fmt.Errorf("%w: %d endpoints", errRecord, len(r.Endpoints))
	}
	for i := range r.Endpoints {
		if err := r.Endpoints[i].check(); err != nil {
			return nil, err
		}
	}
	return &r, nil
}

// areNames reports whether texts may be names: a line end or a tab in one would make
// rows of its own in tables for people.
func areNames(texts ...string) bool {
	return !slices.ContainsFunc(texts, func(s string) bool { return len(s) > maxText || strings.ContainsFunc(s, unicode.IsControl) })
}

// oneLine makes a line of a reason, which may quote what an application has answered.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

func (e *endpoint) check() error {
	switch {
	case e.Service == "" || len(e.Unready) > maxText || !areNames(e.Service, e.Port.Name, e.Hostname, e.Identity, e.Locality.Region, e.Locality.Zone, e.Locality.Subzone):
		return fmt.Errorf("%w: endpoint of %q without a service, with too long a text, or with a control character in a name", errRecord, e.Service)
	case !e.Address.IsValid() || e.Address.Port() == 0:
		return fmt.Errorf("%w: endpoint of %s without an address", errRecord, e.Service)
	case e.Port.Number == 0 || e.Port.Number > 65535:
		return fmt.Errorf("%w: endpoint of %s without a port", errRecord, e.Service)
	case len(e.Labels) > maxLabels:
		return fmt.Errorf("%w: endpoint of %s with %d labels", errRecord, e.Service, len(e.Labels))
	}
	return nil
}

// newer returns the record that holds of two of one owner: the one of the
// higher version. Of equal versions it is the longer one, since a member of an older
// version of Isthmus hands on without the fields that it does not know; else, which only
// a faulty owner makes, the one whose bytes sort last, so that everybody decides alike.
func newer(a, b *record) *record {
	switch {
	case a == nil:
		return b
	case b == nil || a.Version > b.Version:
		return a
	case a.Version < b.Version:
		return b
	case a.equal(b): // as nearly all are that push/pull brings
		return a
	}
	x, y := encode(a), encode(b)
	if cmp.Or(cmp.Compare(len(x), len(y)), bytes.Compare(x, y)) < 0 {
		return b
	}
	return a
}

// equal reports whether two records say the same, for all that travels.
func (r *record) equal(o *record) bool {
	return r.Owner == o.Owner && r.Version == o.Version && r.Cluster == o.Cluster && r.Left == o.Left && bytes.Equal(r.Signature, o.Signature) &&
		slices.EqualFunc(r.Endpoints, o.Endpoints, endpoint.equal)
}

func (e endpoint) equal(o endpoint) bool {
	return e.Service == o.Service && e.Port.Number == o.Port.Number && e.Port.Name == o.Port.Name && e.Port.Protocol == o.Port.Protocol &&
		e.Address == o.Address && e.Locality == o.Locality && maps.Equal(e.Labels, o.Labels) && e.Weight == o.Weight &&
		e.Hostname == o.Hostname && e.Identity == o.Identity && e.Via == o.Via && e.Relayed == o.Relayed && e.Unready == o.Unready && e.Degraded == o.Degraded
}

// fitting returns the first of a list of endpoints that find room in so many bytes of a
// record, and why not all of them do.
func fitting(list []endpoint, room int) ([]endpoint, error) {
	for i := range list {
		b, _ := json.Marshal(&list[i])
		if room -= len(b) + len(","); room < 0 || i == maxEndpoints {
			return list[:i], fmt.Errorf("%d of %d find no room in what one proxy may announce, %d endpoints in %d MiB", len(list)-i, len(list), maxEndpoints, maxRecord>>20)
		}
	}
	return list, nil
}

func toRecord(list []mesh.Endpoint) []endpoint {
	out := make([]endpoint, len(list))
	for i, e := range list {
		out[i] = endpoint{
			Service: e.Service, Port: e.Port, Address: e.Address, Locality: e.Locality, Labels: e.Labels, Weight: e.Weight,
			Hostname: e.Hostname, Identity: e.Identity, Via: e.Via, Relayed: e.Relayed, Unready: e.Unready, Degraded: e.Degraded,
		}
	}
	return out
}

func (e *endpoint) mesh(r *record) mesh.Endpoint {
	return mesh.Endpoint{
		Service: e.Service, Port: e.Port, Address: e.Address, Cluster: r.Cluster, Locality: e.Locality, Labels: e.Labels, Weight: max(e.Weight, 1),
		Hostname: e.Hostname, Identity: e.Identity, Via: e.Via, Relayed: e.Relayed, Unready: oneLine(e.Unready), Degraded: e.Degraded, Source: mesh.SourceGossip, Owner: r.Owner,
	}
}
