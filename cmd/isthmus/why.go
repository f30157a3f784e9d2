package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"

	"isthmus/admin"
	"isthmus/telemetry"
)

func newWhyCommand() *cobra.Command {
	var q question
	cmd := &cobra.Command{
		Use:   "why REQUEST-ID [--admin URL]",
		Short: "Say why a past request ended as it did",
		Long: `Say why a past request ended as it did: the request's x-request-id is in the answer of every
request that Isthmus refuses or fails. Without an id, the latest that failed or were slow are listed.`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, id := "/why", ""
			if len(args) > 0 {
				if id = args[0]; id == "" {
					return usageError{errors.New("the id is empty")}
				}
				path += "?id=" + url.QueryEscape(id)
			}
			body, err := q.ask(path)
			if err != nil {
				return err
			}
			var list []telemetry.Trouble
			if err := json.Unmarshal(body, &list); err != nil {
				return fmt.Errorf("%s/why: not the answer of an isthmus: %w", q.url, err)
			}
			out := cmd.OutOrStdout()
			switch {
			case q.output == "json":
				out.Write(body)
			case id == "":
				return admin.WritePrintable(out, func(w io.Writer) { admin.WriteTroubles(w, list) })
			case len(list) > 0:
				return admin.WritePrintable(out, func(w io.Writer) { admin.WriteWhy(w, id, list) })
			}
			if id != "" && len(list) == 0 {
				return fmt.Errorf("nothing is known of %s at %s: it did not fail there and was not slow, or it was so long ago that others have taken its place; ask the other proxies on its way with --admin", id, q.url)
			}
			return nil
		},
	}
	q.flags(cmd)
	return cmd
}
