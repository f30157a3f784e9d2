package admin

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// Certificate is how one is that the proxy shows, or lives by.
type Certificate struct {
	Name    string    `json:"name"`              // "identity", "root" for the one that vouches for it, or the file
	Ends    time.Time `json:"ends,omitzero"`     // zero: there never was one that can be used
	Usable  bool      `json:"usable"`            // its files as they are now
	Error   string    `json:"error,omitempty"`   // why they are not
	Reloads uint64    `json:"reloads,omitempty"` // of the identity
	List    bool      `json:"list,omitempty"`    // it is a revocation list
}

// WriteCertificates writes certificates for people.
func WriteCertificates(w io.Writer, list []Certificate) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CERTIFICATE\tENDS\tIN FORCE")
	for _, c := range list {
		ends, inForce := "-", "as its files are"
		switch {
		case c.Ends.IsZero():
			inForce = "none: its files cannot be used"
		case !c.Usable:
			inForce = "an earlier one: its files cannot be used"
		}
		if c.Error != "" {
			inForce += ": " + c.Error
		}
		if !c.Ends.IsZero() {
			ends = c.Ends.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", c.Name, ends, inForce)
	}
	t.Flush()
}

func certificateTexts(b []byte, c *Certificate) []byte { return texts(b, c.Name, c.Error) }
