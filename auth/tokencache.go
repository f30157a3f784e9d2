package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"sync"
	"sync/atomic"

	"isthmus/http1"
)

// verified is what a token was found to say. It does not change, but for set.
type verified struct {
	claims             *Claims
	rule               int // the index of the rule in its group
	key                [sha256.Size]byte
	set                atomic.Pointer[keySet] // the last that the key was seen in
	expires, notBefore int64                  // nanoseconds of Unix; see checkTimes
	outputs            []http1.Field
	size               int  // bytes of memory, about
	unverified         bool // of a preview: nobody has looked at the signature
}

func newVerified(j *parsedToken, r *tokenRule, set *keySet, key *publicKey) *verified {
	v := newUnverified(j, r)
	v.unverified, v.key = false, key.id
	v.set.Store(set)
	return v
}

// newUnverified is what a token says whose signature nobody has looked at: it is
// never kept.
func newUnverified(j *parsedToken, r *tokenRule) *verified {
	v := &verified{
		claims:     j.claimsFor(r.spaced),
		rule:       r.index,
		expires:    j.expires,
		notBefore:  j.notBefore,
		unverified: true,
	}
	add := func(name, value []byte) {
		v.outputs = append(v.outputs, http1.Field{Name: name, Value: value, ID: http1.LookupField(name)})
		v.size += fieldBytes + len(value)
	}
	if len(r.payloadTo) > 0 {
		add(r.payloadTo, base64.RawURLEncoding.AppendEncode(nil, j.payload))
	}
	for _, o := range r.claimsTo {
		if value, ok := v.claims.root.output(o.claim); ok {
			add(o.header, []byte(value))
		}
	}
	v.size += entryBytes + v.claims.root.bytes()
	return v
}

// What a verified token and a field take beside their texts, in bytes: the sizes
// of the structs in the allocator's classes, rounded up. TestVerified_Size
// measures that the sum is not too small.
const (
	entryBytes = 384 // with its place in the map
	fieldBytes = 64
)

// stands reports whether the key that a token was verified with is still in the
// set. A set that was refreshed and has it is remembered.
func (v *verified) stands(source *keySource) bool {
	set := source.current.Load()
	if set == nil {
		return false
	}
	if set == v.set.Load() {
		return true
	}
	if !set.has(v.key) {
		return false
	}
	v.set.Store(set)
	return true
}

// tokenCache keeps verified tokens. Only tokens that were verified get in, so
// that strangers cannot push others out. It keeps no token, but SHA-256 of it: a
// dump of the memory is not a bag of tokens, and no second token is known that
// would have the same.
//
// Each shard has two generations. A hit in the old one moves to the young one;
// when that is full, it becomes the old one and the old one goes. So what was
// used among the last shardTokens of a shard stays.
type tokenCache struct {
	shards [cacheShards]cacheShard
}

// At most 16 × 2 × 512 = 16384 tokens, and 16 × 2 × 512 KiB = 16 MiB. A token of
// an ordinary size, 512 bytes, is taken for 3.6 KiB, so that memory bounds it
// first, at 4600; see TestVerified_Size.
const (
	cacheShards = 16
	shardTokens = 512
	shardBytes  = 512 << 10
)

// cacheKey says which token, judged by what.
type cacheKey struct {
	token [sha256.Size]byte
	rules [sha256.Size]byte // the print of the group
}

type cacheShard struct {
	mu         sync.Mutex // guards what is below
	young, old map[cacheKey]*verified
	bytes      int // of young
}

func (c *tokenCache) shard(k *cacheKey) *cacheShard { return &c.shards[k.token[0]%cacheShards] }

// get returns nil if the token is not known.
func (c *tokenCache) get(k cacheKey) *verified {
	s := c.shard(&k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.young[k]; v != nil {
		return v
	}
	v := s.old[k]
	if v != nil {
		delete(s.old, k)
		s.add(k, v)
	}
	return v
}

func (c *tokenCache) put(k cacheKey, v *verified) {
	if v.size > shardBytes {
		return
	}
	s := c.shard(&k)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(k)
	s.add(k, v)
}

func (c *tokenCache) delete(k cacheKey) {
	s := c.shard(&k)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(k)
}

// remove is called with mu held.
func (s *cacheShard) remove(k cacheKey) {
	if v := s.young[k]; v != nil {
		s.bytes -= v.size
		delete(s.young, k)
	}
	delete(s.old, k)
}

// add puts what is in neither generation into the young one. It is called with
// mu held.
func (s *cacheShard) add(k cacheKey, v *verified) {
	if s.young == nil || len(s.young) >= shardTokens || s.bytes+v.size > shardBytes {
		s.old, s.young, s.bytes = s.young, map[cacheKey]*verified{}, 0
	}
	s.young[k] = v
	s.bytes += v.size
}
