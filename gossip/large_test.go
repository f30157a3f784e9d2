package gossip

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"isthmus/mesh"
)

// wide is n endpoints, each of which takes some 60 KiB of a record.
func wide(n int) []mesh.Endpoint {
	labels := map[string]string{}
	for i := range 60 {
		labels[fmt.Sprint("l", i)] = strings.Repeat("x", 1000)
	}
	out := endpoints(n, "w.ns")
	for i := range out {
		out[i].Labels = labels
	}
	return out
}

// TestEncodeState_Bounded: of more records than push/pull has room for, those go that
// nobody else could be asked for.
func TestEncodeState_Bounded(t *testing.T) {
	size := 0
	state := func(most int) (owners []string) {
		var all []handedOn
		var got []record
		for _, name := range []string{"b", "c", "own", "d"} {
			all = append(all, handedOn{&record{Owner: name, Version: 1}, 0})
		}
		all = append(all, handedOn{&record{Owner: "large", Version: 1, Endpoints: toRecord(endpoints(10, "s.ns"))}, 0}, handedOn{&record{Owner: "gone", Version: 1}, 5})
		b := encodeState(all, "own", most)
		if size = len(b); size > most {
			t.Errorf("%d bytes of %d at most", size, most)
		}
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		for _, h := range got {
			owners = append(owners, h.Owner)
		}
		return owners
	}
	all := state(1 << 20)
	whole := size
	for _, tt := range []struct {
		most int
		want []string
	}{
		{whole, []string{"own", "gone", "b", "c", "d", "large"}},
		{whole - 1, []string{"own", "gone", "b", "c", "d"}},
		{100, []string{"own", "gone"}},
		{10, nil},
	} {
		if got := state(tt.most); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("in %d bytes: %v, want %v (all: %v)", tt.most, got, tt.want, all)
		}
	}
}

// TestLocalState_IsRead: push/pull brings as much of large records as memberlist reads at
// a time, and what those who have gone announced.
func TestLocalState_IsRead(t *testing.T) {
	const limit = 20 << 20 // memberlist's maxPushStateBytes
	a := start(t, "a", nil)
	a.mu.Lock()
	for i := range 7 {
		r := &record{Owner: fmt.Sprint("large", i), Version: 1, Endpoints: toRecord(wide(60))}
		a.records[r.Owner] = r
		a.members[r.Owner] = &member{Member: Member{Name: r.Owner, State: stateAlive}, since: time.Now()}
	}
	a.mu.Unlock()
	a.merge(&record{Owner: "gone", Version: 1}, time.Hour)
	b := delegate{a}.LocalState(false)
	if len(b) > limit || len(b) < limit/2 || !bytes.Contains(b, []byte(`{"owner":"gone"`)) {
		t.Errorf("%d bytes, want at most %d, with the record of who has gone", len(b), limit)
	}
}

// TestAnnounce_TooMany: others would refuse a record that is too large, and go by the one
// before for ever; the first endpoints are announced, and that it is not all is said.
func TestAnnounce_TooMany(t *testing.T) {
	for _, tt := range []struct {
		name string
		list []mesh.Endpoint
		want int
		told bool
	}{
		{"all", endpoints(maxEndpoints/2, "s.ns"), maxEndpoints / 2, false},
		{"too many", endpoints(maxEndpoints+1, "s.ns"), maxEndpoints, true},
		{"too large", wide(100), 68, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for i := range tt.list {
				if tt.name != "too large" {
					tt.list[i].Labels, tt.list[i].Locality = nil, mesh.Locality{}
				}
			}
			var log bytes.Buffer
			a := start(t, "a", func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			a.Announce(tt.list)
			a.Announce(tt.list)
			a.Close()
			b := append([]byte{messageRecord}, encode(a.own)...)
			r, err := decode(b[1:])
			if err != nil || len(b) > maxRecord || len(r.Endpoints) != tt.want {
				t.Errorf("%d endpoints in %d bytes, want %d; error %v", len(a.own.Endpoints), len(b), tt.want, err)
			}
			if n := strings.Count(log.String(), "not all endpoints are announced"); (n == 1) != tt.told || n > 1 {
				t.Errorf("told %d times: %s", n, &log)
			}
		})
	}
}

// TestRecord_Equal: records are equal if they are written alike, whatever field is another.
func TestRecord_Equal(t *testing.T) {
	var leaves func(of reflect.Type, path []int) [][]int
	leaves = func(of reflect.Type, path []int) (out [][]int) {
		if of.Kind() != reflect.Struct || of == reflect.TypeFor[netip.AddrPort]() {
			return [][]int{path}
		}
		for i := range of.NumField() {
			out = append(out, leaves(of.Field(i).Type, append(slices.Clone(path), i))...)
		}
		return out
	}
	another := func(v reflect.Value) {
		switch was := v.Interface().(type) {
		case netip.AddrPort:
			v.Set(reflect.ValueOf(netip.AddrPortFrom(was.Addr(), was.Port()+1)))
		case map[string]string:
			v.Set(reflect.ValueOf(map[string]string{"another": "label"}))
		case []byte:
			v.SetBytes([]byte("x"))
		case []endpoint:
			v.Set(v.Slice(0, 1))
		case bool:
			v.SetBool(!was)
		case string:
			v.SetString(was + "x")
		default:
			v.SetUint(v.Uint() + 1)
		}
	}
	made := func() *record {
		return &record{Owner: "o", Version: 1, Cluster: "c", Endpoints: toRecord(endpoints(2, "s.ns"))}
	}
	compare := func(field string, r *record) {
		if alike := bytes.Equal(encode(r), encode(made())); r.equal(made()) != alike {
			t.Errorf("with another %s, equal: %v, written alike: %v", field, !alike, alike)
		}
	}
	compare("nothing", made())
	for _, path := range leaves(reflect.TypeFor[record](), nil) {
		r := made()
		another(reflect.ValueOf(r).Elem().FieldByIndex(path))
		compare(reflect.TypeFor[record]().FieldByIndex(path).Name, r)
	}
	for _, path := range leaves(reflect.TypeFor[endpoint](), nil) {
		r := made()
		another(reflect.ValueOf(&r.Endpoints[1]).Elem().FieldByIndex(path))
		compare("endpoint's "+reflect.TypeFor[endpoint]().FieldByIndex(path).Name, r)
	}
}

// TestMergeRemoteState_PassesOn: of what push/pull brings the others are told what is likely to be news
// to them: of those who live, unless there are many.
func TestMergeRemoteState_PassesOn(t *testing.T) {
	for _, tt := range []struct {
		name        string
		alive, gone int
		want        int
	}{
		{"a newcomer", 1, 0, 1},
		{"who has gone", 0, 1, 0},
		{"a newcomer, and who has gone", 1, 1, 1},
		{"some", maxPassedOn, 3, maxPassedOn},
		{"many", maxPassedOn + 1, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			told := 0
			a := start(t, "a", func(o *Options) { o.OnChange = func() { told++ } })
			var all []handedOn
			for i := range tt.alive {
				all = append(all, handedOn{&record{Owner: fmt.Sprint("alive", i), Version: 1}, 0})
			}
			for i := range tt.gone {
				all = append(all, handedOn{&record{Owner: fmt.Sprint("gone", i), Version: 1}, 1000})
			}
			for round := range 2 { // the second time nothing is news
				before := told
				delegate{a}.MergeRemoteState(encodeState(all, "", maxState), false)
				if n := a.queue.NumQueued(); n != tt.want || told != before+1-round {
					t.Errorf("round %d: %d records are passed on, want %d; changes told %d times", round, n, tt.want, told-before)
				}
			}
			for _, h := range all {
				if !knows(a, h.Owner) {
					t.Errorf("%s is not known", h.Owner)
				}
			}
		})
	}
}

// TestHandle_PassesOn: a record that is news goes on as it came, if a packet holds it.
func TestHandle_PassesOn(t *testing.T) {
	told := 0
	a := start(t, "a", func(o *Options) { o.OnChange = func() { told++ } })
	for _, tt := range []struct {
		name string
		r    record
		news bool
		want int // that wait to be passed on
	}{
		{"news", record{Owner: "x", Version: 2}, true, 1},
		{"the same", record{Owner: "x", Version: 2}, false, 0},
		{"older", record{Owner: "x", Version: 1}, false, 0},
		{"newer", record{Owner: "x", Version: 3}, true, 1},
		{"of another one", record{Owner: "y", Version: 1}, true, 1},
		{"large", record{Owner: "z", Version: 1, Endpoints: toRecord(endpoints(20, "z.ns"))}, true, 0},
	} {
		message := append([]byte{messageRecord}, encode(&tt.r)...)
		if large := len(message) > maxPacket; large != (tt.name == "large") {
			t.Fatalf("%s: %d bytes", tt.name, len(message))
		}
		before := told
		a.handle(message)
		if n := a.queue.NumQueued(); n != tt.want || told > before != tt.news {
			t.Errorf("%s: %d are passed on, want %d; told of it: %v", tt.name, n, tt.want, told > before)
		}
		a.queue.Reset()
	}
}

// TestHeard: of which versions somebody's word is news: of a member, of a record that we have not, nor
// have asked for.
func TestHeard(t *testing.T) {
	a := start(t, "a", nil)
	delegate{a}.NotifyLeave(&memberlist.Node{Name: "x"}) // so that it is not asked
	a.merge(&record{Owner: "x", Version: 5}, 0)
	for _, tt := range []struct {
		name, owner string
		version     uint64
		want        bool
	}{
		{"older than ours", "x", 4, false},
		{"ours", "x", 5, false},
		{"newer than ours", "x", 7, true},
		{"the same again", "x", 7, false},
		{"between both", "x", 6, false},
		{"newer still", "x", 8, true},
		{"of a stranger", "y", 1, false},
		{"of ourselves", a.name, math.MaxUint64, false},
	} {
		if got := a.heard(tt.owner, tt.version); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
