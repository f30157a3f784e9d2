package admin

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxPage bounds what one request for a part of a list gets.
const maxPage = 1000

// filter keeps of a list what has every word of ?q= in one of its texts, in
// any case, and no word that follows a minus sign.
func filter[T any](list []T, q url.Values, text func(*T) []string) []T {
	words := strings.Fields(strings.ToLower(q.Get("q")))
	if len(words) == 0 {
		return list
	}
	return slices.DeleteFunc(list, func(v T) bool {
		all := strings.ToLower(strings.Join(text(&v), "\x00"))
		for _, w := range words {
			without, no := strings.CutPrefix(w, "-")
			if no && without != "" {
				if strings.Contains(all, without) {
					return true
				}
			} else if !strings.Contains(all, w) {
				return true
			}
		}
		return false
	})
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

func (e *Endpoint) texts() []string {
	health := "healthy"
	if !e.Healthy {
		health = "unhealthy"
	}
	t := []string{e.Service, e.Address, e.Cluster, e.Locality, health, e.Reason, e.Source, e.Owner, e.Identity}
	for k, v := range e.Labels {
		t = append(t, k+"="+v)
	}
	return t
}

func (m *Member) texts() []string {
	t := []string{m.Name, m.Cluster, m.Locality, m.Address, m.State, m.Version}
	if d := m.Digest; d != nil {
		t = append(t, d.Hash)
		if d.Refused {
			t = append(t, "refused")
		}
		if !d.Ready {
			t = append(t, "not ready")
		}
	}
	return t
}

func (r *Route) texts() []string {
	t := []string{r.Listener, r.Host, r.Name, r.Match, r.Source}
	for _, d := range r.Destinations {
		t = append(t, d.Host, d.Subset)
	}
	return t
}

func (s *Service) texts() []string {
	t := []string{s.Name, s.Reason}
	for _, c := range s.Clusters {
		t = append(t, c.Cluster)
	}
	return t
}
