package mesh

import "strings"

// Locality is a place: region, zone within it, subzone within that. Empty
// parts are unknown.
type Locality struct {
	Region, Zone, Subzone string
}

// ParseLocality reads "region/zone/subzone"; missing parts stay empty, and
// what follows a third slash belongs to the subzone.
func ParseLocality(s string) Locality {
	var l Locality
	l.Region, s, _ = strings.Cut(s, "/")
	l.Zone, l.Subzone, _ = strings.Cut(s, "/")
	return l
}

// String is the inverse of [ParseLocality]; trailing empty parts are left out.
func (l Locality) String() string {
	switch {
	case l.Subzone != "":
		return l.Region + "/" + l.Zone + "/" + l.Subzone
	case l.Zone != "":
		return l.Region + "/" + l.Zone
	}
	return l.Region
}

// MarshalText writes the form of [Locality.String], in JSON too.
func (l Locality) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads the form of [ParseLocality].
func (l *Locality) UnmarshalText(b []byte) error {
	*l = ParseLocality(string(b))
	return nil
}

// Matches reports whether l lies in pattern, a locality in which a "*" may
// stand for the last part and everything below it ("us-west1/*", "*"). A
// pattern without a star covers what lies below it too: "us-west1" matches
// "us-west1/a", as in Istio's localityLbSetting.
func (l Locality) Matches(pattern string) bool {
	p := ParseLocality(pattern)
	parts := [3][2]string{{p.Region, l.Region}, {p.Zone, l.Zone}, {p.Subzone, l.Subzone}}
	for _, part := range parts {
		switch part[0] {
		case "*", "":
			return true
		case part[1]:
		default:
			return false
		}
	}
	return true
}
