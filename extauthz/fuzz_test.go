package extauthz

import (
	"google.golang.org/protobuf/proto"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"isthmus/mesh"
)

// Written apart from the code under test, so that they can contradict it.
var (
	goodName  = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9a-z-]+$")
	badValue  = regexp.MustCompile(`[\x00-\x08\x0a-\x1f\x7f]|^[ \t]|[ \t]$`)
	protected = regexp.MustCompile(`^(:.*|host|content-length|transfer-encoding|connection|keep-alive|proxy-connection|te|trailer|upgrade|expect|x-forwarded-client-cert|x-isthmus-.*)$`)
)

func checkSafe(t *testing.T, v *Verdict) {
	t.Helper()
	for _, list := range [][]mesh.NameValue{v.Set, v.Add, v.Downstream, v.DownstreamSet} {
		for _, f := range list {
			if !goodName.MatchString(f.Name) || protected.MatchString(f.Name) || badValue.MatchString(f.Value) {
				t.Fatalf("field %q: %q", f.Name, f.Value)
			}
		}
	}
	for _, name := range v.Remove {
		if !goodName.MatchString(name) || protected.MatchString(name) {
			t.Fatalf("removes %q", name)
		}
		if indexName(v.Set, name) >= 0 || indexName(v.Add, name) >= 0 {
			t.Fatalf("sets and removes %q", name)
		}
	}
	changes := len(v.Set) + len(v.Add) + len(v.Remove) + len(v.DownstreamSet)
	if !v.Allowed && (v.Status < 200 || v.Status > 599 || changes > 0 || len(v.Body) > 64<<10) {
		t.Fatalf("refusal %+v", v)
	}
	if v.Allowed && (v.Status != 0 || v.Fault != nil || len(v.Body) > 0) {
		t.Fatalf("allowed %+v", v)
	}
	if v.Fault != nil && len(v.Downstream)+len(v.Body) > 0 {
		t.Fatalf("fault %+v", v)
	}
}

// FuzzVerdict: whatever a service answers, a verdict holds nothing that could
// break out of a message or speak for the proxy, and no refusal is allowed.
func FuzzVerdict(f *testing.F) {
	f.Add("x-user", "alice", "authorization", int32(0), false, false, int32(0), int32(403), "no")
	f.Add("Host ", "a\r\nb: c", ":path", int32(1), true, true, int32(7), int32(100), "")
	f.Add("x-\u212a", " a\t", "X-Isthmus-A,b", int32(3), true, false, int32(0), int32(999), "")
	f.Add("Connection", "close", "a\nb", int32(9), false, false, int32(0), int32(204), "x")
	f.Fuzz(func(t *testing.T, name, value, removed string, action int32, hasAppend, appends bool, code, status int32, body string) {
		o := &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}, AppendAction: corev3.HeaderValueOption_HeaderAppendAction(action)}
		if hasAppend {
			//lint:ignore SA1019 services still say it
			o.Append = wrapperspb.Bool(appends)
		}
		options := []*corev3.HeaderValueOption{o, {Header: &corev3.HeaderValue{Key: "x-fixed", RawValue: []byte(value)}}, o}
		verdict := readCheck(wired(t, &authv3.CheckResponse{
			Status: &rpcstatus.Status{Code: code},
			HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
				Headers: options, ResponseHeadersToAdd: options, HeadersToRemove: []string{removed, "x-also"},
			}},
		}), fieldsOf(removed, value))
		checkSafe(t, verdict)
		if verdict.Allowed && (code != 0 || !slices.Contains(verdict.Remove, "x-also")) {
			t.Fatalf("code %d: %+v", code, verdict)
		}
		verdict = readCheck(wired(t, &authv3.CheckResponse{
			Status: &rpcstatus.Status{Code: code},
			HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
				Status: &typev3.HttpStatus{Code: typev3.StatusCode(status)}, Headers: options, Body: body,
			}},
		}), nil)
		checkSafe(t, verdict)
		if verdict.Allowed {
			t.Fatal("denied, but allowed")
		}

		s := newHTTPService(&mesh.AuthorizationProvider{UpstreamOnAllow: []string{"*"}, DownstreamOnAllow: []string{"*"}}, nil)
		h := http.Header{name: {value, value}, http.CanonicalHeaderKey(toRemove): {removed}}
		checkSafe(t, s.allow(h))
		verdict = s.deny(int(status), h, []byte(body))
		checkSafe(t, verdict)
		if verdict.Allowed {
			t.Fatal("denied, but allowed")
		}
	})
}

// FuzzPatterns holds the matcher to regular expressions.
func FuzzPatterns(f *testing.F) {
	f.Add("x-*", "X-A")
	f.Add("*-id", "x-ID")
	f.Add("*", "a")
	f.Add("cookie", "Cookie2")
	f.Add("*a*", "bab*")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		for i := range len(pattern) + len(name) {
			if (pattern + name)[i] >= 0x80 {
				t.Skip() // names are ASCII
			}
		}
		var expression string
		switch quote := regexp.QuoteMeta; {
		case strings.HasPrefix(pattern, "*"):
			expression = "(?is)^.*" + quote(pattern[1:]) + "$"
		case strings.HasSuffix(pattern, "*"):
			expression = "(?is)^" + quote(pattern[:len(pattern)-1]) + ".*$"
		default:
			expression = "(?is)^" + quote(pattern) + "$"
		}
		want := regexp.MustCompile(expression).MatchString(name)
		if got := newPatterns([]string{pattern}).match(strings.ToLower(name)); got != want {
			t.Fatalf("%q on %q: %v", pattern, name, got)
		}
	})
}

// wired sends a message and reads it again. One that protobuf would not send, for
// texts that are not UTF-8, ends the test.
func wired(t *testing.T, m *authv3.CheckResponse) *checkResponse {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Skip()
	}
	r, err := parseCheckResponse(b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// FuzzCheckResponse: of what protobuf reads as an answer, we read the same; of
// anything else, nothing that could be sent on.
func FuzzCheckResponse(f *testing.F) {
	for _, m := range []*authv3.CheckResponse{okSetting(option("x-a", "b")), deniedWith(7, &authv3.DeniedHttpResponse{Body: "no"}), {}} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseCheckResponse(b)
		var want authv3.CheckResponse
		if proto.Unmarshal(b, &want) == nil && err != nil {
			t.Fatalf("protobuf reads %v, and we %v", &want, err)
		}
		if err == nil {
			checkSafe(t, readCheck(got, nil))
		}
	})
}
