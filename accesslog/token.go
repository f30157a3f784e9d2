package accesslog

import (
	"fmt"
	"strings"
)

// tokenKind is what a token of an expression is.
type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenName
	tokenNumber
	tokenText
	tokenSign
)

type token struct {
	kind tokenKind
	text string // of a text: what it says
}

// signs are those of two characters before those of one.
var signs = []string{"||", "&&", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", ",", ".", "?", ":"}

// scan takes an expression apart.
func scan(s string) (out []token, err error) {
next:
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
			continue
		case isLetter(c):
			j := i + 1
			for j < len(s) && (isLetter(s[j]) || isDigit(s[j])) {
				j++
			}
			out, i = append(out, token{tokenName, s[i:j]}), j
			continue
		case isDigit(c) || c == '-' && i+1 < len(s) && isDigit(s[i+1]):
			j := i + 1
			for j < len(s) && isDigit(s[j]) {
				j++
			}
			out, i = append(out, token{tokenNumber, s[i:j]}), j
			continue
		case c == '"' || c == '\'':
			text, n, err := scanText(s[i:])
			if err != nil {
				return nil, err
			}
			out, i = append(out, token{tokenText, text}), i+n
			continue
		}
		for _, sign := range signs {
			if strings.HasPrefix(s[i:], sign) {
				out, i = append(out, token{tokenSign, sign}), i+len(sign)
				continue next
			}
		}
		return nil, fmt.Errorf("%q is nothing that an expression may hold", s[i:i+1])
	}
	return out, nil
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }

// scanText reads a text in quotes of either kind, in which a backslash stands
// before a quote or another one.
func scanText(s string) (text string, n int, err error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == s[0]:
			return b.String(), i + 1, nil
		case c == '\\' && i+1 < len(s):
			i++
			switch s[i] {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case '"', '\'', '\\':
				b.WriteByte(s[i])
			default: // regular expressions are full of them
				b.WriteByte('\\')
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", 0, fmt.Errorf("the text %s has no end", first(s, 24))
}
