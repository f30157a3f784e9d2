package admin

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Finding is one thing to say about the configuration in force, as "isthmus
// validate" does.
type Finding struct {
	File      string `json:"file"`
	Line      int    `json:"line"`
	Severity  string `json:"severity"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Field     string `json:"field"`
	Message   string `json:"message"`
	Code      string `json:"code"` // see docs/findings
}

// WriteFindings writes findings for people, a line each.
func WriteFindings(w io.Writer, list []Finding) {
	for _, f := range list {
		parts := []string{f.File, f.Severity, f.Kind, f.Field, f.Message}
		if f.Line > 0 {
			parts[0] = fmt.Sprintf("%s:%d", f.File, f.Line)
		}
		if f.Name != "" {
			parts[2] += " " + f.Namespace + "/" + f.Name
		}
		fmt.Fprintln(w, strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": "))
	}
}

func findingTexts(b []byte, f *Finding) []byte {
	return texts(b, f.File, f.Severity, f.Kind, f.Namespace, f.Name, f.Field, f.Message)
}
