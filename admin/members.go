package admin

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Member is a gossip member as it is shown.
type Member struct {
	Name     string `json:"name"`
	Cluster  string `json:"cluster"`
	Locality string `json:"locality"`
	Address  string `json:"address"`
	State    string `json:"state"`
	Version  string `json:"version"`

	Digest *Digest `json:"digest,omitempty"` // nil: none has come lately
}

// WriteMembers writes members for people.
func WriteMembers(w io.Writer, list []Member) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tCLUSTER\tLOCALITY\tADDRESS\tSTATE\tVERSION")
	for _, m := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", m.Name, m.Cluster, dash(m.Locality), m.Address, m.State, dash(m.Version))
	}
	t.Flush()
}

func memberTexts(b []byte, m *Member) []byte {
	b = texts(b, m.Name, m.Cluster, m.Locality, m.Address, m.State, m.Version)
	if d := m.Digest; d != nil {
		b = texts(b, d.Hash)
		if d.Refused {
			b = texts(b, "refused")
		}
		if !d.Ready {
			b = texts(b, "not ready")
		}
		if d.Shed != "" {
			b = texts(b, "sheds load")
		}
	}
	return b
}
