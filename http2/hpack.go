package http2

import (
	"errors"

	"isthmus/http1"
)

// Decoder decodes the header blocks of one direction of a connection, in the
// order in which they come: each builds on those before.
type Decoder struct {
	table dynamicTable
}

// defaultTableSize is what a peer may use before it has read our settings (RFC
// 9113 6.5.2).
const defaultTableSize = 4096

// NewDecoder returns a decoder for a peer that is told to use a table of
// tableSize bytes, by SETTINGS_HEADER_TABLE_SIZE; never less than the default,
// which it may use before it is told. The memory is taken with the first field
// that the peer has put in it.
func NewDecoder(tableSize uint32) *Decoder {
	return &Decoder{dynamicTable{max: defaultTableSize, limit: max(tableSize, defaultTableSize)}}
}

// errHeaderListTooLarge says that a header block was decoded, but is larger
// than allowed. The connection is in order; a request gets 431.
var errHeaderListTooLarge = errors.New("http2: header list too large")

// The faults of header blocks. The state of the decoder is lost with them.
var (
	errBlockShort    = &ConnError{CodeCompression, "header_block_ends_early"}
	errBlockInteger  = &ConnError{CodeCompression, "bad_hpack_integer"}
	errBlockIndex    = &ConnError{CodeCompression, "bad_hpack_index"}
	errBlockSize     = &ConnError{CodeCompression, "hpack_table_too_large"}
	errBlockSizeLate = &ConnError{CodeCompression, "hpack_table_size_after_fields"}
	errHuffman       = &ConnError{CodeCompression, "bad_huffman_code"}
)

// maxPseudo is how many pseudo-header fields a message may have beside its
// fields: :method, :scheme, :authority, :path, :protocol.
const maxPseudo = 5

// Decode decodes a whole header block and appends its fields, pseudo-header
// fields included. Their names and values are appended to arena, or lie in a
// table that is for all: nobody may write to them. When arena has to grow,
// fields appended before keep the old one.
//
// limit bounds the list: the bytes of its names and values, and 32 for each
// (RFC 9113 10.5.1). A few bytes of a block can stand for thousands, so beyond it
// nothing is kept any more, nor beyond the number of fields that
// [http1.DefaultLimits] allows. The block is decoded to its end nevertheless, for
// those that follow; the fields so far are returned, with errHeaderListTooLarge.
//
// Any other error is a [ConnError]. Neither names nor values are looked at.
func (d *Decoder) Decode(block, arena []byte, fields []http1.Field, limit int) ([]byte, []http1.Field, error) {
	first := len(fields)
	size := 0
	large, begun := false, false
	for len(block) > 0 {
		b := block[0]
		mark := len(arena)
		var f http1.Field
		switch {
		case b >= 0x80: // an entry (RFC 7541 6.1)
			i, rest, err := readInt(block, 7)
			if err != nil {
				return arena, fields, err
			}
			block = rest
			switch {
			case i == 0:
				return arena, fields, errBlockIndex
			case i <= staticLen:
				f = staticFields[i]
			default:
				e, ok := d.table.get(i - staticLen - 1)
				if !ok {
					return arena, fields, errBlockIndex
				}
				// What is not kept is not copied: this is how a block is inflated.
				if large || size+int(e.name+e.value)+entryOverhead > limit {
					large, begun = true, true
					continue
				}
				arena = d.table.append(arena, e.at, e.name+e.value)
				end := mark + int(e.name)
				f = http1.Field{Name: arena[mark:end:end], Value: arena[end:len(arena):len(arena)], ID: e.id}
			}

		case b >= 0x20 && b < 0x40: // the table's size (6.3), before all fields (4.2)
			n, rest, err := readInt(block, 5)
			switch {
			case err != nil:
				return arena, fields, err
			case begun:
				return arena, fields, errBlockSizeLate
			case n > d.table.limit:
				return arena, fields, errBlockSize
			}
			block = rest
			d.table.setMax(n)
			continue

		default: // a literal (6.2): to be put in the table, or not, or never
			index := b >= 0x40
			bits := 4
			if index {
				bits = 6
			}
			var err *ConnError
			if arena, block, f, err = d.literal(arena, block, bits); err != nil {
				return arena, fields, err
			}
			if index {
				d.table.add(f)
			}
		}
		begun = true
		size += len(f.Name) + len(f.Value) + entryOverhead
		if large || size > limit || len(fields)-first >= http1.DefaultLimits.Fields+maxPseudo {
			large = true
			arena = arena[:mark]
			continue
		}
		fields = append(fields, f)
	}
	if large {
		return arena, fields, errHeaderListTooLarge
	}
	return arena, fields, nil
}

// literal reads a field whose value is given, and perhaps its name (RFC 7541
// 6.2).
func (d *Decoder) literal(arena, block []byte, bits int) ([]byte, []byte, http1.Field, *ConnError) {
	var f http1.Field
	i, block, err := readInt(block, bits)
	if err != nil {
		return arena, nil, f, err
	}
	mark := len(arena)
	switch {
	case i == 0:
		if arena, block, err = appendString(arena, block); err != nil {
			return arena, nil, f, err
		}
		f.Name = arena[mark:len(arena):len(arena)]
		f.ID = http1.LookupField(f.Name)
	case i <= staticLen:
		f.Name, f.ID = staticFields[i].Name, staticFields[i].ID
	default:
		e, ok := d.table.get(i - staticLen - 1)
		if !ok {
			return arena, nil, f, errBlockIndex
		}
		arena = d.table.append(arena, e.at, e.name)
		f.Name, f.ID = arena[mark:len(arena):len(arena)], e.id
	}
	mark = len(arena)
	if arena, block, err = appendString(arena, block); err != nil {
		return arena, nil, f, err
	}
	f.Value = arena[mark:len(arena):len(arena)]
	return arena, block, f, nil
}

// readInt reads an integer that begins in the last bits of the first byte (RFC
// 7541 5.1). Four bytes more hold any length and index that can be right.
func readInt(b []byte, bits int) (n uint32, rest []byte, err *ConnError) {
	if len(b) == 0 {
		return 0, nil, errBlockShort
	}
	mask := uint32(1)<<bits - 1
	n = uint32(b[0]) & mask
	b = b[1:]
	if n < mask {
		return n, b, nil
	}
	for i := range 4 {
		if i == len(b) {
			return 0, nil, errBlockShort
		}
		n += uint32(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return n, b[i+1:], nil
		}
	}
	return 0, nil, errBlockInteger
}

// appendString reads a string, as it is or in Huffman's code (RFC 7541 5.2).
func appendString(dst, b []byte) (dst2, rest []byte, err *ConnError) {
	n, rest, err := readInt(b, 7)
	if err != nil {
		return dst, nil, err
	}
	if uint64(n) > uint64(len(rest)) {
		return dst, nil, errBlockShort
	}
	s, rest := rest[:n], rest[n:]
	if b[0] >= 0x80 {
		dst, err = appendHuffman(dst, s)
		return dst, rest, err
	}
	return append(dst, s...), rest, nil
}
