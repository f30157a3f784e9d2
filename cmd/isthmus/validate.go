package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"isthmus/config"
	"isthmus/mesh"
	"isthmus/tls"
)

func newValidateCommand() *cobra.Command {
	var bootstrap, output, address string
	var strict bool
	var paths []string
	cmd := &cobra.Command{
		Use:   "validate [--bootstrap FILE] [-o text|json|sarif] [--strict] PATH... | --admin URL",
		Short: "Say what is wrong with a configuration, and what will not do what it seems to",
		Long: `Reads files and folders as "isthmus run" would, and opens no port.
Each finding ends with a code; docs/findings has a page for it.
With --admin a running proxy is asked of what it runs with; it measures besides what connecting takes (ISM0048).
Exit status: 0 without an error (with --strict: without a warning either), 1 with findings, 2 for wrong usage.`,
		Args: usage(func(cmd *cobra.Command, args []string) error {
			paths = append(paths, args...) // --config a b, as for run
			if address == "" && len(paths) == 0 {
				return errors.New("no path")
			}
			if address != "" && (len(paths) > 0 || bootstrap != "") {
				return usageError{errors.New("--admin asks a running proxy what it has read: leave out PATH and --bootstrap")}
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" && output != "sarif" {
				return usageError{fmt.Errorf("-o %s: write text, json or sarif", output)}
			}
			if address != "" {
				r, err := findingsOf(address)
				if err != nil {
					return err
				}
				return tellFindings(cmd.OutOrStdout(), r, output, strict)
			}
			var node *mesh.Node
			var unusable error // certificates of the bootstrap file
			var b *config.Bootstrap
			if bootstrap != "" {
				var warnings []string
				var err error
				if b, warnings, err = config.LoadBootstrap(bootstrap, os.Environ()); err != nil {
					return err
				}
				for _, w := range warnings {
					fmt.Fprintf(cmd.ErrOrStderr(), "isthmus: warning: %s\n", w)
				}
				if err := checkLimitsFile(b, func(w string) { fmt.Fprintf(cmd.ErrOrStderr(), "isthmus: warning: %s\n", w) }); err != nil {
					return err
				}
				node = b.MeshNode()
				_, unusable = loadIdentity(b.Certificates, node, func(message string, args ...any) {
					fmt.Fprintf(cmd.ErrOrStderr(), "isthmus: warning: %s: %s\n", message, args[1])
				})
			}
			r := load(paths, node)
			if node != nil {
				r.Add(judgeCredentials(r.Config, node, tls.NewStore(b.CredentialDir, nil), time.Now())...)
				r.Add(judgeLimits(r.Config, b)...)
			}
			err := tellFindings(cmd.OutOrStdout(), r, output, strict)
			if unusable != nil && (err == nil || errors.Is(err, errFindings)) {
				return unusable
			}
			return err
		},
	}
	cmd.Flags().StringVar(&address, "admin", "", "`URL` of a running proxy's admin listener, in the place of PATH")
	cmd.Flags().StringVar(&bootstrap, "bootstrap", "", "bootstrap `FILE` of the proxy that is to run with it")
	cmd.Flags().StringArrayVar(&paths, "config", nil, "`PATH`, as for run; the flag may be left out")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text, json, or sarif for code review")
	cmd.Flags().BoolVar(&strict, "strict", false, "warnings fail, too")
	return cmd
}

// findingsOf asks a running proxy what it has to say of its configuration.
func findingsOf(address string) (*config.Result, error) {
	body, err := (&question{url: address, output: "json"}).ask("/config/findings")
	if err != nil {
		return nil, err
	}
	r := &config.Result{}
	if err := json.Unmarshal(body, &r.Findings); err != nil {
		return nil, fmt.Errorf("%s: not what an isthmus says: %w", address, err)
	}
	return r, nil
}

// tellFindings prints findings; it returns errFindings if they are to fail.
func tellFindings(w io.Writer, r *config.Result, output string, strict bool) error {
	if err := printFindings(w, r, output); err != nil {
		return err
	}
	if r.HasErrors() || strict && r.Count(config.Warning) > 0 {
		return errFindings
	}
	return nil
}

func printFindings(w io.Writer, r *config.Result, output string) error {
	if output == "sarif" {
		return printSARIF(w, r.Findings)
	}
	if output == "json" {
		list := r.Findings
		if list == nil {
			list = []config.Finding{}
		}
		return printJSON(w, list)
	}
	colour := isTerminal(w)
	for _, f := range r.Findings {
		line := f.String()
		if colour {
			line = [...]string{"\x1b[31m", "\x1b[33m", "\x1b[2m"}[f.Severity] + line + "\x1b[0m"
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// isTerminal reports whether somebody watches.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
