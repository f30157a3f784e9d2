package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"isthmus/admin"
)

func newTopCommand() *cobra.Command {
	var q question
	cmd := &cobra.Command{
		Use:   "top [--admin URL]",
		Short: "Watch the mesh that a running proxy knows",
		Long: `Watch the mesh that a running proxy knows: what is wrong, clusters and links, services, endpoints, members.
Without a terminal, or with -o json, it is shown once.

Keys: Tab or arrows change the page, up and down move, s sorts, / searches, u shows what needs somebody, q ends.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(q.output); err != nil {
				return err
			}
			out, ok := cmd.OutOrStdout().(*os.File)
			if q.output == "json" || !ok || !term.IsTerminal(int(out.Fd())) || !term.IsTerminal(int(os.Stdin.Fd())) {
				return topOnce(&q, cmd.OutOrStdout())
			}
			return watchTop(&q, out)
		},
	}
	q.flags(cmd)
	return cmd
}

// topOnce shows the mesh and its services, once.
func topOnce(q *question, out io.Writer) error {
	var all struct {
		Mesh     admin.Mesh      `json:"mesh"`
		Services []admin.Service `json:"services"`
	}
	if err := ask(q, "/mesh", &all.Mesh); err != nil {
		return err
	}
	if err := ask(q, "/services", &all.Services); err != nil {
		return err
	}
	if q.output == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(all)
	}
	return admin.WritePrintable(out, func(w io.Writer) {
		admin.WriteMesh(w, all.Mesh)
		fmt.Fprintln(w)
		admin.WriteServices(w, all.Services)
	})
}

// ask asks a running proxy for a page.
func ask(q *question, path string, v any) error {
	body, err := q.ask(path)
	if err == nil {
		if err = json.Unmarshal(body, v); err != nil {
			err = fmt.Errorf("%s%s: not the answer of an isthmus: %w", q.url, path, err)
		}
	}
	return err
}

// topInterval is how often figures are asked for: as often as the proxy reads
// its counters.
const topInterval = 2 * time.Second

// watchTop shows pages on a terminal until its reader has seen enough.
func watchTop(q *question, out *os.File) error {
	fd := int(os.Stdin.Fd())
	before, err := term.MakeRaw(fd)
	if err != nil {
		return err
	}
	// The alternate screen, without cursor and line wrap; what was there comes
	// back, whatever happens.
	fmt.Fprint(out, "\x1b[?1049h\x1b[?25l\x1b[?7l")
	defer func() {
		fmt.Fprint(out, "\x1b[?7h\x1b[?25h\x1b[?1049l")
		term.Restore(fd, before)
	}()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	keys := make(chan string)
	go typed(ctx, os.Stdin, keys)

	t := topState{colour: isTerminal(out)}
	answers := make(chan topData, 1) // of the one question under way
	asking := false
	tick := time.NewTicker(topInterval)
	defer tick.Stop()
	for stale := true; ; {
		if t.width, t.height, err = term.GetSize(int(out.Fd())); err != nil {
			t.width, t.height = 80, 24
		}
		t.room = t.rows()
		if stale && !asking {
			stale, asking = false, true
			// Keys work all the while; it ends when the proxy answers or ask gives up.
			go func(v topView) { answers <- v.load(q) }(t.topView)
		}
		io.WriteString(out, t.frame())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			stale = true
		case <-resized:
			stale = true
		case d := <-answers:
			asking = false
			t.take(d)
			stale = stale || d.view != t.topView
		case k, ok := <-keys:
			if !ok {
				return nil
			}
			changed, ends := t.key(k)
			if ends {
				return nil
			}
			stale = stale || changed
		}
	}
}

// typed sends what is typed, a key at a time. It ends with the terminal, or
// with the first key after ctx.
func typed(ctx context.Context, in io.Reader, keys chan<- string) {
	defer close(keys)
	for r := bufio.NewReader(in); ; {
		k, err := readKey(r)
		if err != nil {
			return
		}
		select {
		case keys <- k:
		case <-ctx.Done():
			return
		}
	}
}

// arrows are the keys that terminals send as an escape, a bracket and this.
var arrows = map[string]string{"A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end", "Z": "left", "5~": "page up", "6~": "page down", "1~": "home", "4~": "end"}

// readKey reads a key: its character, or its name.
func readKey(r *bufio.Reader) (string, error) {
	c, _, err := r.ReadRune()
	if err != nil {
		return "", err
	}
	switch c {
	case '\t':
		return "right", nil
	case '\r', '\n':
		return "enter", nil
	case 127, '\b':
		return "backspace", nil
	case 3, 4: // Ctrl-C, Ctrl-D
		return "end of input", nil
	case 27:
	default:
		return string(c), nil
	}
	// What follows an escape in one go belongs to it; Esc itself comes alone.
	if r.Buffered() == 0 {
		return "escape", nil
	}
	if c, _, err = r.ReadRune(); err != nil || c != '[' && c != 'O' {
		return "escape", err
	}
	var code strings.Builder
	for code.Len() < 8 && r.Buffered() > 0 {
		c, _, err := r.ReadRune()
		if err != nil {
			return "", err
		}
		code.WriteRune(c)
		if c >= '@' { // the last of a sequence (ECMA-48)
			break
		}
	}
	return arrows[code.String()], nil
}

// The pages of top, in their order.
const (
	topMesh = iota
	topServices
	topEndpoints
	topMembers
	topPages
)

var topNames = [topPages]string{"Mesh", "Services", "Endpoints", "Members"}

// topSorts are what services can be sorted by; first come those that need
// somebody.
var topSorts = []string{"", "requests", "errors", "p99", "name"}

// topState is what a reader of top looks at.
type topState struct {
	width, height int
	colour        bool
	typing        bool // the search
	topView
	topData
}

// topView says which part of what is shown.
type topView struct {
	page   int
	first  int // the row at the top
	room   int // how many rows there can be
	sort   int // of topSorts
	search string
	unwell bool // only endpoints that cannot serve
}

// topData is what the proxy has answered.
type topData struct {
	view      topView
	mesh      admin.Mesh
	services  []admin.Service
	endpoints []admin.Endpoint
	members   []admin.Member
	err       error
}

// load asks for what is shown.
func (v topView) load(q *question) topData {
	d := topData{view: v}
	if d.err = ask(q, "/mesh", &d.mesh); d.err != nil {
		return d
	}
	p := url.Values{"offset": {strconv.Itoa(v.first)}, "limit": {strconv.Itoa(v.room)}}
	if v.search != "" {
		p.Set("q", v.search)
	}
	switch v.page {
	case topServices:
		p.Set("sort", topSorts[v.sort])
		d.err = ask(q, "/services?"+p.Encode(), &d.services)
	case topEndpoints:
		if v.unwell {
			p.Set("healthy", "false")
		}
		d.err = ask(q, "/endpoints?"+p.Encode(), &d.endpoints)
	case topMembers:
		p.Set("digest", "1")
		d.err = ask(q, "/members?"+p.Encode(), &d.members)
	}
	return d
}

// take takes an answer over. Of none, what was known before stays to be seen.
func (t *topState) take(d topData) {
	if d.err != nil {
		t.err = d.err
		return
	}
	t.topData = d
	if t.first > 0 && t.shown() == 0 && d.view == t.topView {
		t.first = max(0, t.first-t.rows()) // the list has become shorter
	}
}

// shown is how many rows of a list there are.
func (t *topState) shown() int {
	switch t.page {
	case topServices:
		return len(t.services)
	case topEndpoints:
		return len(t.endpoints)
	case topMembers:
		return len(t.members)
	}
	return len(t.meshLines())
}

// key does what a key asks for. changed: something else is to be shown.
func (t *topState) key(k string) (changed, ends bool) {
	before := t.topView
	defer func() { changed = t.topView != before }()
	if k == "end of input" {
		return false, true
	}
	if t.typing {
		switch k {
		case "enter", "escape":
			t.typing = false
			if k == "escape" {
				t.search, t.first = "", 0
			}
		case "backspace":
			if r := []rune(t.search); len(r) > 0 {
				t.search, t.first = string(r[:len(r)-1]), 0
			}
		default:
			if len([]rune(k)) == 1 && len(t.search) < 100 {
				t.search, t.first = t.search+k, 0
			}
		}
		return false, false
	}
	rows := t.rows()
	switch k {
	case "q", "Q":
		return false, true
	case "right", "l":
		t.turn(t.page + 1)
	case "left", "h":
		t.turn(t.page + topPages - 1)
	case "1", "2", "3", "4":
		t.turn(int(k[0] - '1'))
	case "down", "j":
		t.scroll(1)
	case "up", "k":
		t.scroll(-1)
	case "page down", " ":
		t.scroll(rows)
	case "page up":
		t.scroll(-rows)
	case "home", "g":
		t.first = 0
	case "s":
		t.sort, t.first = (t.sort+1)%len(topSorts), 0
	case "u":
		t.unwell, t.first = !t.unwell, 0
	case "/":
		t.typing = t.page != topMesh
	case "escape":
		t.search, t.first = "", 0
	}
	return false, false
}

func (t *topState) turn(page int) {
	t.page, t.first, t.search = page%topPages, 0, ""
}

func (t *topState) scroll(by int) {
	if by > 0 && t.shown() < t.rows() && t.page != topMesh {
		return // the end is to be seen already
	}
	t.first = max(0, t.first+by)
	if t.page == topMesh {
		t.first = max(0, min(t.first, t.shown()-t.rows()))
	}
}
