package http2

import "time"

// Options say what one end of a connection allows the other.
type Options struct {
	// MaxStreams is how many streams the peer may have open at a time; default
	// 100, as RFC 9113 5.1.2 has it for a least.
	MaxStreams uint32

	// PeerStreams is how many streams a client may have open before the server has said
	// how many it takes; default 100.
	PeerStreams uint32

	// Window is how many bytes of a body may come ahead of whoever reads it;
	// default 64 KiB. A server cannot have less than 65535: that is what clients send
	// before they hear of it. It grows up to MaxWindow with what the way there holds;
	// default 4 MiB, as much as 40 ms at 800 Mbit/s.
	Window, MaxWindow int

	// Budget, if there is one, bounds what lies unread on this connection and others.
	Budget *Budget

	// DropUnderscores drops trailers with a "_" in their names; see
	// [http1.Header.Underscore].
	DropUnderscores bool
}

const (
	defaultMaxStreams = 100
	defaultWindow     = 64 << 10
	defaultMaxWindow  = 4 << 20

	// protocolWindow is every window before anybody has said anything (RFC 9113
	// 6.9.2).
	protocolWindow = 65535

	// maxFrame is the largest frame that we take and send: what every peer has to
	// take (RFC 9113 4.2).
	maxFrame = 16 << 10

	// maxHeaderBlock bounds a header block as it comes. Huffman's code saves three
	// eighths at the most, so one of a list within the limit is never much larger;
	// CVE-2024-27316 is what no bound costs.
	maxHeaderBlock = 64 << 10

	// connWindow is how much of all bodies together may be under way. It is granted
	// anew as it comes, not as it is read, so that a body that nobody reads cannot
	// hold up the others.
	connWindow = 4 << 20

	// maxUnread is how much of all bodies together may have come and wait to be read
	// before their windows are narrowed: one that nobody reads is no reason yet, two
	// are.
	maxUnread = defaultMaxWindow + defaultMaxWindow/2

	// maxResets is how many streams of a client's may be reset at a time whose frames
	// are under way: as many as any of ours may have open.
	maxResets = 256

	// narrowTime is how long they stay so at least: SETTINGS all the time are a
	// nuisance.
	narrowTime = time.Second
)

func (o Options) orDefault() Options {
	if o.MaxStreams == 0 {
		o.MaxStreams = defaultMaxStreams
	}
	if o.PeerStreams == 0 {
		o.PeerStreams = defaultMaxStreams
	}
	if o.Window == 0 {
		o.Window = defaultWindow
	}
	if o.MaxWindow == 0 {
		o.MaxWindow = defaultMaxWindow
	}
	return o
}
