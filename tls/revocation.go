package tls

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"
)

// loadRevoked reads the revocation lists of a file, in PEM or one in DER.
func loadRevoked(file string) ([]*x509.RevocationList, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("revocation list: %w", err)
	}
	var out []*x509.RevocationList
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("revocation list %s: %w", file, err)
		}
		out = append(out, list)
	}
	if len(out) == 0 {
		list, err := x509.ParseRevocationList(data)
		if err != nil {
			return nil, fmt.Errorf("revocation list %s: %w", file, err)
		}
		out = append(out, list)
	}
	return out, nil
}

// CheckRevoked reports, by an error, whether a certificate of a chain is on a list
// of its issuer, or whether that cannot be known, since none of the issuer's lists
// holds any more (as Envoy has it): who keeps the next list from coming would
// otherwise have revoked certificates back. Issuers without a list revoke nothing.
func (c *Credential) CheckRevoked(chains [][]*x509.Certificate, now time.Time) error {
	if len(c.Revoked) == 0 {
		return nil
	}
	for _, chain := range chains {
		for i, cert := range chain[:len(chain)-1] {
			if err := c.checkRevoked(cert, chain[i+1], now); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Credential) checkRevoked(cert, issuer *x509.Certificate, now time.Time) error {
	var doubt error
	holds := false
	for _, list := range c.Revoked {
		if !bytes.Equal(list.RawIssuer, issuer.RawSubject) {
			continue
		}
		if err := list.CheckSignatureFrom(issuer); err != nil {
			if len(list.AuthorityKeyId) > 0 && bytes.Equal(list.AuthorityKeyId, issuer.SubjectKeyId) {
				doubt = fmt.Errorf("the revocation list of its issuer is not to be believed: %w", err)
			}
			continue // of another one with the same name, as after the root has changed
		}
		for _, r := range list.RevokedCertificateEntries {
			if r.SerialNumber.Cmp(cert.SerialNumber) == 0 {
				return errors.New("has been revoked")
			}
		}
		if list.NextUpdate.IsZero() || now.Before(list.NextUpdate) {
			holds = true
		} else {
			doubt = fmt.Errorf("the revocation list of its issuer has ended at %s", list.NextUpdate.Format(time.RFC3339))
		}
	}
	if holds {
		return nil
	}
	return doubt
}

// listsHold returns since when and until when the lists hold that end first. Of
// several by one issuer, that is the last one. until is zero if none ends.
func (c *Credential) listsHold() (from, until time.Time) {
	last := map[string]*x509.RevocationList{}
	for _, list := range c.Revoked {
		k := string(list.RawIssuer) + string(list.AuthorityKeyId)
		if l := last[k]; l == nil || !l.NextUpdate.IsZero() && (list.NextUpdate.IsZero() || list.NextUpdate.After(l.NextUpdate)) {
			last[k] = list
		}
	}
	for _, list := range last {
		if !list.NextUpdate.IsZero() && (until.IsZero() || list.NextUpdate.Before(until)) {
			from, until = list.ThisUpdate, list.NextUpdate
		}
	}
	return from, until
}
