package health

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"isthmus/mesh"
)

// lookGRPC asks grpc.health.v1.Health.Check over plain HTTP/2. It is one message
// each way, of one field each, for which net/http is enough; grpc-go would be
// 4 MiB of memory in every proxy.
func lookGRPC(ctx context.Context, address, service string) error {
	what := strings.TrimSpace("grpc " + service)
	status, err := checkGRPC(ctx, address, service)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", what, plain(ctx, err))
	case status != serving:
		return fmt.Errorf("%s: %s", what, statusName(status))
	}
	return nil
}

// serving is HealthCheckResponse.SERVING (grpc/health/v1/health.proto).
const serving = 1

func statusName(n uint64) string {
	names := [...]string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}
	if n < uint64(len(names)) {
		return names[n]
	}
	return "status " + strconv.FormatUint(n, 10)
}

// checkGRPC calls the method and returns HealthCheckResponse.status.
func checkGRPC(ctx context.Context, address, service string) (uint64, error) {
	message := protowire.AppendTag(nil, 1, protowire.BytesType)
	message = protowire.AppendString(message, service)
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))) // not compressed
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/grpc.health.v1.Health/Check", bytes.NewReader(append(frame, message...)))
	if err != nil {
		return 0, err
	}
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {"isthmus-probe"}}
	t := &http.Transport{DisableCompression: true, Protocols: &http.Protocols{}}
	t.Protocols.SetUnencryptedHTTP2(true)
	defer t.CloseIdleConnections()
	res, err := t.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("HTTP status %d", res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxProbeBody))
	if err != nil {
		return 0, err
	}
	code := res.Trailer.Get("Grpc-Status")
	if code == "" {
		code = res.Header.Get("Grpc-Status") // a reply of trailers only
	}
	if code != "0" {
		return 0, errors.New(codeName(code))
	}
	return parseCheck(body)
}

// codeName is the name of a status of gRPC.
func codeName(text string) string {
	n, err := strconv.Atoi(text)
	if err != nil {
		return "no gRPC status"
	}
	return mesh.GRPCCode(n).String()
}

var errGRPC = errors.New("malformed gRPC message")

// parseCheck reads a framed HealthCheckResponse.
func parseCheck(b []byte) (status uint64, err error) {
	if len(b) < 5 || b[0] != 0 || int64(binary.BigEndian.Uint32(b[1:])) != int64(len(b)-5) {
		return 0, errGRPC
	}
	for b = b[5:]; len(b) > 0; {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return 0, errGRPC
		}
		b = b[n:]
		if field == 1 && kind == protowire.VarintType {
			if status, n = protowire.ConsumeVarint(b); n < 0 {
				return 0, errGRPC
			}
		} else if n = protowire.ConsumeFieldValue(field, kind, b); n < 0 {
			return 0, errGRPC
		}
		b = b[n:]
	}
	return status, nil
}
