package proxy

import (
	"bytes"
	"errors"
	"strings"

	"isthmus/http1"
	"isthmus/mesh"
)

// errAuthority is a host that is none.
var errAuthority = errors.New("the host it names is none")

// errPath is a path in which two readers could see two different files.
var errPath = errors.New("the path's escapes make dot segments, or end a string")

// errRewritten is a path that would be such a one when the route has rewritten it.
const errRewritten = notTaken("the route's rewrite would make a path with dot segments of its path")

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
// see its end (Envoy's canonicalizer refuses it too). Escapes of characters that
// need none are undone (RFC 3986 6.2.2.2), so that nobody gets past a rule on
// "/admin" by "/%61dmin"; others stay as they came.
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
		path = undoEscapes(path)
	}
	if countDotSegments(path) == 0 {
		return path, nil
	}
	return removeDotSegments(path), nil
}

// mergeSlashes does what a mesh asks for besides. Escaped slashes that would make
// dot segments have been refused before.
func mergeSlashes(path []byte, n mesh.PathNormalization) []byte {
	if n == mesh.PathsDecodedOnce && bytes.IndexByte(path, '%') >= 0 {
		for _, escape := range []string{"%2F", "%2f", "%5C", "%5c"} {
			path = bytes.ReplaceAll(path, []byte(escape), []byte("/"))
		}
	}
	if !bytes.Contains(path, []byte("//")) {
		return path
	}
	out := make([]byte, 0, len(path))
	for i, c := range path {
		if c != '/' || i == 0 || path[i-1] != '/' {
			out = append(out, c)
		}
	}
	return out
}

// climbs reports whether a rewrite would make a path with dot segments, escaped ones
// too, of one that has none: "/api../x" becomes "/../x" where the prefix "/api" becomes
// "/". Whoever reads that would see a path that no rule has been asked about.
func (x *exchange) climbs(rw *mesh.Rewrite) bool {
	if path := x.req.Path; bytes.IndexByte(path, '.') < 0 && bytes.IndexByte(path, '%') < 0 && !strings.ContainsAny(rw.Substitution, ".%") {
		return false
	}
	path, _, _ := bytes.Cut(x.rewritePath(rw), []byte("?"))
	return countDotSegments(bytes.ReplaceAll(unescape(path), []byte(`\`), []byte("/"))) > 0
}

// undoEscapes decodes what is unreserved (RFC 3986 2.3).
func undoEscapes(path []byte) []byte {
	out := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		if path[i] == '%' && i+2 < len(path) {
			hi, lo := http1.HexDigit(path[i+1]), http1.HexDigit(path[i+2])
			if c := byte(hi<<4 | lo); hi >= 0 && lo >= 0 && isUnreserved(c) && !openEscape(out) {
				out = append(out, c)
				i += 2
				continue
			}
		}
		out = append(out, path[i])
	}
	return out
}

// openEscape reports whether a path ends within a broken escape, which one more
// letter could make a good one: "%2%65" must not become "%2e".
func openEscape(path []byte) bool {
	n := len(path)
	return n > 0 && path[n-1] == '%' || n > 1 && path[n-2] == '%'
}

func isUnreserved(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
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
