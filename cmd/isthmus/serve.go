package main

import (
	"log/slog"
	"net"
	"net/http"
	"time"

	"isthmus/proxy"
)

// idleAdmin is how long a connection of people and tools is kept that asks nothing:
// Prometheus' scrapes are closer together.
const idleAdmin = 2 * time.Minute

// headAdmin is how long a request there may take to come, and longestPage how long the
// page of the metrics may take to be read.
const (
	headAdmin   = 10 * time.Second
	longestPage = time.Minute
)

// opened is a listener that is no proxy's.
type opened struct {
	name, address string
	listener      net.Listener
}

// open opens those that the bootstrap file names, or takes them over. Nobody is served yet:
// it comes before a predecessor lets go of anything, since a port may be somebody else's.
func (s *server) open() error {
	b := s.bootstrap
	for _, p := range []struct{ name, called, setting, address string }{
		{"admin", "admin", "listeners.admin", b.Listeners.Admin},
		{"metrics", "metrics", "listeners.metrics", b.Listeners.Metrics},
		{"ratelimit", "rate limits", "rateLimits.serve", b.RateLimits.Serve},
	} {
		if p.address == "" {
			continue
		}
		l, err := s.before.Listen(p.name, p.address)
		if err != nil {
			return proxy.ListenError(p.called, p.setting, p.address, err)
		}
		s.listening[p.name] = l.Addr().String()
		s.pages = append(s.pages, opened{p.name, p.address, l})
	}
	return nil
}

// page returns an open listener; nil: there is none.
func (s *server) page(name string) net.Listener {
	for _, p := range s.pages {
		if p.name == name {
			return p.listener
		}
	}
	return nil
}

// serve serves people and tools; net/http is good enough for them. Whoever does not read an
// answer within longest is a client no more.
func (s *server) serve(name string, h http.Handler, longest time.Duration) {
	l := s.page(name)
	if l == nil {
		return
	}
	if ip := l.Addr().(*net.TCPAddr).IP; name == "admin" && !ip.IsLoopback() {
		s.log.Warn("the admin address can be reached from other machines: who reaches it may read the configuration, roll it back, and end the proxy; "+
			"let it be of loopback (listeners.admin: 127.0.0.1:15000), or keep others away", "address", l.Addr().String())
	}
	hs := &http.Server{Handler: withoutBody(h), ReadHeaderTimeout: headAdmin, WriteTimeout: longest, IdleTimeout: idleAdmin, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
	s.admin = append(s.admin, hs)
	// Without a bound they could take all the files of the process, and with them those of requests.
	hs.ConnState = newCrowd(visitorsFor(raiseFileLimit(s.log))).changed
	go hs.Serve(l) // ends with hs.Close
}

// withoutBody serves requests of which nobody reads a body: one that is announced and
// does not come keeps the connection no longer than a head would. (A ReadTimeout would
// end long answers, too.)
func withoutBody(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			http.NewResponseController(w).SetReadDeadline(time.Now().Add(headAdmin))
		}
		h.ServeHTTP(w, r)
	})
}
