package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"isthmus/accesslog"
	"isthmus/explain"
	"isthmus/mesh"
	"isthmus/proxy"
)

func newReplayCommand() *cobra.Command {
	var bootstrap, output, from, listener string
	var paths, against []string
	cmd := &cobra.Command{
		Use:   "replay ACCESS-LOG --config NEW... [--against OLD...] [--bootstrap FILE]",
		Short: "Say how many recorded requests another configuration would treat otherwise",
		Long: `Reads an access log, JSON with Istio's keys or Istio's text, and asks a configuration what would become of each request:
another route, another destination, another refusal, a rate limit. Nothing is sent.
With --against, the requests are asked of that configuration, too, and the answers compared: that is exact as far as
the log goes, which holds no headers but a few. Without it, the answers are compared with what the log says was done.`,
		Example: `  isthmus replay access.log --config new/
  isthmus replay access.log --config new/ --against old/ --bootstrap node.yaml -o json`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if len(paths) == 0 {
				return usageError{errors.New("--config is missing: name the configuration that is to be tried")}
			}
			r := &replay{listener: listener, report: replayReport{Changes: []replayChange{}}}
			var err error
			if r.new, err = idleProxy(cmd.ErrOrStderr(), bootstrap, paths); err != nil {
				return err
			}
			defer r.new.Close()
			if len(against) > 0 {
				if r.old, err = idleProxy(cmd.ErrOrStderr(), bootstrap, against); err != nil {
					return err
				}
				defer r.old.Close()
			}
			if r.caller, err = callerOf(from, r.new.Node().TrustDomain); err != nil {
				return err
			}
			log, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer log.Close()
			if err := r.read(log); err != nil {
				return err
			}
			r.finish()
			if r.report.Requests == 0 && r.report.Unread > 0 {
				return fmt.Errorf("%s: none of its %d lines could be used: %s: write the log with accessLog.format json or text", args[0], r.report.Unread, r.report.Why)
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), r.report)
			}
			return writeReplay(cmd.OutOrStdout(), &r.report)
		},
	}
	cmd.Flags().StringVar(&bootstrap, "bootstrap", "", "bootstrap `FILE` of the proxy that has written the log")
	cmd.Flags().StringArrayVar(&paths, "config", nil, "file or folder of the new configuration, `PATH`; may be given several times")
	cmd.Flags().StringArrayVar(&against, "against", nil, "file or folder of the old configuration, `PATH`; default: what the log says was done")
	cmd.Flags().StringVar(&listener, "listener", "", "outbound, inbound or gateway:PORT; default: what each line tells of, else outbound")
	cmd.Flags().StringVar(&from, "from", "", "who has called by mTLS: `NAMESPACE/SERVICE-ACCOUNT`, or a SPIFFE ID")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

// replayReport is what a replay has found.
type replayReport struct {
	Requests  int            `json:"requests"`
	Same      int            `json:"same"`
	Unread    int            `json:"unread"` // lines
	Why       string         `json:"why,omitempty"`
	Nobody    int            `json:"nobody,omitempty"`    // requests for which the new configuration's files give no endpoint
	NobodyWhy string         `json:"nobodyWhy,omitempty"` // of the first
	Changes   []replayChange `json:"changes"`             // the most frequent first
}

// replayChange is requests to which the same happens.
type replayChange struct {
	What    string `json:"what"` // "route", "destination", "answer", "refused", "refused otherwise", "let through"
	Old     string `json:"old"`
	New     string `json:"new"`
	Source  string `json:"source,omitempty"` // of what decides now
	Count   int    `json:"count"`
	Example string `json:"example"` // the first of them
	Line    int    `json:"line"`    // in the log
}

type replay struct {
	new, old         *proxy.Proxy // old: nil
	caller, listener string
	report           replayReport
	changes          map[replayChange]*replayChange // by what they have in common
}

// maxLogLine is how much is kept of a line: more than [accesslog.ParseLine] takes.
const maxLogLine = 1<<20 + 1

func (r *replay) read(log io.Reader) error {
	r.changes = map[replayChange]*replayChange{}
	lines := bufio.NewReaderSize(log, 64<<10)
	var line []byte
	for n := 1; ; n++ {
		var err error
		if line, err = readLine(lines, line[:0]); err == io.EOF && len(line) == 0 {
			return nil
		} else if err != nil && err != io.EOF {
			return fmt.Errorf("read the log: %w", err)
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		rec, err := accesslog.ParseLine(line)
		if err == nil {
			err = r.request(n, &rec)
		}
		if err != nil {
			if r.report.Unread++; r.report.Why == "" {
				r.report.Why = fmt.Sprintf("line %d: %v", n, err)
			}
		}
	}
}

// readLine reads the next line into line, without what is beyond [maxLogLine], as where a
// machine has lost its power. It may end with io.EOF in the place of a line end.
func readLine(lines *bufio.Reader, line []byte) ([]byte, error) {
	for {
		part, err := lines.ReadSlice('\n')
		line = append(line, part[:min(len(part), maxLogLine-len(line))]...)
		if err != bufio.ErrBufferFull {
			return line, err
		}
	}
}

// request asks about one request and notes what has changed for it.
func (r *replay) request(line int, rec *accesslog.Record) error {
	q := explain.Question{Listener: cmp.Or(r.listener, r.listenerOf(rec)), Method: rec.Method, URL: "http://" + rec.Authority + rec.Path, Caller: r.caller, At: rec.Start}
	if rec.ServerName != "" { // TLS that a gateway has ended, or proxies' mTLS
		q.ServerName = rec.ServerName
		if q.Listener != "inbound" {
			q.URL = "https://" + rec.Authority + rec.Path
		}
	}
	for _, f := range []explain.Field{{Name: "user-agent", Value: rec.UserAgent}, {Name: "x-forwarded-for", Value: rec.ForwardedFor}, {Name: "x-request-id", Value: rec.RequestID}} {
		if f.Value != "" {
			q.Fields = append(q.Fields, f)
		}
	}
	if a, err := netip.ParseAddrPort(rec.Client); err == nil {
		q.Address = a.Addr().Unmap()
	}
	e, err := r.new.Explain(q)
	if err != nil {
		return err
	}
	now := decisionOf(e)
	was := recorded(rec)
	if q.Listener == "inbound" {
		was.route = "" // there is one for each service: "inbound" here, "default" in Istio
	}
	if r.old != nil {
		before, err := r.old.Explain(q)
		if err != nil {
			return err
		}
		was = decisionOf(before)
		if was.nobody == "" && was.refusal == "" && now.nobody != "" { // the new files have lost them
			now.refusal, now.reason = now.lacking, now.nobody
		}
	}
	if now.nobody != "" && was.refusal != "" && (was.refusal == now.lacking || e.Host == "") {
		now.refusal, now.reason = was.refusal, was.reason // gossip had not brought it then, or nobody knows what comes after the host
	}
	r.report.Requests++
	if now.nobody != "" && now.refusal == "" {
		r.report.Nobody++
		r.report.NobodyWhy = cmp.Or(r.report.NobodyWhy, now.nobody)
	}
	what, old, new := was.differs(now)
	if what == "" {
		r.report.Same++
		return nil
	}
	key := replayChange{What: what, Old: old, New: new, Source: now.source}
	if r.changes[key] == nil {
		c := key
		c.Example, c.Line = rec.Method+" "+rec.Authority+rec.Path, line
		r.changes[key] = &c
	}
	r.changes[key].Count++
	return nil
}

// listenerOf returns the listener that a request has come to: what it was sent on as
// says so, or the server name of a connection between proxies, or where it arrived. "":
// nothing does.
func (r *replay) listenerOf(rec *accesslog.Record) string {
	_, _, _, between := mesh.ParseDestinationSNI(rec.ServerName)
	if between || strings.HasPrefix(rec.Upstream, "inbound|") {
		return "inbound"
	}
	local, err := netip.ParseAddrPort(rec.Local)
	if err != nil {
		return ""
	}
	at := r.new.ListenerAt(local)
	if at == "" && r.old != nil { // a Gateway's port that the new configuration has not
		at = r.old.ListenerAt(local)
	}
	return at
}

func (r *replay) finish() {
	for _, c := range r.changes {
		r.report.Changes = append(r.report.Changes, *c)
	}
	slices.SortFunc(r.report.Changes, func(a, b replayChange) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Line, b.Line), cmp.Compare(a.New, b.New))
	})
}

// writeReplay writes a report for people.
func writeReplay(w io.Writer, r *replayReport) error {
	var b strings.Builder
	share := func(n int) string {
		return fmt.Sprintf("%6.2f %%  %8d", 100*float64(n)/float64(max(r.Requests, 1)), n)
	}
	fmt.Fprintf(&b, "%d requests", r.Requests)
	if r.Unread > 0 {
		fmt.Fprintf(&b, "; %d lines could not be used, the first: %s", r.Unread, r.Why)
	}
	if r.Nobody > 0 {
		fmt.Fprintf(&b, "\n%d of them have no endpoint but those that gossip may bring; the first: %s", r.Nobody, r.NobodyWhy)
	}
	fmt.Fprintf(&b, "\n\n%s  as before\n", share(r.Same))
	for _, c := range r.Changes {
		what := map[string]string{"route": "another route", "destination": "another destination", "answer": "another answer", "refused": "REFUSED"}[c.What]
		fmt.Fprintf(&b, "%s  %s: %s -> %s", share(c.Count), cmp.Or(what, c.What), c.Old, c.New)
		if c.Source != "" && !strings.Contains(c.New, c.Source) {
			fmt.Fprintf(&b, "  [%s]", c.Source)
		}
		fmt.Fprintf(&b, "\n                     as line %d, %s\n", c.Line, c.Example)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
