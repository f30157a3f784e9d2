package tracing

import "encoding/binary"

// digitPair are sixteen digits: how 64 bits of an identifier are written.
type digitPair struct{ first, last uint64 }

// digitsOf writes eight bytes as digits, eight at a time: encoding/hex goes digit by
// digit, and identifiers are written for each request.
func digitsOf(id []byte) digitPair {
	v := binary.BigEndian.Uint64(id)
	return digitPair{digits8(v >> 32), digits8(v & 0xffffffff)}
}

// digits8 are the digits of 32 bits, the first one in the highest byte.
func digits8(x uint64) uint64 {
	const (
		ones = 0x0101010101010101
		six  = 0x06 * ones
	)
	// Each half byte gets a byte of its own: by twos, by bytes, by halves.
	x = (x<<16 | x) & 0x0000ffff0000ffff
	x = (x<<8 | x) & 0x00ff00ff00ff00ff
	x = (x<<4 | x) & (0x0f * ones)
	letters := (x + six) >> 4 & ones // 1 where it is 10 and more
	return x + '0'*ones + letters*('a'-'0'-10)
}

// put writes the digits.
func (d *digitPair) put(dst []byte) {
	_ = dst[15]
	binary.BigEndian.PutUint64(dst, d.first)
	binary.BigEndian.PutUint64(dst[8:], d.last)
}
