package http2

import "slices"

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

// huffmanStep is what four bits do to the machine that reads Huffman codes: the
// code that they perhaps complete, since the shortest has five bits, and where
// in the next one they end.
type huffmanStep struct {
	next   uint8
	symbol byte
	what   uint8
}

const (
	huffmanSymbol = 1 << iota // symbol is complete
	huffmanEnd                // the end-of-string symbol is, which must not be (RFC 7541 5.2)
)

// huffmanMachine has a state for each place in the tree of codes where a code
// is not complete, 0 for its root. huffmanStops says where a string may end: at
// its root, or behind up to seven bits that are all ones, the padding (5.2).
var huffmanMachine, huffmanStops = buildHuffman()

func buildHuffman() (machine [256][16]huffmanStep, stops [256]bool) {
	// children holds the number of a place, or that of a symbol below 0.
	var children [256][2]int
	places, code := 1, 0
	for length := 1; length <= longestCode; length++ {
		code <<= 1
		for symbol, l := range huffmanLengths {
			if int(l) != length {
				continue
			}
			at := 0
			for i := length - 1; i > 0; i-- {
				child := &children[at][code>>i&1]
				if *child == 0 {
					*child = places
					places++
				}
				at = *child
			}
			children[at][code&1] = -1 - symbol
			code++
		}
	}
	for state := range machine {
		for bits := range 16 {
			step, at := &machine[state][bits], state
			for i := 3; i >= 0; i-- {
				at = children[at][bits>>i&1]
				switch {
				case at == -1-endOfString:
					step.what |= huffmanEnd
					at = 0
				case at < 0:
					step.what |= huffmanSymbol
					step.symbol = byte(-1 - at)
					at = 0
				}
			}
			step.next = uint8(at)
		}
	}
	for at, bits := 0, 0; bits <= 7; bits++ {
		stops[at] = true
		at = children[at][1]
	}
	return machine, stops
}

// appendHuffman decodes a string. Which steps complete a symbol nobody can
// predict, so none is asked: a symbol is written with each, and counts or is
// written over.
func appendHuffman(dst, in []byte) ([]byte, *ConnError) {
	// The shortest codes have five bits; the last write may be one too many.
	dst = slices.Grow(dst, len(in)*8/5+1)
	out, n := dst[:cap(dst)], len(dst)
	state, what := uint8(0), uint8(0)
	for _, b := range in {
		s := huffmanMachine[state][b>>4]
		out[n] = s.symbol
		n += int(s.what & huffmanSymbol)
		what |= s.what
		s = huffmanMachine[s.next][b&15]
		out[n] = s.symbol
		n += int(s.what & huffmanSymbol)
		what |= s.what
		state = s.next
	}
	if what&huffmanEnd != 0 || !huffmanStops[state] {
		return dst, errHuffman
	}
	return out[:n], nil
}
