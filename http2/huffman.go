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

// pairBits is how many bits are looked up at once. They hold two codes of those
// that heads are made of, as a rule, which have five to seven bits.
const pairBits = 12

// huffmanPair are the first one or two codes of some bits: the symbols that they
// stand for, from the lowest bits on; from bit 16 how many there are, and from bit
// 20 how long the first one is; from bit 24 how long they are together. Less than
// onePair: the first one is longer.
type huffmanPair uint32

const onePair = 1 << 16

// huffmanPairs are those of all bits, by these. huffmanLong has the longer codes by
// their length: the first code of it, and the symbols that it and those behind it
// stand for.
var huffmanPairs, huffmanLong = buildHuffman()

type longCodes struct {
	first   uint64
	symbols []uint16
}

func buildHuffman() (pairs [1 << pairBits]huffmanPair, long [longestCode + 1]longCodes) {
	var symbols, lengths [1 << pairBits]int // of the first code; 0: it is longer
	code := uint64(0)
	for length := 1; length <= longestCode; length++ {
		code <<= 1
		long[length].first = code
		for symbol, l := range huffmanLengths {
			if int(l) != length {
				continue
			}
			long[length].symbols = append(long[length].symbols, uint16(symbol))
			if free := pairBits - length; free >= 0 {
				for rest := range 1 << free {
					symbols[int(code)<<free|rest], lengths[int(code)<<free|rest] = symbol, length
				}
			}
			code++
		}
	}
	for bits := range pairs {
		length := lengths[bits]
		if length == 0 {
			continue
		}
		rest := bits << length & (1<<pairBits - 1) // with zeros behind it, which may complete no code
		pairs[bits] = huffmanPair(symbols[bits] | 1<<16 | length<<20 | length<<24)
		if more := lengths[rest]; more != 0 && length+more <= pairBits {
			pairs[bits] = huffmanPair(symbols[bits] | symbols[rest]<<8 | 2<<16 | length<<20 | (length+more)<<24)
		}
	}
	return pairs, long
}

// huffmanCode is one code: the symbol that it stands for, and its length in bits.
type huffmanCode struct {
	symbol uint16
	length int
}

// nextCode returns the code that bits begin with, from the highest one on.
func nextCode(bits uint64) huffmanCode {
	if e := huffmanPairs[bits>>(64-pairBits)]; e >= onePair {
		return huffmanCode{uint16(e & 0xff), int(e >> 20 & 15)}
	}
	for length := pairBits + 1; ; length++ { // the last code of the longest length is all ones
		l := &huffmanLong[length]
		if i := bits>>(64-length) - l.first; i < uint64(len(l.symbols)) {
			return huffmanCode{l.symbols[i], length}
		}
	}
}

// appendHuffman decodes a string.
func appendHuffman(dst, in []byte) ([]byte, *ConnError) {
	// The shortest codes have five bits; the last write may be one too many.
	dst = slices.Grow(dst, len(in)*8/5+2)
	out, n := dst[:cap(dst)], len(dst)
	bits, have := uint64(0), 0 // what comes next, in the highest bits, and how many of them are there
	for {
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
		for have >= pairBits {
			e := huffmanPairs[bits>>(64-pairBits)]
			if e < onePair {
				if have < longestCode {
					break
				}
				c := nextCode(bits)
				if c.symbol == endOfString {
					return dst, errHuffman // (RFC 7541 5.2)
				}
				e = huffmanPair(int(c.symbol) | 1<<16 | c.length<<24)
			}
			// Whether there are two nobody can predict, so it is not asked: the second one
			// counts or is written over.
			out[n], out[n+1] = byte(e), byte(e>>8)
			n += int(e >> 16 & 3)
			bits <<= e >> 24 & 63
			have -= int(e >> 24)
		}
		if len(in) == 0 {
			break
		}
	}
	for have > 0 {
		padded := bits | ^uint64(0)>>have
		c := nextCode(padded)
		if c.length > have {
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
		bits <<= c.length & 63
		have -= c.length
	}
	return out[:n], nil
}
