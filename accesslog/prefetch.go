//go:build amd64 || arm64

package accesslog

import "unsafe"

// prefetch asks the processor for 192 bytes from a place on, which somebody is about
// to write. It waits for nothing, and it does not matter whether they can be had.
//
//go:noescape
func prefetch(p unsafe.Pointer)
