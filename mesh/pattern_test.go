package mesh

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestPattern: which expressions are looked for as texts, and what they match.
func TestPattern(t *testing.T) {
	for _, tt := range []struct {
		expression string
		globs      int // 0: the expression's machine runs
		yes, no    []string
	}{
		{".*Mobile.*", 1, []string{"Mobile", "a Mobile b", "Mobile\xff", "\xffMobile"}, []string{"", "mobile", "a\nMobile"}},
		{"/api/.*", 1, []string{"/api/", "/api/v1"}, []string{"/api", "x/api/"}},
		{`.*\.test`, 1, []string{".test", "a.test"}, []string{"a.tests", "a_test"}},
		{"^/a$", 1, []string{"/a"}, []string{"/ab", "/a\n"}},
		{"/users/.+/mail", 1, []string{"/users/1/mail", "/users/é/mail"}, []string{"/users//mail", "/users/mail"}},
		{"a.+", 1, []string{"ab"}, []string{"a", "b"}},
		{"a.*a", 1, []string{"aa", "aba"}, []string{"a"}},
		{"a.*b.*c", 1, []string{"abc", "a-b-bc"}, []string{"acb", "ab"}},
		{"a.+a.+a", 1, []string{"ababa", "aaaaa"}, []string{"aaaa"}},
		{".*", 1, []string{"", "a"}, []string{"\n"}},
		{".+", 1, []string{"a"}, []string{"", "\n"}},
		{"", 1, []string{""}, []string{"a"}},
		{"de|fr|es", 3, []string{"de", "es"}, []string{"", "d", "dee"}},
		{".*(iPhone|iPad|Android).*", 3, []string{"(iPad; U)", "Android"}, []string{"iPod"}},
		{"v[1-3]", 3, []string{"v2"}, []string{"v", "v4"}},
		{"https?://a", 2, []string{"http://a", "https://a"}, []string{"httpss://a"}},
		{"^a$|^b.*$", 2, []string{"a", "bc"}, []string{"ac"}},
		{"(?s).*a.*", 1, []string{"\na"}, []string{"\n"}},
		{"(?i)mobile", 0, []string{"MOBILE"}, nil},
		{"[a-z]+", 0, []string{"abc"}, []string{"A"}},
		{"[a-z]", 0, []string{"b"}, []string{"bb"}},
		{"a.", 0, []string{"aé"}, []string{"a"}},
		{".+.+", 0, []string{"aa"}, []string{"é"}},
		{".+.*", 1, []string{"é"}, []string{""}},
		{"(a|b|c|d|e)(a|b|c|d)", 0, []string{"ed"}, []string{"ee"}},
		{"a^b", 0, nil, []string{"ab", "a^b"}},
		{"a$b", 0, nil, []string{"ab"}},
		{"\ufffd", 0, []string{"\xff", "\ufffd"}, nil},
		{`[\x{d800}\x{d802}]`, 0, nil, []string{"\xff", "\ufffd", "\xed\xa0\x80"}},
	} {
		t.Run(tt.expression, func(t *testing.T) {
			p, err := NewPattern(tt.expression)
			if err != nil {
				t.Fatal(err)
			}
			if len(p.globs) != tt.globs {
				t.Errorf("%d globs, want %d", len(p.globs), tt.globs)
			}
			for _, text := range tt.yes {
				if !p.Match([]byte(text)) {
					t.Errorf("%q does not match", text)
				}
			}
			for _, text := range tt.no {
				if p.Match([]byte(text)) {
					t.Errorf("%q matches", text)
				}
			}
		})
	}
	for _, bad := range []string{"a)(b", "(?!a)", "*"} {
		if _, err := NewPattern(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// checkPattern compares a pattern with what it stands for.
func checkPattern(t interface{ Errorf(string, ...any) }, expression, text string) {
	if _, err := regexp.Compile(expression); err != nil {
		return
	}
	want, err := regexp.Compile("^(?:" + expression + ")$")
	if err != nil {
		return
	}
	p, err := NewPattern(expression)
	if err != nil {
		t.Errorf("%q: %v", expression, err)
		return
	}
	if got := p.Match([]byte(text)); got != want.MatchString(text) {
		t.Errorf("%q matches %q: %v", expression, text, got)
	}
}

// TestPattern_Any: whatever is looked for as texts matches what the expression does.
func TestPattern_Any(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pieces := rapid.SampledFrom([]string{"a", "b", "ab", "é", ".*", ".+", "a?", "(a|b)", "(ab|)", "[ab]", "(a.*|b)", "^", "$", `\.`, "(?s:.*)", "."})
		expression := strings.Join(rapid.SliceOfN(pieces, 0, 6).Draw(t, "expression"), "")
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "é", ".", "\n", "\xc3", "\xa9", "c"}), 0, 8).Draw(t, "text"), "")
		checkPattern(t, expression, text)
	})
}

func FuzzPattern(f *testing.F) {
	for _, seed := range [][2]string{{".*Mobile.*", "Mozilla Mobile"}, {"a|b.+", "bc"}, {"(a|b)?c.*", "ac\n"}, {"^a$", "\xff"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, expression, text string) { checkPattern(t, expression, text) })
}

func BenchmarkPattern(b *testing.B) {
	agent := []byte("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36")
	for _, expression := range []string{".*Mobile.*", ".*(iPhone|iPad|Android).*", "Mozilla.*"} {
		p, err := NewPattern(expression)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("text/"+expression, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Match(agent)
			}
		})
		b.Run("machine/"+expression, func(b *testing.B) {
			for b.Loop() {
				p.whole.Match(agent)
			}
		})
	}
}
