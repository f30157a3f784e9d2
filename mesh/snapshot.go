package mesh

import "time"

// Snapshot is everything known at one moment. The control side makes it, the
// data plane compiles it; nobody changes it.
type Snapshot struct {
	Number   uint64 // counted from 1 by the process that made it
	Time     time.Time
	Node     *Node
	Config   *Config
	Registry *Registry
	Rules    *Rules

	// Application is what probes have found out of the application beside the
	// node; nil if it is not probed.
	Application *Health

	Candidate *Candidate // nil: none is on trial
}
