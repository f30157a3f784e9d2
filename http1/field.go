package http1

// Field is one header or trailer field. Name is in the case received.
type Field struct {
	Name, Value []byte
	ID          FieldID
}

// FieldID tells well-known field names apart without comparing strings.
type FieldID uint8

// The well-known fields.
const (
	Unknown FieldID = iota

	// Those up to Expect are about framing or the connection; note knows them.
	Host
	ContentLength
	TransferEncoding
	Connection
	KeepAlive
	ProxyConnection
	Upgrade
	TE
	Trailer
	Expect

	XForwardedFor
	XForwardedProto
	XForwardedHost
	XForwardedClientCert
	XRequestID
	IsthmusDestination   // x-isthmus-destination: what a request between proxies is for
	IsthmusSource        // x-isthmus-source: whose proxy has opened the connection
	IsthmusUnsent        // x-isthmus-unsent: the other proxy could not reach its application
	IsthmusProbe         // x-isthmus-probe: can the destination be served?
	EnvoyAttemptCount    // x-envoy-attempt-count
	EnvoyOverloaded      // x-envoy-overloaded
	EnvoyRateLimited     // x-envoy-ratelimited
	EnvoyExpectedTimeout // x-envoy-expected-rq-timeout-ms
	EnvoyUpstreamTimeout // x-envoy-upstream-rq-timeout-ms
	GRPCTimeout          // grpc-timeout
	GRPCStatus           // grpc-status
	Authorization
	Cookie
	SetCookie
	UserAgent
	ContentType
	Date
	Server
	Via
	Traceparent
	B3              // b3
	B3TraceID       // x-b3-traceid
	B3SpanID        // x-b3-spanid
	B3ParentSpanID  // x-b3-parentspanid
	B3Sampled       // x-b3-sampled
	B3Flags         // x-b3-flags
	WebSocketKey    // sec-websocket-key
	WebSocketAccept // sec-websocket-accept
)

var fieldNames = [...]string{
	Host:                 "host",
	ContentLength:        "content-length",
	TransferEncoding:     "transfer-encoding",
	Connection:           "connection",
	KeepAlive:            "keep-alive",
	ProxyConnection:      "proxy-connection",
	Upgrade:              "upgrade",
	TE:                   "te",
	Trailer:              "trailer",
	Expect:               "expect",
	XForwardedFor:        "x-forwarded-for",
	XForwardedProto:      "x-forwarded-proto",
	XForwardedHost:       "x-forwarded-host",
	XForwardedClientCert: "x-forwarded-client-cert",
	XRequestID:           "x-request-id",
	IsthmusDestination:   "x-isthmus-destination",
	IsthmusSource:        "x-isthmus-source",
	IsthmusUnsent:        "x-isthmus-unsent",
	IsthmusProbe:         "x-isthmus-probe",
	EnvoyAttemptCount:    "x-envoy-attempt-count",
	EnvoyOverloaded:      "x-envoy-overloaded",
	EnvoyRateLimited:     "x-envoy-ratelimited",
	EnvoyExpectedTimeout: "x-envoy-expected-rq-timeout-ms",
	EnvoyUpstreamTimeout: "x-envoy-upstream-rq-timeout-ms",
	GRPCTimeout:          "grpc-timeout",
	GRPCStatus:           "grpc-status",
	Authorization:        "authorization",
	Cookie:               "cookie",
	SetCookie:            "set-cookie",
	UserAgent:            "user-agent",
	ContentType:          "content-type",
	Date:                 "date",
	Server:               "server",
	Via:                  "via",
	Traceparent:          "traceparent",
	B3:                   "b3",
	B3TraceID:            "x-b3-traceid",
	B3SpanID:             "x-b3-spanid",
	B3ParentSpanID:       "x-b3-parentspanid",
	B3Sampled:            "x-b3-sampled",
	B3Flags:              "x-b3-flags",
	WebSocketKey:         "sec-websocket-key",
	WebSocketAccept:      "sec-websocket-accept",
}

// String returns the name in lower case, "" for Unknown.
func (id FieldID) String() string {
	if int(id) >= len(fieldNames) {
		return ""
	}
	return fieldNames[id]
}

// byLength lists the well-known names of each length. At most five share one,
// and comparing from the end tells them apart within a few bytes.
var byLength = func() (t [32][]FieldID) {
	for id, name := range fieldNames {
		if name != "" {
			t[len(name)] = append(t[len(name)], FieldID(id))
		}
	}
	return t
}()

// LookupField returns the ID of a field's name, in any case; Unknown if it has
// none. name is a token.
func LookupField(name []byte) FieldID {
	if len(name) >= len(byLength) {
		return Unknown
	}
candidates:
	for _, id := range byLength[len(name)] {
		want := fieldNames[id]
		for i := len(want) - 1; i >= 0; i-- {
			// No two token characters that a well-known name could hold differ in
			// bit 0x20 alone, but for the cases of a letter.
			if name[i]|0x20 != want[i] {
				continue candidates
			}
		}
		return id
	}
	return Unknown
}

// ValidName reports whether a text may be a field's name: a token (RFC 9110
// 5.1).
func ValidName(name []byte) bool { return isToken(name) }

// ValidValue reports whether a text may be a field's value: visible
// characters, SP, HTAB and obs-text, with no white space at either end (RFC
// 9110 5.5).
func ValidValue(value []byte) bool {
	return indexControl(value) < 0 && len(trimOWS(value)) == len(value)
}

// Get returns the first field of a well-known name.
func (h *Header) Get(id FieldID) ([]byte, bool) {
	for i := range h.Fields {
		if h.Fields[i].ID == id {
			return h.Fields[i].Value, true
		}
	}
	return nil, false
}

// Lookup returns the first field of a name, which is given in lower case.
func (h *Header) Lookup(name []byte) ([]byte, bool) {
	for i := range h.Fields {
		if equalFold(h.Fields[i].Name, name) {
			return h.Fields[i].Value, true
		}
	}
	return nil, false
}

// Add appends a field. Neither name nor value is copied or checked; see
// [ValidName] and [ValidValue]. Framing stays what it was: the fields that
// announce it are written by whoever sends the message.
func (h *Header) Add(name, value []byte) {
	h.Fields = append(h.Fields, Field{name, value, LookupField(name)})
}

// Set gives a field, named in lower case, one value: the first of that name
// gets it and the others go; where there is none, it is added.
func (h *Header) Set(name, value []byte) {
	for i := range h.Fields {
		if equalFold(h.Fields[i].Name, name) {
			h.Fields[i].Value = value
			h.remove(i+1, func(f *Field) bool { return equalFold(f.Name, name) })
			return
		}
	}
	h.Add(name, value)
}

// Del removes all fields of a well-known name.
func (h *Header) Del(id FieldID) {
	h.remove(0, func(f *Field) bool { return f.ID == id })
}

// DelName removes all fields of a name, which is given in lower case.
func (h *Header) DelName(name []byte) {
	h.remove(0, func(f *Field) bool { return equalFold(f.Name, name) })
}

// remove drops fields from the i-th on, in place.
func (h *Header) remove(i int, drop func(*Field) bool) {
	kept := h.Fields[:i]
	for ; i < len(h.Fields); i++ {
		if !drop(&h.Fields[i]) {
			kept = append(kept, h.Fields[i])
		}
	}
	clear(h.Fields[len(kept):])
	h.Fields = kept
}
