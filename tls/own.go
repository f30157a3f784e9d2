package tls

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Own is the identity of this proxy as its files have it over time. Nil is a
// proxy without one. Its methods may be called by any goroutine.
type Own struct {
	files   Files
	aliases []string
	current atomic.Pointer[Identity]
	reloads atomic.Uint64

	mu     sync.Mutex // guards what is below
	stamps stamps
	err    error // why the files as they are cannot be used; nil if they can
	tries  int   // at files that cannot be used, in a row
	warned bool  // of the end that is near

	warnedOfRoot bool // of its end
}

// NewOwn reads the identity for the first time; see [Load].
func NewOwn(certFile, keyFile, caFile string, aliases ...string) (*Own, error) {
	o := &Own{files: Files{Certificate: certFile, Key: keyFile, Roots: caFile}, aliases: aliases}
	before, _ := o.files.stamps()
	id, err := Load(certFile, keyFile, caFile, aliases...)
	if err != nil {
		return nil, err
	}
	o.stamps = before
	o.current.Store(id)
	return o, nil
}

// Identity returns the identity that holds; nil for a proxy without one.
func (o *Own) Identity() *Identity {
	if o == nil {
		return nil
	}
	return o.current.Load()
}

// Follow looks for changed files once a second until ctx is done, and says what
// it finds, and what is about to end.
func (o *Own) Follow(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		o.check(log, time.Now())
	}
}

// check reads the files again if they have changed, or could not be used: a
// certificate and its key are two files, so one may be new before the other.
func (o *Own) check(log *slog.Logger, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.current.Load()
	found, err := o.files.stamps()
	if err != nil || found != o.stamps || o.err != nil {
		var id *Identity
		if err == nil {
			id, err = Load(o.files.Certificate, o.files.Key, o.files.Roots, o.aliases...)
		}
		if err == nil && id.ID != before.ID {
			err = fmt.Errorf("certificate %s is now for %s, and this proxy is %s: who it is changes with a restart only", o.files.Certificate, id.ID, before.ID)
		}
		o.stamps, o.err = found, err
		switch {
		case err == nil:
			o.current.Store(id)
			o.reloads.Add(1)
			o.tries, o.warned, o.warnedOfRoot = 0, false, false
			log.Info("certificate read anew", "identity", id.ID, "until", id.NotAfter)
		default:
			if o.tries++; o.tries == 2 { // once for each outage, and not for files half written
				log.Error("the new certificate is not used", "error", err, "until", before.NotAfter)
			}
		}
	}
	id := o.current.Load()
	if !o.warned && nearEnd(id.NotBefore, id.NotAfter, now) {
		o.warned = true
		log.Warn("the certificate is about to end, or has: other proxies will refuse this one", "identity", id.ID, "until", id.NotAfter)
	}
	if !o.warnedOfRoot && id.root.NotAfter.Sub(now) < rootLeft && nearEnd(id.root.NotBefore, id.root.NotAfter, now) {
		o.warnedOfRoot = true
		log.Warn("the root that vouches for the certificate is about to end, or has, and with it all that it vouches for: add its successor to the roots everywhere", "identity", id.ID, "until", id.root.NotAfter)
	}
}

// nearEnd reports whether so little of a certificate's time is left that a warning
// is due: cert-manager renews at a third (renewBefore), so that at a fifth it must
// have failed.
func nearEnd(from, until, now time.Time) bool { return until.Sub(now) < until.Sub(from)/5 }

// rootLeft is how much of a root's time is left at most when a warning is due: to
// bring a new one to every proxy takes people, and a root's fifth may be years.
const rootLeft = 30 * 24 * time.Hour

// OwnStatus is how the identity is.
type OwnStatus struct {
	ID       string
	NotAfter time.Time
	RootEnds time.Time // of the root that vouches for it
	Reloads  uint64    // of files that have changed
	Err      error     // why the files as they are cannot be used; nil if they can
}

// Status returns how the identity is; ok is false where there is none.
func (o *Own) Status() (s OwnStatus, ok bool) {
	id := o.Identity()
	if id == nil {
		return s, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return OwnStatus{ID: id.ID, NotAfter: id.NotAfter, RootEnds: id.root.NotAfter, Reloads: o.reloads.Load(), Err: o.err}, true
}
