package extauthz

import (
	"context"
	"reflect"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"isthmus/mesh"
)

func option(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}}
}

func acting(name, value string, action corev3.HeaderValueOption_HeaderAppendAction) *corev3.HeaderValueOption {
	o := option(name, value)
	o.AppendAction = action
	return o
}

func appending(name, value string, appends bool) *corev3.HeaderValueOption {
	o := option(name, value)
	//lint:ignore SA1019 services still say it
	o.Append = wrapperspb.Bool(appends)
	return o
}

func okWith(ok *authv3.OkHttpResponse) *authv3.CheckResponse {
	return &authv3.CheckResponse{Status: &rpcstatus.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok}}
}

func deniedWith(code codes.Code, d *authv3.DeniedHttpResponse) *authv3.CheckResponse {
	return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(code)}, HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: d}}
}

func okSetting(options ...*corev3.HeaderValueOption) *authv3.CheckResponse {
	return okWith(&authv3.OkHttpResponse{Headers: options})
}

func TestGRPCAnswers(t *testing.T) {
	checkLeaks(t)
	var answer *authv3.CheckResponse
	at := grpcServer(t, func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) { return answer, nil })
	a := newTestAsker(t, &mesh.AuthorizationProvider{GRPC: true, FailOpen: true}, at)
	const (
		appendOrAdd       = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
		addIfAbsent       = corev3.HeaderValueOption_ADD_IF_ABSENT
		overwriteOrAdd    = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
		overwriteIfExists = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS
	)
	spoilt := &Verdict{Status: 500}
	for name, tt := range map[string]struct {
		answer *authv3.CheckResponse
		want   *Verdict
	}{
		"status alone":         {&authv3.CheckResponse{Status: &rpcstatus.Status{}}, &Verdict{Allowed: true}},
		"ok without status":    {&authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_OkResponse{}}, &Verdict{Allowed: true}},
		"empty":                {&authv3.CheckResponse{}, &Verdict{Status: 403}},
		"denied by status":     {&authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)}}, &Verdict{Status: 403}},
		"denied by odd status": {&authv3.CheckResponse{Status: &rpcstatus.Status{Code: -1}}, &Verdict{Status: 403}},
		"denied, ok response": {
			&authv3.CheckResponse{Status: &rpcstatus.Status{Code: 7}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{option("a", "b")}}}},
			&Verdict{Status: 403},
		},
		"ok, denied response": {deniedWith(codes.OK, &authv3.DeniedHttpResponse{}), &Verdict{Status: 403}},
		"denied response without status": {
			&authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: 401}}}},
			&Verdict{Status: 401},
		},
		"denied with all": {
			deniedWith(codes.Unauthenticated, &authv3.DeniedHttpResponse{
				Status: &typev3.HttpStatus{Code: 302}, Body: "no",
				Headers: []*corev3.HeaderValueOption{option("Location", "/login"), option("set-cookie", "a=1"), appending("set-cookie", "b=2", true), option("Content-Length", "7"), option(":status", "200"), option("x-isthmus-unsent", "1"), option("connection", "close"), option("host", "a")},
			}),
			&Verdict{Status: 302, Body: []byte("no"), Downstream: nv("location", "/login", "set-cookie", "a=1", "set-cookie", "b=2")},
		},
		"denied with 5xx":        {deniedWith(7, &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: 503}}), &Verdict{Status: 503}},
		"denied with 304":        {deniedWith(7, &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: 304}, Body: "x"}), &Verdict{Status: 304}},
		"denied with 100":        {deniedWith(7, &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: 100}}), spoilt},
		"denied with 1000":       {deniedWith(7, &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: 1000}}), spoilt},
		"denied with -200":       {deniedWith(7, &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: -200}}), spoilt},
		"denied, long body":      {deniedWith(7, &authv3.DeniedHttpResponse{Body: strings.Repeat("x", 100<<10)}), &Verdict{Status: 403, Body: []byte(strings.Repeat("x", 64<<10))}},
		"denied, injected value": {deniedWith(7, &authv3.DeniedHttpResponse{Headers: []*corev3.HeaderValueOption{option("location", "/a\r\nset-cookie: evil=1")}}), spoilt},
		"appends": {
			okSetting(option("X-A", "1"), appending("x-b", "2", true), appending("x-c", "3", false), option("x-a", "4"), appending("x-b", "5", true)),
			&Verdict{Allowed: true, Set: nv("x-a", "4", "x-c", "3"), Add: nv("x-b", "2", "x-b", "5")},
		},
		"append actions": {
			okSetting(acting("x-a", "1", appendOrAdd), acting("x-b", "2", overwriteOrAdd), acting("x-had", "3", addIfAbsent), acting("x-new", "4", addIfAbsent), acting("x-new", "5", addIfAbsent),
				acting("x-none", "6", overwriteIfExists), acting("X-HAD", "7", overwriteIfExists)),
			&Verdict{Allowed: true, Set: nv("x-a", "1", "x-b", "2", "x-new", "4", "x-had", "7")},
		},
		"no append action": {okSetting(acting("x-a", "1", 9)), spoilt},
		"raw value, empty value, white space": {
			okSetting(&corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: "x-a", RawValue: []byte("\xff")}}, option("x-b", ""), option("x-c", " c\t")),
			&Verdict{Allowed: true, Set: nv("x-a", "\xff", "x-b", "", "x-c", "c")},
		},
		"reserved": {
			okWith(&authv3.OkHttpResponse{
				Headers: []*corev3.HeaderValueOption{
					option("Host", "a"), option(":authority", "a"), option(":path", "/"), option("Content-Length", "1"), option("Transfer-Encoding", "chunked"), option("connection", "x-user"),
					option("X-Isthmus-Destination", "a:1"), option("X-Forwarded-Client-Cert", "By=evil"), option("te", "trailers"), option("upgrade", "h2c"), option("expect", "100-continue"), option("keep-alive", "1"),
				},
				HeadersToRemove:      []string{"host", ":method", "content-length", "X-Forwarded-Client-Cert", "x-isthmus-a", "Authorization", "authorization", "transfer-encoding"},
				ResponseHeadersToAdd: []*corev3.HeaderValueOption{option("x-isthmus-unsent", "1"), option("content-length", "1"), option("trailer", "a")},
			}),
			&Verdict{Allowed: true, Remove: []string{"authorization"}},
		},
		"removed after all": {
			okWith(&authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{option("x-a", "1"), appending("X-A", "2", true), option("x-b", "3")}, HeadersToRemove: []string{"X-a"}}),
			&Verdict{Allowed: true, Set: nv("x-b", "3"), Add: []mesh.NameValue{}, Remove: []string{"x-a"}},
		},
		"reply's fields": {
			okWith(&authv3.OkHttpResponse{ResponseHeadersToAdd: []*corev3.HeaderValueOption{option("Set-Cookie", "a"), appending("x-a", "1", true), appending("x-b", "2", false), acting("x-b", "3", overwriteOrAdd)}}),
			&Verdict{Allowed: true, Downstream: nv("set-cookie", "a", "x-a", "1"), DownstreamSet: nv("x-b", "3")},
		},
		"reply's conditional field": {okWith(&authv3.OkHttpResponse{ResponseHeadersToAdd: []*corev3.HeaderValueOption{acting("x-a", "1", addIfAbsent)}}), spoilt},
		"query parameters set":      {okWith(&authv3.OkHttpResponse{QueryParametersToSet: []*corev3.QueryParameter{{Key: "a"}}}), spoilt},
		"query parameters removed":  {okWith(&authv3.OkHttpResponse{QueryParametersToRemove: []string{"token"}}), spoilt},
		"value with CRLF":           {okSetting(option("x-a", "1\r\nx-admin: 1")), spoilt},
		"value with LF":             {okSetting(option("x-a", "1\nx-admin: 1")), spoilt},
		"value with NUL":            {okSetting(option("x-a", "1\x00")), spoilt},
		"raw value with CR":         {okSetting(&corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: "x-a", RawValue: []byte("a\rb")}}), spoilt},
		"name with colon":           {okSetting(option("x-a: 1\r\nx-admin", "1")), spoilt},
		"name with space":           {okSetting(option("host ", "evil")), spoilt},
		"name that lowers to ASCII": {okSetting(option("x-\u212a", "1")), spoilt}, // the Kelvin sign
		"no name":                   {okSetting(option("", "1")), spoilt},
		"no field":                  {okSetting(&corev3.HeaderValueOption{}), spoilt},
		"removes no name":           {okWith(&authv3.OkHttpResponse{HeadersToRemove: []string{"a\r\nb"}}), spoilt},
		"reply's injected value":    {okWith(&authv3.OkHttpResponse{ResponseHeadersToAdd: []*corev3.HeaderValueOption{option("a", "b\nc: d")}}), spoilt},
		"too many fields":           {okSetting(option("a", strings.Repeat("x", 40<<10)), option("b", strings.Repeat("x", 40<<10))), spoilt},
	} {
		answer = tt.answer
		v, err := a.Ask(context.Background(), getCall("/", "x-had", "old"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if (tt.want == spoilt) != (v.Fault != nil) {
			t.Errorf("%s: fault: %v", name, v.Fault)
		}
		if v.Fault = nil; len(v.Body) == 0 {
			v.Body = nil
		}
		if !reflect.DeepEqual(v, tt.want) {
			t.Errorf("%s: %+v\nwant %+v", name, v, tt.want)
		}
	}
}
