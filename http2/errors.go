package http2

import (
	"errors"
	"fmt"
)

var (
	// ErrTimeout is the end of a wait whose limit has passed.
	ErrTimeout = errors.New("deadline exceeded")

	// ErrInterrupted is the end of a wait that [Stream.Interrupt] broke off.
	ErrInterrupted = errors.New("interrupted")

	// ErrWait says that nothing has come yet.
	ErrWait = errors.New("nothing to read yet")

	// ErrUnprocessed is the end of a request of which the server has said that it
	// has not looked at it (RFC 9113 8.7), or that was never sent.
	ErrUnprocessed = errors.New("not processed by the server")

	// ErrMoved is ErrUnprocessed by a GOAWAY on a connection over which the server has
	// looked at others.
	ErrMoved = fmt.Errorf("behind the last stream of a GOAWAY: %w", ErrUnprocessed)

	// ErrNotHTTP2 is the end of a connection whose other side begins with something else
	// than SETTINGS.
	ErrNotHTTP2 error = &ConnError{CodeProtocol, "the first frame is not SETTINGS"}

	// ErrShed is the end of a stream by [Budget]. The peer is told ENHANCE_YOUR_CALM.
	ErrShed = errors.New("bodies that nobody reads hold too much memory")

	// ErrClosed is the end of a connection that nobody has found a fault with.
	ErrClosed = errors.New("connection closed")
)

// ResetError is a stream's end by RST_STREAM.
type ResetError struct {
	Code   ErrCode
	ByPeer bool
}

func (e ResetError) Error() string { return "stream reset: " + e.Code.String() }
