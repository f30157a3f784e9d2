package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReplay_LongLine: a line of any length is one that cannot be used, and the others are.
func TestReplay_LongLine(t *testing.T) {
	dir := t.TempDir()
	const line = `{"method":"GET","path":"/","authority":"a.test","response_code":404,"response_flags":"NR","response_code_details":"route_not_found"}`
	for name, text := range map[string]string{
		"access.log": line + "\n" + strings.Repeat("\x00", 3<<20) + "\n\n" + line + "\n" + line, // the last without an end
		"mesh.yaml":  "# nothing\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "replay", "access.log", "--config", "mesh.yaml")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "3 requests; 1 lines could not be used, the first: line 2: too long\n\n100.00 %         3  as before") {
		t.Errorf("%s%v", out, err)
	}
}
