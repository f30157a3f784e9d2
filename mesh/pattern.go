package mesh

import (
	"bytes"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"
)

// Pattern is an RE2 expression that has to match a whole text, not anywhere within it
// (Istio: StringMatch.regex). Most that are written are texts with `.*` between them, or a
// few of these as alternatives: they are looked for as texts, which takes a tenth of the
// time that [regexp] takes and less. It never changes.
type Pattern struct {
	whole *regexp.Regexp
	globs []glob // of which one has to match; none: whole says it
}

// NewPattern compiles an expression. The error is that of [regexp.Compile].
func NewPattern(expression string) (*Pattern, error) {
	if _, err := regexp.Compile(expression); err != nil { // "a)(b" is none, though it would be one in parentheses
		return nil, err
	}
	whole, err := regexp.Compile("^(?:" + expression + ")$")
	if err != nil {
		return nil, err
	}
	p := &Pattern{whole: whole}
	if tree, err := syntax.Parse(whole.String(), syntax.Perl); err == nil {
		p.globs = globsOf(tree)
	}
	return p, nil
}

// String returns the expression, with what asks for the whole text.
func (p *Pattern) String() string { return p.whole.String() }

// Match reports whether the pattern matches.
func (p *Pattern) Match(text []byte) bool {
	if len(p.globs) == 0 || bytes.IndexByte(text, '\n') >= 0 { // which a dot does not match
		return p.whole.Match(text)
	}
	for i := range p.globs {
		if p.globs[i].match(text) {
			return true
		}
	}
	return false
}

// glob is texts with gaps between them, in a text without line feeds.
type glob struct {
	parts []globPart
	end   gap // behind the last
}

// globPart is a text, and the gap before it.
type globPart struct {
	before gap
	text   []byte
}

// gap is what may stand between two texts.
type gap uint8

const (
	noGap   gap = iota
	anyGap      // .*
	someGap     // .+
)

func (g *glob) match(rest []byte) bool {
	for i := range g.parts {
		p := &g.parts[i]
		at := 0
		switch {
		case p.before == noGap: // only before the first
			if !bytes.HasPrefix(rest, p.text) {
				return false
			}
		case p.before == someGap && len(rest) == 0:
			return false
		default:
			if p.before == someGap {
				rest = rest[1:] // a byte is enough: no text begins within a character
			}
			if g.end == noGap && i == len(g.parts)-1 {
				return bytes.HasSuffix(rest, p.text)
			}
			if at = bytes.Index(rest, p.text); at < 0 {
				return false
			}
		}
		rest = rest[at+len(p.text):] // the first place leaves most for what follows
	}
	return g.end == anyGap || len(rest) > 0 == (g.end == someGap)
}

const (
	// maxGlobs is how many alternatives are looked for one after the other; with more,
	// the expression's machine, which looks for all at once, may be faster.
	maxGlobs = 16

	// maxTokens is of how many an alternative may consist.
	maxTokens = 16
)

// token is a piece of an alternative: a text, a gap, or one of the two ends.
type token struct {
	kind tokenKind
	text string
}

type tokenKind uint8

const (
	literalToken tokenKind = iota
	anyToken
	someToken
	beginToken
	endToken
)

// globsOf returns what matches the same as an expression; nil: it asks for more than globs
// can say.
func globsOf(tree *syntax.Regexp) []glob {
	var globs []glob
	for _, tokens := range alternatives(tree) {
		g, ok := newGlob(tokens)
		if !ok {
			return nil
		}
		globs = append(globs, g)
	}
	return globs
}

// alternatives returns the rows of tokens of which one has to match; nil if there are none,
// or too many.
func alternatives(re *syntax.Regexp) [][]token {
	switch re.Op {
	case syntax.OpEmptyMatch:
		return [][]token{{}}
	case syntax.OpLiteral:
		text := string(re.Rune)
		if re.Flags&syntax.FoldCase != 0 || strings.ContainsRune(text, utf8.RuneError) { // which matches what is no UTF-8, too
			return nil
		}
		return [][]token{{{literalToken, text}}}
	case syntax.OpCharClass:
		return characters(re.Rune)
	case syntax.OpBeginText:
		return [][]token{{{kind: beginToken}}}
	case syntax.OpEndText:
		return [][]token{{{kind: endToken}}}
	case syntax.OpStar, syntax.OpPlus:
		if op := re.Sub[0].Op; op != syntax.OpAnyChar && op != syntax.OpAnyCharNotNL {
			return nil
		}
		if re.Op == syntax.OpPlus {
			return [][]token{{{kind: someToken}}}
		}
		return [][]token{{{kind: anyToken}}}
	case syntax.OpQuest:
		return either(alternatives(re.Sub[0]), [][]token{{}})
	case syntax.OpCapture:
		return alternatives(re.Sub[0])
	case syntax.OpConcat:
		rows := [][]token{{}}
		for _, sub := range re.Sub {
			rows = concatenate(rows, alternatives(sub))
		}
		return rows
	case syntax.OpAlternate:
		rows := alternatives(re.Sub[0])
		for _, sub := range re.Sub[1:] {
			rows = either(rows, alternatives(sub))
		}
		return rows
	}
	return nil
}

// characters returns those of a class, which are pairs of the first and the last of a range.
func characters(ranges []rune) (rows [][]token) {
	for i := 0; i+1 < len(ranges); i += 2 {
		if len(rows)+int(ranges[i+1]-ranges[i]) >= maxGlobs {
			return nil
		}
		for c := ranges[i]; c <= ranges[i+1]; c++ {
			if c == utf8.RuneError || !utf8.ValidRune(c) { // a surrogate, which is in no text
				return nil
			}
			rows = append(rows, []token{{literalToken, string(c)}})
		}
	}
	return rows
}

func either(a, b [][]token) [][]token {
	if a == nil || b == nil || len(a)+len(b) > maxGlobs {
		return nil
	}
	return append(a, b...)
}

func concatenate(a, b [][]token) (rows [][]token) {
	if len(a)*len(b) > maxGlobs {
		return nil
	}
	for _, first := range a {
		for _, then := range b {
			if len(first)+len(then) > maxTokens {
				return nil
			}
			rows = append(rows, slices.Concat(first, then))
		}
	}
	return rows
}

// newGlob makes the glob of tokens; not ok: there is none.
func newGlob(tokens []token) (g glob, ok bool) {
	begun, ended := false, false
	for _, t := range tokens {
		switch t.kind {
		case beginToken:
			if begun || ended {
				return g, false
			}
			continue
		case endToken:
			ended = true
			continue
		}
		if ended {
			return g, false
		}
		begun = true
		if t.kind == literalToken {
			g.literal(t.text)
		} else if !g.widen(t.kind) {
			return g, false
		}
	}
	return g, true
}

// literal adds a text behind the gap that is there.
func (g *glob) literal(text string) {
	if n := len(g.parts); n > 0 && g.end == noGap {
		g.parts[n-1].text = append(g.parts[n-1].text, text...)
		return
	}
	g.parts = append(g.parts, globPart{g.end, []byte(text)})
	g.end = noGap
}

// widen adds a gap to the one that is there; two characters at least are no gap of ours.
func (g *glob) widen(kind tokenKind) bool {
	switch {
	case kind == someToken && g.end == someGap:
		return false
	case kind == someToken:
		g.end = someGap
	case g.end == noGap:
		g.end = anyGap
	}
	return true
}
