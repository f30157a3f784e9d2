package config

import "testing"

// TestPrefixOf: blocks are compared with addresses of IPv4 as such, in whatever
// way either was written.
func TestPrefixOf(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"10.1.2.3", "10.1.2.3/32"},
		{"10.1.2.3/8", "10.0.0.0/8"},
		{"::ffff:10.1.2.3", "10.1.2.3/32"},
		{"::ffff:10.1.2.3/104", "10.0.0.0/8"},
		{"::ffff:0:0/96", "0.0.0.0/0"},
		{"::ffff:0:0/95", "::fffe:0:0/95"}, // more than IPv4
		{"2001:db8::1/32", "2001:db8::/32"},
		{"10.0.0.0/33", ""},
		{"10.0.0", ""},
		{"", ""},
	} {
		p, ok := prefixOf(tt.text)
		if ok != (tt.want != "") || ok && p.String() != tt.want {
			t.Errorf("%q is %v, %v, want %q", tt.text, p, ok, tt.want)
		}
	}
}
