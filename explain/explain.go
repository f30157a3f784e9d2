// Package explain holds what can be said of a request without sending it: the
// question, the answer, and how the answer is written for people.
//
// The data plane fills an [Explanation] by walking the very way that a request
// walks (proxy.Explain); the admin listener and the command line show it.
package explain

import (
	"net/netip"
	"time"
)

// Question is a request that nobody has sent.
type Question struct {
	Listener string  // "outbound", "inbound" or "gateway:PORT"; "": the one that the proxy has for it
	Method   string  // "": GET
	URL      string  // with scheme and host
	Fields   []Field // headers, in order
	Caller   string  // the SPIFFE ID that the client proves by mTLS; "": it proves nothing
	Address  netip.Addr

	// ServerName is the one that the client's TLS asks for; between proxies it says which
	// service a connection is for. "": at a gateway the host of an https URL, at the inbound
	// listener none, and TLS only where there is a Caller.
	ServerName string

	// At is when the request came, so that it takes tokens of this proxy's rate limits
	// as it would have then. Zero: limits are told of, and not asked.
	At time.Time
}

// Field is a header of the request.
type Field struct{ Name, Value string }

// The outcomes of an Explanation.
const (
	Forwarded  = "forwarded"  // to an endpoint
	Redirected = "redirected" // by the route
	Answered   = "answered"   // by the route, or a preflight of CORS
	PassedOn   = "passed on"  // the connection, TLS and all, as it comes
	Refused    = "refused"
)

// Explanation is what becomes of a request.
type Explanation struct {
	Request  string   `json:"request"`
	Listener string   `json:"listener"`
	Node     string   `json:"node"`
	Snapshot Snapshot `json:"snapshot"`
	Host     string   `json:"host"` // of the table, which the request's host means; "": none

	Outcome string `json:"outcome"`
	Status  int    `json:"status,omitempty"` // of a refusal
	Flag    string `json:"flag,omitempty"`   // of a refusal, in the access log
	Detail  string `json:"detail,omitempty"` // likewise
	Reason  string `json:"reason,omitempty"` // of a refusal, in words

	// Unheard says of a refusal that all it lacks is services that no file defines and that
	// bear names by which gossip may bring them.
	Unheard bool `json:"unheard,omitempty"`

	Answer *Answer `json:"answer,omitempty"` // that the route gives by itself

	Access *Access `json:"access,omitempty"` // nil: no policies are for this listener

	Route     *Route  `json:"route"`
	Tried     []Tried `json:"tried"`               // the routes before it, which do not fit, the nearest to it last
	TriedMore int     `json:"triedMore,omitempty"` // those before them

	Destinations []Destination `json:"destinations"`
	Policies     []Policy      `json:"policies"`
	Timeout      string        `json:"timeout,omitempty"` // of the exchange; "": none
	Retries      *Retries      `json:"retries,omitempty"`
	Effects      []Effect      `json:"effects,omitempty"` // what else the route does
	Limits       []Limit       `json:"limits,omitempty"`
	Notes        []string      `json:"notes,omitempty"`
}

// Snapshot says which configuration answers.
type Snapshot struct {
	Number uint64 `json:"number"`
	Hash   string `json:"hash"`
}

// Answer is a reply that the proxy makes without being asked to refuse.
type Answer struct {
	Status   int    `json:"status"`
	Location string `json:"location,omitempty"`
	Body     string `json:"body,omitempty"`
}

// Route is the route that a request takes.
type Route struct {
	Name     string `json:"name"`               // FILE:LINE where the file gives none
	Resource string `json:"resource,omitempty"` // "VirtualService default/web"; "": none says it
	Match    string `json:"match"`              // the condition that fits
	Source   string `json:"source"`
}

// Tried is a route that does not fit.
type Tried struct {
	Name   string   `json:"name,omitempty"` // "": the file gives none
	Source string   `json:"source"`
	Misses []string `json:"misses"` // of each of its matches, the first condition that fails
}

// Destination is where a route sends to, and what holds there.
type Destination struct {
	Host    string  `json:"host"`
	Subset  string  `json:"subset,omitempty"`
	Port    uint32  `json:"port"`
	Weight  uint32  `json:"weight"`
	Percent float64 `json:"percent"` // of the requests that get there, as things are
	Drawn   float64 `json:"drawn"`   // of those meant for it
	Standby bool    `json:"standby,omitempty"`
	Problem string  `json:"problem,omitempty"` // why nobody there can serve

	// There is what the proxy over there would make of the request, as far as this
	// configuration says what holds for it. Nil: nothing does.
	There *Access `json:"there,omitempty"`

	Endpoints []Endpoint `json:"endpoints"`
	Balancing string     `json:"balancing"` // how one of them is chosen
	Policies  []Policy   `json:"policies"`  // defaults too, without a source
}

// Endpoint is one that a destination has.
type Endpoint struct {
	Address    string  `json:"address"`
	ByName     bool    `json:"byName,omitempty"` // Address has a name, which DNS is asked for at run time and has not been now
	Cluster    string  `json:"cluster"`
	Locality   string  `json:"locality"`
	Priority   int     `json:"priority"`
	Percent    float64 `json:"percent"` // of the destination's requests; over many, by weight
	Healthy    bool    `json:"healthy"`
	Reason     string  `json:"reason,omitempty"`
	LastResort bool    `json:"lastResort,omitempty"` // gets traffic because nobody is better
	Wire       string  `json:"wire"`                 // how it is spoken to
}

// Policy is a block of the configuration that holds for the request.
type Policy struct {
	Block       string `json:"block"`
	Source      string `json:"source"`
	Says        string `json:"says,omitempty"`
	Destination string `json:"destination,omitempty"` // "": for all
}

// Retries is what may be tried again, and how long that can take.
type Retries struct {
	Attempts int    `json:"attempts"` // after the first
	On       string `json:"on"`
	PerTry   string `json:"perTry,omitempty"`
	Source   string `json:"source"`          // "": the default
	Worst    string `json:"worst,omitempty"` // the longest that the client may wait; "": there is no bound
	Because  string `json:"because"`         // how that is made up
}

// Effect is something that a route does to requests or replies besides.
type Effect struct {
	Name   string `json:"name"`
	Says   string `json:"says"`
	Source string `json:"source,omitempty"`
}

// Access is what policies say of a request.
type Access struct {
	Caller   string `json:"caller"` // "": nobody knows
	Mode     string `json:"mode,omitempty"`
	ModeFrom string `json:"modeSource,omitempty"`
	Refused  string `json:"refused,omitempty"` // why the connection does not even come about

	Token       string   `json:"token"` // "none", "valid", "unverified", "refused", "not read"
	TokenSays   string   `json:"tokenSays,omitempty"`
	TokenSource []string `json:"tokenSources,omitempty"`

	Verdict string   `json:"verdict"`          // "allowed", "refused"; "not asked" before policies are
	By      string   `json:"by,omitempty"`     // the policy and rule that decides, or comes nearest
	Source  string   `json:"source,omitempty"` // of it
	Field   string   `json:"field,omitempty"`  // of the nearest rule, that does not fit
	Asks    []string `json:"asks,omitempty"`   // authorization services, which are not asked now
	Counts  []string `json:"counts,omitempty"` // AUDIT and dry-run policies that fit
}

// Limit is a rate limit that the request is counted in.
type Limit struct {
	Says        string   `json:"says"`
	Descriptors []string `json:"descriptors,omitempty"`
	Source      string   `json:"source"`
	Refused     bool     `json:"refused,omitempty"` // by this one, of a question that says when
}
