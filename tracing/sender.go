package tracing

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"isthmus/rpc"
)

// httpSender sends spans in the body of a POST.
type httpSender struct {
	transport *http.Transport
	url       *url.URL
	mediaType string
}

// idleCollector is how long a connection to a collector is kept that nothing is
// sent on.
const idleCollector = time.Minute

func newHTTPSender(o *Options, path, mediaType string) *httpSender {
	s := &httpSender{mediaType: mediaType}
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

// sentBody is the body of a request. The transport may read it for longer than the
// call takes, until it closes it.
type sentBody struct {
	bytes.Reader
	close func()
}

func (b *sentBody) Close() error {
	b.close()
	return nil
}

func (s *httpSender) send(ctx context.Context, message []byte) error {
	var bodies sync.WaitGroup // that are not closed
	body := func() (io.ReadCloser, error) {
		bodies.Add(1)
		return &sentBody{*bytes.NewReader(message), sync.OnceFunc(bodies.Done)}, nil
	}
	req := (&http.Request{Method: http.MethodPost, URL: s.url, Host: s.url.Host, ContentLength: int64(len(message)), GetBody: body}).WithContext(ctx)
	req.Body, _ = body()
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
	bodies.Wait()
	return nil
}

func (s *httpSender) close() { s.transport.CloseIdleConnections() }

// grpcSender sends spans by OTLP's service.
type grpcSender struct{ client *rpc.Client }

func newGRPCSender(o *Options) *grpcSender {
	return &grpcSender{rpc.NewClient(o.Authority, maxAnswer, o.Dial)}
}

func (s *grpcSender) send(ctx context.Context, message []byte) error {
	began := time.Now()
	_, err := s.client.Call(ctx, "/opentelemetry.proto.collector.trace.v1.TraceService/Export", message)
	if err != nil {
		s.client.Drop(began)
	}
	return err
}

func (s *grpcSender) close() { s.client.Close() }
