package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// demoApp is a sample application: it answers who and where it is.
type demoApp struct {
	service, cluster string
	address          string // IP
	port             int
	probed           []*int // ports at which it answers besides
	server           *http.Server
}

// start opens the application's ports.
func (a *demoApp) start() error {
	a.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("x-served-by", a.service+"."+a.cluster)
		fmt.Fprintf(w, "%s in %s\n", a.service, a.cluster)
	})}
	addresses := []string{fmt.Sprintf("127.0.0.1:%d", a.port)}
	for _, port := range a.probed {
		addresses = append(addresses, fmt.Sprintf("%s:%d", a.address, *port))
	}
	for _, address := range addresses {
		l, err := listenAgain(address)
		if err != nil {
			return err
		}
		go a.server.Serve(l) // ends with Close
	}
	return nil
}

// listenAgain opens a port; that of one that was just closed may still be
// taken.
func listenAgain(address string) (l net.Listener, err error) {
	for range 50 {
		if l, err = net.Listen("tcp", address); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return l, err
}
