package accesslog

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"time"
)

// day is the beginning of moments of one day, as text.
type day struct {
	number int64 // since 1970
	text   [len("2006-01-02T")]byte
}

// lastDay is that of the line made last: to take a moment apart costs more than
// all else that is done with it.
var lastDay atomic.Pointer[day]

const secondsOfDay = 24 * 60 * 60

// appendTime writes a moment as Envoy does, in UTC: 2006-01-02T15:04:05.000Z.
func appendTime(dst []byte, t time.Time) []byte {
	second := t.Unix()
	number, rest := second/secondsOfDay, int(second%secondsOfDay)
	if rest < 0 {
		number, rest = number-1, rest+secondsOfDay
	}
	d := lastDay.Load()
	if d == nil || d.number != number {
		d = &day{number: number}
		t.UTC().AppendFormat(d.text[:0], "2006-01-02T")
		lastDay.Store(d)
	}
	dst = append(dst, d.text[:]...)
	dst = appendTwo(dst, rest/3600)
	dst = appendTwo(append(dst, ':'), rest/60%60)
	dst = appendTwo(append(dst, ':'), rest%60)
	dst = appendDigits(append(dst, '.'), t.Nanosecond()/1e6, 3)
	return append(dst, 'Z')
}

// appendTwo writes a number of two digits.
func appendTwo(dst []byte, v int) []byte { return append(dst, byte('0'+v/10), byte('0'+v%10)) }

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

func appendLayout(dst []byte, layout []piece, t time.Time) []byte {
	t = t.UTC()
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
