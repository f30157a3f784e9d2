package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	networking "istio.io/api/networking/v1alpha3"

	"isthmus/mesh"
)

// readEnvoyFilter takes the patches that Isthmus has a counterpart for, and
// names every other one.
func readEnvoyFilter(d *document) {
	var f networking.EnvoyFilter
	if !d.decode(&f) {
		return
	}
	for i, p := range f.ConfigPatches {
		path := fmt.Sprintf("configPatches[%d]", i)
		typeURL, value := typedConfig(p.GetPatch().GetValue())
		if p.ApplyTo == networking.EnvoyFilter_HTTP_FILTER && strings.HasSuffix(typeURL, ".local_ratelimit.v3.LocalRateLimit") {
			d.localRateLimit(&f, p, value, path)
			continue
		}
		d.find(Warning, ISM0004, path, strings.TrimSpace("unsupported patch "+p.ApplyTo.String()+" "+typeURL)+": it has no effect yet")
	}
}

// typedConfig takes the type and the content of a filter's typed_config,
// directly or wrapped in a TypedStruct, as Istio's own documents write it.
func typedConfig(filter *structpb.Struct) (typeURL string, value *structpb.Struct) {
	value = get(filter, "typed_config").GetStructValue()
	typeURL = get(value, "@type").GetStringValue()
	if strings.HasSuffix(typeURL, ".TypedStruct") {
		typeURL = get(value, "type_url").GetStringValue()
		value = get(value, "value").GetStructValue()
	}
	return typeURL, value
}

// get returns a field by its name in snake_case or lowerCamelCase.
func get(s *structpb.Struct, name string) *structpb.Value {
	if v, ok := s.GetFields()[name]; ok {
		return v
	}
	parts := strings.Split(name, "_")
	for i := 1; i < len(parts); i++ {
		if parts[i] != "" {
			parts[i] = strings.ToUpper(parts[i][:1]) + parts[i][1:]
		}
	}
	return s.GetFields()[strings.Join(parts, "")]
}

// limitFields are the fields of LocalRateLimit that have an effect, or need
// none.
var limitFields = []string{"@type", "stat_prefix", "statPrefix", "token_bucket", "tokenBucket", "filter_enabled", "filterEnabled", "filter_enforced", "filterEnforced", "status"}

// localRateLimit reads envoy.extensions.filters.http.local_ratelimit.v3.
func (d *document) localRateLimit(f *networking.EnvoyFilter, p *networking.EnvoyFilter_EnvoyConfigObjectPatch, value *structpb.Struct, path string) {
	path += ".patch.value"
	out := &mesh.LocalRateLimit{Meta: d.meta(), TokensPerFill: 1, Status: 429, Enforced: 1}
	out.Source = d.source(path)
	if f.WorkloadSelector != nil {
		out.Selector = f.WorkloadSelector.Labels
	}
	switch p.GetMatch().GetContext() {
	case networking.EnvoyFilter_SIDECAR_INBOUND:
		out.Inbound = true
	case networking.EnvoyFilter_SIDECAR_OUTBOUND:
		out.Outbound = true
	case networking.EnvoyFilter_GATEWAY:
		out.Gateway = true
	default:
		out.Inbound, out.Outbound, out.Gateway = true, true, true
	}
	for _, name := range slices.Sorted(maps.Keys(value.GetFields())) {
		if !slices.Contains(limitFields, name) {
			d.warning(path, fmt.Sprintf("%s of the local rate limit has no effect yet", name))
		}
	}
	bucket := get(value, "token_bucket").GetStructValue()
	if bucket == nil {
		d.find(Warning, ISM0026, path, "the local rate limit has no token_bucket, so it limits nothing")
		return
	}
	out.MaxTokens = d.count(get(bucket, "max_tokens"), path, "token_bucket.max_tokens")
	if v := get(bucket, "tokens_per_fill"); v != nil {
		out.TokensPerFill = d.count(v, path, "token_bucket.tokens_per_fill")
	}
	interval, err := time.ParseDuration(get(bucket, "fill_interval").GetStringValue())
	if err != nil || interval < 50*time.Millisecond {
		d.error(path, "token_bucket.fill_interval must be a duration of at least 50ms")
		return
	}
	out.FillInterval = interval
	// Envoy turns whatever is no error into 429.
	if code := int(get(get(value, "status").GetStructValue(), "code").GetNumberValue()); code >= 400 && code <= 599 {
		out.Status = code
	}
	out.Enabled = d.fraction(get(value, "filter_enabled"), path, "filter_enabled")
	if v := get(value, "filter_enforced"); v != nil {
		out.Enforced = d.fraction(v, path, "filter_enforced")
	} else {
		d.find(Info, ISM0025, path, "the local rate limit has no filter_enforced: Envoy would only count, Isthmus enforces it for all requests")
	}
	if get(value, "filter_enabled") == nil {
		d.find(Warning, ISM0026, path, "the local rate limit has no filter_enabled, which means 0 %: it limits nothing")
	}
	d.reader.config.LocalRateLimits = append(d.reader.config.LocalRateLimits, out)
}

// count reads a positive whole number.
func (d *document) count(v *structpb.Value, path, name string) uint32 {
	n := v.GetNumberValue()
	if n < 1 || n > 1<<30 || n != float64(uint32(n)) {
		d.error(path, name+" must be a whole number from 1 to 1073741824")
		return 1
	}
	return uint32(n)
}

// fraction reads a RuntimeFractionalPercent: its default, since there is no
// runtime here.
func (d *document) fraction(v *structpb.Value, path, name string) float64 {
	percent := get(v.GetStructValue(), "default_value").GetStructValue()
	of := 100.0
	switch word := get(percent, "denominator").GetStringValue(); word {
	case "", "HUNDRED":
	case "TEN_THOUSAND":
		of = 10_000
	case "MILLION":
		of = 1_000_000
	default:
		d.error(path, fmt.Sprintf("%s: the denominator %q is none of HUNDRED, TEN_THOUSAND, MILLION", name, word))
	}
	return min(1, max(0, get(percent, "numerator").GetNumberValue()/of))
}
