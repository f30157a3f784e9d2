package control

import (
	"cmp"
	"time"

	"isthmus/config"
	"isthmus/history"
	"isthmus/mesh"
)

// Status is what an operator wants to know of it.
type Status struct {
	Ready    bool   `json:"ready"`
	Reason   string `json:"reason,omitempty"` // why not ready
	Snapshot struct {
		Number uint64  `json:"number"`
		Hash   string  `json:"hash"`
		Age    float64 `json:"age"` // seconds
		Error  string  `json:"error"`

		Revision uint64 `json:"revision"` // of the configuration; see package history
		Rollback uint64 `json:"rollback"` // the revision that was brought back; 0: the files are in force
	} `json:"snapshot"`
	Warnings  int `json:"warnings"`
	Endpoints struct {
		Total int `json:"total"`
		Ready int `json:"ready"`
	} `json:"endpoints"`
}

// Status returns the current state.
func (c *Controller) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	var s Status
	s.Ready = c.snapshot != nil && !c.draining
	if c.draining {
		s.Reason = "draining"
	}
	s.Snapshot.Number = c.snapshot.Number
	s.Snapshot.Hash = c.snapshot.Config.Hash
	s.Snapshot.Age = time.Since(c.snapshot.Time).Seconds()
	if err := cmp.Or(c.unused, c.refused); err != nil {
		s.Snapshot.Error = err.Error()
	}
	s.Snapshot.Revision = c.history.Current().Number
	if h := c.history.Hold(); h.Origin == history.FromRollback {
		s.Snapshot.Rollback = h.Revision
	}
	s.Warnings = c.warnings
	for _, e := range c.snapshot.Registry.All() {
		s.Endpoints.Total++
		if e.Unready == "" {
			s.Endpoints.Ready++
		}
	}
	return s
}

// Snapshot returns the current snapshot.
func (c *Controller) Snapshot() *mesh.Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.snapshot
}

// Findings returns what there is to say of the configuration in force. The
// slice must not be changed.
func (c *Controller) Findings() []config.Finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.findings
}

// note remembers why something is not used, for Status; nil: it is.
func (c *Controller) note(reason *error, err error) {
	c.mu.Lock()
	said := *reason != nil && err != nil && (*reason).Error() == err.Error()
	*reason = err
	c.mu.Unlock()
	if err != nil && !said {
		c.log.Error("what is new is not used, the snapshot before stays", "error", err)
	}
}
