package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// link joins two clusters: a TUN device in each, and packets carried between
// them by this program, which delays and drops them as it is told (tc's netem
// is not in every kernel).
type link struct {
	ends    [2]linkEnd
	lanes   [2]*lane // lanes[i] carries what leaves ends[i]
	regular condition
	wake    [2]chan struct{} // a packet went into an empty lane; capacity 1
	stop    chan struct{}
	done    sync.WaitGroup
}

// linkEnd is one of the two devices.
type linkEnd struct {
	cluster *cluster
	device  string
	subnet  string // of the other cluster, which is reached through here
	file    *os.File
}

// newLink makes both devices, and starts two goroutines for each direction,
// which end with close.
func newLink(a, b *cluster, delay time.Duration) (*link, error) {
	l := &link{regular: condition{delay: delay}, stop: make(chan struct{})}
	l.ends = [2]linkEnd{
		{cluster: a, device: "to-" + b.name, subnet: b.subnet()},
		{cluster: b, device: "to-" + a.name, subnet: a.subnet()},
	}
	for i := range l.ends {
		e := &l.ends[i]
		var err error
		if e.file, err = openTUN(e.cluster.ns, e.device); err != nil {
			l.close()
			return nil, err
		}
		l.lanes[i] = &lane{random: rand.Float64, now: l.regular}
		l.wake[i] = make(chan struct{}, 1)
	}
	if err := l.up(); err != nil {
		l.close()
		return nil, err
	}
	for i := range l.ends {
		l.done.Go(func() { l.receive(i) })
		l.done.Go(func() { l.deliver(i) })
	}
	return l, nil
}

// openTUN makes a TUN device in a namespace; it lives as long as the file.
func openTUN(n *namespace, name string) (*os.File, error) {
	fd := -1
	err := n.do(func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return fmt.Errorf("make the TUN device %s: %w", name, err)
		}
		return nil
	})
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// up raises both devices and routes to the other cluster through each: a
// device that goes down loses its routes.
func (l *link) up() error {
	for _, e := range l.ends {
		// The kernel keeps 500 packets for who reads slowly; what is lost shall be
		// lost by the lanes.
		if err := e.cluster.ns.ip("link", "set", e.device, "txqueuelen", fmt.Sprint(laneCapacity), "up"); err != nil {
			return err
		}
		if err := e.cluster.ns.ip("route", "replace", e.subnet, "dev", e.device); err != nil {
			return err
		}
	}
	return nil
}

// down takes both devices down: packets to the other cluster have no way, and
// their senders are told.
func (l *link) down() error {
	for _, e := range l.ends {
		if err := e.cluster.ns.ip("link", "set", e.device, "down"); err != nil {
			return err
		}
	}
	return nil
}

// set puts both directions under a condition.
func (l *link) set(c condition) {
	l.lanes[0].set(c)
	l.lanes[1].set(c)
}

// cutTowards loses what goes to one of the clusters; the other direction goes
// on.
func (l *link) cutTowards(c *cluster) {
	for i, e := range l.ends {
		if e.cluster != c {
			l.lanes[i].set(condition{delay: l.regular.delay, cut: true})
		}
	}
}

// restore makes the link what it was at first.
func (l *link) restore() error {
	l.set(l.regular)
	return l.up()
}

// receive takes the packets that leave one end.
func (l *link) receive(i int) {
	buf := make([]byte, 64<<10)
	for {
		n, err := l.ends[i].file.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil || n == 0 {
			select { // the device is down
			case <-l.stop:
				return
			case <-time.After(time.Millisecond):
			}
			continue
		}
		if l.lanes[i].admit(time.Now(), buf[:n]) {
			select {
			case l.wake[i] <- struct{}{}:
			default:
			}
		}
	}
}

// deliver hands packets to the other end when they are due.
func (l *link) deliver(i int) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var due <-chan time.Time
		if t, ok := l.lanes[i].next(); ok {
			timer.Reset(time.Until(t))
			due = timer.C
		}
		select {
		case <-l.stop:
			return
		case <-l.wake[i]:
		case <-due:
		}
		for _, p := range l.lanes[i].take(time.Now()) {
			l.ends[1-i].file.Write(p) // an error means that the device is down: the packet is lost
		}
	}
}

// close ends the link and its devices.
func (l *link) close() {
	close(l.stop)
	for _, e := range l.ends {
		if e.file != nil {
			e.file.Close()
		}
	}
	l.done.Wait()
}
