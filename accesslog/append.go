package accesslog

import (
	"net/netip"
	"slices"
	"time"

	"isthmus/jsonstring"
)

// source is where the values of parts come from.
type source struct {
	facts    *Facts
	outcome  *Outcome
	client   *ClientEnd
	upstream *UpstreamEnd
	texts    []byte // what a batch has kept, in the order of the parts that want it

	last   remembered // what lines say of the outcome
	second second     // of the line before
}

// appendParts appends some of a line. What a client, or another process, has sent
// goes by appendText, as do names; numbers, addresses and words of ours cannot
// end a string or a line.
func (s *source) appendParts(dst []byte, parts []part) []byte {
	f := s.facts
	for i := range parts {
		p := &parts[i]
		dst = p.appendLiteral(dst)
		from := len(dst)
		switch p.kind {
		case opStart:
			dst = p.close(s.second.appendTime(p.open(dst), f.Start))
		case opStartFormat:
			dst = p.close(appendLayout(p.open(dst), p.argument.layout, f.Start))
		case opRequest, opReply, opTrace:
			dst = appendText(dst, p, s.text())
			continue
		case opProtocol:
			dst = p.appendWord(dst, s.outcome.Protocol)
		case opStatus:
			dst = appendInt(dst, int64(s.outcome.Status))
		case opFlags:
			dst = p.appendWord(dst, s.outcome.Flags)
		case opDetails:
			dst = appendText(dst, p, s.outcome.Details)
			continue
		case opTermination:
			dst = appendText(dst, p, s.outcome.Termination)
			continue
		case opFailure:
			dst = appendText(dst, p, s.outcome.Failure)
			continue
		case opReceived:
			dst = appendInt(dst, f.RequestBody)
		case opSent:
			dst = appendInt(dst, f.ReplyBody)
		case opDuration:
			dst = p.appendMillis(dst, f.Duration)
		case opRequestDuration:
			dst = p.appendMillis(dst, f.Received)
		case opResponseDuration:
			dst = p.appendMillis(dst, f.FirstByte)
		case opReplySending:
			sending := time.Duration(Unknown)
			if f.FirstByte != Unknown {
				sending = f.Duration - f.FirstByte
			}
			dst = p.appendMillis(dst, sending)
		case opServiceTime:
			dst = p.appendMillis(dst, f.ServiceTime)
		case opGRPC:
			dst = p.appendGRPC(dst, f.GRPCStatus, grpcNames[:])
		case opGRPCSnake:
			dst = p.appendGRPC(dst, f.GRPCStatus, grpcSnakeNames[:])
		case opGRPCNumber:
			if f.GRPCStatus == Unknown {
				dst = p.appendNothing(dst)
			} else {
				dst = appendInt(dst, int64(f.GRPCStatus))
			}
		case opUpstreamHost:
			dst = p.appendAddrPort(dst, s.upstream.Host)
		case opUpstreamAddress:
			dst = p.appendAddr(dst, s.upstream.Host.Addr())
		case opUpstream:
			dst = appendText(dst, p, s.upstream.Name)
			continue
		case opUpstreamLocal:
			dst = p.appendAddrPort(dst, s.upstream.Local)
		case opAttempts:
			dst = appendInt(dst, int64(f.Attempts))
		case opLocal:
			dst = p.appendAddrPort(dst, s.client.Local)
		case opLocalAddress:
			dst = p.appendAddr(dst, s.client.Local.Addr())
		case opRemote:
			dst = p.appendAddrPort(dst, s.client.Remote)
		case opRemoteAddress:
			dst = p.appendAddr(dst, s.client.Remote.Addr())
		case opServerName:
			dst = appendText(dst, p, s.client.ServerName)
			continue
		case opRoute:
			dst = appendText(dst, p, f.Route)
			continue
		case opPeer:
			dst = appendText(dst, p, s.client.Peer)
			continue
		case opCluster:
			dst = appendText(dst, p, s.upstream.Cluster)
			continue
		case opNothing:
			dst = appendText(dst, p, p.argument.text)
			continue
		}
		if p.length > 0 && p.style != alone && len(dst)-from > int(p.length) {
			dst = dst[:from+int(p.length)]
		}
	}
	return dst
}

// appendLiteral appends the text as it is. Most are short: to copy more than there is
// of one takes less than to call what copies any.
func (p *part) appendLiteral(dst []byte) []byte {
	n := len(dst)
	if len(p.literal) > len(p.short) || cap(dst)-n < len(p.short) {
		return append(dst, p.literal...)
	}
	*(*[shortLiteral]byte)(dst[n : n+shortLiteral]) = p.short
	return dst[:n+len(p.literal)]
}

// open and close stand around what is written as it is.
func (p *part) open(dst []byte) []byte {
	if p.style == alone {
		return append(dst, '"')
	}
	return dst
}

func (p *part) close(dst []byte) []byte { return p.open(dst) }

// appendNothing says that there is nothing.
func (p *part) appendNothing(dst []byte) []byte {
	if p.style == alone {
		return append(dst, "null"...)
	}
	return append(dst, '-')
}

// appendWord appends a text of which we know that it is as it is.
func (p *part) appendWord(dst []byte, s string) []byte {
	if s == "" {
		return p.appendNothing(dst)
	}
	return p.close(append(p.open(dst), s...))
}

// appendText appends any text.
func appendText[T jsonstring.Text](dst []byte, p *part, s T) []byte {
	if len(s) == 0 {
		return p.appendNothing(dst)
	}
	return p.close(appendInside(p.open(dst), p.style, cut(s, int(p.length))))
}

// cut cuts a text off at a length, of which 0 is any.
func cut[T jsonstring.Text](s T, length int) T {
	if length > 0 && len(s) > length {
		return s[:length]
	}
	return s
}

// appendInside appends a text within what is open.
func appendInside[T jsonstring.Text](dst []byte, s style, t T) []byte {
	from := len(dst)
	dst = slices.Grow(dst, len(t))
	n := jsonstring.CopyPlain(dst[from:from+len(t)], t)
	dst = dst[:from+n]
	switch {
	case n == len(t):
		return dst
	case s == bare:
		return appendLine(dst, t[n:])
	}
	return jsonstring.AppendInside(dst, t[n:])
}

// appendLine keeps what a client has sent from ending the line, or worse.
func appendLine[T jsonstring.Text](dst []byte, s T) []byte {
	for i := range len(s) {
		c := s[i]
		if c < 0x20 || c == 0x7f {
			c = '?'
		}
		dst = append(dst, c)
	}
	return dst
}

func (p *part) appendMillis(dst []byte, d time.Duration) []byte {
	if d == Unknown {
		return p.appendNothing(dst)
	}
	return appendInt(dst, d.Milliseconds())
}

func (p *part) appendGRPC(dst []byte, status int32, names []string) []byte {
	switch {
	case status == Unknown:
		return p.appendNothing(dst)
	case int(status) < len(names):
		return p.appendWord(dst, names[status])
	}
	return p.close(appendInt(p.open(dst), int64(status)))
}

func (p *part) appendAddrPort(dst []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return p.appendNothing(dst)
	}
	return p.close(a.AppendTo(p.open(dst)))
}

func (p *part) appendAddr(dst []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return p.appendNothing(dst)
	}
	return p.close(a.AppendTo(p.open(dst)))
}
