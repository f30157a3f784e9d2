package proxy

// messageCounter counts those of gRPC in a body: each has five bytes in front of it, a
// flag and its length (gRPC over HTTP/2, Length-Prefixed-Message).
type messageCounter struct {
	count uint64
	left  uint32 // of the message under way
	size  uint32 // its length, as far as it has been read
	read  uint8  // how much of the five bytes has been read
	flag  byte
}

// next takes what comes next of the body.
func (m *messageCounter) next(p []byte) {
	for len(p) > 0 {
		if m.left > 0 {
			n := min(len(p), int(m.left))
			m.left -= uint32(n)
			p = p[n:]
			continue
		}
		if m.read == 0 {
			m.flag = p[0]
		} else {
			m.size = m.size<<8 | uint32(p[0])
		}
		p = p[1:]
		if m.read++; m.read < 5 {
			continue
		}
		if m.flag&trailerFrame == 0 {
			m.count++
		}
		m.left, m.size, m.read = m.size, 0, 0
	}
}

// countAsked and countTold take what comes next of the bodies of a request of
// gRPC and its reply. Text is not taken apart.
func (x *exchange) countAsked(p []byte) {
	if x.dialect != notGRPC && x.dialect != grpcWebText {
		x.tally.asks.next(p)
	}
}

func (x *exchange) countTold(p []byte) {
	if x.dialect != notGRPC && x.dialect != grpcWebText {
		x.tally.tells.next(p)
	}
}
