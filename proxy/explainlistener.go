package proxy

import (
	"net"
	"net/netip"
	"strconv"
)

// ListenerAt returns which listener connections to a local address come to, by the
// name that [explain.Question] has for it; "" if none is known to be there. Gateways'
// ports are those of the configuration that is in force.
func (p *Proxy) ListenerAt(local netip.AddrPort) string {
	o := &p.options
	switch t := p.table.Load(); {
	case boundAt(o.Inbound, local):
		return "inbound"
	case boundAt(o.Outbound, local):
		return "outbound"
	case t != nil && o.GatewayBind != "":
		for port := range t.gateways {
			bound := port
			if b, ok := o.GatewayPorts[port]; ok {
				bound = b
			}
			if boundAt(net.JoinHostPort(o.GatewayBind, strconv.FormatUint(uint64(bound), 10)), local) {
				return gatewayName(port)
			}
		}
	}
	return ""
}

// boundAt reports whether who listens at an address may get connections to local.
func boundAt(address string, local netip.AddrPort) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port != strconv.FormatUint(uint64(local.Port()), 10) {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err != nil || ip.IsUnspecified() || ip.Unmap() == local.Addr().Unmap()
}
