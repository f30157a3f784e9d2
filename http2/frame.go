package http2

import "encoding/binary"

// frameHeaderLen is the length of every frame's header (RFC 9113 4.1).
const frameHeaderLen = 9

// Bounds of RFC 9113.
const (
	minMaxFrame   = 1 << 14   // every receiver takes frames of that size (4.2)
	maxMaxFrame   = 1<<24 - 1 // and none larger ones (6.5.2)
	maxWindow     = 1<<31 - 1 // (6.9.1)
	initialWindow = 1<<16 - 1 // (6.9.2)
	maxStreamID   = 1<<31 - 1 // (5.1.1)
)

// FrameHeader is what every frame begins with.
type FrameHeader struct {
	Length uint32 // of the payload
	Type   FrameType
	Flags  Flags
	Stream uint32
}

// ParseFrameHeader reads the first nine bytes of b.
func ParseFrameHeader(b []byte) FrameHeader {
	_ = b[frameHeaderLen-1]
	return FrameHeader{
		Length: uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]),
		Type:   FrameType(b[3]),
		Flags:  Flags(b[4]),
		Stream: binary.BigEndian.Uint32(b[5:]) & maxStreamID, // the highest bit is ignored (4.1)
	}
}

// AppendFrameHeader writes a frame's header.
func AppendFrameHeader(dst []byte, h FrameHeader) []byte {
	dst = append(dst, byte(h.Length>>16), byte(h.Length>>8), byte(h.Length), byte(h.Type), byte(h.Flags))
	return binary.BigEndian.AppendUint32(dst, h.Stream)
}

// The faults of frames.
var (
	errFrameLarge     = &ConnError{CodeFrameSize, "frame_too_large"}
	errFrameLength    = &ConnError{CodeFrameSize, "bad_frame_length"}
	errFrameStream    = &ConnError{CodeProtocol, "frame_on_stream_0"}
	errFrameNoStream  = &ConnError{CodeProtocol, "frame_for_connection_on_stream"}
	errPush           = &ConnError{CodeProtocol, "push_promise"}
	errPadding        = &ConnError{CodeProtocol, "padding_longer_than_frame"}
	errPriorityLength = &StreamError{CodeFrameSize, "bad_frame_length"}
	errPriority       = &StreamError{CodeProtocol, "stream_depends_on_itself"}

	errSettingPush    = &ConnError{CodeProtocol, "bad_enable_push"}
	errSettingWindow  = &ConnError{CodeFlowControl, "bad_initial_window_size"}
	errSettingFrame   = &ConnError{CodeProtocol, "bad_max_frame_size"}
	errSettingConnect = &ConnError{CodeProtocol, "bad_enable_connect_protocol"}

	errIncrement       = &ConnError{CodeProtocol, "window_update_of_0"}
	errStreamIncrement = &StreamError{CodeProtocol, "window_update_of_0"}
)

// Check holds a frame to the rules of RFC 9113 6 about its length and stream,
// before its payload is read. maxFrame is the SETTINGS_MAX_FRAME_SIZE that has
// been announced. Whether the stream may have such a frame now is not looked at,
// nor is anything about types that are not known, but their length. A
// [StreamError] is for a frame whose payload is to be read and thrown away.
//
// PUSH_PROMISE is always refused: clients must not send it, and servers must not
// since nobody here allows it (8.4).
func (h FrameHeader) Check(maxFrame uint32) error {
	if h.Length > maxFrame {
		return errFrameLarge
	}
	switch h.Type {
	case FrameData, FrameHeaders, FrameContinuation:
		if h.Stream == 0 {
			return errFrameStream
		}
	case FramePriority:
		switch {
		case h.Stream == 0:
			return errFrameStream
		case h.Length != 5:
			return errPriorityLength
		}
	case FrameReset:
		switch {
		case h.Stream == 0:
			return errFrameStream
		case h.Length != 4:
			return errFrameLength
		}
	case FrameSettings:
		switch {
		case h.Stream != 0:
			return errFrameNoStream
		case h.Flags.Has(FlagAck) && h.Length > 0, h.Length%settingLen != 0:
			return errFrameLength
		}
	case FramePushPromise:
		return errPush
	case FramePing:
		switch {
		case h.Stream != 0:
			return errFrameNoStream
		case h.Length != 8:
			return errFrameLength
		}
	case FrameGoAway:
		switch {
		case h.Stream != 0:
			return errFrameNoStream
		case h.Length < 8:
			return errFrameLength
		}
	case FrameWindowUpdate:
		if h.Length != 4 {
			return errFrameLength
		}
	}
	return nil
}

// The Parse functions read the payload of a frame that Check has let pass.

// ParseData returns the data of a DATA frame, without its padding. For flow
// control the whole payload counts (6.9.1).
func ParseData(h FrameHeader, payload []byte) ([]byte, error) {
	if !h.Flags.Has(FlagPadded) {
		return payload, nil
	}
	return unpad(payload)
}

// unpad takes the padding off (6.1): its length in front, then what it pads, the
// padding.
func unpad(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, errFrameLength
	}
	n := int(b[0])
	if b = b[1:]; n > len(b) {
		return nil, errPadding
	}
	return b[:len(b)-n], nil
}

// ParseHeaders returns the part of a header block that a HEADERS frame holds,
// without padding and priority. With a [StreamError] the block is returned, too:
// it has to be decoded, since the blocks that follow build on it.
func ParseHeaders(h FrameHeader, payload []byte) (block []byte, err error) {
	if h.Flags.Has(FlagPadded) {
		if payload, err = unpad(payload); err != nil {
			return nil, err
		}
	}
	if !h.Flags.Has(FlagPriority) {
		return payload, nil
	}
	if len(payload) < 5 {
		return nil, errFrameLength
	}
	return payload[5:], ParsePriority(h, payload[:5])
}

// ParsePriority looks at the payload of a PRIORITY frame. Priorities mean
// nothing any more (5.3.2), but no stream may depend on itself (RFC 7540 5.3.1).
func ParsePriority(h FrameHeader, payload []byte) error {
	if binary.BigEndian.Uint32(payload)&maxStreamID == h.Stream {
		return errPriority
	}
	return nil
}

// ParseReset returns the code of a RST_STREAM frame.
func ParseReset(payload []byte) ErrCode { return ErrCode(binary.BigEndian.Uint32(payload)) }

// ParsePing returns the data of a PING frame.
func ParsePing(payload []byte) [8]byte { return [8]byte(payload) }

// ParseGoAway returns what a GOAWAY frame says: the last stream that the peer
// has looked at, why it ends, and a text that means something to people alone.
func ParseGoAway(payload []byte) (last uint32, code ErrCode, debug []byte) {
	return binary.BigEndian.Uint32(payload) & maxStreamID, ErrCode(binary.BigEndian.Uint32(payload[4:])), payload[8:]
}

// ParseWindowUpdate returns the increment of a WINDOW_UPDATE frame, which is
// above 0.
func ParseWindowUpdate(h FrameHeader, payload []byte) (uint32, error) {
	n := binary.BigEndian.Uint32(payload) & maxWindow
	switch {
	case n > 0:
		return n, nil
	case h.Stream == 0:
		return 0, errIncrement
	}
	return 0, errStreamIncrement
}

// SettingID tells what is set.
type SettingID uint16

// The settings (RFC 9113 6.5.2, RFC 8441 3). Others are to be ignored.
const (
	SettingHeaderTableSize       SettingID = 0x1
	SettingEnablePush            SettingID = 0x2
	SettingMaxConcurrentStreams  SettingID = 0x3
	SettingInitialWindowSize     SettingID = 0x4
	SettingMaxFrameSize          SettingID = 0x5
	SettingMaxHeaderListSize     SettingID = 0x6
	SettingEnableConnectProtocol SettingID = 0x8
)

// Setting is one parameter of a SETTINGS frame.
type Setting struct {
	ID    SettingID
	Value uint32
}

const settingLen = 6

// NextSetting cuts the first parameter off the payload of a SETTINGS frame. A
// value that must not be is an error.
func NextSetting(payload []byte) (s Setting, rest []byte, err error) {
	s = Setting{SettingID(binary.BigEndian.Uint16(payload)), binary.BigEndian.Uint32(payload[2:])}
	rest = payload[settingLen:]
	switch s.ID {
	case SettingEnablePush:
		if s.Value > 1 {
			return s, nil, errSettingPush
		}
	case SettingInitialWindowSize:
		if s.Value > maxWindow {
			return s, nil, errSettingWindow
		}
	case SettingMaxFrameSize:
		if s.Value < minMaxFrame || s.Value > maxMaxFrame {
			return s, nil, errSettingFrame
		}
	case SettingEnableConnectProtocol:
		if s.Value > 1 {
			return s, nil, errSettingConnect
		}
	}
	return s, rest, nil
}

// The Append functions write frames. The caller keeps their lengths within what
// the peer has announced.

// AppendDataHeader writes the header of a DATA frame, which n bytes of data have
// to follow.
func AppendDataHeader(dst []byte, stream uint32, end bool, n int) []byte {
	return AppendFrameHeader(dst, FrameHeader{uint32(n), FrameData, endFlag(end), stream})
}

func endFlag(end bool) Flags {
	if end {
		return FlagEndStream
	}
	return 0
}

// BeginHeaders leaves room for the header of a HEADERS frame. The header block
// is appended then, and EndHeaders gets the length that dst had before all this.
func BeginHeaders(dst []byte) []byte { return append(dst, make([]byte, frameHeaderLen)...) }

// EndHeaders makes frames of the block that has been appended after
// BeginHeaders: a HEADERS frame, and if it is longer than maxFrame, CONTINUATION
// frames after it. Nothing may be written between them (4.3).
func EndHeaders(dst []byte, start int, stream uint32, end bool, maxFrame int) []byte {
	n := len(dst) - start - frameHeaderLen
	h := FrameHeader{uint32(n), FrameHeaders, endFlag(end), stream}
	if n <= maxFrame {
		h.Flags |= FlagEndHeaders
		AppendFrameHeader(dst[:start], h)
		return dst
	}
	// The parts move apart, the last one first.
	more := (n - 1) / maxFrame
	dst = append(dst, make([]byte, more*frameHeaderLen)...)
	block := dst[start+frameHeaderLen:]
	c := FrameHeader{Type: FrameContinuation, Flags: FlagEndHeaders, Stream: stream}
	for i := more; i > 0; i-- {
		from, to := i*maxFrame, min((i+1)*maxFrame, n)
		at := from + i*frameHeaderLen
		copy(block[at:], block[from:to])
		c.Length = uint32(to - from)
		AppendFrameHeader(block[:at-frameHeaderLen], c)
		c.Flags = 0
	}
	h.Length = uint32(maxFrame)
	AppendFrameHeader(dst[:start], h)
	return dst
}

// AppendReset writes a RST_STREAM frame.
func AppendReset(dst []byte, stream uint32, code ErrCode) []byte {
	dst = AppendFrameHeader(dst, FrameHeader{4, FrameReset, 0, stream})
	return binary.BigEndian.AppendUint32(dst, uint32(code))
}

// AppendSettings writes a SETTINGS frame.
func AppendSettings(dst []byte, settings ...Setting) []byte {
	dst = AppendFrameHeader(dst, FrameHeader{uint32(len(settings) * settingLen), FrameSettings, 0, 0})
	for _, s := range settings {
		dst = binary.BigEndian.AppendUint16(dst, uint16(s.ID))
		dst = binary.BigEndian.AppendUint32(dst, s.Value)
	}
	return dst
}

// AppendSettingsAck writes the frame that says that settings have been applied.
func AppendSettingsAck(dst []byte) []byte {
	return AppendFrameHeader(dst, FrameHeader{0, FrameSettings, FlagAck, 0})
}

// AppendPing writes a PING frame, or the answer to one.
func AppendPing(dst []byte, ack bool, data [8]byte) []byte {
	h := FrameHeader{8, FramePing, 0, 0}
	if ack {
		h.Flags = FlagAck
	}
	return append(AppendFrameHeader(dst, h), data[:]...)
}

// AppendGoAway writes a GOAWAY frame. debug is for people who look at it.
func AppendGoAway(dst []byte, last uint32, code ErrCode, debug string) []byte {
	dst = AppendFrameHeader(dst, FrameHeader{uint32(8 + len(debug)), FrameGoAway, 0, 0})
	dst = binary.BigEndian.AppendUint32(dst, last)
	dst = binary.BigEndian.AppendUint32(dst, uint32(code))
	return append(dst, debug...)
}

// AppendWindowUpdate writes a WINDOW_UPDATE frame; stream 0 is the connection.
func AppendWindowUpdate(dst []byte, stream, increment uint32) []byte {
	dst = AppendFrameHeader(dst, FrameHeader{4, FrameWindowUpdate, 0, stream})
	return binary.BigEndian.AppendUint32(dst, increment)
}
