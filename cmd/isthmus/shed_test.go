package main

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
)

// TestShed_Seen: whoever looks at any proxy of the mesh sees that another one refuses
// connections.
func TestShed_Seen(t *testing.T) {
	var ports [2]int
	if err := freePorts([]*int{&ports[0], &ports[1]}); err != nil {
		t.Fatal(err)
	}
	gossip := func(own, other int) string {
		return fmt.Sprintf("gossip: {bind: \"127.0.0.1:%d\", advertise: \"127.0.0.1:%d\", join: [\"127.0.0.1:%d\"]}\n", own, own, other)
	}
	files := map[string]string{"mesh/mesh.yaml": service(t, "web.test", "http://127.0.0.1:1")}
	full := runProxy(t, "overload: {connections: 1}\n"+gossip(ports[0], ports[1]), files)
	t.Setenv("ISTHMUS_NODE_CLUSTER", "far")
	other := runProxy(t, gossip(ports[1], ports[0]), files)
	top := func() string {
		out, err := exec.Command(program, "top", "--admin", "http://"+other.admin).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	dial := func() net.Conn {
		c, err := net.Dial("tcp", full.outbound)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	busy := dial()
	defer busy.Close()
	if _, err := busy.Write([]byte("GET / HTTP/1.1\r\n")); err != nil {
		t.Fatal(err)
	}
	const line = "critical: new connections of clients are refused at their limit by 1 proxy: default/default/n\n"
	eventually(t, "the other proxy tells", func() bool {
		dial().Close()
		return strings.Contains(top(), line)
	})
	members := fetch[[]struct{ Name string }](t, other, "GET", "/members?q=sheds")
	if len(members) != 1 || members[0].Name != "default/default/n" {
		t.Errorf("a search finds %v", members)
	}
}
