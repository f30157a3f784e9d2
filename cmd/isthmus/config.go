package main

import (
	"encoding/json"
	"fmt"
	"io"
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
		Args:  usage(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		look("history", "List the configurations that were accepted, and those that were refused", "/config/history", admin.WriteHistory),
		newDiffCommand(), newRollbackCommand(), newCanaryCommand(),
	)
	return cmd
}

func newDiffCommand() *cobra.Command {
	var q question
	cmd := &cobra.Command{
		Use:   "diff [N [M]]",
		Short: "Show how two revisions differ, by resources; by default the one before and the one in force",
		Args:  usage(cobra.MaximumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			v := url.Values{}
			for i, name := range []string{"from", "to"} {
				if i < len(args) {
					if err := checkRevision(args[i]); err != nil {
						return err
					}
					v.Set(name, args[i])
				}
			}
			return show(cmd, &q, http.MethodGet, "/config/diff?"+v.Encode(), admin.WriteDiff)
		},
	}
	q.flags(cmd)
	return cmd
}

func newRollbackCommand() *cobra.Command {
	var q question
	cmd := &cobra.Command{
		Use:   "rollback N",
		Short: "Bring a revision back; it holds until the files change again",
		Args:  usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkRevision(args[0]); err != nil {
				return err
			}
			return show(cmd, &q, http.MethodPost, "/config/rollback?to="+args[0], admin.WriteRollback)
		},
	}
	q.flags(cmd)
	return cmd
}

func newCanaryCommand() *cobra.Command {
	var q question
	cmd := &cobra.Command{
		Use:   "canary [promote|return|retry]",
		Short: "Show how a candidate configuration is doing, or decide about it",
		Args:  usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return show(cmd, &q, http.MethodGet, "/config/canary", admin.WriteCanary)
			}
			if !slices.Contains([]string{"promote", "return", "retry"}, args[0]) {
				return usageError{fmt.Errorf("%q: write promote, return or retry", args[0])}
			}
			return show(cmd, &q, http.MethodPost, "/config/canary?do="+args[0], admin.WriteCanary)
		},
	}
	q.flags(cmd)
	return cmd
}

func checkRevision(text string) error {
	if _, err := strconv.ParseUint(text, 10, 64); err != nil {
		return usageError{fmt.Errorf("%q is no revision: isthmus config history lists their numbers", text)}
	}
	return nil
}

// show sends a request to a running proxy and writes the answer.
func show[T any](cmd *cobra.Command, q *question, method, path string, text func(io.Writer, T)) error {
	body, err := q.send(method, path)
	if err != nil {
		return err
	}
	if q.output == "json" {
		_, err := cmd.OutOrStdout().Write(body)
		return err
	}
	var v T
	if err := json.Unmarshal(body, &v); err != nil {
		return fmt.Errorf("%s%s: not the answer of an isthmus: %w", q.url, path, err)
	}
	text(cmd.OutOrStdout(), v)
	return nil
}
