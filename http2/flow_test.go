package http2

import (
	"testing"

	"pgregory.net/rapid"
)

func TestSendWindow(t *testing.T) {
	w := newSendWindow(initialWindow)
	if n := w.take(1 << 20); n != initialWindow {
		t.Errorf("of a full window %d were taken", n)
	}
	if n := w.take(1); n != 0 {
		t.Errorf("of an empty one %d", n)
	}
	if !w.add(100) || w.take(60) != 60 || w.take(60) != 40 {
		t.Errorf("an update of 100 gives other than 100; left %d", w.left)
	}
	// Streams whose window is shrunk below what they have sent wait until they
	// are even (RFC 9113 6.9.2).
	if !w.resize(initialWindow, 16384) || w.left != 16384-initialWindow || w.take(1) != 0 {
		t.Errorf("shrunk: %d left", w.left)
	}
	if !w.add(initialWindow-16384+5) || w.take(9) != 5 {
		t.Errorf("even again: %d left", w.left)
	}
	w.put(2)
	if w.take(9) != 2 {
		t.Error("what was given back is lost")
	}
	if !w.add(maxWindow) || w.add(1) {
		t.Errorf("a window of 2^31-1 is allowed, one more is not: %d", w.left)
	}
	w = newSendWindow(10)
	if !w.add(maxWindow-10) || w.resize(10, 11) {
		t.Errorf("settings that overflow a window pass: %d", w.left)
	}
}

func TestRecvWindow(t *testing.T) {
	w := newRecvWindow(100)
	if !w.receive(100) {
		t.Error("a full window was refused")
	}
	if w.receive(1) {
		t.Error("a byte more passed")
	}
	w = newRecvWindow(100)
	w.receive(100)
	if n := w.consume(49); n != 0 {
		t.Errorf("an update of %d before half is read", n)
	}
	if n := w.consume(1); n != 50 {
		t.Errorf("at half an update of %d, want 50", n)
	}
	if !w.receive(50) || w.receive(1) {
		t.Error("an update of 50 allows other than 50")
	}
	w = newRecvWindow(100)
	w.receive(30)
	w.consume(30)
	if n := w.grow(200); n != 130 {
		t.Errorf("grown by 100 with 30 read: an update of %d, want 130", n)
	}
	if n := w.grow(150); n != 0 || w.size != 200 {
		t.Errorf("it shrank to %d, with an update of %d", w.size, n)
	}
	if n := w.grow(1 << 31); w.size != maxWindow || int64(n) != maxWindow-200 {
		t.Errorf("grown without end: %d, update of %d", w.size, n)
	}
}

func TestRecvWindow_Narrow(t *testing.T) {
	w := newRecvWindow(1000)
	w.receive(600)
	w.consume(100)
	w.narrow(100)
	if w.receive(1) {
		t.Error("a byte passed with 500 unread of a window of 100")
	}
	if !w.receive(0) {
		t.Error("an end without data was refused")
	}
	w = newRecvWindow(1000)
	w.receive(400)
	w.consume(400)
	w.narrow(100)
	if n := w.consume(0); n != 400 || w.left != 100 {
		t.Errorf("all was read: an update of %d and a window of %d, want 400 and 100", n, w.left)
	}
	w.narrow(200)
	if w.size != 100 {
		t.Errorf("narrowed to a wider window: %d", w.size)
	}
}

// TestRecvWindow_Even: what the sender may send by our updates is what we
// allow, and while all is read, it never comes to a standstill.
func TestRecvWindow_Even(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Uint32Range(1, 1000).Draw(t, "size")
		recv, send := newRecvWindow(size), newSendWindow(size)
		unread := 0
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			var n uint32
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				sent := send.take(rapid.IntRange(0, 500).Draw(t, "sent"))
				unread += sent
				if !recv.receive(sent) {
					t.Fatalf("%d bytes within the window are refused", sent)
				}
			case 1:
				read := rapid.IntRange(0, unread).Draw(t, "read")
				unread -= read
				n = recv.consume(read)
			case 2:
				n = recv.consume(unread)
				unread = 0
				if n == 0 && recv.left <= 0 {
					t.Fatal("all is read, and the sender waits")
				}
			case 3:
				n = recv.grow(rapid.Uint32Range(1, 2000).Draw(t, "grown"))
			case 4:
				size := uint32(recv.size)
				narrow := rapid.Uint32Range(1, size).Draw(t, "narrow")
				send.resize(size, narrow)
				recv.narrow(narrow)
				n = recv.consume(0)
			}
			if !send.add(n) {
				t.Fatalf("an update of %d overflows", n)
			}
			if send.left != recv.left || recv.left+recv.read+int64(unread) != recv.size {
				t.Fatalf("the sender may send %d, the receiver allows %d; %d unread, %d read, of %d", send.left, recv.left, unread, recv.read, recv.size)
			}
		}
	})
}
