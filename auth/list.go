package auth

import (
	"strings"
)

// few values are compared one by one; of more, those that can be looked up are.
// A look into a map costs about as much as eight comparisons.
const few = 8

// list are the alternatives of one field.
type list struct {
	all    []text
	exact  map[string]struct{} // nil: there are few
	others []text              // those to be compared
}

func newList(values []string, make func(string) text) (l list) {
	for _, s := range values {
		l.all = append(l.all, make(s))
	}
	l.others = l.all
	if len(l.all) <= few {
		return l
	}
	l.exact, l.others = map[string]struct{}{}, nil
	for _, t := range l.all {
		if t.kind == exact {
			l.exact[t.value] = struct{}{}
		} else {
			l.others = append(l.others, t)
		}
	}
	return l
}

func (l *list) match(b []byte) bool {
	if _, ok := l.exact[string(b)]; ok {
		return true
	}
	for i := range l.others {
		if l.others[i].match(b) {
			return true
		}
	}
	return false
}

func (l *list) matchString(s string) bool {
	if _, ok := l.exact[s]; ok {
		return true
	}
	for i := range l.others {
		t := &l.others[i]
		switch t.kind {
		case exact:
			if s == t.value {
				return true
			}
		case prefix:
			if strings.HasPrefix(s, t.value) {
				return true
			}
		case suffix:
			if strings.HasSuffix(s, t.value) {
				return true
			}
		case present:
			if s != "" {
				return true
			}
		}
	}
	return false
}
