package telemetry

import "time"

// Trouble is what a proxy remembers of a request that failed or was slow: what
// "isthmus why" tells.
type Trouble struct {
	ID       string    `json:"id"`       // x-request-id
	Time     time.Time `json:"time"`     // when the request came
	Duration float64   `json:"duration"` // seconds, until the last of the reply
	Waited   float64   `json:"waited"`   // seconds, until the reply began; 0: none came
	Status   int       `json:"status"`   // that the client got; 0: none
	Flags    string    `json:"flags"`    // Envoy's response flags; "-": none
	Detail   string    `json:"detail"`   // Envoy's response code detail

	// Why says it in words: what the client got, and then one cause after the
	// other.
	Why []string `json:"why"`

	Method    string `json:"method"`
	Authority string `json:"authority"`
	Path      string `json:"path"` // without the query, which may hold what is secret

	Listener string `json:"listener"`           // "outbound", "inbound", "gateway:80"
	Peer     string `json:"peer"`               // the client's address
	Identity string `json:"identity,omitempty"` // the client's SPIFFE ID

	Snapshot uint64 `json:"snapshot"` // the number of the one that the request saw
	Config   string `json:"config"`   // its hash

	Route    *TroubleRoute `json:"route,omitempty"`   // nil: none was found
	Attempts []Attempt     `json:"attempts"`          // to send it, in their order
	Refusal  *Refusal      `json:"refusal,omitempty"` // nil: nobody has refused it
}

// TroubleRoute is the rule that a request took.
type TroubleRoute struct {
	Host   string `json:"host"` // whose rule it is
	Name   string `json:"name"`
	Source string `json:"source"` // file:line; "": every service has this one
}

// Attempt is one try to send a request to an endpoint.
type Attempt struct {
	Upstream string  `json:"upstream"`
	Endpoint string  `json:"endpoint"`
	Cluster  string  `json:"cluster"`
	Began    float64 `json:"began"` // seconds after the request came
	Took     float64 `json:"took"`  // seconds
	Status   int     `json:"status,omitempty"`
	Failure  string  `json:"failure,omitempty"` // Envoy's response code detail; "": its reply was passed on
	Cause    string  `json:"cause,omitempty"`   // the error itself
}

// Refusal says who has not let a request pass.
type Refusal struct {
	By     string `json:"by"`               // "policy", "token", "authorization service", "rate limit"
	Policy string `json:"policy,omitempty"` // "AuthorizationPolicy prod/allow"
	Source string `json:"source,omitempty"` // file:line of the rule
	Rule   *int   `json:"rule,omitempty"`   // counted from 0
	Field  string `json:"field,omitempty"`  // of the rule that came nearest and did not fit
	Reason string `json:"reason"`
}
