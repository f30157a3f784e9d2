// Command conformance runs what others have written to try HTTP/2 and gRPC
// against the built binary, with Isthmus between the client and the server: the
// suites h2spec, grpc-go's interop and Connect's conformance, and curl, nghttp,
// h2load and Chromium.
//
// bench/conformance-http2.sh installs all of it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// options are the flags.
type options struct {
	isthmus, tools, suites, out string
	verbose                     bool
}

func main() {
	log.SetFlags(0)
	var o options
	flag.StringVar(&o.isthmus, "isthmus", "bin/isthmus", "the binary to drive")
	flag.StringVar(&o.tools, "tools", "bin/conformance", "the folder of the suites' binaries")
	flag.StringVar(&o.suites, "suite", "", "which to run, by the beginnings of their names; default: all")
	flag.StringVar(&o.out, "out", "", "Markdown file for the results, as well")
	flag.BoolVar(&o.verbose, "v", false, "show what the suites say")
	connect := flag.String("connect", "", "be the server that Connect's suite tests: NAME,PROTOCOL (started by the suite)")
	flag.Parse()
	var err error
	switch {
	case *connect != "":
		server, upstream, _ := strings.Cut(*connect, ",")
		err = serveConnect(o.isthmus, filepath.Join(o.tools, server), upstream)
	case flag.NArg() > 0:
		err = fmt.Errorf("%s: only flags are expected, see -help", flag.Arg(0))
	default:
		err = o.run()
	}
	if err != nil {
		log.Fatal(err)
	}
}

// result is what a suite has found.
type result struct {
	name   string // of the suite
	how    string // what it was
	passed int
	failed []string // names of cases
	err    error    // the suite has not come to its end
}

// run runs the suites and tells what they have found.
func (o *options) run() error {
	for _, path := range []*string{&o.isthmus, &o.tools} {
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var all []result
	bad := false
	for _, s := range suites {
		if wanted := strings.Split(o.suites, ","); !slices.ContainsFunc(wanted, func(w string) bool { return strings.HasPrefix(s.name, w) }) {
			continue
		}
		r := result{name: s.name, how: s.how}
		sub, err := os.MkdirTemp(dir, "")
		if err != nil {
			return err
		}
		r.err = s.run(o, sub, &r)
		r.tell(os.Stdout)
		bad = bad || r.err != nil || len(r.failed) > 0
		all = append(all, r)
	}
	if o.out != "" {
		if err := report(o.out, all); err != nil {
			return err
		}
	}
	if bad {
		return errors.New("not all has passed")
	}
	return nil
}
