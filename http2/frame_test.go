package http2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	peer "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestFrames_PeerReads has x/net's framer read what the Append functions write.
func TestFrames_PeerReads(t *testing.T) {
	var b []byte
	b = AppendSettings(b, Setting{SettingInitialWindowSize, 1 << 20}, Setting{SettingMaxConcurrentStreams, 100})
	b = AppendSettingsAck(b)
	b = append(AppendDataHeader(b, 5, true, 3), "abc"...)
	b = AppendReset(b, 7, CodeCancel)
	b = AppendPing(b, false, [8]byte{1, 2, 3})
	b = AppendPing(b, true, [8]byte{4})
	b = AppendGoAway(b, 9, CodeEnhanceYourCalm, "calm")
	b = AppendWindowUpdate(b, 0, 12)
	b = AppendWindowUpdate(b, 3, maxWindow)

	fr := peer.NewFramer(io.Discard, bytes.NewReader(b))
	for i, check := range []func(peer.Frame) bool{
		func(f peer.Frame) bool {
			s, ok := f.(*peer.SettingsFrame)
			window, _ := s.Value(peer.SettingInitialWindowSize)
			streams, _ := s.Value(peer.SettingMaxConcurrentStreams)
			return ok && s.NumSettings() == 2 && window == 1<<20 && streams == 100
		},
		func(f peer.Frame) bool { s, ok := f.(*peer.SettingsFrame); return ok && s.IsAck() },
		func(f peer.Frame) bool {
			d, ok := f.(*peer.DataFrame)
			return ok && d.StreamID == 5 && d.StreamEnded() && string(d.Data()) == "abc"
		},
		func(f peer.Frame) bool {
			r, ok := f.(*peer.RSTStreamFrame)
			return ok && r.StreamID == 7 && r.ErrCode == peer.ErrCodeCancel
		},
		func(f peer.Frame) bool {
			p, ok := f.(*peer.PingFrame)
			return ok && !p.IsAck() && p.Data == [8]byte{1, 2, 3}
		},
		func(f peer.Frame) bool { p, ok := f.(*peer.PingFrame); return ok && p.IsAck() && p.Data == [8]byte{4} },
		func(f peer.Frame) bool {
			g, ok := f.(*peer.GoAwayFrame)
			return ok && g.LastStreamID == 9 && g.ErrCode == peer.ErrCodeEnhanceYourCalm && string(g.DebugData()) == "calm"
		},
		func(f peer.Frame) bool {
			w, ok := f.(*peer.WindowUpdateFrame)
			return ok && w.StreamID == 0 && w.Increment == 12
		},
		func(f peer.Frame) bool {
			w, ok := f.(*peer.WindowUpdateFrame)
			return ok && w.StreamID == 3 && w.Increment == maxWindow
		},
	} {
		f, err := fr.ReadFrame()
		if err != nil || !check(f) {
			t.Errorf("frame %d is read as %v, %v", i, f, err)
		}
	}
	if _, err := fr.ReadFrame(); err != io.EOF {
		t.Errorf("after the last frame: %v", err)
	}
}

// TestFrames_PeerWrites reads what x/net's framer writes.
func TestFrames_PeerWrites(t *testing.T) {
	var b bytes.Buffer
	fr := peer.NewFramer(&b, nil)
	next := func() (FrameHeader, []byte) {
		h := ParseFrameHeader(b.Next(frameHeaderLen))
		if err := h.Check(minMaxFrame); err != nil {
			t.Errorf("%+v: %v", h, err)
		}
		return h, b.Next(int(h.Length))
	}

	fr.WriteDataPadded(3, true, []byte("abc"), make([]byte, 7))
	h, p := next()
	if data, err := ParseData(h, p); h.Type != FrameData || h.Stream != 3 || !h.Flags.Has(FlagEndStream) || string(data) != "abc" || err != nil {
		t.Errorf("DATA %+v: %q, %v", h, data, err)
	}
	fr.WriteHeaders(peer.HeadersFrameParam{StreamID: 5, BlockFragment: []byte("block"), PadLength: 9, EndHeaders: true,
		Priority: peer.PriorityParam{StreamDep: 1, Exclusive: true, Weight: 3}})
	h, p = next()
	if block, err := ParseHeaders(h, p); string(block) != "block" || err != nil || !h.Flags.Has(FlagEndHeaders) {
		t.Errorf("HEADERS %+v: %q, %v", h, block, err)
	}
	fr.WriteRSTStream(5, peer.ErrCodeRefusedStream)
	if _, p = next(); ParseReset(p) != CodeRefusedStream {
		t.Errorf("RST_STREAM: %v", ParseReset(p))
	}
	fr.WritePing(false, [8]byte{1})
	if _, p = next(); ParsePing(p) != [8]byte{1} {
		t.Errorf("PING: %v", ParsePing(p))
	}
	fr.WriteGoAway(77, peer.ErrCodeNo, []byte("bye"))
	_, p = next()
	if last, code, debug := ParseGoAway(p); last != 77 || code != CodeNo || string(debug) != "bye" {
		t.Errorf("GOAWAY: %d, %v, %q", last, code, debug)
	}
	fr.WriteWindowUpdate(5, 99)
	h, p = next()
	if n, err := ParseWindowUpdate(h, p); n != 99 || err != nil {
		t.Errorf("WINDOW_UPDATE: %d, %v", n, err)
	}
	fr.WriteSettings(peer.Setting{ID: peer.SettingMaxFrameSize, Val: 1 << 15}, peer.Setting{ID: 0x99, Val: 1})
	_, p = next()
	var got []Setting
	for len(p) > 0 {
		var s Setting
		var err error
		if s, p, err = NextSetting(p); err != nil {
			t.Fatal(err)
		}
		got = append(got, s)
	}
	if want := []Setting{{SettingMaxFrameSize, 1 << 15}, {0x99, 1}}; !slices.Equal(got, want) {
		t.Errorf("SETTINGS: %v, want %v", got, want)
	}
}

func TestFrameHeader_Check(t *testing.T) {
	for _, tt := range []struct {
		name string
		h    FrameHeader
		want error
	}{
		{"data", FrameHeader{Length: minMaxFrame, Type: FrameData, Stream: 1}, nil},
		{"larger than announced", FrameHeader{Length: minMaxFrame + 1, Type: FrameData, Stream: 1}, errFrameLarge},
		{"unknown and too large", FrameHeader{Length: minMaxFrame + 1, Type: 0x33, Stream: 1}, errFrameLarge},
		{"unknown", FrameHeader{Length: 3, Type: 0x33, Stream: 0}, nil},
		{"data on 0", FrameHeader{Type: FrameData}, errFrameStream},
		{"headers on 0", FrameHeader{Type: FrameHeaders}, errFrameStream},
		{"continuation on 0", FrameHeader{Type: FrameContinuation}, errFrameStream},
		{"priority", FrameHeader{Length: 5, Type: FramePriority, Stream: 1}, nil},
		{"priority on 0", FrameHeader{Length: 5, Type: FramePriority}, errFrameStream},
		{"priority too short", FrameHeader{Length: 4, Type: FramePriority, Stream: 1}, errPriorityLength},
		{"reset", FrameHeader{Length: 4, Type: FrameReset, Stream: 1}, nil},
		{"reset on 0", FrameHeader{Length: 4, Type: FrameReset}, errFrameStream},
		{"reset too long", FrameHeader{Length: 5, Type: FrameReset, Stream: 1}, errFrameLength},
		{"settings", FrameHeader{Length: 12, Type: FrameSettings}, nil},
		{"settings acknowledged", FrameHeader{Type: FrameSettings, Flags: FlagAck}, nil},
		{"settings on a stream", FrameHeader{Type: FrameSettings, Stream: 1}, errFrameNoStream},
		{"settings cut short", FrameHeader{Length: 7, Type: FrameSettings}, errFrameLength},
		{"settings acknowledged with some", FrameHeader{Length: 6, Type: FrameSettings, Flags: FlagAck}, errFrameLength},
		{"push", FrameHeader{Length: 20, Type: FramePushPromise, Stream: 1}, errPush},
		{"ping", FrameHeader{Length: 8, Type: FramePing}, nil},
		{"ping on a stream", FrameHeader{Length: 8, Type: FramePing, Stream: 1}, errFrameNoStream},
		{"ping too short", FrameHeader{Length: 7, Type: FramePing}, errFrameLength},
		{"goaway", FrameHeader{Length: 8, Type: FrameGoAway}, nil},
		{"goaway on a stream", FrameHeader{Length: 8, Type: FrameGoAway, Stream: 1}, errFrameNoStream},
		{"goaway too short", FrameHeader{Length: 7, Type: FrameGoAway}, errFrameLength},
		{"window update of the connection", FrameHeader{Length: 4, Type: FrameWindowUpdate}, nil},
		{"window update of a stream", FrameHeader{Length: 4, Type: FrameWindowUpdate, Stream: 1}, nil},
		{"window update too short", FrameHeader{Length: 3, Type: FrameWindowUpdate, Stream: 1}, errFrameLength},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.h.Check(minMaxFrame); err != tt.want {
				t.Errorf("%+v: %v, want %v", tt.h, err, tt.want)
			}
		})
	}
}

func TestParse_Refuses(t *testing.T) {
	setting := func(id SettingID, value uint32) []byte {
		return AppendSettings(nil, Setting{id, value})[frameHeaderLen:]
	}
	settings := func(b []byte) error { _, _, err := NextSetting(b); return err }
	data := func(b []byte) error { _, err := ParseData(FrameHeader{Flags: FlagPadded, Stream: 1}, b); return err }
	headers := func(flags Flags) func(b []byte) error {
		return func(b []byte) error { _, err := ParseHeaders(FrameHeader{Flags: flags, Stream: 1}, b); return err }
	}
	update := func(stream uint32) func(b []byte) error {
		return func(b []byte) error { _, err := ParseWindowUpdate(FrameHeader{Stream: stream}, b); return err }
	}
	for _, tt := range []struct {
		name  string
		parse func([]byte) error
		in    []byte
		want  error
	}{
		{"push 2", settings, setting(SettingEnablePush, 2), errSettingPush},
		{"push 1", settings, setting(SettingEnablePush, 1), nil},
		{"window of 2^31", settings, setting(SettingInitialWindowSize, 1<<31), errSettingWindow},
		{"window of 2^31-1", settings, setting(SettingInitialWindowSize, 1<<31-1), nil},
		{"frame of 0", settings, setting(SettingMaxFrameSize, 0), errSettingFrame},
		{"frame of 2^14-1", settings, setting(SettingMaxFrameSize, 1<<14-1), errSettingFrame},
		{"frame of 2^24", settings, setting(SettingMaxFrameSize, 1<<24), errSettingFrame},
		{"frame of 2^24-1", settings, setting(SettingMaxFrameSize, 1<<24-1), nil},
		{"connect protocol 2", settings, setting(SettingEnableConnectProtocol, 2), errSettingConnect},
		{"nothing but padding", data, []byte{2, 0, 0}, nil},
		{"padding longer than the frame", data, []byte{3, 0, 0}, errPadding},
		{"no length of padding", data, nil, errFrameLength},
		{"headers, padding longer", headers(FlagPadded), []byte{3, 0, 0}, errPadding},
		{"priority cut short", headers(FlagPriority), []byte{0, 0, 0, 3}, errFrameLength},
		{"priority behind padding cut short", headers(FlagPriority | FlagPadded), []byte{3, 0, 0, 0, 3, 0, 0}, errFrameLength},
		{"depends on itself", headers(FlagPriority), []byte{0x80, 0, 0, 1, 0}, errPriority},
		{"window update of 0", update(1), make([]byte, 4), errStreamIncrement},
		{"window update of 0 for all", update(0), []byte{0x80, 0, 0, 0}, errIncrement},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.parse(tt.in); err != tt.want {
				t.Errorf("%v: %v, want %v", tt.in, err, tt.want)
			}
		})
	}
}

// TestEndHeaders_Splits reads header blocks of all lengths around the bounds
// back with x/net's framer.
func TestEndHeaders_Splits(t *testing.T) {
	const size = minMaxFrame
	for _, n := range []int{10, size - 1, size, size + 1, 2*size - 1, 2 * size, 2*size + 1, 5*size + 7} {
		value := strings.Repeat("x", n)
		dst := BeginHeaders([]byte("before"))
		dst = AppendField(AppendStatus(dst, 200), []byte("x-long"), []byte(value))
		dst = EndHeaders(dst, len("before"), 5, true, size)
		if !bytes.HasPrefix(dst, []byte("before")) {
			t.Fatalf("%d: what stood before is %q", n, dst[:6])
		}
		fr := peer.NewFramer(nil, bytes.NewReader(dst[len("before"):]))
		fr.SetMaxReadFrameSize(size)
		fr.MaxHeaderListSize = 1 << 20
		fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		f, err := fr.ReadFrame()
		m, ok := f.(*peer.MetaHeadersFrame)
		if !ok || m.StreamID != 5 || !m.StreamEnded() || m.PseudoValue("status") != "200" || len(m.RegularFields()) != 1 ||
			m.RegularFields()[0].Value != value {
			t.Errorf("a value of %d bytes is read as %v, %v", n, f, err)
		}
		if _, err := fr.ReadFrame(); err != io.EOF {
			t.Errorf("%d: behind it: %v", n, err)
		}
	}
}

// FuzzFrame holds Check and the Parse functions to x/net's framer: what it
// refuses is refused here, and the other way about.
func FuzzFrame(f *testing.F) {
	f.Add(AppendSettings(nil, Setting{SettingMaxFrameSize, 1 << 15}))
	f.Add(append(AppendDataHeader(nil, 5, true, 3), "abc"...))
	f.Add(AppendGoAway(nil, 9, CodeNo, "bye"))
	f.Add(AppendWindowUpdate(nil, 0, 0))
	f.Add(AppendReset(nil, 0, CodeCancel))
	f.Add(AppendPing(nil, true, [8]byte{4}))
	f.Add(append(AppendFrameHeader(nil, FrameHeader{7, FrameHeaders, FlagPriority | FlagPadded | FlagEndHeaders, 1}), 1, 0, 0, 0, 3, 0, 0))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < frameHeaderLen {
			return
		}
		h := ParseFrameHeader(in)
		if h.Length > 1<<10 {
			return
		}
		in = append(in, make([]byte, 1<<10)...)[:frameHeaderLen+int(h.Length)]
		err := readFrame(h, in[frameHeaderLen:])

		if h.Type > FrameContinuation {
			if err != nil {
				t.Errorf("%+v: %v; it is not known", h, err)
			}
			return // x/net knows PRIORITY_UPDATE, too
		}
		fr := peer.NewFramer(io.Discard, bytes.NewReader(in))
		theirs, theirErr := fr.ReadFrame()
		switch h.Type {
		case FramePushPromise, FrameContinuation:
			return // refused always; only behind HEADERS
		case FrameSettings:
			if s, ok := theirs.(*peer.SettingsFrame); ok && theirErr == nil {
				theirErr = s.ForeachSetting(peer.Setting.Valid)
			}
			if err == errSettingConnect {
				return // it leaves that to its server
			}
		}
		if err == errPriority {
			return // which it does not look at
		}
		if (err == nil) != (theirErr == nil) {
			t.Fatalf("%+v %x: %v; x/net says %v", h, in[frameHeaderLen:], err, theirErr)
		}
	})
}

// readFrame reads a frame of any type.
func readFrame(h FrameHeader, payload []byte) error {
	err := h.Check(minMaxFrame)
	if err != nil {
		return err
	}
	switch h.Type {
	case FrameData:
		_, err = ParseData(h, payload)
	case FrameHeaders:
		_, err = ParseHeaders(h, payload)
	case FramePriority:
		err = ParsePriority(h, payload)
	case FrameReset:
		if uint32(ParseReset(payload)) != binary.BigEndian.Uint32(payload) {
			err = errors.New("misread")
		}
	case FramePing:
		ParsePing(payload)
	case FrameGoAway:
		ParseGoAway(payload)
	case FrameWindowUpdate:
		_, err = ParseWindowUpdate(h, payload)
	case FrameSettings:
		for len(payload) > 0 && err == nil {
			_, payload, err = NextSetting(payload)
		}
	}
	return err
}
