package http2

import "isthmus/http1"

// staticPairs is the static table (RFC 7541 Appendix A); the first has index 1.
var staticPairs = [...][2]string{
	{":authority", ""}, {":method", "GET"}, {":method", "POST"}, {":path", "/"}, {":path", "/index.html"}, {":scheme", "http"},
	{":scheme", "https"}, {":status", "200"}, {":status", "204"}, {":status", "206"}, {":status", "304"}, {":status", "400"},
	{":status", "404"}, {":status", "500"}, {"accept-charset", ""}, {"accept-encoding", "gzip, deflate"}, {"accept-language", ""},
	{"accept-ranges", ""}, {"accept", ""}, {"access-control-allow-origin", ""}, {"age", ""}, {"allow", ""}, {"authorization", ""},
	{"cache-control", ""}, {"content-disposition", ""}, {"content-encoding", ""}, {"content-language", ""}, {"content-length", ""},
	{"content-location", ""}, {"content-range", ""}, {"content-type", ""}, {"cookie", ""}, {"date", ""}, {"etag", ""},
	{"expect", ""}, {"expires", ""}, {"from", ""}, {"host", ""}, {"if-match", ""}, {"if-modified-since", ""}, {"if-none-match", ""},
	{"if-range", ""}, {"if-unmodified-since", ""}, {"last-modified", ""}, {"link", ""}, {"location", ""}, {"max-forwards", ""},
	{"proxy-authenticate", ""}, {"proxy-authorization", ""}, {"range", ""}, {"referer", ""}, {"refresh", ""}, {"retry-after", ""},
	{"server", ""}, {"set-cookie", ""}, {"strict-transport-security", ""}, {"transfer-encoding", ""}, {"user-agent", ""},
	{"vary", ""}, {"via", ""}, {"www-authenticate", ""},
}

// staticLen is the number of the last index of the static table.
const staticLen = uint32(len(staticPairs))

// staticFields are the entries as fields, by index. Nobody writes to what they
// point to.
var staticFields = func() (t [staticLen + 1]http1.Field) {
	for i, pair := range staticPairs {
		name, value := []byte(pair[0]), []byte(pair[1])
		t[i+1] = http1.Field{Name: name[:len(name):len(name)], Value: value[:len(value):len(value)], ID: http1.LookupField(name)}
	}
	return t
}()

// entryOverhead is what an entry counts beside its bytes (RFC 7541 4.1), and a
// field in the size of a header list (RFC 9113 6.5.2).
const entryOverhead = 32

// dynamicTable holds the fields that a peer refers to by number (RFC 7541 2.3.2).
// Names and values lie one behind the other in a ring of bytes, without gaps, so
// one may go on at the ring's start; the entries are a ring of their own.
type dynamicTable struct {
	bytes   []byte
	entries []dynamicEntry
	newest  int    // in entries
	count   int    // of entries
	free    int    // where in bytes the next one begins
	size    uint32 // with overheads
	max     uint32 // of size, as the peer has set it
	limit   uint32 // of max
}

type dynamicEntry struct {
	at          uint32 // in bytes: the name, with the value after it
	name, value uint32 // lengths
	id          http1.FieldID
}

// setMax changes what the table may hold.
func (t *dynamicTable) setMax(n uint32) {
	t.max = n
	t.evict(n)
}

// evict drops the oldest entries until no more than size is left.
func (t *dynamicTable) evict(size uint32) {
	for t.size > size {
		oldest := t.newest - (t.count - 1)
		if oldest < 0 {
			oldest += len(t.entries)
		}
		e := &t.entries[oldest]
		t.size -= e.name + e.value + entryOverhead
		t.count--
	}
}

// add puts a field in front. One that is larger than the table empties it (RFC
// 7541 4.4). What it points to is not in the table.
func (t *dynamicTable) add(f http1.Field) {
	size := uint64(len(f.Name)) + uint64(len(f.Value)) + entryOverhead
	if size > uint64(t.max) {
		t.evict(0)
		return
	}
	t.evict(t.max - uint32(size))
	if t.entries == nil {
		// Room for any number of entries that the limit allows: without bytes, or
		// a single one.
		t.entries = make([]dynamicEntry, t.limit/entryOverhead)
		t.bytes = make([]byte, t.limit)
	}
	if t.newest++; t.newest == len(t.entries) {
		t.newest = 0
	}
	t.entries[t.newest] = dynamicEntry{uint32(t.free), uint32(len(f.Name)), uint32(len(f.Value)), f.ID}
	t.put(f.Name)
	t.put(f.Value)
	t.count++
	t.size += uint32(size)
}

// put copies b into the ring.
func (t *dynamicTable) put(b []byte) {
	n := copy(t.bytes[t.free:], b)
	t.free += n
	if t.free == len(t.bytes) {
		t.free = copy(t.bytes, b[n:])
	}
}

// get returns the entry of an index that counts from 0, the newest.
func (t *dynamicTable) get(i uint32) (dynamicEntry, bool) {
	if uint64(i) >= uint64(t.count) {
		return dynamicEntry{}, false
	}
	at := t.newest - int(i)
	if at < 0 {
		at += len(t.entries)
	}
	return t.entries[at], true
}

// append appends n bytes of the ring from at on.
func (t *dynamicTable) append(dst []byte, at, n uint32) []byte {
	size := uint32(len(t.bytes))
	if at+n <= size {
		return append(dst, t.bytes[at:at+n]...)
	}
	dst = append(dst, t.bytes[at:]...)
	return append(dst, t.bytes[:at+n-size]...)
}
