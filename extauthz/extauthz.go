// Package extauthz asks authorization services whether a request may be made, by the
// HTTP or gRPC protocol of Envoy's ext_authz filter, for AuthorizationPolicies of
// action CUSTOM.
//
// An [Asker] asks one service about a [Call], and its answer is a [Verdict]: what
// refuses the request, or what is to be changed in it. It knows connections only by
// the function that opens them.
package extauthz

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"isthmus/http1"
	"isthmus/mesh"
)

// Call is what an authorization service is told of a request. Its slices only
// have to hold during Ask.
type Call struct {
	Method, Path, Query     []byte // Path normalised; Query without its "?"
	HasQuery                bool
	Host                    []byte
	Scheme                  string        // "http" or "https"
	Fields                  []http1.Field // as they are sent on; those that are hop-by-hop are not told
	Body                    []byte        // as much of it as AuthorizationProvider.Body allows
	BodyPartial             bool          // there was more
	Principal, OwnPrincipal string        // SPIFFE IDs; "": none
	Source, Destination     netip.AddrPort
	SNI, RequestID          string // "": none
}

// Verdict is what an authorization service says of a request.
//
// What a client could bring about by what it sends is a Verdict that refuses, not
// an error, since FailOpen would let it in: an answer with a field that cannot be
// used, perhaps for a text of the client's that the service repeats, is refused
// with 500, as Envoy does with validate_mutations. Errors of that kind are left
// where the message is not one at all, or longer than is read.
type Verdict struct {
	Allowed bool
	Status  int    // of a refusal, 200 to 599
	Body    []byte // of a refusal, 64 KiB at most
	Fault   error  // why there is a refusal that is not the service's word; for the log

	// Downstream are added to the client's reply, and DownstreamSet replace what
	// it has of their names before that. A refusal has Downstream alone, and no
	// others but what the proxy itself puts on every reply.
	DownstreamSet, Downstream []mesh.NameValue

	// Changes to the request: Set replace, then Add are added. Remove has no name
	// that Set or Add have, so that its turn does not matter. All names are in
	// lower case, and none is one of [reserved].
	Set, Add []mesh.NameValue
	Remove   []string
}

// Limits of one Asker.
const (
	// maxCalls is how many calls there may be at once: of a service that hangs,
	// each of them holds a request of the proxy's. It is Envoy's default for the
	// requests of a cluster, 1024 (circuit_breakers.thresholds.max_requests),
	// rounded.
	maxCalls = 1000

	// dialTimeout is how long a connection may take, so that one that hangs ends
	// though no call waits for it. It is Envoy's default for a cluster's
	// connect_timeout.
	dialTimeout = 5 * time.Second

	// defaultTimeout is Istio's, for a provider that says nothing.
	defaultTimeout = 600 * time.Second

	// maxAnswerBody and maxAnswerFields bound, in bytes, what is kept of an
	// answer: a page that tells a user no, and as many fields as most servers
	// take in a head.
	maxAnswerBody   = 64 << 10
	maxAnswerFields = 64 << 10
)

// What Ask fails with, beside what the connection does.
var (
	ErrTooMany = fmt.Errorf("%d calls are under way", maxCalls)
	ErrClosed  = errors.New("no longer asked")
	errLate    = errors.New("no answer in time")
)

// service speaks one of the two protocols.
type service interface {
	// check asks. An error is that there is no answer.
	check(ctx context.Context, c *Call) (*Verdict, error)
	// drop gives up kept connections that have been silent since began: whoever
	// is behind them may be gone without a word.
	drop(began time.Time)
	// close ends kept connections, and those that are being made. No call is under way.
	close()
}

// Asker asks one authorization service. Its methods may be called by any
// goroutine.
type Asker struct {
	provider *mesh.AuthorizationProvider
	timeout  time.Duration
	service  service
	slots    chan struct{} // one for each call under way

	life  context.Context // ends with Close, and with it whatever is under way
	end   context.CancelFunc
	close sync.Once
}

// NewAsker makes what asks the service of a provider, over connections of dial.
// It does not connect before the first Ask, which for gRPC starts grpc-go's
// goroutines; Close ends them. Of a provider that cannot be asked as it says,
// Ask refuses everything.
func NewAsker(p *mesh.AuthorizationProvider, dial func(ctx context.Context) (net.Conn, error)) *Asker {
	a := &Asker{provider: p, timeout: p.Timeout, slots: make(chan struct{}, maxCalls)}
	if a.timeout <= 0 {
		a.timeout = defaultTimeout
	}
	a.life, a.end = context.WithCancel(context.Background())
	bounded := func(ctx context.Context) (net.Conn, error) {
		// net/http goes on with a connection that its caller no longer waits for,
		// until this or close.
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		return dial(ctx)
	}
	if p.GRPC {
		a.service = newGRPCService(p, bounded)
	} else {
		a.service = newHTTPService(p, bounded)
	}
	return a
}

// Ask asks about a request, and waits for the provider's Timeout at most. An
// error is that there is no answer, and [Asker.OnError] says what holds then; the cause
// of ctx's end, if that comes first.
// It is ErrTooMany at once if 1000 calls are under way: there is no line.
func (a *Asker) Ask(ctx context.Context, c *Call) (*Verdict, error) {
	if a.life.Err() != nil {
		return nil, a.failed(ErrClosed)
	}
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	default:
		return nil, a.failed(ErrTooMany)
	}

	told := *c
	// Without Body, nobody looks at the body. With it, one that is longer is a
	// 413 though FailOpen is set (Istio: maxRequestBytes).
	if limit := int(a.provider.Body); limit == 0 {
		told.Body, told.BodyPartial = nil, false
	} else if len(told.Body) > limit {
		told.Body, told.BodyPartial = told.Body[:limit], true
	}
	if told.BodyPartial && !a.provider.BodyPartial {
		return refuse(http.StatusRequestEntityTooLarge, fmt.Errorf("the body is longer than %d bytes", a.provider.Body)), nil
	}

	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, a.timeout, errLate)
	defer cancel()
	defer context.AfterFunc(a.life, cancel)()
	v, err := a.service.check(ctx, &told)
	switch {
	case err == nil:
		return v, nil
	case a.life.Err() != nil:
		err = ErrClosed
	case errors.Is(context.Cause(ctx), errLate):
		a.service.drop(began)
		err = errLate
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return nil, a.failed(err)
}

func (a *Asker) failed(err error) error {
	return fmt.Errorf("authorization by %s: %w", a.provider.Name, err)
}

// BodyLimit returns how many bytes of a request's body the service is told, 0: none, and
// whether it is asked about longer ones, too. Ask wants to be given one byte more of those.
func (a *Asker) BodyLimit() (n int, longer bool) {
	return int(a.provider.Body), a.provider.BodyPartial
}

// OnError returns what holds where there is no answer: with FailOpen the
// request is allowed, else it is refused with StatusOnError, by default 403.
func (a *Asker) OnError() *Verdict {
	if a.provider.FailOpen {
		return &Verdict{Allowed: true}
	}
	if s := a.provider.StatusOnError; isFinal(s) {
		return &Verdict{Status: s}
	}
	return &Verdict{Status: http.StatusForbidden}
}

// Busy reports whether calls are under way.
func (a *Asker) Busy() bool { return len(a.slots) > 0 }

// Close fails the calls that are under way, waits until they have returned, and
// ends all connections.
func (a *Asker) Close() {
	a.close.Do(func() {
		a.end()
		for range cap(a.slots) {
			a.slots <- struct{}{}
		}
		a.service.close()
	})
}

// refuse makes a refusal that is not the service's word.
func refuse(status int, fault error) *Verdict { return &Verdict{Status: status, Fault: fault} }
