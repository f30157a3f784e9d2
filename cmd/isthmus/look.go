package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"isthmus/admin"
)

// look makes a command that shows a page of a running proxy.
func look[T any](use, short, path string, text func(io.Writer, T)) *cobra.Command {
	var output, url string
	cmd := &cobra.Command{
		Use: use, Short: short, Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			body, err := ask(url, path)
			if err != nil {
				return err
			}
			if output == "json" {
				_, err := cmd.OutOrStdout().Write(body)
				return err
			}
			var v T
			if err := json.Unmarshal(body, &v); err != nil {
				return fmt.Errorf("%s%s: not the answer of an isthmus: %w", url, path, err)
			}
			text(cmd.OutOrStdout(), v)
			return nil
		},
	}
	address := "http://127.0.0.1:15000"
	if a := os.Getenv("ISTHMUS_LISTENERS_ADMIN"); a != "" {
		address = "http://" + a
	}
	cmd.Flags().StringVar(&url, "admin", address, "`URL` of the proxy's admin listener")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func ask(url, path string) ([]byte, error) {
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	client := http.Client{Timeout: 10 * time.Second}
	res, err := client.Get(strings.TrimSuffix(url, "/") + path + "?format=json")
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("no isthmus answers at %s: is it running? give its listeners.admin with --admin", url)
	}
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s%s: %s: %s", url, path, res.Status, strings.TrimSpace(string(body)))
	}
	return body, err
}

func newStatusCommand() *cobra.Command {
	return look("status", "Show the state of a running proxy", "/status", admin.WriteStatus)
}

func newEndpointsCommand() *cobra.Command {
	return look("endpoints", "Show the endpoints that a running proxy knows", "/endpoints", admin.WriteEndpoints)
}

func newMembersCommand() *cobra.Command {
	return look("members", "Show the gossip members that a running proxy knows", "/members", admin.WriteMembers)
}

func newRoutesCommand() *cobra.Command {
	return look("routes", "Show the routes of a running proxy", "/routes", admin.WriteRoutes)
}
