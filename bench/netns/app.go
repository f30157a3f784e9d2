package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// services are what every application serves, each on a port of its own, from
// firstServicePort on. web is for the scenarios of this suite, the others are
// those of the configuration in seedFolder.
var services = []string{"web", "payment-service", "inventory-service", "catalog-service", "order-service"}

const (
	firstServicePort = 8080
	controlPort      = 9999 // PUT and GET /SERVICE: knobs, counts
)

func servicePort(name string) int {
	for i, s := range services {
		if s == name {
			return firstServicePort + i
		}
	}
	panic("no such service: " + name)
}

// knobs are what a sample service can be told to do from the next request on.
type knobs struct {
	Delay  time.Duration // before the reply
	Status int           // 0: 200
	Size   int           // bytes of the body; 0: 16
	Hold   bool          // requests wait until this is false
}

// counts are what a sample service has seen since it was last told anything.
type counts struct {
	Requests      int
	Under         int   // requests that wait now
	Connections   int   // on which requests came
	MostOnOne     int   // requests on one connection
	FewestOnEnded int   // requests on a connection that has ended: the fewest; 0 if none has
	Received      int64 // bytes of requests' bodies
}

// sample is one sample service.
type sample struct {
	name string // of the pod

	mu       sync.Mutex // guards what is below
	knobs    knobs
	released chan struct{} // closed when Hold goes
	requests int
	under    int
	received int64
	uses     map[net.Conn]int
	ended    map[net.Conn]bool
}

type connKey struct{}

// serveApp is the application of a pod: every service, and the way to turn
// their knobs. It runs until the process is killed.
func serveApp(name string) error {
	failed := make(chan error)
	control := http.NewServeMux()
	for _, service := range services {
		s := &sample{name: name, released: make(chan struct{})}
		s.set(knobs{})
		control.HandleFunc("GET /"+service, s.show)
		control.HandleFunc("PUT /"+service, s.change)
		server := &http.Server{
			Addr: fmt.Sprintf(":%d", servicePort(service)), Handler: s, ConnState: s.follow, ErrorLog: log.New(io.Discard, "", 0),
			ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		}
		go func() { failed <- server.ListenAndServe() }() // ends with the process
	}
	go func() { failed <- http.ListenAndServe(fmt.Sprintf(":%d", controlPort), control) }()
	return <-failed
}

// set turns the knobs and begins to count anew.
func (s *sample) set(k knobs) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.knobs.Hold && !k.Hold {
		close(s.released)
	}
	if k.Hold && !s.knobs.Hold {
		s.released = make(chan struct{})
	}
	s.knobs = k
	s.requests, s.received, s.uses, s.ended = 0, 0, map[net.Conn]int{}, map[net.Conn]bool{}
}

// ServeHTTP answers who and where it is.
func (s *sample) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, _ := r.Context().Value(connKey{}).(net.Conn)
	s.mu.Lock()
	s.requests++
	s.under++
	s.uses[conn]++
	k, released := s.knobs, s.released
	s.mu.Unlock()
	io.Copy(receiver{s}, r.Body)
	if k.Hold {
		select {
		case <-released:
		case <-r.Context().Done():
		}
	}
	if k.Delay > 0 {
		time.Sleep(k.Delay)
	}
	s.mu.Lock()
	s.under--
	s.mu.Unlock()
	if n, err := strconv.Atoi(r.Header.Get(sizeHeader)); err == nil {
		k.Size = n
	}
	if k.Size == 0 {
		k.Size = 16
	}
	w.Header().Set("x-served-by", s.name)
	w.Header().Set("content-length", strconv.Itoa(k.Size))
	if k.Status != 0 {
		w.WriteHeader(k.Status)
	}
	for part := bytes.Repeat([]byte("."), min(k.Size, 64<<10)); k.Size > 0; k.Size -= len(part) {
		part = part[:min(len(part), k.Size)]
		if _, err := w.Write(part); err != nil {
			return
		}
	}
}

// sizeHeader is the header of a request that asks for a body of another size.
const sizeHeader = "x-size"

// receiver counts what comes of bodies.
type receiver struct{ *sample }

func (r receiver) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.received += int64(len(p))
	return len(p), nil
}

// follow notes which connections have ended.
func (s *sample) follow(c net.Conn, state http.ConnState) {
	if state == http.StateClosed {
		s.mu.Lock()
		s.ended[c] = true
		s.mu.Unlock()
	}
}

func (s *sample) change(w http.ResponseWriter, r *http.Request) {
	var k knobs
	if err := json.NewDecoder(r.Body).Decode(&k); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.set(k)
}

func (s *sample) show(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	c := counts{Requests: s.requests, Under: s.under, Connections: len(s.uses), Received: s.received}
	for conn, n := range s.uses {
		c.MostOnOne = max(c.MostOnOne, n)
		if s.ended[conn] && (c.FewestOnEnded == 0 || n < c.FewestOnEnded) {
			c.FewestOnEnded = n
		}
	}
	s.mu.Unlock()
	json.NewEncoder(w).Encode(c)
}
