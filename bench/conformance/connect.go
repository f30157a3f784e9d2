package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// The conformance suite of Connect starts the server that it tests, and says over
// standard input what it has to be. Here that is its own reference server with
// Isthmus before it.

// Fields of ServerCompatRequest and ServerCompatResponse, and of TLSCreds
// (connectrpc.conformance.v1, server_compat.proto).
const (
	askProtocol   = 1
	askVersion    = 2
	askTLS        = 4
	askClientCert = 5
	askCreds      = 7
	gotPort       = 2
	gotCert       = 3
	credsCert     = 1
	credsKey      = 2
)

// Values of askVersion.
const (
	version1 = 1
	version2 = 2
)

// serveConnect is what the suite starts: server is the reference server's binary,
// and upstream the protocol that Isthmus is to speak to it: "same" as the client.
func serveConnect(isthmus, server, upstream string) error {
	ask, err := readSized(os.Stdin)
	if err != nil {
		return err
	}
	fields, err := parse(ask)
	if err != nil {
		return err
	}
	version := fields.numbers[askVersion]
	switch upstream {
	case "h1":
		version = version1
	case "h2":
		version = version2
	}
	cmd := exec.Command(server)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer cmd.Process.Kill()
	// In plain text, whatever the client speaks.
	plain := appendNumber(nil, askProtocol, fields.numbers[askProtocol])
	plain = appendNumber(plain, askVersion, version)
	plain = append(plain, fields.rest...)
	if err := writeSized(in, plain); err != nil {
		return err
	}
	in.Close()
	answer, err := readSized(out)
	if err != nil {
		return fmt.Errorf("the reference server: %w", err)
	}
	got, err := parse(answer)
	if err != nil {
		return err
	}

	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	e := edge{isthmus: isthmus, dir: dir, upstream: int(got.numbers[gotPort]), http2: version == version2}
	if fields.numbers[askTLS] != 0 {
		creds, err := parse(fields.bytes[askCreds])
		if err != nil {
			return err
		}
		e.cert, e.key, e.clientCA = creds.bytes[credsCert], creds.bytes[credsKey], fields.bytes[askClientCert]
	}
	p, err := e.start()
	if err != nil {
		return err
	}
	defer p.stop()
	reply := appendBytes(nil, 1, []byte("127.0.0.1"))
	reply = appendNumber(reply, gotPort, uint64(e.port))
	if e.cert != nil {
		reply = appendBytes(reply, gotCert, e.cert)
	}
	if err := writeSized(os.Stdout, reply); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	for suite := os.Getppid(); suite == os.Getppid(); { // until the suite is done, or gone
		select {
		case <-stop:
			return nil
		case <-time.After(time.Second):
		}
	}
	return nil
}

// message is a message of protobuf, as far as its fields are understood.
type message struct {
	numbers map[protowire.Number]uint64
	bytes   map[protowire.Number][]byte
	rest    []byte // the other fields
}

func parse(b []byte) (message, error) {
	m := message{map[protowire.Number]uint64{}, map[protowire.Number][]byte{}, nil}
	for len(b) > 0 {
		field, kind, size := protowire.ConsumeField(b)
		if size < 0 {
			return m, errors.New("malformed message of the suite")
		}
		_, _, tag := protowire.ConsumeTag(b)
		value := b[tag:size]
		switch {
		case kind == protowire.VarintType && field <= askTLS:
			m.numbers[field], _ = protowire.ConsumeVarint(value)
		case kind == protowire.BytesType:
			m.bytes[field], _ = protowire.ConsumeBytes(value)
		default:
			m.rest = append(m.rest, b[:size]...)
		}
		b = b[size:]
	}
	return m, nil
}

func appendNumber(b []byte, field protowire.Number, n uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), n)
}

func appendBytes(b []byte, field protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), value)
}

// Messages come behind their length.
func readSized(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeSized(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

// write puts the files of a folder there.
func write(dir string, files map[string][]byte) error {
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
