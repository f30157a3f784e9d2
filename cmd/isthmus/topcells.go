package main

import (
	"strings"

	"isthmus/admin"
)

// The colours of top.
const (
	plain = ""
	bold  = "1"
	faint = "2"
	red   = "31"
	amber = "33"
	green = "32"
	bars  = "7" // inverse
)

// cell is a part of a line.
type cell struct {
	text, colour string
	right        bool
	ends         bool // of a column's head: where there is too little room, its texts keep their ends
}

func text(s string) cell              { return cell{text: printable(s)} }
func in(colour, s string) cell        { return cell{text: printable(s), colour: colour} }
func figure(s string) cell            { return cell{text: s, right: true} }
func (c cell) coloured(k string) cell { c.colour = k; return c }
func (c cell) toRight() cell          { c.right = true; return c }

// printable replaces what would steer the terminal: names come from other
// machines.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if admin.Printable(r) {
			return r
		}
		return '?'
	}, s)
}

// wrap cuts a text into lines of so many characters, between words where it can.
func wrap(s string, width int) (out []string) {
	r := []rune(s)
	for width > 0 && len(r) > width {
		end := width
		for end > 0 && r[end] != ' ' {
			end--
		}
		if end == 0 {
			end = width
		}
		out = append(out, strings.TrimRight(string(r[:end]), " "))
		for r = r[end:]; len(r) > 0 && r[0] == ' '; r = r[1:] {
		}
	}
	return append(out, string(r))
}

// line puts cells beside each other, as far as the screen goes.
func (t *topState) line(cells []cell, gap string) string {
	var b strings.Builder
	left := t.width
	for i, c := range cells {
		r := []rune(c.text)
		if i > 0 {
			r = append([]rune(gap), r...)
		}
		if len(r) > left {
			r = r[:max(0, left)]
		}
		left -= len(r)
		text := string(r)
		if c.colour != plain && t.colour && len(r) > 0 {
			lead := ""
			if i > 0 {
				lead, text = text[:min(len(gap), len(text))], text[min(len(gap), len(text)):]
			}
			text = lead + "\x1b[" + c.colour + "m" + text + "\x1b[0m"
		}
		b.WriteString(text)
	}
	return b.String()
}

// table lays rows out below their head. Where there is too little room, the
// widest columns of text give way.
func (t *topState) table(head []cell, rows [][]cell) []string {
	widths := make([]int, len(head))
	for _, row := range append([][]cell{head}, rows...) {
		for i, c := range row {
			widths[i] = max(widths[i], len([]rune(c.text)))
		}
	}
	const gap = 2
	for all := sum(widths) + gap*(len(widths)-1); all > t.width; all-- {
		widest := -1
		for i, w := range widths {
			if !head[i].right && w > minColumn && (widest < 0 || w > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	lay := func(row []cell) string {
		cells := make([]cell, len(row))
		for i, c := range row {
			c.text = fit(c.text, widths[i], c.right, head[i].ends)
			cells[i] = c
		}
		return t.line(cells, strings.Repeat(" ", gap))
	}
	faded := make([]cell, len(head))
	for i, c := range head {
		faded[i] = c.coloured(faint)
	}
	out := []string{lay(faded)}
	for _, row := range rows {
		out = append(out, lay(row))
	}
	return out
}

// minColumn is how narrow a column of text may become.
const minColumn = 8

func sum(list []int) (n int) {
	for _, v := range list {
		n += v
	}
	return n
}

// fit makes a text exactly so wide; of one that is too long its end is kept, or its
// beginning.
func fit(s string, width int, right, end bool) string {
	r := []rune(s)
	switch n := width - len(r); {
	case n < 0 && width > 0 && end:
		return "…" + string(r[len(r)-width+1:])
	case n < 0 && width > 0:
		return string(r[:width-1]) + "…"
	case right:
		return strings.Repeat(" ", max(0, n)) + s
	default:
		return s + strings.Repeat(" ", max(0, n))
	}
}
