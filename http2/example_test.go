package http2_test

import (
	"fmt"

	"isthmus/http1"
	"isthmus/http2"
)

// A request comes as a header block and is read as one of HTTP/1.1 would be; the
// reply goes out as a frame.
func Example() {
	block := http2.AppendMethod(nil, []byte("GET"))
	block = http2.AppendScheme(block, []byte("https"))
	block = http2.AppendAuthority(block, []byte("users.example"))
	block = http2.AppendPath(block, []byte("/users"), []byte("id=1"), true)
	block = http2.AppendField(block, []byte("Cookie"), []byte("a=1"))
	block = http2.AppendField(block, []byte("Cookie"), []byte("b=2"))

	var r http1.Request
	decoder := http2.NewDecoder(4096)
	arena, fields, err := decoder.Decode(block, nil, nil, http1.DefaultLimits.HeadBytes)
	fmt.Println(len(fields), "fields:", err)
	_, err = http2.ReadRequest(&r, fields, arena, true)
	fmt.Printf("%s %s of %s: %v\n", r.Method, r.Path, r.Authority, err)
	for _, f := range r.Fields {
		fmt.Printf("%s: %s\n", f.Name, f.Value)
	}

	reply := http2.BeginHeaders(nil)
	reply = http2.AppendStatus(reply, 204)
	reply = http2.EndHeaders(reply, 0, 1, true, 16384)
	fmt.Printf("%x\n", reply)
	// Output:
	// 6 fields: <nil>
	// GET /users of users.example: <nil>
	// cookie: a=1; b=2
	// 00000101050000000189
}
