package proxy

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// frameOf makes a frame; masked as a client's, with a mask of zeros.
func frameOf(first byte, masked bool, payload []byte) []byte {
	b := []byte{first, 0}
	switch n := len(payload); {
	case n < 126:
		b[1] = byte(n)
	case n < 1<<16:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	if masked {
		b[1] |= 0x80
		b = append(b, 0, 0, 0, 0)
	}
	return append(b, payload...)
}

const (
	finalText, firstText, lastPart, part = 0x81, 0x01, 0x80, 0x00
	closeFrame, pingFrame                = 0x88, 0x89
)

// TestFrames_Between: a frame of ours has its place behind a message, not within.
func TestFrames_Between(t *testing.T) {
	for _, tt := range []struct {
		name   string
		bytes  []byte
		ends   int // how many frames end in it
		within bool
	}{
		{"nothing", nil, 0, false},
		{"a message", frameOf(finalText, false, []byte("abc")), 1, false},
		{"an empty one", frameOf(finalText, false, nil), 1, false},
		{"masked", frameOf(finalText, true, []byte("abc")), 1, false},
		{"an empty one, masked", frameOf(finalText, true, nil), 1, false},
		{"of 126 bytes", frameOf(finalText, true, make([]byte, 126)), 1, false},
		{"of 70000 bytes", frameOf(finalText, false, make([]byte, 70000)), 1, false},
		{"compressed", frameOf(finalText|0x40, true, []byte("abc")), 1, false},
		{"a first part", frameOf(firstText, false, []byte("abc")), 1, true},
		{"two parts", append(frameOf(firstText, false, []byte("abc")), frameOf(part, false, []byte("abc"))...), 2, true},
		{"all parts", append(frameOf(firstText, false, []byte("abc")), frameOf(lastPart, false, nil)...), 2, false},
		{"a ping between parts", append(frameOf(firstText, false, []byte("abc")), frameOf(pingFrame, false, []byte("x"))...), 2, true},
		{"a ping", frameOf(pingFrame, false, []byte("x")), 1, false},
		{"half a head", frameOf(finalText, true, make([]byte, 300))[:5], 0, true},
		{"half a payload", frameOf(finalText, true, make([]byte, 300))[:50], 0, true},
		{"the end", frameOf(closeFrame, true, []byte{3, 232}), 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var whole, one frames
			if n := whole.follow(tt.bytes, false); n != len(tt.bytes) || whole.between() == tt.within {
				t.Errorf("at once: took %d of %d, between %v", n, len(tt.bytes), whole.between())
			}
			ends := 0
			for b := tt.bytes; len(b) > 0; {
				n := one.follow(b[:1], true)
				b = b[n:]
				if one.have == 0 && one.left == 0 {
					ends++
				}
			}
			if one != whole || ends != tt.ends {
				t.Errorf("byte by byte: %+v with %d ends, want %+v with %d", one, ends, whole, tt.ends)
			}
		})
	}
}

// TestFrames_GoingAway: what we say ourselves is a frame, the client's with a mask.
func TestFrames_GoingAway(t *testing.T) {
	for _, masked := range []bool{false, true} {
		b := goingAway(masked)
		var f frames
		if f.follow(b, true) != len(b) || !f.closed || f.have != 0 || f.left != 0 {
			t.Errorf("masked %v: % x is no closing frame", masked, b)
		}
		payload := bytes.Clone(b[len(b)-2:])
		if masked {
			payload[0] ^= b[2]
			payload[1] ^= b[3]
		}
		if b[1]&0x80 != 0 != masked || binary.BigEndian.Uint16(payload) != 1001 {
			t.Errorf("masked %v: % x", masked, b)
		}
	}
}

// FuzzFrames: how bytes come does not change what they mean, and one frame at a
// time is never more than that.
func FuzzFrames(f *testing.F) {
	f.Add(frameOf(finalText, true, []byte("abc")), uint8(1))
	f.Add(append(frameOf(firstText, false, make([]byte, 200)), frameOf(pingFrame, true, nil)...), uint8(7))
	f.Add([]byte{0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, uint8(3))
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		var whole, cut, single frames
		if n := whole.follow(b, false); n != len(b) {
			t.Fatalf("took %d of %d", n, len(b))
		}
		for rest := b; len(rest) > 0; {
			n := min(len(rest), int(size)+1)
			if cut.follow(rest[:n], false) != n {
				t.Fatal("left something behind")
			}
			rest = rest[n:]
		}
		for rest := b; len(rest) > 0; {
			n := single.follow(rest, true)
			if n <= 0 || n < len(rest) && (single.have != 0 || single.left != 0) {
				t.Fatalf("stopped after %d of %d bytes within a frame", n, len(rest))
			}
			rest = rest[n:]
		}
		// What is left of a head that was read does not count.
		whole.head, cut.head, single.head = [14]byte{}, [14]byte{}, [14]byte{}
		if cut != whole || single != whole {
			t.Errorf("at once %+v, in pieces %+v, by frames %+v", whole, cut, single)
		}
	})
}
