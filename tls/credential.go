package tls

import (
	"cmp"
	stdtls "crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Files are those of a credential; "" where it has none.
type Files struct{ Certificate, Key, Roots, Revoked string }

// Credential is what a gateway shows, and whom it believes: the content of a
// Kubernetes Secret. It does not change.
type Credential struct {
	Certificate stdtls.Certificate
	NotAfter    time.Time              // the earliest end of the certificate and its chain
	Roots       *x509.CertPool         // nil: there is no ca.crt
	Revoked     []*x509.RevocationList // of ca.crl; see [Credential.CheckRevoked]
}

// Store reads credentials from files and keeps them as long as the files stay
// as they are. Its methods may be called by any goroutine.
type Store struct {
	dir string
	log *slog.Logger

	mu    sync.Mutex // guards known
	known map[Files]*stored
}

// stored is one credential, read at some time.
type stored struct {
	mu         sync.Mutex // guards what is below
	checked    time.Time
	stamps     stamps
	credential *Credential // the last that was good; nil if none was
	err        error       // of the files as they are
	tries      int         // at files that cannot be used, in a row
	warned     bool        // of the end that is near
	listWarned bool        // of that of a revocation list
}

// stamp tells one content of a file from another. Kubernetes swaps a symbolic
// link, so that the file behind the same name is another one.
type stamp struct {
	modified time.Time
	size     int64
	inode    uint64
}

// stamps are those of a credential's files.
type stamps [4]stamp

// checkEvery is how often it is looked whether files have changed: the kubelet
// takes up to a minute to bring a Secret's change.
const checkEvery = time.Second

// asked is for how long a credential that nobody asks for any more is told of.
const asked = time.Minute

// NewStore makes a store for credentials in the folders of dir; "" if there are
// none. log, which may be nil, is told of those that cannot be used, or are about
// to end.
func NewStore(dir string, log *slog.Logger) *Store {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Store{dir: dir, log: log, known: map[Files]*stored{}}
}

// Named returns the files of a credential NAME: NAME/tls.crt, tls.key, and
// ca.crt and ca.crl if they are there; or those of the roots in NAME-cacert, as
// Istio has it.
func (s *Store) Named(name string) (Files, error) {
	switch {
	case s.dir == "":
		return Files{}, fmt.Errorf("credential %s: the bootstrap file names no credentialDir to look for it", name)
	case name == "" || name[0] == '.' || strings.ContainsAny(name, `/\`):
		return Files{}, fmt.Errorf("credential %q: that is no name", name)
	}
	at := func(folder, file string) string { return filepath.Join(s.dir, folder, file) }
	f := Files{Certificate: at(name, "tls.crt"), Key: at(name, "tls.key")}
	for _, folder := range []string{name, name + "-cacert"} {
		if exists(at(folder, "ca.crt")) && f.Roots == "" {
			f.Roots = at(folder, "ca.crt")
		}
		if exists(at(folder, "ca.crl")) && f.Revoked == "" {
			f.Revoked = at(folder, "ca.crl")
		}
	}
	return f, nil
}

// Roots returns the files of a credential that is there for its roots alone
// (caCertCredentialName): NAME/ca.crt, and ca.crl if it is there.
func (s *Store) Roots(name string) (Files, error) {
	f, err := s.Peer(name, false, true)
	return Files{Roots: f.Roots, Revoked: f.Revoked}, err
}

// Peer returns the files of a credential that servers are spoken to by: its
// certificate, if that is shown, and its roots, if they are gone by. Those must be
// there: whoever names them does not mean the system's.
func (s *Store) Peer(name string, shown, verified bool) (Files, error) {
	f, err := s.Named(name)
	if err == nil && verified && f.Roots == "" {
		err = fmt.Errorf("credential %s: there is no %s", name, filepath.Join(s.dir, name, "ca.crt"))
	}
	if !shown {
		f.Certificate, f.Key = "", ""
	}
	return f, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Get returns the credential in files. When they have changed into something
// that cannot be used, it is the last good one, beside the error.
func (s *Store) Get(f Files) (*Credential, error) {
	s.mu.Lock()
	c := s.known[f]
	if c == nil {
		c = &stored{}
		s.known[f] = c
	}
	s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if !c.checked.IsZero() && now.Sub(c.checked) < checkEvery {
		return c.credential, c.err
	}
	stamps, err := f.stamps()
	if c.checked.IsZero() || stamps != c.stamps || err != nil || c.err != nil {
		var read *Credential
		if err == nil {
			read, err = f.read()
		}
		c.stamps = stamps
		c.have(f, read, err, s.log)
	}
	c.checked = now
	c.warn(f, now, s.log)
	return c.credential, c.err
}

// have takes what was read over, and tells of what cannot be used once for each
// outage; of files that were good before only the second time, since they may be
// half written.
func (c *stored) have(f Files, read *Credential, err error, log *slog.Logger) {
	told := c.tries > 1 || c.tries > 0 && c.credential == nil
	if c.err = err; err == nil {
		c.credential, c.tries, c.warned, c.listWarned = read, 0, false, false
		if told {
			log.Info("a credential can be used again", "credential", f.name())
		}
		return
	}
	switch c.tries++; {
	case told:
	case c.credential == nil:
		log.Warn("a credential cannot be used, and there is none before it", "credential", f.name(), "error", err)
	case c.tries > 1:
		log.Error("the new credential is not used", "credential", f.name(), "error", err, "until", c.credential.NotAfter)
	}
}

// warn tells of an end that is near.
func (c *stored) warn(f Files, now time.Time, log *slog.Logger) {
	if c.credential == nil {
		return
	}
	if from, until := c.credential.listsHold(); !c.listWarned && !until.IsZero() && nearEnd(from, until, now) {
		c.listWarned = true
		log.Warn("a revocation list is about to end, or has: whoever has a certificate of its issuer will be refused", "list", f.Revoked, "until", until)
	}
	if c.warned || c.credential.Certificate.Leaf == nil {
		return
	}
	if nearEnd(c.credential.Certificate.Leaf.NotBefore, c.credential.NotAfter, now) {
		c.warned = true
		log.Warn("a certificate is about to end, or has: its clients will refuse it", "credential", f.name(), "until", c.credential.NotAfter)
	}
}

// name is how people know a credential: by the file of its certificate.
func (f Files) name() string { return cmp.Or(f.Certificate, f.Roots) }

// CertificateStatus is how a certificate is that is asked for, or a revocation
// list.
type CertificateStatus struct {
	Name     string    // of its file
	NotAfter time.Time // the earliest end of it and its chain; zero if it never could be used, or has none
	List     bool      // it is a revocation list
	Err      error     // why the files as they are cannot be used; nil if they can
}

// Status returns how the certificates are that have been asked for within the last
// minute, by name.
func (s *Store) Status() (out []CertificateStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f, c := range s.known {
		c.mu.Lock()
		switch status := (CertificateStatus{Name: f.Certificate, Err: c.err}); {
		case c.checked.IsZero(): // being read for the first time
		case time.Since(c.checked) > asked:
			delete(s.known, f)
		default:
			list := CertificateStatus{Name: f.Revoked, List: true, Err: c.err}
			if c.credential != nil {
				status.NotAfter = c.credential.NotAfter
				_, list.NotAfter = c.credential.listsHold()
			}
			if status.Name != "" {
				out = append(out, status)
			}
			if list.Name != "" {
				out = append(out, list)
			}
		}
		c.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b CertificateStatus) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(out, func(a, b CertificateStatus) bool { return a.Name == b.Name })
}

func (f Files) stamps() (out stamps, err error) {
	for i, path := range []string{f.Certificate, f.Key, f.Roots, f.Revoked} {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			return out, err
		}
		out[i] = stamp{modified: info.ModTime(), size: info.Size()}
		if sys, ok := info.Sys().(*syscall.Stat_t); ok {
			out[i].inode = sys.Ino
		}
	}
	return out, nil
}

func (f Files) read() (*Credential, error) {
	var c Credential
	var err error
	if f.Certificate != "" {
		if c.Certificate, err = stdtls.LoadX509KeyPair(f.Certificate, f.Key); err != nil {
			return nil, fmt.Errorf("certificate %s with key %s: %w", f.Certificate, f.Key, err)
		}
		if c.NotAfter, err = endOf(&c.Certificate); err != nil {
			return nil, fmt.Errorf("certificate %s: %w", f.Certificate, err)
		}
	}
	if f.Roots != "" {
		if c.Roots, err = loadRoots(f.Roots); err != nil {
			return nil, err
		}
	}
	if f.Revoked != "" {
		if c.Revoked, err = loadRevoked(f.Revoked); err != nil {
			return nil, err
		}
	}
	return &c, nil
}
