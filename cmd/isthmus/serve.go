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

// listen opens one, or takes it over.
func (s *server) listen(name, address string) (net.Listener, error) {
	l, err := s.before.Listen(name, address)
	if err != nil {
		return nil, err
	}
	s.listening[name] = l.Addr().String()
	s.pages = append(s.pages, opened{name, address, l})
	return l, nil
}

// serve opens a listener for people and tools; net/http is good enough for
// them. Whoever does not read an answer within longest is a client no more.
func (s *server) serve(name, address string, h http.Handler, longest time.Duration) error {
	if address == "" {
		return nil
	}
	l, err := s.listen(name, address)
	if err != nil {
		return proxy.ListenError(name, "listeners."+name, address, err)
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
	return nil
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
