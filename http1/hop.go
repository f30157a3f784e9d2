package http1

// Listed reports whether the Connection field names a field as hop-by-hop (RFC
// 9110 7.6.1).
func (h *Header) Listed(name []byte) bool {
	for i := range h.Fields {
		if h.Fields[i].ID == Connection && listed(h.Fields[i].Value, name) {
			return true
		}
	}
	return false
}

func listed(list, name []byte) bool {
	for more := true; more; {
		var option []byte
		option, list, more = next(list)
		if len(option) == len(name) && sameName(option, name) {
			return true
		}
	}
	return false
}

// sameName compares two names of the same length, ignoring case.
func sameName(a, b []byte) bool {
	for i := range a {
		if toLower(a[i]) != toLower(b[i]) {
			return false
		}
	}
	return true
}

// StripListed removes every field that Connection names, in any case (RFC 9110 7.6.1). What is
// about the connection, or the framing, whoever names it, stays for who judges the message, and
// is left out by who sends it on: Connection, Keep-Alive, Proxy-Connection, Transfer-Encoding,
// TE and Upgrade. Host and Content-Length stay whatever Connection says: they are the message's.
//
// A client may name any field, a proxy's own included: fields that the next
// reader trusts are to be added after this, never before.
func (h *Header) StripListed() {
	var room [4][]byte // nearly all have one Connection field
	lists := room[:0]
	for i := range h.Fields {
		if h.Fields[i].ID == Connection {
			lists = append(lists, h.Fields[i].Value)
		}
	}
	kept := h.Fields[:0]
fields:
	for _, f := range h.Fields {
		switch f.ID {
		case Connection, KeepAlive, ProxyConnection, TransferEncoding, TE, Upgrade, Host, ContentLength:
		default:
			for _, list := range lists {
				if listed(list, f.Name) {
					continue fields
				}
			}
		}
		kept = append(kept, f)
	}
	clear(h.Fields[len(kept):])
	h.Fields = kept
	h.Hop = false
}
