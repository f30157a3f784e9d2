package ratelimit

import (
	"errors"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"isthmus/mesh"
	"isthmus/rpc"
)

// serveTimeout is how long a question of somebody else's may wait for the home of
// a key: as long as Envoy waits for an answer if nobody says otherwise.
const serveTimeout = 20 * time.Millisecond

// Methods returns the rate limit service's protocol, for [rpc.NewServer].
func (s *Shared) Methods() map[string]rpc.Method {
	return map[string]rpc.Method{method: s.shouldRateLimit}
}

func (s *Shared) shouldRateLimit(message []byte) ([]byte, error) {
	var d Descriptors
	domain, err := parseRequest(message, &d)
	if err != nil {
		return nil, err
	}
	v, err := s.Ask(serveTimeout, domain, &d)
	if err != nil {
		return nil, err
	}
	return marshalResponse(&v), nil
}

// maxDescriptors bounds how many descriptors one question has.
const maxDescriptors = 100

// What a question is refused for, as the rate limit service does.
var (
	errNoDomain      = errors.New("rate limit domain must not be empty")
	errNoDescriptors = errors.New("rate limit descriptor list must not be empty")
	errDescriptors   = errors.New("too many descriptors")
)

// parseRequest reads a RateLimitRequest. Its descriptors lie in the message.
func parseRequest(b []byte, d *Descriptors) (domain string, err error) {
	common := uint64(1)
	err = rpc.EachField(b, nil, func(n protowire.Number, x uint64) {
		if n == 3 && x > 0 {
			common = x
		}
	})
	if err != nil {
		return "", err
	}
	err = rpc.EachField(b, func(n protowire.Number, b []byte) error {
		switch n {
		case 1:
			domain = string(b)
		case 2:
			if d.Len() == maxDescriptors {
				return errDescriptors
			}
			return parseDescriptor(b, d, common)
		}
		return nil
	}, nil)
	switch {
	case err != nil:
		return "", err
	case domain == "":
		return "", errNoDomain
	case d.Len() == 0:
		return "", errNoDescriptors
	}
	return domain, nil
}

func parseDescriptor(b []byte, d *Descriptors, hits uint64) error {
	err := rpc.EachField(b, func(n protowire.Number, b []byte) error {
		switch n {
		case 1:
			var e entry
			err := rpc.EachField(b, func(n protowire.Number, b []byte) error {
				switch n {
				case 1:
					e.key = string(b)
				case 2:
					e.value = b
				}
				return nil
			}, nil)
			d.Add(e.key, e.value)
			return err
		case 3:
			hits = 0
			return rpc.EachField(b, nil, func(n protowire.Number, x uint64) {
				if n == 1 {
					hits = x
				}
			})
		}
		return nil
	}, nil)
	d.End(int(min(hits, 1<<30)))
	return err
}

// marshalResponse writes a RateLimitResponse.
func marshalResponse(v *Verdict) []byte {
	code := func(over bool) uint64 {
		if over {
			return codeOverLimit
		}
		return codeOK
	}
	b := rpc.AppendNumber(nil, 1, code(v.Over))
	for _, s := range v.Statuses {
		one := rpc.AppendNumber(nil, 1, code(s.Over))
		if s.Limited && s.Limit.Unit != mesh.UnitUnknown {
			limit := rpc.AppendNumber(nil, 1, uint64(s.Limit.Requests))
			limit = rpc.AppendNumber(limit, 2, uint64(s.Limit.Unit))
			one = rpc.AppendMessage(one, 2, rpc.AppendText(limit, 3, s.Limit.Name))
			one = rpc.AppendNumber(one, 3, uint64(s.Remaining))
			reset := rpc.AppendNumber(nil, 1, uint64(s.Reset/time.Second))
			one = rpc.AppendMessage(one, 4, rpc.AppendNumber(reset, 2, uint64(s.Reset%time.Second)))
		}
		b = rpc.AppendMessage(b, 2, one)
	}
	return b
}
