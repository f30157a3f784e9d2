package auth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// fetchTimeout bounds a fetch with its discovery. Requests wait as long as
	// their rule says; a slow issuer's keys are there for the next.
	fetchTimeout = 30 * time.Second

	// maxBody bounds what an issuer may send, in bytes: the largest sets known
	// have some 100 KiB, with certificates.
	maxBody = 1 << 20

	maxRedirects = 3
)

// newClient makes a client that nobody can keep waiting or fill up. Proxies are
// those of the environment. dial connects; nil: as the system does.
func newClient(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Client {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
				defer cancel()
				return dial(ctx, network, address)
			},
			TLSHandshakeTimeout:    5 * time.Second,
			ResponseHeaderTimeout:  10 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			MaxConnsPerHost:        4,
			IdleConnTimeout:        10 * time.Second, // the next fetch is minutes away
			ForceAttemptHTTP2:      true,
		},
		CheckRedirect: func(to *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("more than %d redirects", maxRedirects)
			}
			return checkDowngrade(via[0].URL, to.URL)
		},
	}
}

// checkDowngrade refuses to follow https to anything else: who sits in between
// could give the keys.
func checkDowngrade(from, to *url.URL) error {
	if from.Scheme == "https" && to.Scheme != "https" {
		return fmt.Errorf("from https to %s://%s", to.Scheme, to.Host)
	}
	return nil
}

// fetchedSet is a key set as its issuer sent it.
type fetchedSet struct {
	set   *keySet
	raw   []byte
	at    time.Time
	fresh time.Duration // how long it is not asked for again
}

// fetch gets a key set. A set without a key that can be used is an error.
func (k *Keys) fetch(ctx context.Context, s *keySource) (got fetchedSet, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	uri := s.uri
	if uri == "" {
		if uri, err = k.discover(ctx, s.issuer); err != nil {
			return got, err
		}
	}
	if got.raw, got.fresh, err = k.get(ctx, uri); err != nil {
		return got, err
	}
	if got.set, err = parseKeySet(got.raw); err != nil {
		return got, fmt.Errorf("%s: %w", uri, err)
	}
	got.at = time.Now()
	return got, nil
}

// discoveryURL is where an issuer describes itself (OpenID Connect Discovery 4).
func discoveryURL(issuer string) string {
	return strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
}

// discover returns where an issuer's key set is.
func (k *Keys) discover(ctx context.Context, issuer string) (string, error) {
	from, err := parseURL(issuer)
	if err != nil {
		return "", fmt.Errorf("discovery needs an issuer that is a URL, or else jwksUri: %w", err)
	}
	address := discoveryURL(issuer)
	data, _, err := k.get(ctx, address)
	if err != nil {
		return "", err
	}
	document, err := parseObject(data)
	if err != nil {
		return "", fmt.Errorf("%s: %w", address, err)
	}
	name, err := document.str("issuer")
	if err != nil || name != issuer { // OpenID Connect Discovery 4.3
		return "", fmt.Errorf("%s: the issuer there is %.200q, and not %q", address, name, issuer)
	}
	uri, err := document.str("jwks_uri")
	if err == nil && uri == "" {
		err = errors.New("there is no jwks_uri")
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", address, err)
	}
	to, err := parseURL(uri)
	if err == nil {
		err = checkDowngrade(from, to)
	}
	if err != nil {
		return "", fmt.Errorf("%s: jwks_uri: %w", address, err)
	}
	return uri, nil
}

func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, err
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return nil, fmt.Errorf("%.200q is no URL of http or https", text)
	}
	return u, nil
}

// get returns a body, and how long it may be used.
func (k *Keys) get(ctx context.Context, address string) ([]byte, time.Duration, error) {
	from, err := parseURL(address)
	if err != nil {
		return nil, 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	req.Header.Set("User-Agent", "isthmus")
	res, err := k.client.Do(req)
	if err != nil {
		return nil, 0, err // it names the address
	}
	defer res.Body.Close()
	if res.Request != nil { // the client may be one that follows whatever it is told
		if err := checkDowngrade(from, res.Request.URL); err != nil {
			return nil, 0, fmt.Errorf("%s: redirected %w", address, err)
		}
	}
	if res.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("%s: HTTP status %d", address, res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", address, err)
	}
	if len(body) > maxBody {
		return nil, 0, fmt.Errorf("%s: more than %d bytes", address, maxBody)
	}
	return body, freshness(res.Header.Values("Cache-Control")), nil
}

// freshness is max-age (RFC 9111 5.2.2.1) from minFresh to maxFresh; maxFresh if
// there is none.
func freshness(values []string) time.Duration {
	fresh := maxFresh
	for directive := range strings.SplitSeq(strings.Join(values, ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		if !strings.EqualFold(name, "max-age") {
			continue
		}
		if seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
			fresh = min(fresh, time.Duration(seconds)*time.Second)
		}
	}
	return max(fresh, minFresh)
}

// storedSet is a file of Dir.
type storedSet struct {
	URI     string          `json:"uri"` // the source's id: a file is for one alone
	Fetched time.Time       `json:"fetched"`
	KeySet  json.RawMessage `json:"keySet"`
}

func (k *Keys) path(id string) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(k.dir, hex.EncodeToString(sum[:])+".json")
}

// load returns the set that was kept on disk; nil if there is none.
func (k *Keys) load(id string) (*keySet, time.Time, error) {
	none := time.Time{}
	if k.dir == "" {
		return nil, none, nil
	}
	file, err := os.Open(k.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, none, nil
	} else if err != nil {
		return nil, none, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, 2*maxBody)) // a longer one is cut, and no JSON
	if err != nil {
		return nil, none, err
	}
	var stored storedSet
	if err := json.Unmarshal(data, &stored); err != nil {
		return nil, none, fmt.Errorf("%s: %w", file.Name(), err)
	}
	if stored.URI != id {
		return nil, none, fmt.Errorf("%s is for %.200q", file.Name(), stored.URI)
	}
	set, err := parseKeySet(stored.KeySet)
	if err != nil {
		return nil, none, fmt.Errorf("%s: %w", file.Name(), err)
	}
	if now := time.Now(); stored.Fetched.After(now) {
		stored.Fetched = now // the clock was put back
	}
	return set, stored.Fetched, nil
}

// save keeps a set on disk. A reader sees the file before or the file after.
func (k *Keys) save(id string, got fetchedSet) error {
	if k.dir == "" {
		return nil
	}
	data, err := json.Marshal(storedSet{id, got.at, got.raw})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(k.dir, "keyset-*.tmp") // of mode 0600
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(file.Name(), k.path(id))
	}
	if err != nil {
		os.Remove(file.Name())
	}
	return err
}
