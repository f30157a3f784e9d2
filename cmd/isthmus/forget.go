package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// forgetStart unmaps the binary's code and constants: two thirds of what is mapped of
// them once the proxy is ready is what only its start has needed, that of libraries
// that register hundreds of kinds above all. What is needed again comes back from
// the page cache when it is touched.
func forgetStart() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uintptr
		var mode string
		_, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode)
		if err == nil && (mode == "r-xp" || mode == "r--p") && strings.HasSuffix(lines.Text(), " "+program) {
			// Nobody has ever written there, so that the file has all of it.
			unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED)
		}
	}
}
