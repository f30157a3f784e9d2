package proxy

import (
	"net/netip"
	"strings"
)

// Kind is what went wrong with an exchange. Its text is a metric label and the
// detail in the access log.
type Kind uint8

// The kinds of failure.
const (
	NoError Kind = iota
	NoRoute
	NoDestination
	NoHealthy
	ConnectFailure
	ConnectTimeout
	LinkDown    // the endpoint's cluster is known to be out of reach
	Stalled     // the upstream's host no longer acknowledges what was sent
	Terminated  // the upstream ended the connection before its reply was whole
	RemoteReset // the upstream ended the stream before its reply was whole
	Refused     // the upstream says that it has not looked at the request
	NoUpgrade   // the upstream does not take the upgrade over what it speaks
	BadReply
	Overflow
	Overloaded // the proxy itself: all clients together take too much memory
	Shed       // likewise, after the request had begun
	CutOff     // the proxy ended before the exchange did
	Timeout
	TryTimeout
	BadRequest
	RequestTimeout
	BodyTooLarge
	ClientGone
	RateLimited
	GloballyLimited // by who decides on the limit of several proxies
	LimitUnknown    // nobody could tell whether the limit is reached
	Misdirected     // a host of another server than the one that TLS was terminated for
	FaultInjected   // the route's fault has aborted it
	Unauthorized    // its token is not to be believed
	Forbidden       // an AuthorizationPolicy says no
	Denied          // an authorization service does
	PlainText       // of a client that has to speak mTLS, or the other way round: there is no answer
	IdleTimeout     // nothing has moved on a relayed connection
	DurationTimeout // a relayed connection has reached its maxConnectionDuration
)

// answer is how the proxy answers a kind of failure: the one place where
// failures become statuses.
type answer struct {
	detail string
	flag   string // Envoy's response flag
	status int
	body   string

	// unsent says that the upstream cannot have seen the request, so that any
	// other endpoint may get it, whatever its method.
	unsent bool
}

const connectError = "upstream connect error or disconnect/reset before headers. reset reason: "

var answers = [...]answer{
	NoError:         {detail: "via_upstream", flag: "-"},
	NoRoute:         {detail: "route_not_found", flag: "NR", status: 404},
	NoDestination:   {detail: "cluster_not_found", flag: "NC", status: 503},
	NoHealthy:       {detail: "no_healthy_upstream", flag: "UH", status: 503, body: "no healthy upstream"},
	ConnectFailure:  {detail: "upstream_reset_before_response_started{connection_failure}", flag: "UF", status: 503, body: connectError + "connection failure", unsent: true},
	ConnectTimeout:  {detail: "upstream_reset_before_response_started{connection_timeout}", flag: "UF", status: 503, body: connectError + "connection failure", unsent: true},
	LinkDown:        {detail: "upstream_reset_before_response_started{connection_failure}", flag: "UF", status: 503, body: connectError + "connection failure", unsent: true},
	Stalled:         {detail: "upstream_reset_before_response_started{connection_termination}", flag: "UC", status: 503, body: connectError + "connection termination"},
	Terminated:      {detail: "upstream_reset_before_response_started{connection_termination}", flag: "UC", status: 503, body: connectError + "connection termination"},
	RemoteReset:     {detail: "upstream_reset_before_response_started{remote_reset}", flag: "UR", status: 503, body: connectError + "remote reset"},
	Refused:         {detail: "upstream_reset_before_response_started{remote_refused_stream_reset}", flag: "UR", status: 503, body: connectError + "remote refused stream reset", unsent: true},
	NoUpgrade:       {detail: "upgrade_failed", flag: "UPE", status: 502, body: connectError + "upgrade failed"},
	BadReply:        {detail: "upstream_reset_before_response_started{protocol_error}", flag: "UPE", status: 502, body: connectError + "protocol error"},
	Overflow:        {detail: "upstream_reset_before_response_started{overflow}", flag: "UO", status: 503, body: connectError + "overflow", unsent: true},
	Overloaded:      {detail: "overload", flag: "OM", status: 503, body: "overloaded", unsent: true},
	Shed:            {detail: "overload_reset", flag: "OM", status: 503, body: "overloaded"},
	CutOff:          {detail: "drain_timeout", flag: "LR"},
	Timeout:         {detail: "upstream_response_timeout", flag: "UT", status: 504, body: "upstream request timeout"},
	TryTimeout:      {detail: "upstream_per_try_timeout", flag: "UT", status: 504, body: "upstream request timeout"},
	BadRequest:      {detail: "downstream_protocol_error", flag: "DPE", status: 400},
	RequestTimeout:  {detail: "request_timeout", flag: "-", status: 408},
	BodyTooLarge:    {detail: "request_payload_too_large", flag: "-", status: 413},
	ClientGone:      {detail: "downstream_remote_disconnect", flag: "DC"},
	RateLimited:     {detail: "local_rate_limited", flag: "RL", status: 429, body: "local_rate_limited"},
	GloballyLimited: {detail: "request_rate_limited", flag: "RL", status: 429},
	LimitUnknown:    {detail: "rate_limiter_error", flag: "RLSE", status: 500},
	Misdirected:     {detail: "misdirected_request", flag: "-", status: 421},
	IdleTimeout:     {detail: "idle_timeout", flag: "-"},
	DurationTimeout: {detail: "max_duration_timeout", flag: "DT"},
	Unauthorized:    {detail: "jwt_authn_access_denied", flag: "-", status: 401},
	Forbidden:       {detail: "rbac_access_denied", flag: "-", status: 403, body: "RBAC: access denied"},
	Denied:          {detail: "ext_authz_denied", flag: "UAEX", status: 403},
	PlainText:       {detail: "peer_authentication", flag: "-"},
	FaultInjected:   {detail: "fault_filter_abort", flag: "FI", body: "fault filter abort"}, // the status is the fault's
}

// String returns Envoy's response code detail.
func (k Kind) String() string { return answers[k].detail }

// Error says what failed: which endpoint of which upstream, and how. Whose
// fault it is and what the client is told follow from Kind.
type Error struct {
	Kind     Kind
	Upstream string
	Endpoint netip.AddrPort
	Cause    error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Kind.String())
	if e.Upstream != "" {
		b.WriteString(": upstream " + e.Upstream)
	}
	if e.Endpoint.IsValid() {
		b.WriteString(": endpoint " + e.Endpoint.String())
	}
	if e.Cause != nil {
		b.WriteString(": " + e.Cause.Error())
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Cause }
