package tracing

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"isthmus/rpc"
)

// httpSender sends spans in the body of a POST.
type httpSender struct {
	transport *http.Transport
	url       *url.URL
	mediaType string
	resource  *Resource
	encode    func(*Resource, []Span) []byte
}

// idleCollector is how long a connection to a collector is kept that nothing is
// sent on.
const idleCollector = time.Minute

func newHTTPSender(o *Options, path, mediaType string, encode func(*Resource, []Span) []byte) *httpSender {
	s := &httpSender{mediaType: mediaType, resource: &o.Resource, encode: encode}
	s.url = &url.URL{Scheme: "http", Host: o.Authority, Path: path}
	if o.Path != "" {
		s.url.Path = o.Path
	}
	if o.TLS {
		s.url.Scheme = "https"
	}
	dial := o.Dial
	s.transport = &http.Transport{
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		MaxConnsPerHost: 1, IdleConnTimeout: idleCollector, DisableCompression: true, MaxResponseHeaderBytes: rpc.MaxFields,
	}
	return s
}

// maxAnswer is how much of an answer is read, so that the connection can be kept.
const maxAnswer = 64 << 10

func (s *httpSender) send(ctx context.Context, spans []Span) error {
	body := s.encode(s.resource, spans)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header = http.Header{"Content-Type": {s.mediaType}, "User-Agent": {"isthmus"}}
	res, err := s.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.CopyN(io.Discard, res.Body, maxAnswer); err != nil && err != io.EOF {
		return err
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("HTTP status %d", res.StatusCode)
	}
	return nil
}

func (s *httpSender) close() { s.transport.CloseIdleConnections() }

// grpcSender sends spans by OTLP's service.
type grpcSender struct {
	client   *rpc.Client
	resource *Resource
}

func newGRPCSender(o *Options) *grpcSender {
	return &grpcSender{client: rpc.NewClient(o.Authority, maxAnswer, o.Dial), resource: &o.Resource}
}

func (s *grpcSender) send(ctx context.Context, spans []Span) error {
	began := time.Now()
	_, err := s.client.Call(ctx, "/opentelemetry.proto.collector.trace.v1.TraceService/Export", otlpRequest(s.resource, spans))
	if err != nil {
		s.client.Drop(began)
	}
	return err
}

func (s *grpcSender) close() { s.client.Close() }
