package http2

import (
	"encoding/binary"
	"slices"
)

// huffmanLengths are the lengths in bits of the codes of RFC 7541 Appendix B, by
// symbol. The codes follow from them: they count up, first through the symbols
// of the shortest length, then through those of the next. The end-of-string
// symbol, 256, has the last of the longest.
var huffmanLengths = [257]uint8{
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
	28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
	6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
	5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
	13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
	7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
	15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
	6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
	20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
	24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
	22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
	21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
	26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
	19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
	20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
	26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
	30,
}

const (
	endOfString = 256
	longestCode = 30
)

// shortBits is how many bits are looked up at once: the codes of nearly all that
// heads are made of have five to eight.
const shortBits = 10

// huffmanCode is one code: the symbol that it stands for, and its length in bits.
type huffmanCode struct {
	symbol uint16
	length uint8
}

// huffmanShort has the code that the next bits begin with, by those bits; of
// length 0: one that is longer. huffmanLong has the longer ones by their length:
// the first code of it, and the symbols that it and those behind it stand for.
var huffmanShort, huffmanLong = buildHuffman()

type longCodes struct {
	first   uint64
	symbols []uint16
}

func buildHuffman() (short [1 << shortBits]huffmanCode, long [longestCode + 1]longCodes) {
	code := uint64(0)
	for length := 1; length <= longestCode; length++ {
		code <<= 1
		long[length].first = code
		for symbol, l := range huffmanLengths {
			if int(l) != length {
				continue
			}
			long[length].symbols = append(long[length].symbols, uint16(symbol))
			if length <= shortBits {
				free := shortBits - length
				for rest := range 1 << free {
					short[int(code)<<free|rest] = huffmanCode{uint16(symbol), l}
				}
			}
			code++
		}
	}
	return short, long
}

// nextCode returns the code that bits begin with, from the highest one on.
func nextCode(bits uint64) huffmanCode {
	if c := huffmanShort[bits>>(64-shortBits)]; c.length != 0 {
		return c
	}
	return nextLongCode(bits)
}

func nextLongCode(bits uint64) huffmanCode {
	for length := shortBits + 1; ; length++ { // the last code of the longest length is all ones
		l := &huffmanLong[length]
		if i := bits>>(64-length) - l.first; i < uint64(len(l.symbols)) {
			return huffmanCode{l.symbols[i], uint8(length)}
		}
	}
}

// appendHuffman decodes a string.
func appendHuffman(dst, in []byte) ([]byte, *ConnError) {
	dst = slices.Grow(dst, len(in)*8/5) // the shortest codes have five bits
	out, n := dst[:cap(dst)], len(dst)
	bits, have := uint64(0), 0 // what comes next, in the highest bits, and how many of them are there
	for len(in) > 0 {
		if len(in) >= 8 {
			// The bits behind those that count are those of the byte that comes next.
			bits |= binary.BigEndian.Uint64(in) >> have
			in = in[(63-have)>>3:]
			have |= 56
		} else {
			for ; have <= 56 && len(in) > 0; in = in[1:] {
				bits |= uint64(in[0]) << (56 - have)
				have += 8
			}
		}
		for have >= longestCode {
			c := nextCode(bits)
			if c.symbol == endOfString {
				return dst, errHuffman // (RFC 7541 5.2)
			}
			out[n] = byte(c.symbol)
			n++
			bits <<= c.length
			have -= int(c.length)
		}
	}
	for have > 0 {
		padded := bits | ^uint64(0)>>have
		c := nextCode(padded)
		if int(c.length) > have {
			// Not a whole code: up to seven bits that are all ones, the padding (5.2).
			if have > 7 || padded != ^uint64(0) {
				return dst, errHuffman
			}
			break
		}
		if c.symbol == endOfString {
			return dst, errHuffman
		}
		out[n] = byte(c.symbol)
		n++
		bits <<= c.length
		have -= int(c.length)
	}
	return out[:n], nil
}
