package ratelimit

import (
	"encoding/binary"
	"errors"

	"isthmus/mesh"
)

// The messages by which proxies keep limits together. A holder asks the home of
// a key for tokens, and gets a grant. Both are short and may be lost: what a
// grant that is lost had in it is lost, which errs on the side of the limit.

// leaseKey stands for a domain and a descriptor: 128 bits of their SHA-256, so
// that nobody can find a value that takes another's tokens.
type leaseKey [16]byte

// leaseAsk is what a holder says of one key. The home need not know the limit
// from its own files.
type leaseAsk struct {
	key      leaseKey
	requests uint32
	unit     mesh.LimitUnit
	want     uint32 // tokens
	back     uint32 // tokens that it no longer wants
	left     uint32 // one more than what is left, as far as the holder has heard of the home before; 0: it has not
}

// leaseGrant is what a home answers.
type leaseGrant struct {
	key    leaseKey
	tokens uint32
	short  bool   // it has been given less than it wanted
	left   uint32 // at the home
	again  uint32 // in how many milliseconds to ask next
}

// The kinds of lease messages, by their first byte.
const (
	leaseAsks   = 'a'
	leaseGrants = 'g'
)

// maxLeaseMessage is how long a message may be, in bytes: it goes in one packet
// of gossip. maxLeases follows from it: the least of one key is 20 bytes.
const (
	maxLeaseMessage = 1000
	maxLeases       = maxLeaseMessage / 20
)

var errLease = errors.New("malformed lease message")

func appendAsk(b []byte, a *leaseAsk) []byte {
	b = append(b, a.key[:]...)
	b = append(b, byte(a.unit))
	for _, n := range [...]uint32{a.requests, a.want, a.back, a.left} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

func appendGrant(b []byte, g *leaseGrant) []byte {
	b = append(b, g.key[:]...)
	short := byte(0)
	if g.short {
		short = 1
	}
	b = append(b, short)
	for _, n := range [...]uint32{g.tokens, g.left, g.again} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

// parseLeases reads a message: the asks or the grants in it.
func parseLeases(b []byte) (asks []leaseAsk, grants []leaseGrant, err error) {
	if len(b) == 0 || len(b) > maxLeaseMessage || b[0] != leaseAsks && b[0] != leaseGrants {
		return nil, nil, errLease
	}
	kind := b[0]
	for b = b[1:]; len(b) > 0; {
		if len(b) < len(leaseKey{})+1 {
			return nil, nil, errLease
		}
		key, flag := leaseKey(b), b[len(leaseKey{})]
		b = b[len(leaseKey{})+1:]
		var n [4]uint32
		count := 4
		if kind == leaseGrants {
			count = 3
		}
		for i := range count {
			v, size := binary.Uvarint(b)
			if size <= 0 || v > 1<<32-1 {
				return nil, nil, errLease
			}
			n[i], b = uint32(v), b[size:]
		}
		switch {
		case kind == leaseGrants && flag <= 1:
			grants = append(grants, leaseGrant{key: key, short: flag == 1, tokens: n[0], left: n[1], again: n[2]})
		case kind == leaseAsks && flag > 0 && flag <= byte(mesh.UnitWeek):
			asks = append(asks, leaseAsk{key: key, unit: mesh.LimitUnit(flag), requests: n[0], want: n[1], back: n[2], left: n[3]})
		default:
			return nil, nil, errLease
		}
	}
	return asks, grants, nil
}
