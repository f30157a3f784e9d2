// Package ratelimit says which requests are too many: by token buckets of one
// proxy ([Local]), by a rate limit service that is asked ([Service]), or by
// limits that all proxies of all clusters keep together without one ([Shared]).
//
// What a request is counted by are its [Descriptors].
package ratelimit

import (
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"isthmus/mesh"
)

// Counts are what has become of requests, for as long as their limit lives.
type Counts struct {
	Allowed  atomic.Uint64
	Limited  atomic.Uint64 // were too many
	Enforced atomic.Uint64 // were too many, and refused
	Shadow   atomic.Uint64 // would have been too many, had the limit not been one that only counts
	Failed   atomic.Uint64 // nobody could tell
}

// Local is a local rate limit: token buckets of this proxy, as Envoy's
// local_ratelimit filter has them. Any goroutine may ask it.
type Local struct {
	Rule   *mesh.LocalRateLimit
	Counts *Counts

	keys    []string // of the descriptors without wildcards
	buckets *Buckets // nil: each connection has its own
}

// Buckets are the token buckets of a Local: of all requests, or of one
// connection's.
type Buckets struct {
	whole *bucket
	exact []*bucket // by the place of the descriptor; nil where it is a wildcard

	mu      sync.Mutex // guards dynamic
	dynamic []*lru[uint64, valueBucket]
}

// valueBucket is the bucket of one value of a wildcard. It is found by a hash of
// its key, which no client can foresee: that two of some thousand values have one
// is as good as impossible, and would have them share a bucket.
type valueBucket struct {
	key    string
	bucket *bucket
}

var keySeed = maphash.MakeSeed()

// NewLocal makes a limit whose buckets are full.
func NewLocal(r *mesh.LocalRateLimit) *Local {
	l := &Local{Rule: r, Counts: &Counts{}, keys: make([]string, len(r.Descriptors))}
	for i := range r.Descriptors {
		if !wild(r.Descriptors[i].Entries) {
			l.keys[i] = string(appendKey(nil, r.Descriptors[i].Entries))
		}
	}
	if !r.PerConnection {
		l.buckets = l.NewBuckets()
	}
	return l
}

// Adopt takes over the buckets and counts of the same limit in an earlier
// snapshot, before anybody asks this one.
func (l *Local) Adopt(before *Local) { l.Counts, l.buckets = before.Counts, before.buckets }

// NewBuckets makes full buckets, for a connection.
func (l *Local) NewBuckets() *Buckets {
	b := &Buckets{exact: make([]*bucket, len(l.Rule.Descriptors)), dynamic: make([]*lru[uint64, valueBucket], len(l.Rule.Descriptors))}
	if l.Rule.Bucket != nil {
		b.whole = newBucket(l.Rule.Bucket)
	}
	for i := range l.Rule.Descriptors {
		if l.keys[i] != "" {
			b.exact[i] = newBucket(&l.Rule.Descriptors[i].Bucket)
		}
	}
	return b
}

// bucket is a token bucket of which time never goes back. Requests do not get here in the
// order in which they came; a [rate.Limiter] goes back with one that is late, and then
// fills itself once more for the time since.
type bucket struct {
	*rate.Limiter
	mu   sync.Mutex // guards last, and taking
	last time.Time
}

// newBucket makes a bucket that is filled evenly over the interval, as Envoy's
// are.
func newBucket(b *mesh.Bucket) *bucket {
	return &bucket{Limiter: rate.NewLimiter(rate.Limit(float64(b.TokensPerFill)/b.FillInterval.Seconds()), int(b.MaxTokens))}
}

// take takes n tokens for a request that came at t, if there are so many; for 0 there has
// to be one.
func (b *bucket) take(t time.Time, n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.Before(b.last) {
		t = b.last
	}
	b.last = t
	if n == 0 {
		return b.TokensAt(t) >= 1
	}
	return b.AllowN(t, n)
}

func wild(entries []mesh.DescriptorEntry) bool {
	for _, e := range entries {
		if e.Value == "" {
			return true
		}
	}
	return false
}

// Outcome is what a limit says of a request.
type Outcome struct {
	Limited bool // it is one too many
	Refused bool // and is to be refused

	bucket *bucket // which decided, or is the nearest to do so; nil: none
}

// State returns what x-ratelimit-limit, -remaining and -reset say.
func (o *Outcome) State(t time.Time) (limit, remaining int, reset time.Duration, ok bool) {
	if o.bucket == nil {
		return 0, 0, 0, false
	}
	tokens := max(o.bucket.TokensAt(t), 0)
	limit = o.bucket.Burst()
	lacking := float64(limit) - tokens
	return limit, int(tokens), longest(lacking / float64(o.bucket.Limit())), true
}

// longest makes a duration of seconds, of more than there can be the longest.
func longest(seconds float64) time.Duration {
	const most = 1<<63 - 1 - time.Second // so that it can be rounded up
	if seconds >= most.Seconds() {
		return most
	}
	return time.Duration(seconds * float64(time.Second))
}

// Take takes tokens for a request that comes at t. d are its descriptors, nil
// for none; own are the buckets of its connection, where the limit is per
// connection.
func (l *Local) Take(t time.Time, d *Descriptors, own *Buckets) (o Outcome) {
	if !Hit(l.Rule.Enabled) {
		return o
	}
	b := l.buckets
	if b == nil {
		b = own
	}
	if len(l.Rule.Descriptors) == 0 || d == nil {
		o.bucket = b.whole
		o.Limited = b.whole != nil && !b.whole.take(t, 1)
	} else {
		o = l.takeDescribed(t, d, b)
	}
	if !o.Limited {
		l.Counts.Allowed.Add(1)
		return o
	}
	l.Counts.Limited.Add(1)
	if o.Refused = Hit(l.Rule.Enforced); o.Refused {
		l.Counts.Enforced.Add(1)
	}
	return o
}

// maxMet bounds how many buckets one request takes from.
const maxMet = 16

// takeDescribed takes from the buckets of all descriptors that the request
// meets, the slowest first, and then from the common one, as Envoy does.
func (l *Local) takeDescribed(t time.Time, d *Descriptors, b *Buckets) (o Outcome) {
	var met [maxMet]struct {
		bucket *bucket
		hits   int
		shadow bool
	}
	n := 0
	for i := 0; i < d.Len() && n < maxMet; i++ {
		bucket, at := l.find(d, i, b)
		if bucket == nil {
			continue
		}
		place := n
		for place > 0 && met[place-1].bucket.Limit() > bucket.Limit() {
			met[place] = met[place-1]
			place--
		}
		met[place].bucket, met[place].hits, met[place].shadow = bucket, d.Hits(i), l.Rule.Descriptors[at].Shadow
		n++
	}
	for i := range n {
		m := &met[i]
		if m.bucket.take(t, m.hits) {
			continue
		}
		if m.shadow {
			l.Counts.Shadow.Add(1)
			continue
		}
		return Outcome{Limited: true, bucket: m.bucket}
	}
	if n > 0 {
		o.bucket = met[0].bucket
	}
	if b.whole != nil && (n == 0 || !l.Rule.DescriptorsOnly) {
		if !b.whole.take(t, 1) {
			return Outcome{Limited: true, bucket: b.whole}
		}
		if n == 0 {
			o.bucket = b.whole
		}
	}
	return o
}

// find returns the bucket of the limit's descriptor that is the request's i-th, else of
// the first with wildcards that fits it, wherever they stand, as in Envoy; and its place.
// Nil if there is none.
func (l *Local) find(d *Descriptors, i int, b *Buckets) (*bucket, int) {
	key := d.key(i)
	for at, k := range l.keys {
		if k != "" && k == string(key) {
			return b.exact[at], at
		}
	}
	for at, k := range l.keys {
		if k == "" && matches(l.Rule.Descriptors[at].Entries, d.entriesOf(i)) {
			return l.ofValue(b, at, key), at
		}
	}
	return nil, 0
}

// ofValue returns the bucket of a value of a descriptor with wildcards.
func (l *Local) ofValue(b *Buckets, at int, key []byte) *bucket {
	b.mu.Lock()
	defer b.mu.Unlock()
	set := b.dynamic[at]
	if set == nil {
		set = newLRU[uint64, valueBucket](int(l.Rule.MaxDynamic))
		b.dynamic[at] = set
	}
	hash := maphash.Bytes(keySeed, key)
	if v := set.get(hash); v != nil {
		return v.bucket
	}
	bucket := newBucket(&l.Rule.Descriptors[at].Bucket)
	set.put(hash, valueBucket{string(key), bucket})
	return bucket
}

// matches reports whether a request's entries are those of a descriptor with
// wildcards.
func matches(want []mesh.DescriptorEntry, got []entry) bool {
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if want[i].Key != got[i].key || want[i].Value != "" && want[i].Value != string(got[i].value) {
			return false
		}
	}
	return true
}

// Hit draws whether a request is among a share of all.
func Hit(share mesh.Fraction) bool {
	return share >= mesh.AllRequests || share > 0 && rand.Uint32N(uint32(mesh.AllRequests)) < uint32(share)
}

// BucketState is a bucket as it is shown.
type BucketState struct {
	Descriptor string // "": of all requests
	Bucket     mesh.Bucket
	Tokens     float64
	Shadow     bool

	PerConnection bool // each has such a bucket; Tokens are those of a new one
}

// maxShown is how many buckets of a wildcard are shown.
const maxShown = 20

// States returns the buckets, or what those of a connection are like.
func (l *Local) States(t time.Time) (out []BucketState) {
	b := l.buckets
	each := b == nil
	if each {
		b = l.NewBuckets()
	}
	if b.whole != nil {
		out = append(out, BucketState{Bucket: *l.Rule.Bucket, Tokens: max(b.whole.TokensAt(t), 0), PerConnection: each})
	}
	for i := range l.Rule.Descriptors {
		d := &l.Rule.Descriptors[i]
		if e := b.exact[i]; e != nil {
			out = append(out, BucketState{describe(d.Entries), d.Bucket, max(e.TokensAt(t), 0), d.Shadow, each})
			continue
		}
		b.mu.Lock()
		if set := b.dynamic[i]; set != nil {
			shown := 0
			set.each(func(_ uint64, v *valueBucket) bool {
				out = append(out, BucketState{describeKey(v.key), d.Bucket, max(v.bucket.TokensAt(t), 0), d.Shadow, each})
				shown++
				return shown < maxShown
			})
		}
		b.mu.Unlock()
	}
	return out
}
