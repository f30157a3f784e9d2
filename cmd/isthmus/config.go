package main

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"isthmus/admin"
)

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show and bring back the configurations that a running proxy has had",
		Args:  cobra.ArbitraryArgs,
		RunE:  helpOnly,
	}
	cmd.AddCommand(
		look("history", "List the configurations that were accepted, and those that were refused", "/config/history", admin.WriteHistory),
		newDiffCommand(), newRollbackCommand(), newCanaryCommand(),
	)
	return cmd
}

func newDiffCommand() *cobra.Command {
	return call("diff [N [M]]", "Show how two revisions differ, by resources; by default the one before and the one in force",
		cobra.MaximumNArgs(2), admin.WriteDiff, func(args []string) (method, path string, err error) {
			v := url.Values{}
			for i, name := range []string{"from", "to"} {
				if i < len(args) {
					if err := checkRevision(args[i]); err != nil {
						return "", "", err
					}
					v.Set(name, args[i])
				}
			}
			return http.MethodGet, "/config/diff?" + v.Encode(), nil
		})
}

func newRollbackCommand() *cobra.Command {
	return call("rollback N", "Bring a revision back; it holds until the files change again",
		cobra.ExactArgs(1), admin.WriteRollback, func(args []string) (method, path string, err error) {
			return http.MethodPost, "/config/rollback?to=" + args[0], checkRevision(args[0])
		})
}

func newCanaryCommand() *cobra.Command {
	return call("canary [promote|return|retry]", "Show how a candidate configuration is doing, or decide about it",
		cobra.MaximumNArgs(1), admin.WriteCanary, func(args []string) (method, path string, err error) {
			if len(args) == 0 {
				return http.MethodGet, "/config/canary", nil
			}
			if !slices.Contains([]string{"promote", "return", "retry"}, args[0]) {
				return "", "", usageError{fmt.Errorf("%q: write promote, return or retry", args[0])}
			}
			return http.MethodPost, "/config/canary?do=" + args[0], nil
		})
}

func checkRevision(text string) error {
	if _, err := strconv.ParseUint(text, 10, 64); err != nil {
		return usageError{fmt.Errorf("%q is no revision: isthmus config history lists their numbers", text)}
	}
	return nil
}
