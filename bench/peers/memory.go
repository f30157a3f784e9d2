package main

import "time"

// memory measures a peer when it has just been started, when it is busy, and,
// started again, with slow connections.
func (b *bench) memory(p peer) (values, error) {
	const busy, slow = 1_000, 10_000
	v := values{}
	err := b.with(p, "/1k", func(t target) (err error) {
		if err = b.sleep(time.Second); err != nil {
			return err
		}
		if v["idle"], err = t.proc.pss(); err != nil {
			return err
		}
		v["busy"], v[lost], err = b.busyMemory(t, busy)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = b.with(p, "/1k", func(t target) (err error) {
		v["slow"], err = b.heldMemory(t, slow, slow)
		return err
	})
	return v, err
}

// busyMemory looks at the end of a load, when buffers and heap have grown.
func (b *bench) busyMemory(t target, connections int) (mib, lost float64, err error) {
	seconds := max(b.seconds, 3)
	type looked struct {
		mib float64
		err error
	}
	look := make(chan looked, 1)
	go func() { // ends before the load
		if err := b.sleep(time.Duration(seconds)*time.Second - 500*time.Millisecond); err != nil {
			look <- looked{0, err}
			return
		}
		mib, err := t.proc.pss()
		look <- looked{mib, err}
	}()
	r, err := b.wrk(load{path: "/1k", connections: connections}, t, seconds)
	seen := <-look
	if err != nil {
		return 0, 0, err
	}
	return seen.mib, float64(r.lost), seen.err
}
