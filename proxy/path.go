package proxy

import (
	"bytes"
	"errors"
)

// errPath is a path in which two readers could see two different files.
var errPath = errors.New("the path's escapes make dot segments, or end a string")

// normalPath reports whether a path is what [normalizePath] would make of it;
// nearly every path is.
func normalPath(path []byte) bool {
	for i, c := range path {
		switch c {
		case '\\', '%':
			return false
		case '.':
			if i > 0 && path[i-1] == '/' {
				return false
			}
		}
	}
	return true
}

// normalizePath brings a path into the form that is matched and sent on: dot
// segments removed (RFC 3986 5.2.4), "\" read as "/", as Envoy does under
// Istio's default (meshConfig pathNormalization BASE). It refuses a path whose
// escaped dots, slashes or backslashes would make a dot segment if somebody
// behind us decoded them, or that has an escaped NUL, where a reader in C would
// see its end (Envoy's canonicalizer refuses it too). Escapes stay as they came.
func normalizePath(path []byte) ([]byte, error) {
	if normalPath(path) {
		return path, nil
	}
	path = bytes.ReplaceAll(path, []byte(`\`), []byte("/"))
	if bytes.IndexByte(path, '%') >= 0 {
		decoded := bytes.ReplaceAll(unescape(path), []byte(`\`), []byte("/"))
		if countDotSegments(decoded) != countDotSegments(path) || bytes.IndexByte(decoded, 0) >= 0 {
			return nil, errPath
		}
	}
	if countDotSegments(path) == 0 {
		return path, nil
	}
	return removeDotSegments(path), nil
}

func countDotSegments(path []byte) int {
	n := 0
	for seg := range bytes.SplitSeq(path, []byte("/")) {
		if s := string(seg); s == "." || s == ".." {
			n++
		}
	}
	return n
}

func removeDotSegments(path []byte) []byte {
	segments := bytes.Split(path[1:], []byte("/"))
	out := segments[:0:0]
	for i, seg := range segments {
		last := i == len(segments)-1
		switch string(seg) {
		case ".":
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
		default:
			out = append(out, seg)
			continue
		}
		if last {
			out = append(out, nil) // "/a/." is the folder "/a/"
		}
	}
	return append([]byte("/"), bytes.Join(out, []byte("/"))...)
}
