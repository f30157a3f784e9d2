package health

import (
	"testing"

	"google.golang.org/protobuf/proto"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// TestParseCheck: what is no whole reply is none.
func TestParseCheck(t *testing.T) {
	for _, tt := range []struct {
		name string
		b    string
		want int // status; -1: refused
	}{
		{"serving", "\x00\x00\x00\x00\x02\x08\x01", 1},
		{"unknown", "\x00\x00\x00\x00\x00", 0},
		{"another field", "\x00\x00\x00\x00\x02\x10\x01", 0},
		{"another type", "\x00\x00\x00\x00\x03\x0a\x01x", 0},
		{"nothing", "", -1},
		{"half a head", "\x00\x00\x00\x00", -1},
		{"compressed", "\x01\x00\x00\x00\x02\x08\x01", -1},
		{"less than it says", "\x00\x00\x00\x00\x03\x08\x01", -1},
		{"more than it says", "\x00\x00\x00\x00\x01\x08\x01", -1},
		{"half a tag", "\x00\x00\x00\x00\x01\x80", -1},
		{"no value", "\x00\x00\x00\x00\x01\x08", -1},
		{"half another field", "\x00\x00\x00\x00\x02\x12\x05", -1},
	} {
		got, err := parseCheck([]byte(tt.b))
		if tt.want < 0 && err == nil || tt.want >= 0 && (err != nil || int(got) != tt.want) {
			t.Errorf("%s: %d, %v, want %d", tt.name, got, err, tt.want)
		}
	}
}

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
