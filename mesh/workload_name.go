package mesh

import "strings"

// WorkloadName is the name of the workload that an instance belongs to, as far as
// the instance's own name tells: that of a pod without what Deployments and
// StatefulSets append ("reviews-7d9f8b6c5-x2x9k", "reviews-0"). Other names are
// workloads of their own.
func WorkloadName(instance string) string {
	head, last, ok := cutLast(instance)
	if !ok {
		return instance
	}
	if isOrdinal(last) {
		return head
	}
	if len(last) != 5 || !isGenerated(last) {
		return instance
	}
	if deployment, hash, ok := cutLast(head); ok && 5 <= len(hash) && len(hash) <= 10 && isGenerated(hash) {
		return deployment
	}
	return instance
}

func cutLast(s string) (head, last string, ok bool) {
	i := strings.LastIndexByte(s, '-')
	if i <= 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

// isGenerated reports whether a text may be one of Kubernetes' random ones, which
// have no vowels, so that they are no words.
func isGenerated(s string) bool {
	return strings.Trim(s, "bcdfghjklmnpqrstvwxz2456789") == ""
}

func isOrdinal(s string) bool {
	return s != "" && len(s) <= 4 && strings.Trim(s, "0123456789") == ""
}
