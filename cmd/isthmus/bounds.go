package main

import (
	"log/slog"
	"math"
	"runtime/debug"
	"syscall"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"isthmus/config"
	"isthmus/proxy"
)

// bounds finds out what clients may take together of this process, where the
// bootstrap file does not say it, and tells the runtime how much memory there is.
func bounds(o config.Overload, log *slog.Logger) (proxy.Overload, error) {
	out := proxy.Overload{Connections: o.Connections}
	files := raiseFileLimit(log)
	if out.Connections == 0 {
		out.Connections = connectionsFor(files)
	}
	process, err := o.Bytes()
	if err != nil {
		return out, err
	}
	if process == 0 {
		process = memoryLimit(log)
	}
	if process < proxy.LeastMemory {
		if process > 0 {
			log.Warn("the container has too little memory for requests to be refused before it is gone; give it 48Mi at least", "limit", process)
		}
		return out, nil
	}
	out.Memory = proxy.MemoryFor(process)
	if debug.SetMemoryLimit(-1) == math.MaxInt64 { // unless GOMEMLIMIT is set
		// Garbage shall not be what has requests refused: that begins at four fifths.
		debug.SetMemoryLimit(out.Memory / 10 * 7)
	}
	log.Debug("bounds", "memory", out.Memory, "connections", out.Connections, "files", files)
	return out, nil
}

// otherFiles is how many files are left for all that is no connection of a client's nor
// one to an endpoint for it: ports, logs, gossip, people and tools, and connections to
// endpoints that nobody uses at the moment. Where there are few, it is a quarter.
const otherFiles = 1024

// connectionsFor is how many connections clients may have where so many files may be
// open: each may need one to an endpoint.
func connectionsFor(files uint64) int {
	return int(min((files-min(files/4, otherFiles))/2, math.MaxInt32))
}

// mostVisitors is how many connections the admin and the metrics listener and the gossip
// port have each.
const mostVisitors = 256

// visitorsFor is how many they have where so many files may be open (0: nobody knows): three
// quarters of what is left for the rest, for all three.
func visitorsFor(files uint64) int {
	if files == 0 {
		return mostVisitors
	}
	return int(min(max(min(files/4, otherFiles)/4, 1), mostVisitors))
}

// memoryLimit is how much memory the process may have: what GOMEMLIMIT says, its
// container's limit, or all of the machine's. 0: nobody knows.
func memoryLimit(log *slog.Logger) int64 {
	said := debug.SetMemoryLimit(-1)
	n, err := memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)()
	if err != nil {
		log.Debug("memory limit not known", "error", err)
		n = 0
	}
	if said != math.MaxInt64 && (n == 0 || uint64(said) < n) {
		return said
	}
	return int64(n)
}

// raiseFileLimit takes as many descriptors as the system allows: every
// connection is one. It returns how many there are.
func raiseFileLimit(log *slog.Logger) uint64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		log.Debug("file limit not known", "error", err)
		return 0
	}
	if l.Cur < l.Max {
		raised := syscall.Rlimit{Cur: l.Max, Max: l.Max}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
			log.Debug("file limit not raised", "error", err)
		} else {
			l = raised
		}
	}
	return l.Cur
}
