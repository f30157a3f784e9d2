package admin

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
)

// maxPage bounds what one request for a part of a list gets.
const maxPage = 1000

// filter keeps of a list what has every word of ?q= in one of its texts, in
// any case of ASCII, and no word that follows a minus sign. text appends the
// texts of one, as [texts] does.
func filter[T any](list []T, q url.Values, text func([]byte, *T) []byte) []T {
	var with, without [][]byte
	for _, w := range bytes.Fields(texts(nil, q.Get("q"))) {
		if no, ok := bytes.CutPrefix(w, []byte("-")); ok && len(no) > 0 {
			without = append(without, no)
		} else {
			with = append(with, w)
		}
	}
	if len(with)+len(without) == 0 {
		return list
	}
	var all []byte // ten thousand share it
	return slices.DeleteFunc(list, func(v T) bool {
		all = text(all[:0], &v)
		in := func(w []byte) bool { return bytes.Contains(all, w) }
		return slices.ContainsFunc(without, in) || !every(with, in)
	})
}

func every(words [][]byte, in func([]byte) bool) bool {
	return !slices.ContainsFunc(words, func(w []byte) bool { return !in(w) })
}

// texts appends texts in lower case, a line each.
func texts(b []byte, list ...string) []byte {
	for _, s := range list {
		for i := range len(s) {
			c := s[i]
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			b = append(b, c)
		}
		b = append(b, '\n')
	}
	return b
}

// part takes ?offset= and ?limit= of a list, and tells in X-Total-Count how
// long it is. Without them it is the whole list.
func part[T any](w http.ResponseWriter, q url.Values, list []T) ([]T, error) {
	w.Header().Set("X-Total-Count", strconv.Itoa(len(list)))
	from, to := 0, len(list)
	if q.Has("offset") {
		n, err := strconv.Atoi(q.Get("offset"))
		if err != nil || n < 0 {
			return nil, fmt.Errorf("offset=%s: write a number, 0 or more", q.Get("offset"))
		}
		from = min(n, len(list))
	}
	if q.Has("limit") {
		n, err := strconv.Atoi(q.Get("limit"))
		if err != nil || n < 1 || n > maxPage {
			return nil, fmt.Errorf("limit=%s: write a number from 1 to %d", q.Get("limit"), maxPage)
		}
		to = min(from+n, len(list))
	}
	return list[from:to], nil
}
