package health

import (
	"testing"

	"google.golang.org/protobuf/proto"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// FuzzParseCheck: what is taken, grpc-go reads alike.
func FuzzParseCheck(f *testing.F) {
	for _, status := range []healthpb.HealthCheckResponse_ServingStatus{0, 1, 2, 3, 77} {
		b, err := proto.Marshal(&healthpb.HealthCheckResponse{Status: status})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append([]byte{0, 0, 0, 0, byte(len(b))}, b...))
	}
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Add([]byte{1, 0, 0, 0, 0})
	f.Add([]byte{0, 0, 0, 0, 4, 0x12, 2, 'h', 'i'})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseCheck(b)
		if err != nil {
			return
		}
		var m healthpb.HealthCheckResponse
		if err := proto.Unmarshal(b[5:], &m); err == nil && uint32(m.Status) != uint32(got) {
			t.Fatalf("%d, grpc-go reads %d", got, m.Status)
		}
	})
}
