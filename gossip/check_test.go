package gossip

import (
	"net"
	"strings"
	"testing"
	"time"

	"isthmus/mesh"
)

// TestCheck: what would keep a member from being made is told while another process has its
// port, and that is no reason.
func TestCheck(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	_, port, _ := net.SplitHostPort(taken)
	for _, tt := range []struct{ name, bind, held, want string }{
		{"free", "127.0.0.1:0", "", ""},
		{"the other's", taken, taken, ""},
		{"the other's at all addresses", taken, "0.0.0.0:" + port, ""},
		{"somebody's", taken, "127.0.0.1:1", "another process, has the port"},
		{"nobody's before", taken, "", "another process, has the port"},
		{"not here", "192.0.2.1:" + port, taken, "this machine has no such address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Check(Options{Node: &mesh.Node{Name: "a", Cluster: "one", Address: "127.0.0.1"}, Bind: tt.bind}, tt.held)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// TestLeave_Closed: who has let go of its port says no goodbye, and may be asked to.
func TestLeave_Closed(t *testing.T) {
	a := start(t, "a", nil)
	a.Close()
	if err := a.Leave(time.Second); err != nil {
		t.Error(err)
	}
}
