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
	return call(use, short, cobra.NoArgs, text, func([]string) (string, string, error) { return http.MethodGet, path, nil })
}

// call makes a command that sends a running proxy the request that its arguments
// come to, and shows the answer.
func call[T any](use, short string, args cobra.PositionalArgs, text func(io.Writer, T), request func(args []string) (method, path string, err error)) *cobra.Command {
	var q question
	cmd := &cobra.Command{
		Use: use, Short: short, Args: usage(args),
		RunE: func(cmd *cobra.Command, args []string) error {
			method, path, err := request(args)
			if err != nil {
				return err
			}
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
			return admin.WritePrintable(cmd.OutOrStdout(), func(w io.Writer) { text(w, v) })
		},
	}
	q.flags(cmd)
	return cmd
}

// question is whom a command asks, and how it shows the answer.
type question struct{ url, output string }

func (q *question) flags(cmd *cobra.Command) {
	address := "http://127.0.0.1:15000"
	if a := os.Getenv("ISTHMUS_LISTENERS_ADMIN"); a != "" {
		address = "http://" + a
	}
	cmd.Flags().StringVar(&q.url, "admin", address, "`URL` of the proxy's admin listener")
	cmd.Flags().StringVarP(&q.output, "output", "o", "text", "text or json")
}

// ask returns a page of a running proxy, as JSON.
func (q *question) ask(path string) ([]byte, error) { return q.send(http.MethodGet, path) }

func (q *question) send(method, path string) ([]byte, error) {
	if err := checkOutput(q.output); err != nil {
		return nil, err
	}
	url := q.url
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	req, err := http.NewRequest(method, strings.TrimSuffix(url, "/")+path, nil)
	if err != nil {
		return nil, usageError{fmt.Errorf("--admin %s: %w", q.url, err)}
	}
	req.Header.Set("Accept", "application/json")
	client := http.Client{Timeout: 10 * time.Second}
	res, err := client.Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("no isthmus answers at %s: is it running? give its listeners.admin with --admin", url)
	}
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = refusal(url+path, res, strings.TrimSpace(string(body)))
	}
	return body, err
}

// refusal is why a proxy does not answer a question. Its own words are enough; others,
// as those of a version that has no such page, need the address. Whoever says nothing, or
// answers with a page for people, is no isthmus.
func refusal(address string, res *http.Response, said string) error {
	if said == "" || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") {
		return fmt.Errorf("%s: %s: not the answer of an isthmus: give its listeners.admin with --admin", address, res.Status)
	}
	switch {
	case res.StatusCode == http.StatusBadRequest, res.StatusCode == http.StatusConflict, res.StatusCode == http.StatusNotFound && said != "404 page not found":
		return errors.New(said)
	}
	return fmt.Errorf("%s: %s: %s", address, res.Status, said)
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
