package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// tell tells a result to people.
func (r *result) tell(w io.Writer) {
	fmt.Fprintf(w, "%-16s %4d passed, %d failed: %s\n", r.name, r.passed, len(r.failed), r.how)
	for _, name := range r.failed {
		fmt.Fprintln(w, "    failed:", name)
	}
	if r.err != nil {
		fmt.Fprintln(w, "    not finished:", r.err)
	}
}

// report writes the table into the file, between its marks.
func report(path string, all []result) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	const from, to = "<!-- results -->\n", "<!-- end -->\n"
	before, rest, ok := strings.Cut(string(text), from)
	_, after, ended := strings.Cut(rest, to)
	if !ok || !ended {
		return fmt.Errorf("%s has no place for results, between %q and %q", path, from, to)
	}
	var b strings.Builder
	b.WriteString("| suite | what | passed | failed |\n| --- | --- | --- | --- |\n")
	for _, r := range all {
		fmt.Fprintf(&b, "| %s | %s | %d | %d |\n", r.name, r.how, r.passed, len(r.failed))
	}
	return os.WriteFile(path, []byte(before+from+b.String()+to+after), 0o644)
}
