package gossip

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"pgregory.net/rapid"

	"isthmus/mesh"
)

// TestNewer_Merges: the order in which records meet does not matter, and a
// record met twice counts once.
func TestNewer_Merges(t *testing.T) {
	draw := rapid.Custom(func(t *rapid.T) *record {
		return &record{
			Owner: "o", Version: rapid.Uint64Range(1, 3).Draw(t, "version"),
			Cluster: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "cluster"), Left: rapid.Bool().Draw(t, "left"),
		}
	})
	same := func(a, b *record) bool { return string(encode(a)) == string(encode(b)) }
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := draw.Draw(t, "a"), draw.Draw(t, "b"), draw.Draw(t, "c")
		if !same(newer(a, b), newer(b, a)) {
			t.Fatalf("not commutative: %+v, %+v", a, b)
		}
		if !same(newer(newer(a, b), c), newer(a, newer(b, c))) {
			t.Fatalf("not associative: %+v, %+v, %+v", a, b, c)
		}
		if newer(a, a) != a || newer(nil, a) != a || newer(a, nil) != a {
			t.Fatalf("not idempotent: %+v", a)
		}
		if m := newer(a, b); m.Version < max(a.Version, b.Version) {
			t.Fatalf("the older of %+v and %+v", a, b)
		}
	})
}

// TestNewer_OlderVersion: a member of an older version of Isthmus hands records on without
// the fields that it does not know. Nobody takes that for news, their owner neither.
func TestNewer_OlderVersion(t *testing.T) {
	a := start(t, "a", nil)
	list := endpoints(1, "a.ns")
	list[0].Hostname, list[0].Identity = "web-0", "spiffe://td/ns/x/sa/y"
	a.Announce(list)
	full := a.own
	for name, strip := range map[string]func(*endpoint){
		"a hostname":  func(e *endpoint) { e.Hostname = "" },
		"an identity": func(e *endpoint) { e.Identity = "" },
		"the last":    func(e *endpoint) { e.Via = false },
	} {
		older := *full
		older.Endpoints = slices.Clone(full.Endpoints)
		strip(&older.Endpoints[0])
		if newer(full, &older) != full || newer(&older, full) != full {
			t.Errorf("a record without %s holds", name)
		}
		a.merge(&older, 0)
		if a.own.Version != full.Version {
			t.Errorf("the owner announces anew what comes back without %s", name)
		}
	}
}

func valid() *record {
	return &record{Owner: "c/n/x", Version: 7, Cluster: "c", Endpoints: toRecord([]mesh.Endpoint{{
		Service: "s.n", Port: mesh.Port{Number: 80, Name: "http"}, Address: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1,
	}})}
}

// TestRecord_Endpoint: what is said of an endpoint's health arrives.
func TestRecord_Endpoint(t *testing.T) {
	r := valid()
	r.Endpoints[0].Unready, r.Endpoints[0].Degraded, r.Endpoints[0].Via, r.Endpoints[0].Hostname = "probe: GET /: 503", true, true, "web-0"
	got, err := decode(encode(r))
	if err != nil {
		t.Fatal(err)
	}
	e := got.Endpoints[0].mesh(got)
	if again := toRecord([]mesh.Endpoint{e})[0]; e.Unready != "probe: GET /: 503" || !e.Degraded || e.Hostname != "web-0" || again.Hostname != "web-0" || !e.Via || again.Degraded != true || again.Unready != e.Unready {
		t.Errorf("%+v, and sent on as %+v", e, again)
	}
}

// TestRecord_Reason: a reason is a line, whatever an application has answered.
func TestRecord_Reason(t *testing.T) {
	r := valid()
	r.Endpoints[0].Unready = "probe: exit 1:\n\tno such file"
	got, err := decode(encode(r))
	if err != nil {
		t.Fatal(err)
	}
	if e := got.Endpoints[0].mesh(got); e.Unready != "probe: exit 1:  no such file" || string(encode(got)) != string(encode(r)) {
		t.Errorf("%q of %s", e.Unready, encode(got))
	}
}

// TestAnnounce_WithoutWhatIsRefused: one endpoint that others would refuse does not take the rest
// of the record along.
func TestAnnounce_WithoutWhatIsRefused(t *testing.T) {
	a := start(t, "a", nil)
	good := mesh.Endpoint{Service: "s.n", Port: mesh.Port{Number: 80}, Address: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1}
	bad := good
	bad.Service = "s\nt.n"
	a.Announce([]mesh.Endpoint{bad, good})
	if r, err := decode(encode(a.own)); err != nil || len(r.Endpoints) != 1 || r.Endpoints[0].Service != "s.n" {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestMember_Names: who has a name that is none is no member, and does not become one.
func TestMember_Names(t *testing.T) {
	a := start(t, "a", nil)
	for _, tt := range []struct {
		name, meta string
		taken      bool
	}{
		{"c/n/x", `{"c":"west"}`, true},
		{"c/n/x", "", true},
		{"c/n/x\nc/n/y", `{"c":"west"}`, false},
		{"c/n/x", `{"c":"west\n"}`, false},
		{"c/n/x", `{"c":"west","v":"1\t"}`, false},
	} {
		if err := (delegate{a}).NotifyAlive(&memberlist.Node{Name: tt.name, Meta: []byte(tt.meta)}); (err == nil) != tt.taken {
			t.Errorf("%q of %s: %v", tt.name, tt.meta, err)
		}
	}
}

func TestDecode_Refuses(t *testing.T) {
	if _, err := decode(encode(valid())); err != nil {
		t.Fatal(err)
	}
	if _, err := decode([]byte(`{"owner":"o","version":1,"cluster":"c","from the future":{"a":[1]}}`)); err != nil {
		t.Errorf("a field of another version: %v", err)
	}
	for name, spoil := range map[string]func(*record){
		"no owner":           func(r *record) { r.Owner = "" },
		"no service":         func(r *record) { r.Endpoints[0].Service = "" },
		"no address":         func(r *record) { r.Endpoints[0].Address = netip.AddrPort{} },
		"address port 0":     func(r *record) { r.Endpoints[0].Address = netip.MustParseAddrPort("10.0.0.1:0") },
		"no port":            func(r *record) { r.Endpoints[0].Port.Number = 0 },
		"port 70000":         func(r *record) { r.Endpoints[0].Port.Number = 70000 },
		"a long text":        func(r *record) { r.Endpoints[0].Identity = string(make([]byte, maxText+1)) },
		"a row in the owner": func(r *record) { r.Owner += "\nc/n/y" },
		"a tab in a cluster": func(r *record) { r.Cluster += "\twest" },
		"a row in a service": func(r *record) { r.Endpoints[0].Service += "\npay.n  80  10.0.0.9:80" },
		"an escape sequence": func(r *record) { r.Endpoints[0].Port.Name += "\x1b[2J" },
		"a row in a zone":    func(r *record) { r.Endpoints[0].Locality.Zone = "a\nb" },
		"a million things":   func(r *record) { r.Endpoints = make([]endpoint, maxEndpoints+1) },
		"a long reason":      func(r *record) { r.Endpoints[0].Unready = strings.Repeat("x", maxText+1) },
		"many labels":        func(r *record) { r.Endpoints[0].Labels = labels(maxLabels + 1) },
		"a megabyte or four": func(r *record) { r.Endpoints[0].Labels = map[string]string{"x": strings.Repeat("x", maxRecord)} },
		"a version to come":  func(r *record) { r.Version = math.MaxUint64 },
		"the second one":     func(r *record) { r.Endpoints = append(r.Endpoints, endpoint{}) },
	} {
		r := valid()
		spoil(r)
		if _, err := decode(encode(r)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	most := valid()
	most.Endpoints[0].Unready, most.Endpoints[0].Labels, most.Endpoints[0].Port.Number = strings.Repeat("x", maxText), labels(maxLabels), 65535
	most.Endpoints[0].Address = netip.MustParseAddrPort("[2001:db8::1]:65535")
	if _, err := decode(encode(most)); err != nil {
		t.Errorf("as much as there may be: %v", err)
	}
	for _, text := range []string{"", "null", "[]", "7", `{"owner":1}`, `{"owner":"a"}{}`, "\x00"} {
		if _, err := decode([]byte(text)); err == nil {
			t.Errorf("%q: taken", text)
		}
	}
}

func labels(n int) map[string]string {
	out := map[string]string{}
	for i := range n {
		out[fmt.Sprint("l", i)] = "x"
	}
	return out
}

// TestDecode_WeightOfNothing: an endpoint that says no weight counts once.
func TestDecode_WeightOfNothing(t *testing.T) {
	for said, want := range map[uint32]uint32{0: 1, 1: 1, 7: 7} {
		r := valid()
		r.Endpoints[0].Weight = said
		if got := r.Endpoints[0].mesh(r).Weight; got != want {
			t.Errorf("a weight of %d counts %d, want %d", said, got, want)
		}
	}
}

// TestBelievable: versions are believed for some years from now on, by a clock that has not been
// set yet, too: its owner would hear nobody.
func TestBelievable(t *testing.T) {
	at := func(years int) uint64 { return uint64(earliest.AddDate(years, 0, 0).UnixNano()) }
	synctest.Test(t, func(t *testing.T) { // in which it is the year 2000
		for version, want := range map[uint64]bool{0: true, at(0): true, at(9): true, at(11): false, math.MaxUint64: false} {
			if believable(version) != want {
				t.Errorf("by a clock that says %v, version %d is believed: %v", time.Now(), version, !want)
			}
		}
		time.Sleep(time.Until(earliest.AddDate(5, 0, 0)))
		for version, want := range map[uint64]bool{at(14): true, at(16): false} {
			if believable(version) != want {
				t.Errorf("by a clock that says %v, version %d is believed: %v", time.Now(), version, !want)
			}
		}
	})
}

// TestDecodeHandedOn: how long an owner is gone is bounded at both ends.
func TestDecodeHandedOn(t *testing.T) {
	for text, want := range map[string]time.Duration{
		`{"owner":"a","version":1}`:                             0,
		`{"owner":"a","version":1,"gone":1500}`:                 1500 * time.Millisecond,
		`{"owner":"a","version":1,"gone":9223372036854775807}`:  forgetAfter,
		`{"owner":"a","version":1,"gone":-1}`:                   -1,
		`{"owner":"a","version":1,"gone":"long"}`:               -1,
		`{"owner":"","version":1,"gone":1}`:                     -1,
		`{"owner":"a","version":18446744073709551615,"gone":1}`: -1,
	} {
		if _, gone, err := decodeHandedOn([]byte(text)); (err != nil) != (want < 0) || err == nil && gone != want {
			t.Errorf("%s: gone for %v, %v, want %v", text, gone, err, want)
		}
	}
}

// FuzzDecode: whatever comes, decode ends, and what it takes is within bounds
// and survives another round.
func FuzzDecode(f *testing.F) {
	f.Add(encode(valid()))
	f.Add([]byte(`{"owner":"o","endpoints":[{"service":"s","port":{"number":80},"address":"[::1]:80"}]}`))
	f.Add([]byte(`{"owner":"o","left":true}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decode(data)
		if err != nil {
			return
		}
		again, err := decode(encode(r))
		if err != nil {
			t.Fatalf("what was taken is not taken again: %v", err)
		}
		if string(encode(again)) != string(encode(r)) {
			t.Fatalf("%s became %s", encode(r), encode(again))
		}
	})
}
