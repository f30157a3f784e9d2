package mesh

// Candidate is a configuration on trial beside the one in force: what requests
// would meet, and some of them do.
type Candidate struct {
	Config   *Config
	Registry *Registry
	Rules    *Rules

	Trial  uint64   // its number: who is tried again is on another one
	Stage  int      // of the trial; with each, and with each trial, counts begin anew
	Share  Fraction // of requests that the candidate decides
	Sample Fraction // of the other requests whose decisions are compared
	Sticky string   // header by whose value a request belongs to one side, in lower case
}
