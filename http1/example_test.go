package http1_test

import (
	"fmt"

	"isthmus/http1"
)

// A request comes in two pieces and goes on as it was understood, not as it was
// sent.
func Example() {
	const bytes = "GET /users?id=1 HTTP/1.1\r\nHost: a\r\nX-Trace: 7\r\nConnection: x-trace\r\nAccept: */*\r\n\r\n"

	var r http1.Request
	n, err := r.Parse([]byte(bytes[:40]), http1.Limits{})
	fmt.Println("the first 40 bytes:", n, err)
	n, err = r.Parse([]byte(bytes), http1.Limits{})
	fmt.Println("all bytes:", n, err)

	r.StripListed()
	out := http1.AppendRequestLine(nil, r.Method, r.Path)
	for _, f := range r.Fields {
		if f.ID != http1.Connection {
			out = http1.AppendField(out, f.Name, f.Value)
		}
	}
	fmt.Printf("%q\n", append(out, "\r\n"...))
	// Output:
	// the first 40 bytes: 0 <nil>
	// all bytes: 83 <nil>
	// "GET /users HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n"
}
