package proxy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"isthmus/mesh"
)

// limitError says which rate limit has refused a request.
type limitError struct{ *limitInfo }

func (e *limitError) Error() string {
	f := e.filter
	what := "requests are too many"
	switch {
	case f.Global != nil:
		what = "too many requests in domain " + f.Global.Domain
	case e.bucket != nil:
		what = fmt.Sprintf("%d requests at once, then %d every %v, were used up", e.bucket.MaxTokens, e.bucket.TokensPerFill, e.bucket.FillInterval)
	}
	return fmt.Sprintf("%s (%s): %s", f.Meta, e.source, what)
}

// deniedError says which authorization service has refused a request, or could
// not be asked.
type deniedError struct {
	policy *mesh.AuthorizationPolicy
	status int
	cause  error // nil: it has said no
}

func (e *deniedError) Error() string {
	says := fmt.Sprintf("%s (%s) asks provider %s, which ", e.policy.Meta, e.policy.Source, e.policy.Provider)
	if e.cause != nil {
		return says + "could not be asked: " + e.cause.Error()
	}
	return says + fmt.Sprintf("answered %d", e.status)
}

// why tells, in words, what the client got and then one cause after the other.
func (t *trouble) why() []string {
	first, rest := t.because()
	return append([]string{t.got() + " because " + first}, rest...)
}

// got is what the client got.
func (t *trouble) got() string {
	status := strconv.Itoa(t.status)
	if t.grpc >= told {
		status = mesh.GRPCCode(t.grpc.value()).String()
	}
	switch {
	case t.kind == ClientGone:
		return fmt.Sprintf("the client went away after %v", round(t.took))
	case t.status == 0:
		return "the client got no reply"
	case t.broken:
		return fmt.Sprintf("the client got a %s that broke off", status)
	case t.status < 400 && t.kind == NoError:
		return fmt.Sprintf("the client waited %v for its %s", round(t.waited), status)
	case t.flag != "-":
		return fmt.Sprintf("the client got %s %s", status, t.flag)
	}
	return "the client got " + status
}

// because is the first cause, and what lies behind it.
func (t *trouble) because() (string, []string) {
	tries := t.tellTries()
	switch t.kind {
	case NoError:
		return t.unfailed(tries)
	case NoRoute:
		if t.found {
			return fmt.Sprintf("none of the %d rules of %s fits %s %s", t.rules, t.host, t.method, t.path), nil
		}
		if t.portless != "" {
			return fmt.Sprintf("the %s listener knows the host of %q, which has %s", t.listener, t.authority, t.portless), nil
		}
		return fmt.Sprintf("the %s listener knows nobody by the name %q%s", t.listener, t.authority, t.outside), nil
	case NoDestination:
		return t.ruled() + " sends to what nobody defines: " + strings.Join(orNone(t.undefined), ", "), nil
	case NoHealthy:
		first := t.ruled() + " has no endpoint that can serve"
		if len(t.tries) > 0 {
			first += ", those that were tried included"
		}
		if len(t.nobody) == 0 && len(t.tries) == 0 {
			return first + ": none is known for " + strings.Join(orNone(t.targets), ", "), nil
		}
		return first, append(tries, t.nobody...)
	case ConnectFailure, ConnectTimeout, LinkDown, Stalled, Terminated, RemoteReset, Refused, NoUpgrade, BadReply:
		return kindWords[t.kind] + t.noMore(), tries
	case Overflow:
		if n := len(t.tries); n > 0 && t.tries[n-1].cause == errCrowded {
			return errCrowded.Error(), tries
		}
		first := "the upstream had as many requests or connections under way as its connectionPool allows"
		if t.pool.File != "" {
			first += " (" + t.pool.String() + ")"
		}
		return first, tries
	case Timeout:
		return t.outOfTime(), tries
	case TryTimeout:
		per := time.Duration(0)
		if t.retries != nil {
			per = t.retries.PerTryTimeout
		}
		return fmt.Sprintf("no try had its reply within the perTryTimeout of %v of %s", per, t.ruled()) + t.noMore(), tries
	case FaultInjected:
		return t.ruled() + " has a fault that aborts " + percent(t.fault) + " of its requests", nil
	case RequestTimeout:
		return "the request did not come within the time it has (downstream.headTimeout, stallTimeout, minRate)", nil
	case BodyTooLarge:
		return fmt.Sprintf("the request's body is larger than downstream.maxBody, %d bytes", t.patience.maxBody), nil
	case Misdirected:
		return fmt.Sprintf("TLS was begun for another server of the gateway than the one that is for %q, or none is", t.authority), nil
	case ClientGone:
		return "it did not wait for the reply", tries
	}
	if t.refused != nil {
		return kindWords[t.kind] + ": " + t.refused.Error(), nil
	}
	if said, ok := t.cause.(notTaken); ok {
		return string(said), nil
	}
	if t.cause != nil {
		return kindWords[t.kind] + ": " + t.cause.Error(), nil
	}
	return kindWords[t.kind], nil
}

// kindWords say what a kind of failure is; of those that need no more than this.
var kindWords = map[Kind]string{
	ConnectFailure:  "no connection to an endpoint could be made",
	ConnectTimeout:  "an endpoint did not answer when it was connected to",
	LinkDown:        "the endpoint's cluster cannot be reached",
	Stalled:         "the endpoint's host no longer acknowledged what it was sent",
	Terminated:      "the endpoint ended the connection before its reply was whole",
	RemoteReset:     "the endpoint reset the request before its reply was whole",
	Refused:         "the endpoint refused to look at the request",
	NoUpgrade:       "the endpoint does not take what the request asks for in the place of HTTP",
	BadReply:        "the endpoint's reply is not HTTP as the RFC has it",
	BadRequest:      "the request is not one that everybody would read alike",
	GloballyLimited: "a rate limit of several proxies has no room for it",
	LimitUnknown:    "nobody could tell whether a rate limit has room for it",
	RateLimited:     "a rate limit has no room for it",
	Unauthorized:    "its token is not to be believed",
	Forbidden:       "a policy says no",
	Denied:          "an authorization service does not let it pass",
	PlainText:       "it came in plain text where mTLS is asked for, or the other way round",
	Timeout:         "time was up",
	TryTimeout:      "the time of this try was up",
	Overflow:        "there were as many requests or connections as its connectionPool allows",
	Overloaded:      "all clients together took more memory than the proxy may have (overload.memory)",
	Shed:            "bodies that nobody read held more memory than the proxy may have for them (overload.memory)",
	CutOff:          "the proxy ended before it was over (drain.timeout)",
	ClientGone:      "the client went away",
}

// unfailed is the cause of an answer that is no failure of the proxy's: of a
// route that answers by itself, of an application, of slowness.
func (t *trouble) unfailed(tries []string) (string, []string) {
	switch {
	case len(t.tries) == 0 && t.direct:
		return t.ruled() + " answers so by itself (directResponse)", nil
	case len(t.tries) == 0 && t.redirect:
		return t.ruled() + " redirects", nil
	case t.status >= 500:
		return "the endpoint answered so" + t.noMore(), tries
	}
	first := fmt.Sprintf("its reply took longer than %v to begin", t.slow)
	if t.delayed > 0 {
		tries = append([]string{fmt.Sprintf("a fault of %s has delayed it by %v", t.ruled(), round(t.delayed))}, tries...)
	}
	return first, tries
}

// outOfTime says whose deadline has passed.
func (t *trouble) outOfTime() string {
	if t.timeout != 0 && t.deadline >= t.timeout {
		return fmt.Sprintf("%s gives it %v", t.ruled(), t.timeout)
	}
	if t.deadline != 0 {
		return fmt.Sprintf("its caller waits %v for it (x-envoy-upstream-rq-timeout-ms, x-envoy-expected-rq-timeout-ms or grpc-timeout)", round(t.deadline))
	}
	return "time was up"
}

// noMore says why there was no further try.
func (t *trouble) noMore() string {
	if t.broken || !t.routed || t.retries == nil || len(t.tries) == 0 {
		return ""
	}
	switch n := len(t.tries); {
	case t.retries.Attempts == 0:
		return fmt.Sprintf("; after %s there was nobody else to try, or the request may not be sent twice", count(n, "try", "tries"))
	default:
		return fmt.Sprintf("; %s made, the route allows %d retries of what its retryOn names", count(n, "try was", "tries were"), t.retries.Attempts)
	}
}

// ruled names the route.
func (t *trouble) ruled() string {
	switch {
	case !t.routed:
		return "the route"
	case t.source.File == "":
		return "the route that " + orUnknown(t.host) + " has without a VirtualService"
	case t.route == t.source.String():
		return "the rule at " + t.route
	}
	return fmt.Sprintf("the rule %s (%s)", t.route, t.source)
}

// tellTries says of each try what became of it.
func (t *trouble) tellTries() []string {
	var out []string
	for i := range t.tries {
		k := &t.tries[i]
		what := kindWords[k.kind]
		switch {
		case k.kind == NoError && k.status != 0, k.kind == retriableStatus:
			what = fmt.Sprintf("it answered %d", k.status)
		case k.cause == errCrowded:
			out = append(out, fmt.Sprintf("try %d, %s in %s, %v: %v", i+1, k.endpoint, k.cluster, round(k.took), k.cause))
			continue
		case what == "":
			what = detailOf(k.kind, k.last && t.answered)
		}
		line := fmt.Sprintf("try %d, %s in %s, %v: %s", i+1, k.endpoint, k.cluster, round(k.took), what)
		if k.cause != nil {
			line += ": " + k.cause.Error()
		}
		out = append(out, line)
	}
	return out
}

// round makes a duration readable.
func round(d time.Duration) time.Duration {
	switch {
	case d > time.Second:
		return d.Round(10 * time.Millisecond)
	case d > time.Millisecond:
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func orNone(list []string) []string {
	if len(list) == 0 {
		return []string{"no destination"}
	}
	return list
}

func orUnknown(s string) string {
	if s == "" {
		return "the host"
	}
	return s
}

// percent writes the share of requests that a fault aborts.
func percent(f *mesh.Fault) string {
	if f == nil {
		return "some"
	}
	return fmt.Sprintf("%g %%", 100*float64(f.AbortShare)/float64(mesh.AllRequests))
}
