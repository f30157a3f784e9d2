package http2

import (
	"strconv"

	"isthmus/http1"
)

// The encoder has no state: it refers to the static table and writes all else
// out, without Huffman's code, so that any goroutine can encode a header block
// without waiting for others on its connection. HAProxy and nginx do likewise.
// What that costs in bytes it saves in time.
//
// The Append functions write what they are given; see those of http1.

// Indices of the static table.
const (
	indexAuthority   = 1
	indexGet         = 2
	indexPost        = 3
	indexPath        = 4
	indexHTTP        = 6
	indexHTTPS       = 7
	indexStatus      = 8
	indexAcceptCoded = 16 // accept-encoding: gzip, deflate
)

// How a literal begins: that it is not put in the table, or that nobody behind
// us may put it there either (RFC 7541 6.2.2, 6.2.3).
const (
	literalPlain = 0x00
	literalNever = 0x10
	literalBits  = 4
)

// AppendStatus writes :status, of three digits.
func AppendStatus(dst []byte, status int) []byte {
	switch status {
	case 200:
		return append(dst, 0x80|indexStatus)
	case 204:
		return append(dst, 0x80|indexStatus+1)
	case 206:
		return append(dst, 0x80|indexStatus+2)
	case 304:
		return append(dst, 0x80|indexStatus+3)
	case 400:
		return append(dst, 0x80|indexStatus+4)
	case 404:
		return append(dst, 0x80|indexStatus+5)
	case 500:
		return append(dst, 0x80|indexStatus+6)
	}
	return strconv.AppendInt(append(dst, literalPlain|indexStatus, 3), int64(status), 10)
}

// AppendMethod writes :method.
func AppendMethod(dst, method []byte) []byte {
	switch string(method) {
	case "GET":
		return append(dst, 0x80|indexGet)
	case "POST":
		return append(dst, 0x80|indexPost)
	}
	return appendPlain(append(dst, literalPlain|indexGet), method)
}

// AppendScheme writes :scheme.
func AppendScheme(dst, scheme []byte) []byte {
	switch string(scheme) {
	case "http":
		return append(dst, 0x80|indexHTTP)
	case "https":
		return append(dst, 0x80|indexHTTPS)
	}
	return appendPlain(append(dst, literalPlain|indexHTTP), scheme)
}

// AppendAuthority writes :authority.
func AppendAuthority(dst, authority []byte) []byte {
	return appendPlain(append(dst, literalPlain|indexAuthority), authority)
}

// AppendPath writes :path, with its query if it has one.
func AppendPath(dst, path, query []byte, hasQuery bool) []byte {
	if !hasQuery {
		if len(path) == 1 && path[0] == '/' {
			return append(dst, 0x80|indexPath)
		}
		return appendPlain(append(dst, literalPlain|indexPath), path)
	}
	dst = appendInt(append(dst, literalPlain|indexPath, 0), 7, len(path)+1+len(query))
	dst = append(append(dst, path...), '?')
	return append(dst, query...)
}

// AppendProtocol writes :protocol (RFC 8441 4).
func AppendProtocol(dst, protocol []byte) []byte {
	const name = ":protocol"
	dst = append(append(dst, literalPlain, byte(len(name))), name...)
	return appendPlain(dst, protocol)
}

// AppendField writes a field, its name in lower case (RFC 9113 8.2.1). One that
// holds a secret is kept out of all tables, from whose effect on lengths it could
// be guessed (RFC 7541 7.1.3); whether a peer has asked for that the message does
// not tell, so it is done for the names that are known for it.
func AppendField(dst, name, value []byte) []byte {
	i := staticIndex(name)
	switch {
	case i == 0:
		dst = appendInt(append(dst, literalPlain, 0), 7, len(name))
		for _, c := range name {
			if 'A' <= c && c <= 'Z' {
				c |= 0x20
			}
			dst = append(dst, c)
		}
	case i == indexAcceptCoded && string(value) == staticPairs[i-1][1]:
		return append(dst, 0x80|indexAcceptCoded)
	case secret(staticFields[i].ID) || i == indexProxyAuthorization:
		dst = appendInt(append(dst, literalNever), literalBits, i)
	default:
		dst = appendInt(append(dst, literalPlain), literalBits, i)
	}
	return appendPlain(dst, value)
}

const indexProxyAuthorization = 49

func secret(id http1.FieldID) bool {
	return id == http1.Authorization || id == http1.Cookie || id == http1.SetCookie
}

// staticIndex returns the first index of a name, in any case, in the static
// table; 0 if there is none. Pseudo-header fields are not looked for.
func staticIndex(name []byte) int {
	if len(name) == 0 {
		return 0
	}
	i := int(staticByName[staticHash(name)])
	if i == 0 {
		return 0
	}
	want := staticPairs[i-1][0]
	if len(want) != len(name) {
		return 0
	}
	for j := range name {
		// For letters and "-", which is all that these names have, this compares
		// without case; no other character of a token is taken for one of them.
		if name[j]|0x20 != want[j] {
			return 0
		}
	}
	return i
}

// staticHash gives each name of the static table a number of its own. The
// factors were found by trying.
func staticHash(name []byte) uint8 {
	n := len(name)
	return (uint8(n)*3 + (name[0]|0x20)*39 + (name[n-1]|0x20)*2 + (name[n/2]|0x20)*48) & 0x7f
}

var staticByName = func() (t [128]uint8) {
	for i, pair := range staticPairs {
		name := []byte(pair[0])
		if name[0] == ':' || i > 0 && staticPairs[i-1][0] == pair[0] {
			continue
		}
		h := staticHash(name)
		if t[h] != 0 {
			panic("http2: two names of the static table have the same hash")
		}
		t[h] = uint8(i + 1)
	}
	return t
}()

// appendInt writes n in the last bits of the last byte, which are 0, and as
// many bytes after it as it takes (RFC 7541 5.1).
func appendInt(dst []byte, bits, n int) []byte {
	mask := 1<<bits - 1
	last := &dst[len(dst)-1]
	if n < mask {
		*last |= byte(n)
		return dst
	}
	*last |= byte(mask)
	for n -= mask; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}

// appendPlain writes a string as it is: its length, in seven bits, and its bytes.
func appendPlain(dst, s []byte) []byte {
	return append(appendInt(append(dst, 0), 7, len(s)), s...)
}
