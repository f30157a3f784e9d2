package main

import "time"

// What a peer has to do at its start is over after settled. What it spends is looked at for
// restful: a tick of the CPU's account is a millisecond a second of that.
const (
	settled = 5 * time.Second
	restful = 10 * time.Second
)

// idle measures what a peer spends while nobody asks anything.
func (b *bench) idle(p peer) (values, error) {
	v := values{}
	err := b.with(p, "/1k", func(t target) error {
		if err := b.sleep(settled); err != nil {
			return err
		}
		before := t.proc.cpu()
		if err := b.sleep(restful); err != nil {
			return err
		}
		v["idle"] = (t.proc.cpu() - before) / restful.Seconds() * 1e3
		return nil
	})
	return v, err
}
