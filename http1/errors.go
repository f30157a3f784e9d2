package http1

// Error says what is wrong with a message. Status is what the client gets for
// such a request; for a reply it is always 502. Kind is short and stable, fit
// for a metric label. The values are made once, so refusing allocates nothing
// and they may be compared.
type Error struct {
	Status int
	Kind   string

	reply *Error // the same fault in a reply
}

func (e *Error) Error() string { return "malformed HTTP/1 message: " + e.Kind }

func newError(status int, kind string) *Error {
	return &Error{Status: status, Kind: kind, reply: &Error{Status: 502, Kind: kind}}
}

// inReply returns the same fault as that of a reply.
func (e *Error) inReply() *Error {
	if e == nil {
		return nil
	}
	return e.reply
}

// orNil returns e as an error: nil for none, rather than an error that holds a
// nil pointer.
func (e *Error) orNil() error {
	if e == nil {
		return nil
	}
	return e
}

// The faults. Each is for requests and, with status 502, for replies.
var (
	errRequestLine = newError(400, "bad_request_line")
	errMethod      = newError(400, "bad_method")
	errTarget      = newError(400, "bad_target")
	errTargetLong  = newError(414, "target_too_long")
	errVersion     = newError(400, "bad_version")
	errMajor       = newError(505, "unsupported_version")
	errStatusLine  = newError(502, "bad_status_line")

	errHeadLarge  = newError(431, "head_too_large")
	errFieldCount = newError(431, "too_many_fields")
	errOptions    = newError(431, "too_many_connection_options")
	errFieldName  = newError(400, "bad_field_name")
	errFieldValue = newError(400, "bad_field_value")
	errFold       = newError(400, "folded_field")
	errLineEnd    = newError(400, "bad_line_end")

	errHostMissing  = newError(400, "missing_host")
	errHostCount    = newError(400, "several_hosts")
	errHost         = newError(400, "bad_host")
	errHostMismatch = newError(400, "host_and_target_differ")

	errLengthCount = newError(400, "several_content_lengths")
	errLength      = newError(400, "bad_content_length")
	errLengthAndTE = newError(400, "content_length_and_transfer_encoding")
	errTEOld       = newError(400, "transfer_encoding_in_http_1_0")
	errTECount     = newError(400, "several_transfer_encodings")
	errTE          = newError(400, "bad_transfer_encoding")
	errTEUnknown   = newError(501, "unknown_transfer_coding")

	errChunkSize      = newError(400, "bad_chunk_size")
	errChunkExtension = newError(400, "chunk_extensions_too_long")
	errChunkEnd       = newError(400, "bad_chunk_end")
	errTrailer        = newError(400, "bad_trailer")
	errTrailerLarge   = newError(431, "trailers_too_large")
)
