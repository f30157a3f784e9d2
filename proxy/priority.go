package proxy

import (
	"errors"

	"isthmus/mesh"
)

// priorityHeader says how important a request is, among those who have proved or
// are configured to be of the mesh: gateways take it off what clients send.
const priorityHeader = "x-isthmus-priority"

// errCrowded is why a request is refused that its connectionPool would allow. It says all there is to say.
var errCrowded = errors.New("more requests were under way than adaptive concurrency has room for at its priority (isthmus limits, x-isthmus-priority)")

// priority is how important the request is where there is no room for all: what
// its header says, else its route.
func (x *exchange) priority() mesh.Priority {
	if x.conn.kind != gateway {
		if v, ok := headerValue(&x.req, priorityHeader); ok {
			if p, ok := mesh.PriorityOf(v); ok {
				return p
			}
		}
	}
	if x.route.of != nil {
		return x.route.of.Priority
	}
	return mesh.P2
}
