package proxy

import (
	"bytes"
	"net/netip"

	"isthmus/http1"
)

// remoteAddress is the client's: at a gateway by x-forwarded-for as far as the
// proxies before it are believed (Envoy: xff_num_trusted_hops); at a sidecar what
// the proxy says that has called, if it has proved to be one. Whoever is on the
// loopback of that one is its own application: the client is where it is.
func (x *exchange) remoteAddress() netip.Addr {
	c, believed := x.conn, 0
	switch {
	case c.kind == gateway:
		believed = c.proxy.trusted
	case c.kind == inbound && c.identity != "":
		believed = 1
	}
	if believed == 0 {
		return c.address
	}
	told := x.forwardedFor(believed)
	if told == nil {
		return c.address
	}
	a := parseAddress(string(bytes.TrimSpace(told)))
	if c.kind == inbound && a.IsLoopback() {
		return c.address
	}
	return a
}

// forwardedFor returns the n-th address of x-forwarded-for from its end, or the first
// where there are fewer; nil: there is none.
func (x *exchange) forwardedFor(n int) (address []byte) {
	for i := len(x.req.Fields) - 1; i >= 0; i-- {
		if x.req.Fields[i].ID != http1.XForwardedFor {
			continue
		}
		for list := x.req.Fields[i].Value; ; n-- {
			at := bytes.LastIndexByte(list, ',')
			address = list[at+1:]
			if n == 1 {
				return address
			}
			if at < 0 {
				break
			}
			list = list[:at]
		}
		n--
	}
	return address
}

// parseAddress reads an address with or without a port. What is neither is
// nobody's: it is in no block.
func parseAddress(text string) netip.Addr {
	if a, err := netip.ParseAddrPort(text); err == nil {
		return a.Addr().Unmap()
	}
	a, _ := netip.ParseAddr(text)
	return a.Unmap()
}
