package tracing

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

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
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := dial(ctx)
			if err != nil {
				return nil, err
			}
			return &bodyConn{Conn: c}, nil
		},
		MaxConnsPerHost: 1, IdleConnTimeout: idleCollector, DisableCompression: true, MaxResponseHeaderBytes: rpc.MaxFields,
	}
	return s
}

// bodyConn is a connection that keeps the memory by which bodies are copied to it:
// net/http asks for 32 KiB anew with each.
type bodyConn struct {
	net.Conn
	buffer []byte // nil: none was copied
}

// ReadFrom implements [io.ReaderFrom]. One goroutine at a time calls it, as net/http does.
func (c *bodyConn) ReadFrom(r io.Reader) (int64, error) {
	if c.buffer == nil {
		c.buffer = make([]byte, 32<<10)
	}
	return io.CopyBuffer(struct{ io.Writer }{c.Conn}, struct{ io.Reader }{r}, c.buffer)
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

func (s *httpSender) send(ctx context.Context, message []byte) (partial, error) {
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
		return partial{}, &refusal{err: err}
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return partial{}, &refusal{err: err}
	}
	if res.StatusCode/100 != 2 {
		err := fmt.Errorf("HTTP status %d", res.StatusCode)
		if passes(res.StatusCode) {
			return partial{}, &refusal{err, retryAfter(res.Header.Get("Retry-After"))}
		}
		return partial{}, err
	}
	bodies.Wait()
	if !strings.HasPrefix(res.Header.Get("Content-Type"), "application/x-protobuf") { // Zipkin's say nothing
		return partial{}, nil
	}
	return readPartial(answer), nil
}

// readPartial reads an ExportTraceServiceResponse. What cannot be read says nothing.
func readPartial(answer []byte) (p partial) {
	_ = rpc.EachField(answer, func(field protowire.Number, b []byte) error {
		if field != 1 {
			return nil
		}
		return rpc.EachField(b, func(field protowire.Number, text []byte) error {
			if field == 2 {
				p.why = string(text)
			}
			return nil
		}, func(field protowire.Number, v uint64) {
			if field == 1 {
				p.lost = int(min(v, math.MaxInt32))
			}
		})
	}, nil)
	return p
}

// passes reports whether what a collector has refused with a status is to be sent again
// (OTLP: Failures, Retryable Response Codes).
func passes(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// retryAfter reads a field of that name: seconds, or a moment (RFC 9110 10.2.3).
func retryAfter(field string) time.Duration {
	if seconds, err := strconv.ParseUint(field, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(field); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}

func (s *httpSender) close() { s.transport.CloseIdleConnections() }

// grpcSender sends spans by OTLP's service.
type grpcSender struct{ client *rpc.Client }

func newGRPCSender(o *Options) *grpcSender {
	return &grpcSender{rpc.NewClient(o.Authority, maxAnswer, o.Dial)}
}

func (s *grpcSender) send(ctx context.Context, message []byte) (partial, error) {
	began := time.Now()
	answer, err := s.client.Call(ctx, "/opentelemetry.proto.collector.trace.v1.TraceService/Export", message)
	if err == nil {
		return readPartial(answer), nil
	}
	s.client.Drop(began)
	var said *rpc.StatusError
	if !errors.As(err, &said) {
		return partial{}, &refusal{err: err}
	}
	if said.HTTP != 0 {
		if passes(said.HTTP) {
			return partial{}, &refusal{err: err}
		}
		return partial{}, err
	}
	after, ok := retryInfo(said.Details)
	switch said.Code { // OTLP: Failures
	case "1", "4", "10", "11", "14", "15": // Canceled, DeadlineExceeded, Aborted, OutOfRange, Unavailable, DataLoss
		return partial{}, &refusal{err, after}
	case "8": // ResourceExhausted: it may never fit
		if ok {
			return partial{}, &refusal{err, after}
		}
	}
	return partial{}, err
}

// retryInfo reads how long to wait from grpc-status-details-bin, and whether there is
// something of the kind: a google.rpc.Status with a RetryInfo among its details.
func retryInfo(details string) (after time.Duration, ok bool) {
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(details, "="))
	if err != nil {
		return 0, false
	}
	rpc.EachField(b, func(field protowire.Number, detail []byte) error {
		if field != 3 {
			return nil
		}
		var kind string
		var value []byte
		err := rpc.EachField(detail, func(field protowire.Number, b []byte) error {
			switch field {
			case 1:
				kind = string(b)
			case 2:
				value = b
			}
			return nil
		}, nil)
		if err != nil || kind != "type.googleapis.com/google.rpc.RetryInfo" {
			return err
		}
		ok = true
		return rpc.EachField(value, func(_ protowire.Number, delay []byte) error {
			return rpc.EachField(delay, nil, func(field protowire.Number, v uint64) {
				switch n := time.Duration(min(v, math.MaxInt32)); field {
				case 1:
					after += n * time.Second
				case 2:
					after += n
				}
			})
		}, nil)
	}, nil)
	return after, ok
}

func (s *grpcSender) close() { s.client.Close() }
