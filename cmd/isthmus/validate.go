package main

import (
	"encoding/json"
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
	var bootstrap, output string
	var strict bool
	cmd := &cobra.Command{
		Use:   "validate [--bootstrap FILE] [-o text|json|sarif] [--strict] PATH...",
		Short: "Say what is wrong with a configuration, and what will not do what it seems to",
		Long: `Reads files and folders as "isthmus run" would, and opens no port.
Each finding ends with a code; docs/findings has a page for it.
Exit status: 0 without an error (with --strict: without a warning either), 1 with findings, 2 for wrong usage.`,
		Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "sarif" {
				if err := checkOutput(output); err != nil {
					return err
				}
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
			r := config.Load(args, node)
			if node != nil {
				r.Add(judgeCredentials(r.Config, node, tls.NewStore(b.CredentialDir, nil), time.Now())...)
				r.Add(judgeLimits(r.Config, b)...)
			}
			if err := printFindings(cmd.OutOrStdout(), r, output); err != nil {
				return err
			}
			if unusable != nil {
				return unusable
			}
			if r.HasErrors() || strict && r.Count(config.Warning) > 0 {
				return errFindings
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&bootstrap, "bootstrap", "", "bootstrap `FILE` of the proxy that is to run with it")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text, json, or sarif for code review")
	cmd.Flags().BoolVar(&strict, "strict", false, "warnings fail, too")
	return cmd
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
