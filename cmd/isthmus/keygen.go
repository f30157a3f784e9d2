package main

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func newKeygenCommand() *cobra.Command {
	return &cobra.Command{
		Use: "keygen", Short: "Print a new key for gossip", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			var key [32]byte
			rand.Read(key[:])
			fmt.Fprintln(cmd.OutOrStdout(), base64.StdEncoding.EncodeToString(key[:]))
			return nil
		},
	}
}

// readKeys reads gossip keys, a file each, as keygen prints them.
func readKeys(files []string) ([][]byte, error) {
	var keys [][]byte
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("gossip.keys: %w", err)
		}
		key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			return nil, fmt.Errorf("gossip.keys: %s: not base64: make a key with isthmus keygen", f)
		}
		if n := len(key); n != 16 && n != 24 && n != 32 {
			return nil, fmt.Errorf("gossip.keys: %s: a key has 16, 24 or 32 bytes, this one has %d: make one with isthmus keygen", f, n)
		}
		keys = append(keys, key)
	}
	return keys, nil
}
