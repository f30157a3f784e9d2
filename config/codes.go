package config

// Code names a kind of finding; docs/findings has a page for each. Codes that
// begin with IST are those of istioctl analyze for the same thing.
type Code string

// The codes. Those of the first group are for what has no code of its own.
const (
	IST0106 Code = "IST0106"
	ISM0001 Code = "ISM0001"
	ISM0002 Code = "ISM0002"

	ISM0003 Code = "ISM0003"
	ISM0004 Code = "ISM0004"
	ISM0005 Code = "ISM0005"
	ISM0006 Code = "ISM0006"
	ISM0007 Code = "ISM0007"
	ISM0008 Code = "ISM0008"

	IST0101 Code = "IST0101"
	IST0109 Code = "IST0109"
	IST0112 Code = "IST0112"
	IST0130 Code = "IST0130"
	IST0132 Code = "IST0132"
	IST0145 Code = "IST0145"
	IST0149 Code = "IST0149"
	IST0173 Code = "IST0173"
	IST0177 Code = "IST0177"

	ISM0010 Code = "ISM0010"
	ISM0011 Code = "ISM0011"
	ISM0012 Code = "ISM0012"
	ISM0013 Code = "ISM0013"
	ISM0014 Code = "ISM0014"
	ISM0015 Code = "ISM0015"
	ISM0016 Code = "ISM0016"
	ISM0017 Code = "ISM0017"
	ISM0018 Code = "ISM0018"
	ISM0019 Code = "ISM0019"
	ISM0020 Code = "ISM0020"
	ISM0021 Code = "ISM0021"
	ISM0022 Code = "ISM0022"
	ISM0023 Code = "ISM0023"
	ISM0024 Code = "ISM0024"
	ISM0025 Code = "ISM0025"
	ISM0026 Code = "ISM0026"
	ISM0027 Code = "ISM0027"
	ISM0028 Code = "ISM0028"
	ISM0029 Code = "ISM0029"
	ISM0030 Code = "ISM0030"
	ISM0031 Code = "ISM0031"

	ISM0040 Code = "ISM0040"
	ISM0041 Code = "ISM0041"
	ISM0042 Code = "ISM0042"
	ISM0043 Code = "ISM0043"
	ISM0044 Code = "ISM0044"
	ISM0045 Code = "ISM0045"
	ISM0046 Code = "ISM0046"
	ISM0047 Code = "ISM0047"
	ISM0048 Code = "ISM0048"
	ISM0049 Code = "ISM0049"
	ISM0050 Code = "ISM0050"
	ISM0051 Code = "ISM0051"
	ISM0052 Code = "ISM0052"
	ISM0053 Code = "ISM0053"
	ISM0054 Code = "ISM0054"
	ISM0055 Code = "ISM0055"
	ISM0056 Code = "ISM0056"
	ISM0057 Code = "ISM0057"
	ISM0058 Code = "ISM0058"
	ISM0059 Code = "ISM0059"
	ISM0060 Code = "ISM0060"
	ISM0061 Code = "ISM0061"
	ISM0062 Code = "ISM0062"
	ISM0063 Code = "ISM0063"
	ISM0064 Code = "ISM0064"
	ISM0065 Code = "ISM0065"
	ISM0066 Code = "ISM0066"
	ISM0067 Code = "ISM0067"
	ISM0068 Code = "ISM0068"
	ISM0069 Code = "ISM0069"
	ISM0070 Code = "ISM0070"
	ISM0071 Code = "ISM0071"
	ISM0072 Code = "ISM0072"
	ISM0073 Code = "ISM0073"
	ISM0074 Code = "ISM0074"
	ISM0075 Code = "ISM0075"
	ISM0076 Code = "ISM0076"
	ISM0077 Code = "ISM0077"
	ISM0078 Code = "ISM0078"
	ISM0079 Code = "ISM0079"
)

// CodeTitle is a code with what it means, in a few words.
type CodeTitle struct {
	Code  Code
	Title string
}

// Codes are all codes.
var Codes = []CodeTitle{
	{IST0101, "Something that is named is not there"},
	{IST0106, "A field or a value that cannot be"},
	{IST0109, "Several VirtualServices route one host"},
	{IST0112, "A destination needs a port"},
	{IST0130, "A rule that is never reached"},
	{IST0132, "A host that the Gateway does not serve"},
	{IST0145, "Several Gateways serve one host"},
	{IST0149, "A match on claims where no token is read"},
	{IST0173, "A subset that selects no endpoint"},
	{IST0177, "One port, two protocols"},
	{ISM0001, "Something has no effect, or another one"},
	{ISM0002, "Worth knowing"},
	{ISM0003, "A field that has no effect yet"},
	{ISM0004, "A patch that is not supported"},
	{ISM0005, "Another operator acts on the resource"},
	{ISM0006, "A kind that is not read"},
	{ISM0007, "Another group or version than the kind's"},
	{ISM0008, "A later file overrides an earlier one"},
	{ISM0010, "Several ServiceEntries for one host"},
	{ISM0011, "A TCP server on a port of another protocol"},
	{ISM0012, "A VirtualService that nobody uses"},
	{ISM0013, "A route for connections that cannot hold on a sidecar"},
	{ISM0014, "A destination that no file defines"},
	{ISM0015, "A subset is defined under another name of the service"},
	{ISM0016, "A destination of weight 0"},
	{ISM0017, "Two resources say the same thing differently"},
	{ISM0018, "Several DestinationRules for one host"},
	{ISM0019, "Where the endpoints come from"},
	{ISM0020, "A token is asked for and never read"},
	{ISM0021, "A source that changes nothing"},
	{ISM0022, "A policy without rules"},
	{ISM0023, "A wildcard in a certificate that fits no service"},
	{ISM0024, "A certificate that cannot be an identity"},
	{ISM0025, "A local rate limit without filter_enforced"},
	{ISM0026, "A local rate limit that limits nothing"},
	{ISM0027, "mTLS without a certificate"},
	{ISM0028, "Ports of mTLS without a selector"},
	{ISM0029, "consecutiveGatewayErrors that changes nothing"},
	{ISM0030, "Retries that repeat a POST"},
	{ISM0031, "A fault without a percentage"},
	{ISM0040, "A percentage below one"},
	{ISM0041, "Retries leave the destination that was drawn"},
	{ISM0042, "A percentage of endpoints that is less than one"},
	{ISM0043, "minHealthPercent is never reached"},
	{ISM0044, "A rule for every host also holds beside rules for one"},
	{ISM0045, "A rule holds for the service's other names, too"},
	{ISM0046, "Labels that come from an endpoint's place"},
	{ISM0047, "Localities are preferred without outlierDetection"},
	{ISM0048, "A connect time-out that is short for a distance"},
	{ISM0049, "The time-out ends retries early"},
	{ISM0050, "Retries without a time-out for all of them"},
	{ISM0051, "maxRetries is no number of attempts"},
	{ISM0052, "Connections that are closed after a few requests"},
	{ISM0053, "A port of its own"},
	{ISM0054, "A resource in another namespace than what it is about"},
	{ISM0055, "A workload that is spoken to by mTLS and may not speak it"},
	{ISM0056, "A host that no service bears"},
	{ISM0057, "A monitor that selects nothing of this mesh"},
	{ISM0058, "Every request is traced"},
	{ISM0059, "A workload that no service selects"},
	{ISM0060, "A policy that selects nobody"},
	{ISM0061, "Nobody has to bring a token"},
	{ISM0062, "Port settings erase the others"},
	{ISM0063, "A port that the service has not"},
	{ISM0064, "A global rate limit without actions"},
	{ISM0065, "A Sidecar's egress that lets nothing in"},
	{ISM0066, "A service that takes mTLS alone and is not spoken to by it"},
	{ISM0067, "A global rate limit that nobody decides on"},
	{ISM0068, "A condition that no request meets"},
	{ISM0069, "A rewrite or redirect that leads elsewhere than it seems to"},
	{ISM0070, "An origin that no browser sends"},
	{ISM0071, "A template that nobody has filled in"},
	{ISM0072, "A port that nobody listens on"},
	{ISM0073, "An export to a namespace in which nothing is"},
	{ISM0074, "A condition on callers that is not asked of them"},
	{ISM0075, "Weights that do not add up to 100"},
	{ISM0076, "An operator in a header's value"},
	{ISM0077, "Addresses that the application would choose"},
	{ISM0078, "Routes that the Gateway's servers do not look at"},
	{ISM0079, "TLS within TLS"},
}
