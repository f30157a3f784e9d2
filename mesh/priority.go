package mesh

// Priority says how important a request is: of those for an upstream that is
// overloaded, the least important are refused first.
type Priority uint8

// The priorities; P2 is that of requests of which nothing is said.
const (
	P1 Priority = iota
	P2
	P3
	P4

	Priorities = 4
)

// String returns "P1" to "P4".
func (p Priority) String() string { return [...]string{"P1", "P2", "P3", "P4"}[p] }

// PriorityOf returns a priority by its name.
func PriorityOf[T string | []byte](name T) (Priority, bool) {
	if len(name) != 2 || name[0] != 'P' && name[0] != 'p' || name[1] < '1' || name[1] > '4' {
		return P2, false
	}
	return Priority(name[1] - '1'), true
}
