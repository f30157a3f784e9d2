package proxy

import "strings"

// hostTable finds the virtual host for a request's authority.
type hostTable struct {
	exact     map[string]*hostEntry
	wildcards map[string]*hostEntry // by suffix: ".example.com"
	any       *hostEntry            // "*"
}

func newHostTable() *hostTable {
	return &hostTable{exact: map[string]*hostEntry{}, wildcards: map[string]*hostEntry{}}
}

// add enters a host name; the first entry of a name stays.
func (t *hostTable) add(name string, e *hostEntry) {
	switch {
	case name == "*":
		if t.any == nil {
			t.any = e
		}
	case strings.HasPrefix(name, "*."):
		if t.wildcards[name[1:]] == nil {
			t.wildcards[name[1:]] = e
		}
	case t.exact[name] == nil:
		t.exact[name] = e
	}
}

func (t *hostTable) has(name string) bool {
	if strings.HasPrefix(name, "*.") {
		return t.wildcards[name[1:]] != nil
	}
	return t.exact[name] != nil
}

// find returns the virtual host for a name in lower case and a port, 0 if the
// request named none.
func (t *hostTable) find(host []byte, port uint32) *virtualHost {
	if e := t.entry(host); e != nil {
		return e.find(port)
	}
	return nil
}

// entry returns what there is for a name in lower case, whatever the port; nil: nothing.
func (t *hostTable) entry(host []byte) *hostEntry {
	if e := t.exact[string(host)]; e != nil {
		return e
	}
	if len(t.wildcards) > 0 {
		// The longest suffix first: from the left, label by label.
		for i, c := range host {
			if c == '.' && i > 0 {
				if e := t.wildcards[string(host[i:])]; e != nil {
					return e
				}
			}
		}
	}
	return t.any
}

// hostEntry is one host name with a virtual host for each port of the service
// that bears the name.
type hostEntry struct {
	ports []portHost

	// fallback serves requests that name no port. Nil: there is no default port.
	fallback *virtualHost

	// other serves those that name a port which is not among ports, where the name
	// is no service's. Nil: such requests find nothing.
	other *virtualHost
}

func (e *hostEntry) find(port uint32) *virtualHost {
	if port == 0 {
		return e.fallback
	}
	for i := range e.ports {
		if e.ports[i].number == port {
			return e.ports[i].host
		}
	}
	return e.other
}

type portHost struct {
	number uint32
	host   *virtualHost
}

// virtualHost is an ordered list of routes: the first that fits decides.
type virtualHost struct {
	name   string
	port   uint32
	routes []*route
	index  *routeIndex // nil: few routes

	workloadPort uint32      // of the application, on the inbound listener
	limits       *limitChain // nil: none
}

func newVirtualHost(name string, port uint32, routes []*route) *virtualHost {
	return &virtualHost{name: name, port: port, routes: routes, index: newRouteIndex(routes)}
}

// find returns the first route that fits the request, or nil.
func (vh *virtualHost) find(x *exchange) *route {
	if vh.index != nil {
		return vh.index.find(vh.routes, x)
	}
	for _, r := range vh.routes {
		if r.fits(x) {
			return r
		}
	}
	return nil
}
