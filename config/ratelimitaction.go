package config

import (
	"fmt"
	"regexp"
	"strings"

	"isthmus/mesh"
)

// What requests are counted by: the actions of rate_limits, and the conditions in them.

var hitsOfHeader = regexp.MustCompile(`^%REQ\(([A-Za-z0-9-]+)\)%$`)

// rateLimitAction reads config.route.v3.RateLimit; nil if it says nothing.
func (m *envoyMessage) rateLimitAction() *mesh.RateLimitAction {
	out := &mesh.RateLimitAction{Stage: uint32(m.number("stage", 0, 0, 10)), Hits: 1, Source: m.doc.source(m.path)}
	actions := m.list("actions")
	for _, a := range actions {
		out.Parts = append(out.Parts, a.descriptorPart())
		a.done()
	}
	if h := m.message("hits_addend"); h != nil {
		out.Hits = uint32(h.number("number", 1, 0, 1_000_000_000))
		if f := h.text("format"); f != "" {
			name := hitsOfHeader.FindStringSubmatch(f)
			if name == nil {
				m.doc.warning(h.path+".format", "has no effect: only a number, or %REQ(header)%, is understood")
			} else {
				out.HitsHeader = strings.ToLower(name[1])
			}
		}
		h.done()
	}
	m.ignore("disable_key")
	m.noEffect("there is no dynamic metadata to take a limit from", "limit")
	m.noEffect("limits are asked before a request is sent on", "apply_on_stream_done")
	m.done()
	if len(actions) == 0 {
		m.doc.error(join(m.path, "actions"), "is empty: without an action there is nothing to count by")
		return nil
	}
	return out
}

// descriptorPart reads RateLimit.Action.
func (m *envoyMessage) descriptorPart() (p mesh.DescriptorPart) {
	d, ok := m.doc, false
	set := func(name string, kind mesh.PartKind, read func(*envoyMessage)) {
		inner := m.message(name)
		if inner == nil {
			return
		}
		if ok {
			d.error(inner.path, "cannot stand beside another action: write one more item of actions")
		}
		ok, p.Kind = true, kind
		read(inner)
		inner.done()
	}
	set("source_cluster", mesh.PartSourceCluster, func(a *envoyMessage) { p.Key = "source_cluster" })
	set("destination_cluster", mesh.PartDestinationCluster, func(a *envoyMessage) { p.Key = "destination_cluster" })
	set("request_headers", mesh.PartHeader, func(a *envoyMessage) {
		p.Name, p.Key = strings.ToLower(a.needText("header_name")), a.needText("descriptor_key")
		p.SkipIfAbsent, p.Default = a.flag("skip_if_absent", false), a.text("default_value")
	})
	set("query_parameters", mesh.PartQueryParameter, func(a *envoyMessage) {
		p.Name, p.Key = a.needText("query_parameter_name"), a.needText("descriptor_key")
		p.SkipIfAbsent, p.Default = a.flag("skip_if_absent", false), a.text("default_value")
	})
	set("remote_address", mesh.PartRemoteAddress, func(a *envoyMessage) { p.Key = "remote_address" })
	set("masked_remote_address", mesh.PartMaskedAddress, func(a *envoyMessage) {
		p.Key = "masked_remote_address"
		p.Bits4, p.Bits6 = uint8(a.number("v4_prefix_mask_len", 32, 0, 32)), uint8(a.number("v6_prefix_mask_len", 128, 0, 128))
	})
	set("generic_key", mesh.PartGeneric, func(a *envoyMessage) {
		p.Value, p.Key = a.plainText("descriptor_value"), orDefault(a.text("descriptor_key"), "generic_key")
	})
	set("header_value_match", mesh.PartHeaderMatch, func(a *envoyMessage) {
		p.Value, p.Key = a.plainText("descriptor_value"), orDefault(a.text("descriptor_key"), "header_match")
		p.ExpectNoMatch = !a.flag("expect_match", true)
		for _, h := range a.list("headers") {
			p.Headers = append(p.Headers, h.headerCondition())
		}
	})
	set("query_parameter_value_match", mesh.PartQueryMatch, func(a *envoyMessage) {
		p.Value, p.Key = a.plainText("descriptor_value"), orDefault(a.text("descriptor_key"), "query_match")
		p.ExpectNoMatch = !a.flag("expect_match", true)
		for _, q := range a.list("query_parameters") {
			n := mesh.NamedMatch{Name: q.needText("name"), StringMatch: mesh.StringMatch{Kind: mesh.MatchPresent}}
			if s := q.message("string_match"); s != nil {
				n.StringMatch = s.stringMatch()
			}
			q.ignore("present_match")
			q.done()
			p.Query = append(p.Query, n)
		}
	})
	for _, name := range []string{"metadata", "dynamic_metadata"} {
		set(name, mesh.PartClaim, func(a *envoyMessage) {
			p.Key, p.Default, p.SkipIfAbsent = a.needText("descriptor_key"), a.text("default_value"), a.flag("skip_if_absent", false)
			entry := a.word("source", "DYNAMIC", "ROUTE_ENTRY") == 1
			key := a.message("metadata_key")
			namespace := key.text("key")
			for _, s := range key.list("path") {
				p.Path = append(p.Path, s.needText("key"))
				s.done()
			}
			key.done()
			if namespace != tokenMetadata || len(p.Path) < 2 || entry {
				d.warning(a.path+".metadata_key", fmt.Sprintf("no request has it: the only metadata here is %s, of which the first name of path is that of the payload and the next a claim; default_value holds", tokenMetadata))
				p.Path = nil
			} else {
				p.Path = p.Path[1:]
			}
		})
	}
	if !ok {
		what := "an action"
		for name := range m.fields {
			what = "action " + name
		}
		m.ignore("extension")
		d.warning(m.path, what+" makes no entry of a descriptor here, so this item of rate_limits has no effect")
		m.read = allOf(m.fields)
		p.Kind = mesh.PartNothing
	}
	return p
}

// tokenMetadata is where Envoy's filter keeps what tokens say.
const tokenMetadata = "envoy.filters.http.jwt_authn"

func allOf[T any](fields map[string]T) map[string]bool {
	out := map[string]bool{}
	for name := range fields {
		out[name] = true
	}
	return out
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// stringMatch reads type.matcher.v3.StringMatcher.
func (m *envoyMessage) stringMatch() mesh.StringMatch {
	defer m.done()
	fold := m.flag("ignore_case", false)
	if r := m.message("safe_regex"); r != nil {
		defer r.done()
		r.ignore("google_re2")
		return m.regex(r.needText("regex"), r.path+".regex")
	}
	for _, kind := range []string{"exact", "prefix", "suffix", "contains"} {
		if m.has(kind) {
			return m.comparison(kind, m.text(kind), fold)
		}
	}
	m.doc.error(m.path, "must have exact, prefix, suffix, contains or safe_regex")
	return mesh.StringMatch{Kind: mesh.MatchPresent}
}

// comparison makes a StringMatch, of a regular expression where mesh has no
// kind for it.
func (m *envoyMessage) comparison(kind, text string, fold bool) mesh.StringMatch {
	before, after := "", ""
	switch {
	case kind == "exact" && !fold:
		return mesh.StringMatch{Kind: mesh.MatchExact, Value: text}
	case kind == "prefix" && !fold:
		return mesh.StringMatch{Kind: mesh.MatchPrefix, Value: text}
	case kind == "prefix":
		after = ".*"
	case kind == "suffix":
		before = ".*"
	case kind == "contains":
		before, after = ".*", ".*"
	}
	flags := "(?s)"
	if fold {
		flags = "(?si)"
	}
	return m.regex(flags+before+regexp.QuoteMeta(text)+after, m.path)
}

func (m *envoyMessage) regex(text, path string) mesh.StringMatch {
	re, err := compilePattern(text)
	if err != nil {
		m.doc.error(path, err.Error())
		return mesh.StringMatch{Kind: mesh.MatchPresent}
	}
	return mesh.StringMatch{Kind: mesh.MatchRegex, Value: text, Regex: re}
}

// headerCondition reads config.route.v3.HeaderMatcher.
func (m *envoyMessage) headerCondition() mesh.HeaderCondition {
	defer m.done()
	out := mesh.HeaderCondition{
		NamedMatch: mesh.NamedMatch{Name: strings.ToLower(m.needText("name")), StringMatch: mesh.StringMatch{Kind: mesh.MatchPresent}},
		Invert:     m.flag("invert_match", false), AbsentIsEmpty: m.flag("treat_missing_header_as_empty", false),
	}
	if s := m.message("string_match"); s != nil {
		out.StringMatch = s.stringMatch()
	}
	for _, kind := range []string{"exact", "prefix", "suffix", "contains"} {
		if m.has(kind + "_match") {
			out.StringMatch = m.comparison(kind, m.text(kind+"_match"), false)
		}
	}
	if r := m.message("safe_regex_match"); r != nil {
		out.StringMatch = m.regex(r.needText("regex"), r.path+".regex")
		r.ignore("google_re2")
		r.done()
	}
	if r := m.message("range_match"); r != nil {
		out.Range = &[2]int64{r.number("start", 0, -1<<53, 1<<53), r.number("end", 0, -1<<53, 1<<53)}
		r.done()
	}
	if m.has("present_match") {
		out.Absent = !m.flag("present_match", true)
	}
	return out
}
