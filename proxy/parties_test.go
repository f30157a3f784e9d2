package proxy

import (
	"strings"
	"testing"

	"isthmus/telemetry"
)

// TestIntroducedBy: what a proxy says of itself is read as far as it may be
// shown, and cannot change who it is.
func TestIntroducedBy(t *testing.T) {
	const id = "spiffe://cluster.local/ns/shop/sa/frontend"
	who := telemetry.Party{Principal: id, Namespace: "shop"}
	full := who
	full.App, full.Cluster, full.Version, full.Workload, full.Service, full.Revision = "a", "c1", "v1", "w", "s", "r"
	for said, want := range map[string]telemetry.Party{
		"": who,
		"app=a&cluster=c1&version=v1&workload=w&service=s&revision=r": full,
		"namespace=other&principal=other":                             who,
		"app=a%0ab":                                                   who,
		"app=unknown&workload=unknown":                                who,
		"app=%zz":                                                     who,
		"app=" + strings.Repeat("a", maxName+1):                       who,
		"x=" + strings.Repeat("a", maxIntroduction) + "&app=a":        who,
	} {
		if got := introducedBy(id, []byte(said)); got != want {
			t.Errorf("%.40q: %+v, want %+v", said, got, want)
		}
	}
	n := testNode()
	if got := introducedBy(id, introduction(n)); got.App != "client" || got.Workload != "n1" || got.Cluster != "c1" {
		t.Errorf("%s is read as %+v", introduction(n), got)
	}
}

// TestNobodyLabels: what is for nobody is told from what has too many labels, and
// an application's proxy says whose it is.
func TestNobodyLabels(t *testing.T) {
	n := testNode()
	for kind, want := range map[listenerKind]telemetry.Labels{
		outbound: {Reporter: "source", Source: partyOfNode(n)},
		gateway:  {Reporter: "source", Source: partyOfNode(n)},
		inbound:  {Reporter: "destination", Destination: telemetry.Party{Workload: "n1", Namespace: "default", Cluster: "c1", App: "client", Service: "client", Revision: "latest"}},
	} {
		if got := nobodyLabels(n, kind, ""); got != want {
			t.Errorf("%v: %+v, want %+v", kind, got, want)
		}
	}
}

// FuzzIntroducedBy: nothing that is said breaks, or makes a label that is no name.
func FuzzIntroducedBy(f *testing.F) {
	f.Add([]byte("app=a&cluster=c1"))
	f.Add([]byte("app=%0a&%zz;=&workload=\xff"))
	f.Fuzz(func(t *testing.T, said []byte) {
		p := introducedBy("spiffe://td/ns/a/sa/b", said)
		for _, field := range introduced(&p) {
			if s := *field.value; len(s) > maxName || !isName(s) {
				t.Errorf("%q", s)
			}
		}
	})
}
