package mesh

import (
	"strconv"
	"strings"
)

// DestinationSNI is the server name by which one proxy tells another what a
// connection is for: "outbound_.80_.v1_.reviews.prod.svc.cluster.local" (Istio:
// BuildDNSSrvSubsetKey). subset may be "".
func DestinationSNI(port uint32, subset, host string) string {
	return "outbound_." + strconv.FormatUint(uint64(port), 10) + "_." + subset + "_." + host
}

// ParseDestinationSNI takes such a name apart; ok is false if it is none.
func ParseDestinationSNI(name string) (port uint32, subset, host string, ok bool) {
	rest, ok := strings.CutPrefix(name, "outbound_.")
	if !ok {
		return 0, "", "", false
	}
	digits, rest, _ := strings.Cut(rest, "_.")
	subset, host, ok = strings.Cut(rest, "_.")
	n, err := strconv.ParseUint(digits, 10, 16)
	if !ok || err != nil || n == 0 || host == "" {
		return 0, "", "", false
	}
	return uint32(n), subset, host, true
}
