package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"pgregory.net/rapid"
)

// message is a request, or a reply, as either version of HTTP may carry it.
type message struct {
	head     string // what it begins with, and its fields but those of the framing
	body     string
	trailers string
}

func (m message) String() string {
	return fmt.Sprintf("%q, a body of %d bytes %.20q, trailers %q", m.head, len(m.body), m.body, m.trailers)
}

// cutsFields are fields of messages; those of requests may have cookies in pieces.
var cutFields = rapid.SliceOfN(rapid.SampledFrom([][2]string{
	{"x-a", "1"}, {"x-b", ""}, {"x-c", strings.Repeat("c", 3000)}, {"accept", "*/*"}, {"x-a", "2"},
}), 0, 4)

var cutTrailers = rapid.SliceOfN(rapid.SampledFrom([][2]string{{"x-last", "word"}, {"x-sum", strings.Repeat("9", 500)}, {"grpc-status", "0"}}), 0, 3)

// cutBody is a body in pieces; nil: there is none.
var cutBody = rapid.SliceOfN(rapid.SampledFrom([]int{0, 0, 1, 10, 1000, 5000, 10_000}), 0, 6) // within a window

// frames are those of a message in which blocks and bodies are cut in some way, and
// padded.
func cutFrames(t *rapid.T, id uint32, enc func(fields ...string) []byte, head []string, sizes []int, trailers [][2]string) (frames [][]byte, body string) {
	var b bytes.Buffer
	f := http2.NewFramer(&b, nil)
	f.AllowIllegalWrites = true
	done := func() {
		frames = append(frames, bytes.Clone(b.Bytes()))
		b.Reset()
	}
	block := func(fields []string, end bool) {
		p := enc(fields...)
		pad := uint8(rapid.SampledFrom([]int{0, 0, 7}).Draw(t, "padding"))
		n := len(p)
		if rapid.Bool().Draw(t, "continued") {
			n = rapid.IntRange(0, len(p)).Draw(t, "first")
		}
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p[:n], EndStream: end, EndHeaders: n == len(p), PadLength: pad})
		for p = p[n:]; len(p) > 0; {
			n := rapid.IntRange(1, len(p)).Draw(t, "more")
			f.WriteContinuation(id, n == len(p), p[:n])
			p = p[n:]
		}
		done() // nothing may come between these
	}
	own := len(trailers) == 0 && len(sizes) > 0 // the last DATA ends the stream
	block(head, len(trailers) == 0 && len(sizes) == 0)
	for i, n := range sizes {
		p := bytes.Repeat([]byte{byte('a' + i)}, n)
		body += string(p)
		var pad []byte
		if rapid.Bool().Draw(t, "padded") {
			pad = make([]byte, rapid.IntRange(0, 255).Draw(t, "padding"))
		}
		f.WriteDataPadded(id, own && i == len(sizes)-1, p, pad)
		done()
	}
	if len(trailers) > 0 {
		fields := []string{"bare"}
		for _, nv := range trailers {
			fields = append(fields, nv[0], nv[1])
		}
		block(fields, true)
	}
	return frames, body
}

// cutWrites writes bytes, of which there are n, in pieces, between some of which the
// other side has the time to look at what has come.
func cutWrites(t *rapid.T, n int) func(c net.Conn, b []byte) {
	var cuts, pauses []int
	for range rapid.IntRange(0, 6).Draw(t, "cuts") {
		cuts = append(cuts, rapid.IntRange(0, n).Draw(t, "cut"))
		pauses = append(pauses, rapid.SampledFrom([]int{0, 50, 1000}).Draw(t, "pause"))
	}
	return func(c net.Conn, b []byte) {
		slices.Sort(cuts)
		at := 0
		for i, n := range cuts {
			c.Write(b[at:n])
			at = n
			time.Sleep(time.Duration(pauses[i]) * time.Microsecond)
		}
		c.Write(b[at:])
	}
}

// readMessage reads a message of HTTP/1.1.
func readMessage(r *bufio.Reader, bodiless bool) (m message, err error) {
	head, err := readHead(r)
	if err != nil {
		return m, err
	}
	length, chunked, counted := 0, false, false
	for i, line := range strings.Split(strings.TrimSuffix(head, "\r\n\r\n"), "\r\n") {
		name, value, _ := strings.Cut(line, ": ")
		switch {
		case i == 0:
			m.head = line + "\n"
		case name == "content-length":
			length, err = strconv.Atoi(value)
			counted = true
		case name == "transfer-encoding":
			chunked = value == "chunked"
		case keptOfCut(name):
			m.head += line + "\n"
		}
	}
	switch {
	case chunked && counted:
		return m, fmt.Errorf("both framings in %q", head)
	case bodiless:
	case chunked:
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return m, err
			}
			n, err := strconv.ParseInt(strings.TrimSuffix(line, "\r\n"), 16, 32)
			if err != nil {
				return m, err
			}
			if n == 0 {
				break
			}
			p := make([]byte, n+2)
			if _, err := io.ReadFull(r, p); err != nil {
				return m, err
			}
			m.body += string(p[:n])
		}
		rest, err := readHead(r)
		m.trailers = strings.ReplaceAll(strings.TrimSuffix(rest, "\r\n"), "\r\n", "\n")
		return m, err
	default:
		p := make([]byte, length)
		_, err = io.ReadFull(r, p)
		m.body = string(p)
	}
	return m, err
}

// keptOfCut reports whether a field is one that the tests have sent.
func keptOfCut(name string) bool {
	switch name {
	case "x-a", "x-b", "x-c", "accept", "cookie", "x-last", "x-sum", "grpc-status":
		return true
	}
	return false
}

func fieldsOfCut(fields []hpack.HeaderField) (s string) {
	for _, f := range fields {
		if keptOfCut(f.Name) {
			s += f.Name + ": " + f.Value + "\n"
		}
	}
	return s
}

// TestHTTP2_CutRequests: how the frames of requests are cut, mixed with those of
// others, and come makes no difference to what an upstream of either version gets.
func TestHTTP2_CutRequests(t *testing.T) {
	seen := make(chan message, 16)
	h1 := byteServer(t, func(c net.Conn) {
		for r := bufio.NewReader(c); ; {
			m, err := readMessage(r, false)
			if err != nil {
				if err != io.EOF {
					m.head += err.Error()
					seen <- m
				}
				return
			}
			seen <- m
			io.WriteString(c, okReply)
		}
	})
	streams := make(chan seenStream)
	h2 := recordsHTTP2(t, streams)
	go func() { // ends with the test's process
		for s := range streams {
			m := message{body: string(s.body), trailers: fieldsOfCut(s.trailers), head: fieldsOfCut(s.head)}
			words := map[string]string{}
			for _, f := range s.head {
				words[f.Name] = f.Value
			}
			if n := words["content-length"]; n != "" && n != strconv.Itoa(len(s.body)) {
				m.head += "content-length: " + n
			}
			m.head = words[":method"] + " " + words[":path"] + " HTTP/1.1\n" + m.head
			seen <- m
		}
	}()
	p := serve(t, Options{}, entry("one.test", h1)+overHTTP2(entry("two.test", h2)))
	rapid.Check(t, func(rt *rapid.T) {
		r := dialRaw(t, p.address("outbound"))
		defer r.conn.Close()
		r.out.Flush()
		r.enc.SetMaxDynamicTableSizeLimit(0) // heads are encoded before the order is known in which they leave
		want := map[string]message{}
		var queues [][][]byte
		for i := range rapid.IntRange(1, 4).Draw(rt, "requests") {
			id := uint32(2*i + 1)
			second := rapid.Bool().Draw(rt, "to HTTP/2")
			method := rapid.SampledFrom([]string{"POST", "GET", "HEAD"}).Draw(rt, "method")
			path := fmt.Sprintf("/%d", id)
			head := []string{"bare", ":method", method, ":scheme", "http", ":authority", map[bool]string{false: "one.test", true: "two.test"}[second], ":path", path}
			m := message{head: method + " " + path + " HTTP/1.1\n"}
			for _, nv := range cutFields.Draw(rt, "fields") {
				head = append(head, nv[0], nv[1])
				m.head += nv[0] + ": " + nv[1] + "\n"
			}
			var cookies []string
			for range rapid.IntRange(0, 3).Draw(rt, "cookies") {
				cookies = append(cookies, fmt.Sprintf("c%d=%s", len(cookies), path))
				head = append(head, "cookie", cookies[len(cookies)-1])
			}
			if cookies != nil {
				m.head += "cookie: " + strings.Join(cookies, "; ") + "\n"
			}
			sizes, trailers := cutBody.Draw(rt, "body"), cutTrailers.Draw(rt, "trailers")
			counted := rapid.Bool().Draw(rt, "counted")
			if counted {
				n := 0
				for _, size := range sizes {
					n += size
				}
				head = append(head, "content-length", strconv.Itoa(n))
			}
			if rapid.Bool().Draw(rt, "expects") {
				head = append(head, "expect", "100-continue")
			}
			if second || !counted {
				for _, nv := range trailers {
					m.trailers += nv[0] + ": " + nv[1] + "\n"
				}
			}
			var frames [][]byte
			frames, m.body = cutFrames(rt, id, r.block, head, sizes, trailers)
			queues = append(queues, frames)
			want[path] = m
		}
		var all []byte
		for opened := 1; len(queues) > 0; {
			i := rapid.IntRange(0, min(opened, len(queues))-1).Draw(rt, "stream")
			q := queues[i]
			if all = append(all, q[0]...); i == opened-1 {
				opened++ // heads come in the order of their streams
			}
			if queues[i] = q[1:]; len(q) == 1 {
				queues = slices.Delete(queues, i, i+1)
				opened--
			}
		}
		cutWrites(rt, len(all))(r.conn, all)
		for range want {
			var m message
			select {
			case m = <-seen:
			case <-time.After(5 * time.Second):
				rt.Fatalf("a request has not come")
			}
			_, path, _ := strings.Cut(m.head, " ")
			path, _, _ = strings.Cut(path, " ")
			if m != want[path] {
				rt.Fatalf("the upstream got\n%v, want\n%v", m, want[path])
			}
		}
		answered := 0
		r.until(func(f http2.Frame) bool {
			if h, ok := f.(*http2.MetaHeadersFrame); ok {
				if answered++; h.PseudoValue("status") != "200" {
					rt.Fatalf("stream %d was answered %s", h.StreamID, h.PseudoValue("status"))
				}
			}
			return answered == len(want)
		})
	})
}

// TestHTTP2_CutReplies: how the frames of a reply are cut and come makes no difference
// to what a client of either version gets.
func TestHTTP2_CutReplies(t *testing.T) {
	type script struct {
		frames [][]byte // for stream 1
		write  func(c net.Conn, b []byte)
		done   chan struct{}
	}
	scripts := make(chan script, 1)
	up := byteServer(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		f := http2.NewFramer(c, c)
		f.WriteSettings()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			if s, ok := frame.(*http2.SettingsFrame); ok && !s.IsAck() {
				f.WriteSettingsAck()
			}
			h, ok := frame.(*http2.HeadersFrame)
			if !ok {
				continue
			}
			s := <-scripts
			var all []byte
			for _, b := range s.frames {
				for len(b) > 0 {
					n := 9 + int(b[0])<<16 + int(b[1])<<8 + int(b[2])
					binary.BigEndian.PutUint32(b[5:], h.StreamID)
					all = append(all, b[:n]...)
					b = b[n:]
				}
			}
			s.write(c, all)
			close(s.done)
		}
	})
	p := serve(t, Options{}, overHTTP2(entry("s.test", up))+`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: s}
spec:
  host: s.test
  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 20}}} # so many small frames are a nuisance
`)
	rapid.Check(t, func(rt *rapid.T) {
		method := rapid.SampledFrom([]string{"GET", "GET", "HEAD"}).Draw(rt, "method")
		status := rapid.SampledFrom([]string{"200", "200", "404", "204", "304"}).Draw(rt, "status")
		first := rapid.IntRange(0, 3).Draw(rt, "interim")
		fields, sizes, trailers := cutFields.Draw(rt, "fields"), cutBody.Draw(rt, "body"), cutTrailers.Draw(rt, "trailers")
		bodiless := method == "HEAD" || status == "204" || status == "304"
		if bodiless {
			sizes = make([]int, len(sizes)) // DATA without any
		}
		length := 0
		for _, n := range sizes {
			length += n
		}
		head := []string{"bare", ":status", status}
		want := message{head: status + "\n"}
		for _, nv := range fields {
			head = append(head, nv[0], nv[1])
			want.head += nv[0] + ": " + nv[1] + "\n"
		}
		if rapid.Bool().Draw(rt, "counted") && status != "204" {
			if bodiless {
				length = 1234
			}
			head = append(head, "content-length", strconv.Itoa(length))
		}
		for _, nv := range trailers {
			want.trailers += nv[0] + ": " + nv[1] + "\n"
		}
		if bodiless {
			want.trailers = ""
		}
		reset := rapid.SampledFrom([]string{"", "", "NO_ERROR", "CANCEL"}).Draw(rt, "reset behind it")
		asks := rapid.Bool().Draw(rt, "asks with a body") && method == "GET"
		var before, behind bytes.Buffer
		for range first {
			http2.NewFramer(&before, nil).WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: plainBlock("bare", ":status", "103", "x-a", "early"), EndHeaders: true})
		}
		frames, body := cutFrames(rt, 1, plainBlock, head, sizes, trailers)
		want.body = body
		if reset != "" {
			http2.NewFramer(&behind, nil).WriteRSTStream(1, map[string]http2.ErrCode{"NO_ERROR": http2.ErrCodeNo, "CANCEL": http2.ErrCodeCancel}[reset])
		}
		frames = append(append([][]byte{before.Bytes()}, frames...), behind.Bytes())
		n := 0
		for _, f := range frames {
			n += len(f)
		}
		s := script{frames, cutWrites(rt, n), make(chan struct{})}
		scripts <- s
		var got message
		early := 0
		if rapid.Bool().Draw(rt, "over HTTP/2") {
			r := dialRaw(t, p.address("outbound"))
			defer r.conn.Close()
			r.ask(1, !asks, "bare", ":method", method, ":scheme", "http", ":authority", "s.test", ":path", "/")
			ended := false
			if r.until(func(f http2.Frame) bool {
				switch f := f.(type) {
				case *http2.MetaHeadersFrame:
					switch status := f.PseudoValue("status"); status {
					case "103":
						early++
						return false
					case "":
						got.trailers = fieldsOfCut(f.Fields)
					default:
						got.head = status + "\n" + fieldsOfCut(f.Fields)
					}
					ended = f.StreamEnded()
				case *http2.DataFrame:
					got.body += string(f.Data())
					ended = f.StreamEnded()
				case *http2.RSTStreamFrame:
					rt.Fatalf("the reply was broken off with %v, behind\n%v", f.ErrCode, got)
				}
				return ended
			}) == nil {
				rt.Fatalf("the connection has ended")
			}
		} else {
			c, err := net.Dial("tcp", p.address("outbound"))
			if err != nil {
				rt.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
			framing := ""
			if asks {
				framing = "transfer-encoding: chunked\r\n"
			}
			fmt.Fprintf(c, "%s / HTTP/1.1\r\nhost: s.test\r\n%s\r\n", method, framing)
			in := bufio.NewReader(c)
			for got, err = readMessage(in, bodiless); err == nil && strings.HasPrefix(got.head, "HTTP/1.1 103"); got, err = readMessage(in, bodiless) {
				early++
			}
			if err != nil {
				rt.Fatalf("%v, behind\n%v", err, got)
			}
			line, rest, _ := strings.Cut(got.head, "\n")
			got.head = strings.Fields(line)[1] + "\n" + rest
			if head[len(head)-2] == "content-length" {
				want.trailers = "" // HTTP/1.1 has trailers only behind chunks
			}
		}
		<-s.done
		if got != want || early != first {
			rt.Fatalf("the client got\n%v, and %d early heads, want\n%v, and %d", got, early, want, first)
		}
	})
}

// plainBlock encodes fields without a table.
func plainBlock(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSizeLimit(0)
	for i := 1; i < len(fields); i += 2 { // the first is "bare"
		e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}
