package ratelimit

import (
	"encoding/binary"
	"strconv"
	"strings"

	"isthmus/mesh"
)

// Descriptors are what a request is counted by: a list of lists of entries.
// They are made entry by entry, and Reset makes room for the next request's
// without giving memory back.
type Descriptors struct {
	entries []entry
	ends    []descriptorEnd
	scratch []byte

	// Room is memory for values that are not of the request's: they are appended to
	// it, and what is appended is the value.
	Room []byte

	statuses []Status // room for those of an answer
}

type entry struct {
	key   string
	value []byte // of the request's memory, or of Room
}

type descriptorEnd struct {
	end  int // in entries
	hits int
}

// Reset takes all descriptors away.
func (d *Descriptors) Reset() { d.entries, d.ends, d.Room = d.entries[:0], d.ends[:0], d.Room[:0] }

// Add adds an entry to the descriptor that is being made.
func (d *Descriptors) Add(key string, value []byte) { d.entries = append(d.entries, entry{key, value}) }

// End ends the descriptor: it counts as so many requests.
func (d *Descriptors) End(hits int) { d.ends = append(d.ends, descriptorEnd{len(d.entries), hits}) }

// Drop takes back the entries of the descriptor that is being made.
func (d *Descriptors) Drop() { d.entries = d.entries[:d.begin(len(d.ends))] }

// Len returns how many descriptors there are.
func (d *Descriptors) Len() int { return len(d.ends) }

// Hits returns how many requests a descriptor counts as.
func (d *Descriptors) Hits(i int) int { return d.ends[i].hits }

func (d *Descriptors) begin(i int) int {
	if i == 0 {
		return 0
	}
	return d.ends[i-1].end
}

func (d *Descriptors) entriesOf(i int) []entry { return d.entries[d.begin(i):d.ends[i].end] }

// key returns what tells a descriptor from all others, until the next call.
func (d *Descriptors) key(i int) []byte {
	b := d.scratch[:0]
	for _, e := range d.entriesOf(i) {
		b = appendPart(appendPart(b, e.key), e.value)
	}
	d.scratch = b
	return b
}

func appendPart[T string | []byte](b []byte, part T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(part))), part...)
}

func appendKey(b []byte, entries []mesh.DescriptorEntry) []byte {
	for _, e := range entries {
		b = appendPart(appendPart(b, e.Key), e.Value)
	}
	return b
}

// String writes descriptors for people: "a=1 b=2, c=3".
func (d *Descriptors) String() string {
	var b strings.Builder
	for i := range d.ends {
		if i > 0 {
			b.WriteString(", ")
		}
		for j, e := range d.entriesOf(i) {
			if j > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(text(e.key) + "=" + text(string(e.value)))
		}
	}
	return b.String()
}

// text makes a text safe to be shown.
func text(s string) string {
	const most = 100
	if len(s) > most {
		s = s[:most] + "..."
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == ' ' || r == '=' || r == ',' || r == '"' || r == 0x7f }) {
		return strconv.Quote(s)
	}
	return s
}

func describe(entries []mesh.DescriptorEntry) string {
	var d Descriptors
	for _, e := range entries {
		d.Add(e.Key, []byte(e.Value))
	}
	d.End(1)
	return d.String()
}

// describeKey writes what appendKey has made.
func describeKey(key string) string {
	var d Descriptors
	var parts [2]string
	for i := 0; len(key) > 0; i++ {
		n, size := binary.Uvarint([]byte(key[:min(len(key), binary.MaxVarintLen64)]))
		key = key[size:]
		parts[i%2], key = key[:n], key[n:]
		if i%2 == 1 {
			d.Add(parts[0], []byte(parts[1]))
		}
	}
	d.End(1)
	return d.String()
}
