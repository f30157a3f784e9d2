package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestForgetStart: less of the binary is mapped afterwards, and what is used again
// comes back.
func TestForgetStart(t *testing.T) {
	mapped := func() (kib int) {
		text, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "RssFile:"); ok {
				fmt.Sscan(rest, &kib)
			}
		}
		return kib
	}
	before := mapped()
	forgetStart()
	if after := mapped(); after == 0 || after > before*2/3 {
		t.Errorf("%d KiB of files are mapped, %d before", after, before)
	}
	if newRoot().Name() != "isthmus" {
		t.Error("the code is gone")
	}
}
