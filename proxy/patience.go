package proxy

import "time"

// Downstream bounds what clients may take, in time and size. A zero field
// stands for its default.
type Downstream struct {
	// IdleTimeout is how long a kept connection may wait for its next request;
	// default 1h, as Envoy's.
	IdleTimeout time.Duration

	// HeadTimeout is how long a request's head may take from its first byte; at a
	// gateway also how long a new connection may take for its first. Default 60s,
	// as nginx's client_header_timeout.
	HeadTimeout time.Duration

	// StallTimeout is how long a body may stand still in either direction
	// because of the client. Default 60s at gateways, as nginx's
	// client_body_timeout and send_timeout. Within the mesh, where a body may be a
	// stream of events, reading waits 5m, as Envoy's streams do.
	StallTimeout time.Duration

	// MinRate is how many bytes of a body a client of a gateway has to send in
	// a second, on average over the time that it let us wait, beyond one
	// StallTimeout. Default 240, as Kestrel's MinRequestBodyDataRate; below 0: none.
	MinRate int

	// MaxBody is how many bytes a request's body may have; default 0: any number.
	MaxBody int
}

// Defaults of Downstream.
const (
	defaultIdle      = time.Hour
	defaultHead      = 60 * time.Second
	defaultStall     = 60 * time.Second
	defaultMeshStall = 5 * time.Minute
	defaultMinRate   = 240
)

// patience is Downstream for one kind of listener, in full.
type patience struct {
	idle, head   instant
	read, write  instant // how long a body may stand still
	first        instant // for the first byte of a new connection
	nanosPerByte instant // that a body earns its sender; 0: no minimum rate
	maxBody      int64   // 0: none
}

func (d Downstream) patience(kind listenerKind) patience {
	or := func(d, or time.Duration) instant {
		if d == 0 {
			d = or
		}
		return instant(d)
	}
	p := patience{
		idle: or(d.IdleTimeout, defaultIdle), head: or(d.HeadTimeout, defaultHead),
		read: or(d.StallTimeout, defaultMeshStall), write: or(d.StallTimeout, defaultStall),
		maxBody: int64(d.MaxBody),
	}
	p.first = p.idle
	if kind == gateway {
		p.read, p.first = p.write, p.head
		switch {
		case d.MinRate == 0:
			p.nanosPerByte = instant(time.Second) / defaultMinRate
		case d.MinRate > 0:
			p.nanosPerByte = instant(time.Second) / instant(d.MinRate)
		}
	}
	return p
}

// pace is how a body comes along: what it has made us wait, and what for.
type pace struct{ waited, earned instant }

// limit is until when the next bytes have to come: within one stall, and
// sooner if the body has been slower than the minimum rate all along.
func (p *pace) limit(t instant, with *patience) instant {
	if with.nanosPerByte == 0 {
		return t + with.read
	}
	return t + min(with.read, with.read+p.earned-p.waited)
}

// moved takes down that n bytes have come after a wait since t.
func (p *pace) moved(n int, t instant, with *patience) {
	if with.nanosPerByte != 0 {
		p.waited += now() - t
		p.earned += instant(n) * with.nanosPerByte
	}
}
