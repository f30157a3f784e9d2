// Command isthmus is a proxy between clusters: see the README, or
// "isthmus help".
//
// This folder only takes flags and wires the packages together, one file for
// each command; run.go shows how the proxy is put together, drain.go how it ends.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// usageError is a mistake in how the program was called: exit status 2.
type usageError struct{ error }

// errFindings is a configuration with findings: exit status 1, and nothing
// more to say.
var errFindings = errors.New("findings")

func main() { os.Exit(run(os.Args[1:])) }

// run runs a command and returns its exit status.
func run(args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.Execute()
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errFindings):
		return 1
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "isthmus: %v\n", err)
		return 2
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(os.Stderr, "isthmus: %s\n", line)
	}
	return 1
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "isthmus",
		Short:         "A proxy that carries HTTP between clusters, without a control plane",
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          helpOnly,
		Args:          cobra.ArbitraryArgs,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if before := cmd.Flags().Args(); cmd.HasSubCommands() && len(before) > 0 {
			return helpOnly(cmd, before) // which is no command: the flag may be known to the one that was meant
		}
		return usageError{fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())}
	})
	root.AddCommand(
		newRunCommand(), newValidateCommand(), newExplainCommand(), newReplayCommand(), newDemoCommand(),
		newStatusCommand(), newEndpointsCommand(), newMembersCommand(), newRoutesCommand(), newLimitsCommand(), newTopCommand(), newWhyCommand(), newConfigCommand(),
		newCertsCommand(), newKeygenCommand(), newVersionCommand(),
	)
	return root
}

// helpOnly is what a command does that only has others below it.
func helpOnly(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("there is no command %q%s: see %s --help", strings.Join(append(strings.Fields(cmd.CommandPath())[1:], args[0]), " "), similar(cmd, args[0]), cmd.CommandPath())}
	}
	return cmd.Help()
}

// similar asks whether another command was meant; "" if none is like it.
func similar(root *cobra.Command, name string) string {
	root.SuggestionsMinimumDistance = 2
	if meant := root.SuggestionsFor(name); len(meant) > 0 {
		return fmt.Sprintf(" (did you mean %q?)", meant[0])
	}
	return ""
}

// usage makes a check of positional arguments end in exit status 2, with what the
// command takes.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		var said usageError
		if err == nil || errors.As(err, &said) {
			return err
		}
		problem := "an argument is missing"
		if len(args) > 0 {
			problem = fmt.Sprintf("%q is one argument too many", args[len(args)-1])
		}
		return usageError{fmt.Errorf("%s: write %s: see %s --help", problem, strings.TrimSuffix(cmd.UseLine(), " [flags]"), cmd.CommandPath())}
	}
}

// checkOutput refuses formats other than text and json.
func checkOutput(format string) error {
	if format != "text" && format != "json" {
		return usageError{fmt.Errorf("-o %s: write text or json", format)}
	}
	return nil
}
