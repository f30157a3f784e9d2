package admin

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
)

// Status is the state of a proxy in short.
type Status struct {
	Ready    bool     `json:"ready"`
	Reason   string   `json:"reason,omitempty"`
	Node     string   `json:"node"`
	Version  string   `json:"version"`
	Snapshot Snapshot `json:"snapshot"`
	Canary   string   `json:"canary,omitempty"` // of a candidate configuration, in a few words
	Warnings int      `json:"warnings"`

	Endpoints      int               `json:"endpoints"`
	EndpointsReady int               `json:"endpointsReady"`
	Members        int               `json:"members"`
	Listeners      map[string]string `json:"listeners"`

	Identity     string `json:"identity,omitempty"`     // SPIFFE ID of the proxy's certificate
	IdentityEnds string `json:"identityEnds,omitempty"` // when it expires, RFC 3339
}

// Snapshot is the configuration in force.
type Snapshot struct {
	Number uint64  `json:"number"`
	Hash   string  `json:"hash"`
	Age    float64 `json:"age"`   // seconds
	Error  string  `json:"error"` // why later files are not used

	Revision uint64 `json:"revision"` // of the configuration, in its history
	Rollback uint64 `json:"rollback"` // the revision that was brought back; 0: the files are in force
}

// WriteStatus writes a status for people.
func WriteStatus(w io.Writer, s Status) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	state := "ready"
	if !s.Ready {
		state = "not ready: " + s.Reason
	}
	fmt.Fprintf(t, "proxy\t%s\t%s\n", s.Node, state)
	fmt.Fprintf(t, "snapshot\t%d\tconfiguration %s, revision %d, %s old\n", s.Snapshot.Number, s.Snapshot.Hash, s.Snapshot.Revision, age(s.Snapshot.Age))
	if s.Warnings > 0 {
		fmt.Fprintf(t, "warnings\t%d\tisthmus validate --admin URL says which\n", s.Warnings)
	}
	fmt.Fprintf(t, "endpoints\t%d\t%d of them ready\n", s.Endpoints, s.EndpointsReady)
	fmt.Fprintf(t, "members\t%d\t\n", s.Members)
	for _, name := range slices.Sorted(maps.Keys(s.Listeners)) {
		fmt.Fprintf(t, "listener\t%s\t%s\n", name, s.Listeners[name])
	}
	if s.Identity != "" {
		fmt.Fprintf(t, "identity\t%s\tuntil %s\n", s.Identity, s.IdentityEnds)
	}
	if s.Canary != "" {
		fmt.Fprintf(t, "candidate\t%s\t\n", s.Canary)
	}
	t.Flush()
	if s.Snapshot.Rollback != 0 {
		fmt.Fprintf(w, "\nrolled back: the configuration of revision %d is in force until the files change\n", s.Snapshot.Rollback)
	}
	if s.Snapshot.Error != "" {
		fmt.Fprintf(w, "\nthe files have changed since, and are not used:\n%s\n", s.Snapshot.Error)
	}
}
