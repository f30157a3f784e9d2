package proxy

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	mathrand "math/rand/v2"

	"isthmus/http1"
)

// keyLength is that of Sec-WebSocket-Key: 16 bytes in base64 (RFC 6455 4.1).
const keyLength = 24

// handshake reads what a request for a WebSocket has to say of it (RFC 6455 4.2.1),
// and reports whether it does. Which versions it takes is for the upstream to say.
// Over HTTP/2 there is no key: we make the one that HTTP/1.1 will need.
func (x *exchange) handshake() bool {
	var key []byte
	keys, versions := 0, 0
	for i := range x.req.Fields {
		switch f := &x.req.Fields[i]; {
		case f.ID == http1.WebSocketKey:
			key = f.Value
			keys++
		case len(f.Name) == len("sec-websocket-version") && equalFold(f.Name, "sec-websocket-version"):
			versions++
		}
	}
	if x.conn.h2 != nil {
		var room [16]byte
		rand.Read(room[:])
		base64.StdEncoding.Encode(x.upgrade.key[:], room[:])
		return versions == 1
	}
	var room [keyLength]byte // more than 16 bytes, for what is in a key too many
	if keys != 1 || versions != 1 || len(key) != keyLength {
		return false
	}
	n, err := base64.StdEncoding.Decode(room[:], key)
	copy(x.upgrade.key[:], key)
	return n == 16 && err == nil
}

// acceptOf is the Sec-WebSocket-Accept that fits a key: only who has read it as
// that of a WebSocket can know it.
func acceptOf(key []byte) []byte {
	const meant = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" // RFC 6455 1.3
	sum := sha1.Sum(append(append([]byte(nil), key...), meant...))
	return base64.StdEncoding.AppendEncode(nil, sum[:])
}

// accepted reports whether the reply accepts the WebSocket that was asked for.
func (x *exchange) accepted() bool {
	n, fits := 0, false
	for i := range x.res.Fields {
		if f := &x.res.Fields[i]; f.ID == http1.WebSocketAccept {
			n++
			fits = string(f.Value) == string(acceptOf(x.upgrade.key[:]))
		}
	}
	return n == 1 && fits
}

// frames follows the frames of one direction of a WebSocket (RFC 6455 5.2) as far
// as is needed to know where one ends: what is in them is nobody's business here.
type frames struct {
	head   [14]byte // of the frame that begins
	have   int      // how much of that has come
	left   uint64   // what is still to come of the frame's payload
	within bool     // a message whose last frame has not begun
	closed bool     // the frame after which nothing follows has come
}

// follow takes bytes, up to the end of a frame if one says so, and returns how many.
func (f *frames) follow(p []byte, one bool) (n int) {
	for n < len(p) {
		if f.left > 0 {
			m := int(min(f.left, uint64(len(p)-n)))
			f.left -= uint64(m)
			n += m
		} else {
			f.head[f.have] = p[n]
			f.have++
			n++
			if f.have == f.headLen() {
				f.begin()
			}
		}
		if one && f.have == 0 && f.left == 0 {
			break
		}
	}
	return n
}

// headLen is how long the head is, as far as what has come of it tells.
func (f *frames) headLen() int {
	n := 2
	if f.have < n {
		return n
	}
	switch f.head[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if f.head[1]&0x80 != 0 {
		n += 4
	}
	return n
}

// begin takes down what a head says that is whole.
func (f *frames) begin() {
	f.have = 0
	f.left = uint64(f.head[1] & 0x7f)
	if long := map[uint64]int{126: 2, 127: 8}[f.left]; long > 0 {
		f.left = 0
		for _, b := range f.head[2 : 2+long] {
			f.left = f.left<<8 | uint64(b)
		}
	}
	const final, control, closing = 0x80, 0x8, 0x8
	switch opcode := f.head[0] & 0xf; {
	case opcode == closing:
		f.closed = true
	case opcode&control == 0: // those of control come between others (RFC 6455 5.4)
		f.within = f.head[0]&final == 0
	}
}

// between reports whether a frame of ours may come next without breaking a
// message.
func (f *frames) between() bool { return f.have == 0 && f.left == 0 && !f.within && !f.closed }

// goingAway returns the frame that closes a WebSocket with status 1001 (RFC 6455
// 7.4.1). What a client says is masked (5.3).
func goingAway(masked bool) []byte {
	frame := []byte{0x88, 2, 1001 >> 8, 1001 & 0xff}
	if !masked {
		return frame
	}
	mask := mathrand.Uint32()
	return []byte{0x88, 0x80 | 2, byte(mask), byte(mask >> 8), byte(mask >> 16), byte(mask >> 24), frame[2] ^ byte(mask), frame[3] ^ byte(mask>>8)}
}
