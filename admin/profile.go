package admin

import (
	"fmt"
	"net/http"
	"runtime/pprof"
	"strconv"
	"time"
)

// longestProfile bounds ?seconds=, so that nobody leaves one running for ever.
const longestProfile = 10 * time.Minute

// LongestAnswer is how long an answer of [New] may take, with the time to read it.
const LongestAnswer = longestProfile + time.Minute

// profile serves where the process spends its CPU time, over the next ?seconds=,
// 30 unless it is given, as `go tool pprof` reads it; the path is net/http/pprof's.
// There is none of memory: what the runtime keeps for that costs each proxy some
// 0.7 MiB, whether or not somebody asks.
func profile(w http.ResponseWriter, r *http.Request) {
	length := 30 * time.Second
	if s := r.URL.Query().Get("seconds"); s != "" {
		n, err := strconv.Atoi(s)
		if length = time.Duration(n) * time.Second; err != nil || n < 1 || n > int(longestProfile/time.Second) {
			http.Error(w, fmt.Sprintf("seconds=%s: write a number from 1 to %d", s, longestProfile/time.Second), http.StatusBadRequest)
			return
		}
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="isthmus.pprof"`)
	if err := pprof.StartCPUProfile(w); err != nil {
		w.Header().Del("Content-Disposition")
		http.Error(w, "a profile is being taken already; wait for it to end", http.StatusConflict)
		return
	}
	defer pprof.StopCPUProfile() // which writes it
	select {
	case <-time.After(length):
	case <-r.Context().Done():
	}
}
