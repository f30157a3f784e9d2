package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"slices"
	"testing"
	"time"
)

// TestUpgrade_Drain: a WebSocket is closed with 1001 between two messages, by the
// side to which nothing is under way; another tunnel is not ours to close.
func TestUpgrade_Drain(t *testing.T) {
	half := frameOf(finalText, true, []byte("a message"))[:9]
	for name, tt := range map[string]struct {
		request      string
		sent         []byte // by the client before
		fromUpstream []byte
		closedAt     string
	}{
		"nothing under way":       {asWebSocket(), nil, nil, "client or upstream"},
		"a message to upstream":   {asWebSocket(), half, nil, "client"},
		"a message to the client": {asWebSocket(), nil, frameOf(firstText, false, []byte("part")), "upstream"},
		"both ways":               {asWebSocket(), half, frameOf(firstText, false, []byte("part")), ""},
		"another protocol":        {asGet("Connection: upgrade", "Upgrade: foo"), nil, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := make(chan []byte, 1)
			up := switching(t, func(_ string, r *bufio.Reader, c *net.TCPConn) {
				io.ReadFull(r, make([]byte, len(tt.sent)))
				c.Write(append(slices.Clone(tt.fromUpstream), pingFrame, 0)) // which says that all has come
				got <- answerClose(r, c, false)
			})
			p := serve(t, Options{}, entry("s.test", up.address))
			c, r, _ := begin(t, p.address("outbound"), asWebSocket())
			if tt.request != asWebSocket() {
				c.Close()
				c, r, _ = begin(t, p.address("outbound"), tt.request)
				<-got // of the first
			}
			c.Write(tt.sent)
			if _, err := io.ReadFull(r, make([]byte, len(tt.fromUpstream)+2)); err != nil {
				t.Fatal(err)
			}
			drain := 8 * time.Second
			if tt.closedAt == "" {
				drain = 100 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(context.Background(), drain)
			defer cancel()
			drained := make(chan error, 1)
			go func() { // ends with the drain
				err := p.Drain(ctx)
				p.Close()
				drained <- err
			}()
			atClient := answerClose(r, c, true)
			atUpstream := <-got
			ours := func(b []byte, masked bool) bool { return closeCode(b) == 1001 && b[1]&0x80 != 0 == masked }
			switch tt.closedAt {
			case "":
				if atClient != nil || atUpstream != nil {
					t.Errorf("the client got % x, the upstream % x, want the end alone", atClient, atUpstream)
				}
				<-drained
				return
			case "client":
				if !ours(atClient, false) {
					t.Errorf("the client got % x", atClient)
				}
			case "upstream":
				if !ours(atUpstream, true) {
					t.Errorf("the upstream got % x", atUpstream)
				}
			default: // whoever did not hear it from us did from the other
				if closeCode(atClient) != 1001 || closeCode(atUpstream) != 1001 {
					t.Errorf("the client got % x, the upstream % x", atClient, atUpstream)
				}
			}
			if err := <-drained; err != nil {
				t.Errorf("drain: %v", err)
			}
		})
	}
}

// TestUpgrade_DrainUnanswered: a client is told with 1001 although the upstream,
// which was told first, ends its connection without a word.
func TestUpgrade_DrainUnanswered(t *testing.T) {
	t.Parallel()
	up := switching(t, func(_ string, r *bufio.Reader, c *net.TCPConn) {
		for b := byte(0); b != closeFrame; {
			var err error
			if b, err = r.ReadByte(); err != nil {
				return
			}
		}
		io.ReadFull(r, make([]byte, 7)) // the rest of it: what is unread would make a reset of the end
	})
	p := serve(t, Options{}, entry("s.test", up.address))
	c, r, _ := begin(t, p.address("outbound"), asWebSocket())
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	drained := make(chan struct{})
	go func() { // ends with the drain
		defer close(drained)
		p.Drain(ctx)
	}()
	if b := answerClose(r, c, true); closeCode(b) != 1001 {
		t.Errorf("the client got % x", b)
	}
	<-drained
}

// answerClose reads frames until one closes the WebSocket, answers it, ends the
// connection as servers do, and returns it; nil if none comes.
func answerClose(r *bufio.Reader, c *net.TCPConn, client bool) []byte {
	for {
		var f frames
		var b []byte
		for len(b) == 0 || f.have > 0 || f.left > 0 {
			next, err := r.ReadByte()
			if err != nil {
				return nil
			}
			b = append(b, next)
			f.follow(b[len(b)-1:], true)
		}
		if b[0] == closeFrame {
			c.Write(frameOf(closeFrame, client, []byte{1001 >> 8, 1001 & 0xff}))
			if client {
				io.Copy(io.Discard, r) // which the server ends
			}
			c.Close()
			return b
		}
	}
}

// closeCode is the status in a frame that closes; 0 if it is none.
func closeCode(b []byte) int {
	switch {
	case len(b) == 4:
		return int(b[2])<<8 | int(b[3])
	case len(b) == 8:
		return int(b[6]^b[2])<<8 | int(b[7]^b[3])
	}
	return 0
}
