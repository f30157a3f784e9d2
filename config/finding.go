package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says how bad a finding is.
type Severity uint8

// The severities. With an Error the set is not used.
const (
	Error Severity = iota
	Warning
	Info
)

// String returns "error", "warning" or "info".
func (s Severity) String() string { return [...]string{"error", "warning", "info"}[s] }

// MarshalText writes [Severity.String], in JSON too.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText has written.
func (s *Severity) UnmarshalText(text []byte) error {
	for _, known := range []Severity{Error, Warning, Info} {
		if string(text) == known.String() {
			*s = known
			return nil
		}
	}
	return fmt.Errorf("%q is no severity: error, warning or info", text)
}

// Finding is one thing to say about the configuration: a line of "isthmus
// validate".
type Finding struct {
	File      string   `json:"file"`
	Line      int      `json:"line"`
	Severity  Severity `json:"severity"`
	Kind      string   `json:"kind"`
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Field     string   `json:"field"`
	Message   string   `json:"message"`
	Code      Code     `json:"code"` // see docs/findings
}

// Anywhere returns what the finding says, without where it stands.
func (f Finding) Anywhere() Finding {
	f.File, f.Line = "", 0
	return f
}

// String returns "FILE:LINE: error: KIND NAMESPACE/NAME: field.path: message
// (CODE)", without the parts that are empty.
func (f Finding) String() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
		}
		b.WriteString(": ")
	}
	b.WriteString(f.Severity.String() + ": ")
	if f.Kind != "" {
		b.WriteString(f.Kind)
		if f.Name != "" {
			b.WriteString(" " + f.Namespace + "/" + f.Name)
		}
		b.WriteString(": ")
	}
	if f.Field != "" {
		b.WriteString(f.Field + ": ")
	}
	b.WriteString(f.Message)
	if f.Code != "" {
		b.WriteString(" (" + string(f.Code) + ")")
	}
	return b.String()
}

// sortFindings sorts by place, leaves each out that is there twice, and gives
// those that have none the code of their severity.
func sortFindings(list []Finding) []Finding {
	for i := range list {
		if list[i].Code == "" {
			list[i].Code = [...]Code{IST0106, ISM0001, ISM0002}[list[i].Severity]
		}
	}
	slices.SortStableFunc(list, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Message, b.Message))
	})
	return slices.CompactFunc(list, func(a, b Finding) bool { return a == b })
}

// suggest returns ` (did you mean "x"?)` if one of the words is close to what
// was written.
func suggest(word string, words []string) string {
	best, bestDistance := "", 3
	for _, w := range words {
		if d := distance(strings.ToLower(word), strings.ToLower(w)); d < bestDistance && d < len(w) {
			best, bestDistance = w, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// distance counts the insertions, deletions and substitutions between two
// words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
