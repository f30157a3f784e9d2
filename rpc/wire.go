package rpc

import "google.golang.org/protobuf/encoding/protowire"

// EachField calls message for each field that is a message, a text or bytes, and
// number for each that is a varint; others are skipped, and either may be nil.
func EachField(b []byte, message func(field protowire.Number, b []byte) error, number func(field protowire.Number, v uint64)) error {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return ErrMessage
		}
		b = b[n:]
		switch kind {
		case protowire.BytesType:
			inner, m := protowire.ConsumeBytes(b)
			if m < 0 {
				return ErrMessage
			}
			if message != nil {
				if err := message(field, inner); err != nil {
					return err
				}
			}
			n = m
		case protowire.VarintType:
			v, m := protowire.ConsumeVarint(b)
			if m < 0 {
				return ErrMessage
			}
			if number != nil {
				number(field, v)
			}
			n = m
		default:
			if n = protowire.ConsumeFieldValue(field, kind, b); n < 0 {
				return ErrMessage
			}
		}
		b = b[n:]
	}
	return nil
}

// AppendMessage writes a field that is a message.
func AppendMessage(b []byte, field protowire.Number, message []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), message)
}

// AppendText writes a field that is a text, and leaves an empty one out, as
// proto3 does.
func AppendText(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

// AppendNumber writes a field that is a number, and leaves 0 out.
func AppendNumber(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}
