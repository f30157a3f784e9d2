package tls

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// listOf makes a list of one serial number that holds from some time ago until
// some time hence.
func listOf(t *testing.T, a *Authority, serial *big.Int, ago, left time.Duration) []byte {
	t.Helper()
	now := time.Now()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: now.Add(-ago), NextUpdate: now.Add(left),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: serial, RevocationTime: now}},
	}, a.certificate, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func inPEM(lists ...[]byte) (out []byte) {
	for _, der := range lists {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})...)
	}
	return out
}

// TestCredential_CheckRevoked: a list counts for its own issuer's certificates, and
// for all of them once it has ended.
func TestCredential_CheckRevoked(t *testing.T) {
	dir := t.TempDir()
	a, leaf := issueInto(t, filepath.Join(dir, "a"))
	b, other := issueInto(t, filepath.Join(dir, "b"))
	const day = 24 * time.Hour
	revoking, sparing := listOf(t, a, leaf.SerialNumber, day, day), listOf(t, a, other.SerialNumber, day, day)
	ended, endedRevoking := listOf(t, a, other.SerialNumber, 2*day, -day), listOf(t, a, leaf.SerialNumber, 2*day, -day)
	endedElsewhere := listOf(t, b, leaf.SerialNumber, 2*day, -day)
	forged := bytes.Clone(sparing)
	forged[len(forged)-1] ^= 1 // of its signature
	for _, tt := range []struct {
		name string
		data []byte
		want string // why it is refused; "": it is not
	}{
		{"its own, in PEM", inPEM(revoking), "revoked"},
		{"its own, in DER", revoking, "revoked"},
		{"another one's", inPEM(sparing), ""},
		{"by another authority", listOf(t, b, leaf.SerialNumber, day, day), ""},
		{"ended", inPEM(ended), "has ended at"},
		{"ended, and its own", inPEM(endedRevoking), "revoked"},
		{"ended, with its successor", inPEM(ended, sparing), ""},
		{"its own in the one that has ended", inPEM(sparing, endedRevoking), "revoked"},
		{"ended, by another authority", inPEM(endedElsewhere, sparing), ""},
		{"forged", inPEM(forged), "not to be believed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(dir, "a", "ca.crl"), tt.data, 0o644); err != nil {
				t.Fatal(err)
			}
			s := NewStore(dir, nil)
			c, err := s.Get(named(t, s, "a"))
			if err != nil {
				t.Fatal(err)
			}
			err = c.CheckRevoked([][]*x509.Certificate{{leaf, a.certificate}}, time.Now())
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	for name, data := range map[string][]byte{"no list": []byte("nonsense"), "no list, in PEM": inPEM([]byte("nonsense")), "one that is none": inPEM(revoking, []byte("x"))} {
		if err := os.WriteFile(filepath.Join(dir, "a", "ca.crl"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		s := NewStore(dir, nil)
		if c, err := s.Get(named(t, s, "a")); c != nil || err == nil {
			t.Errorf("%s: %v, %v", name, c, err)
		}
	}
	endless, err := x509.ParseRevocationList(sparing)
	if err != nil {
		t.Fatal(err)
	}
	endless.NextUpdate = time.Time{} // it names no next one
	c := &Credential{Revoked: []*x509.RevocationList{endless}}
	if err := c.CheckRevoked([][]*x509.Certificate{{leaf, a.certificate}}, time.Now().Add(365*day)); err != nil {
		t.Errorf("by a list that never ends: %v", err)
	}
}

// TestStore_ListEnds: it is told that a list is about to end, and known when.
func TestStore_ListEnds(t *testing.T) {
	dir := t.TempDir()
	a, leaf := issueInto(t, filepath.Join(dir, "a"))
	b, _ := issueInto(t, filepath.Join(dir, "b"))
	const hour = time.Hour
	var log bytes.Buffer
	for _, tt := range []struct {
		name string
		data func() []byte // by the clock of the case
		warn int
	}{
		{"long", func() []byte { return inPEM(listOf(t, a, leaf.SerialNumber, hour, 24*hour)) }, 0},
		{"soon", func() []byte { return inPEM(listOf(t, a, leaf.SerialNumber, 24*hour, hour)) }, 1},
		{"soon, with its successor", func() []byte {
			return inPEM(listOf(t, a, leaf.SerialNumber, 24*hour, hour), listOf(t, a, leaf.SerialNumber, hour, 24*hour))
		}, 0},
		{"soon, before its successor", func() []byte {
			return inPEM(listOf(t, a, leaf.SerialNumber, hour, 24*hour), listOf(t, a, leaf.SerialNumber, 24*hour, hour))
		}, 0},
		{"of two authorities, one soon", func() []byte {
			return inPEM(listOf(t, a, leaf.SerialNumber, hour, 24*hour), listOf(t, b, leaf.SerialNumber, 24*hour, hour))
		}, 1},
		{"of two authorities, the first soon", func() []byte {
			return inPEM(listOf(t, a, leaf.SerialNumber, 24*hour, hour), listOf(t, b, leaf.SerialNumber, hour, 24*hour))
		}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log.Reset()
				file := filepath.Join(dir, "a", "ca.crl")
				if err := os.WriteFile(file, tt.data(), 0o644); err != nil {
					t.Fatal(err)
				}
				s := NewStore(dir, slog.New(slog.NewTextHandler(&log, nil)))
				c, err := s.Get(named(t, s, "a"))
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * checkEvery)
				s.Get(named(t, s, "a")) // it is told once
				if warned := strings.Count(log.String(), "a revocation list is about to end"); warned != tt.warn {
					t.Errorf("warned %d times, want %d: %s", warned, tt.warn, log.String())
				}
				_, until := c.listsHold()
				status := s.Status()
				if len(status) != 2 || status[0].Name != file || !status[0].NotAfter.Equal(until) || until.IsZero() {
					t.Errorf("status %+v, want the list's end %v", status, until)
				}
			})
		})
	}
}
