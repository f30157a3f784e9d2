// Package http2 reads and writes HTTP/2 (RFC 9113) and its headers (HPACK, RFC
// 7541) in terms of the message model of http1: what comes as frames is an
// [http1.Request] or [http1.Response] like any other, held to the same rules, so
// that nothing can pass here that could not pass there.
//
// The codec does no I/O, starts no goroutine, takes no lock and keeps no time.
// [Decoder] is the one thing with a state, that of one connection's direction.
// In the steady state it allocates nothing.
//
// Above it, [Conn] is one end of a connection without its socket. Whoever owns
// that has two goroutines: one gives what has come to [Conn.Receive], which sorts
// it to streams, one has [Conn.Flush] hand over what there is to be sent. A
// [Stream] is one request and its reply, for a goroutine of its own, or for one
// that reads and one that writes.
//
//	reader     Receive ──► streams ──► Request, Head, Read
//	workers    Send, Write ──► frames, gathered
//	flusher    Flush ──► the socket, many frames in one write
//
// All that a peer can make us hold is bounded: streams, header lists, windows,
// frames to be sent, and how often it may be a nuisance.
//
// What is wrong is told by its type: a [ConnError] ends the connection, a
// [StreamError] the stream that the frame or message belongs to, and an
// [http1.Error] is a request that can be answered.
package http2

import "strconv"

// Preface is what a client sends first (RFC 9113 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// FrameType is the type of a frame (RFC 9113 6). Others are to be ignored.
type FrameType uint8

// The frame types.
const (
	FrameData         FrameType = 0x0
	FrameHeaders      FrameType = 0x1
	FramePriority     FrameType = 0x2
	FrameReset        FrameType = 0x3
	FrameSettings     FrameType = 0x4
	FramePushPromise  FrameType = 0x5
	FramePing         FrameType = 0x6
	FrameGoAway       FrameType = 0x7
	FrameWindowUpdate FrameType = 0x8
	FrameContinuation FrameType = 0x9
)

// Flags are a frame's; which it may have depends on its type.
type Flags uint8

// The flags.
const (
	FlagEndStream  Flags = 0x1 // DATA, HEADERS
	FlagAck        Flags = 0x1 // SETTINGS, PING
	FlagEndHeaders Flags = 0x4 // HEADERS, CONTINUATION
	FlagPadded     Flags = 0x8 // DATA, HEADERS
	FlagPriority   Flags = 0x20
)

// Has reports whether all flags of f are set.
func (f Flags) Has(flags Flags) bool { return f&flags == flags }

// ErrCode says why a stream or a connection ends (RFC 9113 7).
type ErrCode uint32

// The error codes.
const (
	CodeNo                 ErrCode = 0x0
	CodeProtocol           ErrCode = 0x1
	CodeInternal           ErrCode = 0x2
	CodeFlowControl        ErrCode = 0x3
	CodeSettingsTimeout    ErrCode = 0x4
	CodeStreamClosed       ErrCode = 0x5
	CodeFrameSize          ErrCode = 0x6
	CodeRefusedStream      ErrCode = 0x7
	CodeCancel             ErrCode = 0x8
	CodeCompression        ErrCode = 0x9
	CodeConnect            ErrCode = 0xa
	CodeEnhanceYourCalm    ErrCode = 0xb
	CodeInadequateSecurity ErrCode = 0xc
	CodeHTTP11Required     ErrCode = 0xd
)

var codeNames = [...]string{"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
	"FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY",
	"HTTP_1_1_REQUIRED"}

// String returns the code's name in the RFC, or its number.
func (c ErrCode) String() string {
	if int64(c) < int64(len(codeNames)) {
		return codeNames[c]
	}
	return "error 0x" + strconv.FormatUint(uint64(c), 16)
}

// ConnError is a fault after which the connection cannot go on: it ends with
// GOAWAY and Code. The values are made once, as those of [http1.Error].
type ConnError struct {
	Code   ErrCode
	Reason string // short and stable, fit for a metric label
}

func (e *ConnError) Error() string { return "http2 connection: " + e.Code.String() + ": " + e.Reason }

// StreamError is a fault that ends one stream, with RST_STREAM and Code: that
// which the frame or message belongs to.
type StreamError struct {
	Code   ErrCode
	Reason string // short and stable, fit for a metric label
}

func (e *StreamError) Error() string { return "http2 stream: " + e.Code.String() + ": " + e.Reason }
