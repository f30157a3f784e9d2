package tracing

import "encoding/binary"

// putHex writes bytes as twice as many digits, four at a time: three identifiers
// are written for each request, and encoding/hex goes byte by byte. There is a
// multiple of four bytes.
func putHex(dst, src []byte) {
	for len(src) >= 4 {
		const (
			ones = 0x0101010101010101
			six  = 0x06 * ones
		)
		// Each half byte gets a byte of its own: by twos, by bytes, by halves.
		x := uint64(binary.BigEndian.Uint32(src))
		x = (x<<16 | x) & 0x0000ffff0000ffff
		x = (x<<8 | x) & 0x00ff00ff00ff00ff
		x = (x<<4 | x) & (0x0f * ones)
		letters := (x + six) >> 4 & ones // 1 where it is 10 and more
		binary.BigEndian.PutUint64(dst, x+'0'*ones+letters*('a'-'0'-10))
		dst, src = dst[8:], src[4:]
	}
}
