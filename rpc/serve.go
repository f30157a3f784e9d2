package rpc

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
)

// Method answers a message with another one. An error is the caller's fault.
type Method func(message []byte) ([]byte, error)

// maxQuestion bounds a message that is asked, in bytes: gRPC's own default is 4
// MiB, and descriptors of that size mean nothing good.
const maxQuestion = 64 << 10

// What a call ends with (gRPC: Status codes and their use in gRPC).
const (
	statusOK              = "0"
	statusInvalidArgument = "3"
	statusExhausted       = "8"
	statusUnimplemented   = "12"
)

// NewServer makes a server of methods, by their paths "/package.Service/Method".
// It speaks HTTP/2 without TLS, as gRPC does within a mesh.
func NewServer(methods map[string]Method) *http.Server {
	s := &http.Server{
		Handler:           handler(methods),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      time.Minute,
		IdleTimeout:       time.Hour,
		MaxHeaderBytes:    MaxFields,
		Protocols:         &http.Protocols{},
	}
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}

func handler(methods map[string]Method) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			http.Error(w, "only gRPC is spoken here", http.StatusUnsupportedMediaType)
			return
		}
		answer, status, err := call(methods[r.URL.Path], r)
		h := w.Header()
		h.Set("Content-Type", "application/grpc")
		h.Set("Trailer", "Grpc-Status, Grpc-Message")
		if status == statusOK {
			w.Write(frame(answer))
		}
		h.Set("Grpc-Status", status)
		if err != nil {
			h.Set("Grpc-Message", err.Error())
		}
	}
}

func call(m Method, r *http.Request) (answer []byte, status string, err error) {
	if m == nil {
		return nil, statusUnimplemented, errors.New("there is no such method here")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxQuestion+1))
	switch {
	case err != nil:
		return nil, statusInvalidArgument, err
	case len(body) > maxQuestion:
		return nil, statusExhausted, errors.New("the message is too long")
	}
	message, err := unframe(body)
	if err == nil {
		answer, err = m(message)
	}
	if err != nil {
		return nil, statusInvalidArgument, err
	}
	return answer, statusOK, nil
}
