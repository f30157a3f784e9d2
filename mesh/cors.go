package mesh

// CORS is Istio's CorsPolicy: which other sites' pages may read a route's
// replies (Fetch standard, CORS protocol).
type CORS struct {
	AllowOrigins []StringMatch // of Origin; the exact "*" fits all
	Credentials  bool          // replies to requests with cookies may be read

	// Values of the fields of the same names, "" for none. A "*" of the first
	// two stands for whatever a preflight asks for, as in Envoy.
	AllowMethods, AllowHeaders string
	ExposeHeaders, MaxAge      string

	// KeepUnmatched answers preflights from other origins in the place of the
	// upstream, too (unmatchedPreflights: IGNORE).
	KeepUnmatched bool
}
