package accesslog

import (
	"fmt"
	"strconv"
	"time"
)

// second is the text of a second. Most lines are of the same as the one before: to
// take a moment apart costs more than all else that is done with it.
type second struct {
	number int64 // since 1970
	text   [len("2006-01-02T15:04:05.")]byte
}

// appendTime writes a moment as Envoy does, in UTC: 2006-01-02T15:04:05.000Z. It is
// in nanoseconds since 1970.
func (s *second) appendTime(dst []byte, t int64) []byte {
	number, rest := t/1e9, t%1e9
	if rest < 0 {
		number, rest = number-1, rest+1e9
	}
	if number != s.number || s.text[0] == 0 {
		s.number = number
		time.Unix(number, 0).UTC().AppendFormat(s.text[:0], "2006-01-02T15:04:05.")
	}
	millis := int(rest / 1e6)
	dst = append(dst, s.text[:]...)
	return append(dst, byte('0'+millis/100), byte('0'+millis/10%10), byte('0'+millis%10), 'Z')
}

// appendInt writes a number, of which most are short.
func appendInt(dst []byte, v int64) []byte {
	switch {
	case v < 0 || v > 999:
		return strconv.AppendInt(dst, v, 10)
	case v < 10:
		return append(dst, byte('0'+v))
	case v < 100:
		return append(dst, byte('0'+v/10), byte('0'+v%10))
	}
	return append(dst, byte('0'+v/100), byte('0'+v/10%10), byte('0'+v%10))
}

// appendDigits writes a number of n digits.
func appendDigits(dst []byte, v, n int) []byte {
	at := len(dst)
	dst = append(dst, "000000000"[:n]...)
	for i := at + n - 1; i >= at; i-- {
		dst[i] = byte('0' + v%10)
		v /= 10
	}
	return dst
}

// piece is a part of a format of times: a text, a layout of package time,
// fractions of a second, or the seconds since 1970.
type piece struct {
	literal string
	layout  string
	digits  int // of a fraction
	seconds bool
}

// timeLayouts are those of strftime that are of use in a log.
var timeLayouts = map[byte]string{
	'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'y': "06", 'b': "Jan", 'a': "Mon", 'e': "_2", 'j': "002",
	'F': "2006-01-02", 'T': "15:04:05", 'D': "01/02/06", 'R': "15:04", 'Z': "UTC", 'z': "-0700", 'I': "03", 'p': "PM", 'B': "January", 'A': "Monday",
}

// parseTimeLayout reads a format of times as strftime has it, with %3f for
// milliseconds and the like.
func parseTimeLayout(s string) (out []piece, err error) {
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			out = append(out, piece{literal: s[i : i+1]})
			continue
		}
		i++
		digits := 0
		if i < len(s) && '1' <= s[i] && s[i] <= '9' {
			digits = int(s[i] - '0')
			i++
		}
		switch {
		case i == len(s):
			return nil, fmt.Errorf("START_TIME(%s): there is nothing behind the last %%", s)
		case s[i] == '%':
			out = append(out, piece{literal: "%"})
		case s[i] == 'f':
			if digits == 0 {
				digits = 9
			}
			out = append(out, piece{digits: digits})
		case s[i] == 's' && digits == 0:
			out = append(out, piece{seconds: true})
		case timeLayouts[s[i]] != "" && digits == 0:
			out = append(out, piece{layout: timeLayouts[s[i]]})
		default:
			return nil, fmt.Errorf("START_TIME(%s): %%%c is not known", s, s[i])
		}
	}
	return out, nil
}

// appendLayout writes a moment as a format says. It is in nanoseconds since 1970.
func appendLayout(dst []byte, layout []piece, nanos int64) []byte {
	t := time.Unix(0, nanos).UTC()
	for _, p := range layout {
		switch {
		case p.digits > 0:
			fraction := t.Nanosecond()
			for range 9 - p.digits {
				fraction /= 10
			}
			dst = appendDigits(dst, fraction, p.digits)
		case p.seconds:
			dst = appendInt(dst, t.Unix())
		case p.literal != "":
			dst = append(dst, p.literal...)
		default:
			dst = t.AppendFormat(dst, p.layout)
		}
	}
	return dst
}
