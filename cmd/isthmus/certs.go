package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"isthmus/config"
	"isthmus/mesh"
	"isthmus/tls"
)

func newCertsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "certs", Short: "A small certificate authority, for trying out and for clusters without cert-manager",
		Args: cobra.ArbitraryArgs,
		RunE: helpOnly,
	}
	cmd.AddCommand(newCertsInitCommand(), newCertsIssueCommand())
	return cmd
}

func newCertsInitCommand() *cobra.Command {
	var dir, trustDomain string
	cmd := &cobra.Command{
		Use: "init --dir DIR", Short: "Make an authority: ca.crt and ca.key in DIR", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := tls.InitAuthority(dir, trustDomain)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: authority of trust domain %s; keep ca.key to yourself\n", filepath.Join(dir, "ca.crt"), a.TrustDomain)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "folder of the authority")
	cmd.Flags().StringVar(&trustDomain, "trust-domain", "cluster.local", "whose workloads it speaks for")
	required(cmd, "dir")
	return cmd
}

// issueFlags are those of "certs issue".
type issueFlags struct {
	dir, trustDomain, namespace, serviceAccount, from string
	dns                                               []string
	ttl                                               time.Duration
}

func newCertsIssueCommand() *cobra.Command {
	var f issueFlags
	cmd := &cobra.Command{
		Use: "issue --dir DIR", Short: "Issue an identity: tls.crt and tls.key in DIR, in the place of those before", Args: usage(cobra.NoArgs),
		Long: "Issues a certificate with the authority in DIR and writes tls.crt and tls.key there.\n\n" +
			"It is a SPIFFE identity, spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT. With --from FILE it is what a\n" +
			"cert-manager Certificate asks for; add --namespace or --service-account to make an identity of that, too.",
		RunE: func(cmd *cobra.Command, args []string) error { return issue(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dir", "", "folder of the authority")
	flags.StringVar(&f.trustDomain, "trust-domain", "", "of the identity; default: the authority's")
	flags.StringVar(&f.namespace, "namespace", "default", "of the identity")
	flags.StringVar(&f.serviceAccount, "service-account", "default", "of the identity")
	flags.StringArrayVar(&f.dns, "dns", nil, "a host name that the certificate is good for as well; may be repeated")
	flags.DurationVar(&f.ttl, "ttl", 90*24*time.Hour, "how long it is good")
	flags.StringVar(&f.from, "from", "", "file with a cert-manager Certificate that says what to issue")
	required(cmd, "dir")
	return cmd
}

func required(cmd *cobra.Command, flag string) {
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed(flag) {
			return usageError{fmt.Errorf("--%s is missing: see %s --help", flag, cmd.CommandPath())}
		}
		return run(cmd, args)
	}
}

func issue(cmd *cobra.Command, f *issueFlags) error {
	a, err := tls.OpenAuthority(f.dir)
	if err != nil {
		return err
	}
	r := tls.Request{DNSNames: f.dns, TTL: f.ttl}
	identity := true
	if f.from != "" {
		identity = cmd.Flags().Changed("namespace") || cmd.Flags().Changed("service-account")
		c, err := certificateOf(cmd, f.from, identity)
		if err != nil {
			return err
		}
		r.CommonName, r.URIs, r.DNSNames = c.CommonName, c.URIs, append(c.DNSNames, f.dns...)
		for _, addr := range c.Addresses {
			r.Addresses = append(r.Addresses, net.IP(addr.AsSlice()))
		}
		if c.Duration > 0 && !cmd.Flags().Changed("ttl") {
			r.TTL = c.Duration
		}
		if identity && c.Identities() > 0 {
			return usageError{fmt.Errorf("--from names an identity already: leave --namespace and --service-account out")}
		}
	}
	if identity {
		domain := f.trustDomain
		if domain == "" {
			domain = a.TrustDomain
		}
		if r.ID, err = tls.SPIFFEID(domain, f.namespace, f.serviceAccount); err != nil {
			return usageError{err}
		}
	}
	leaf, err := a.Issue(r)
	if err != nil {
		return err
	}
	who := "no identity of the mesh: it has no SPIFFE ID"
	if id, err := tls.SPIFFE(leaf); err == nil {
		who = id
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, until %s\n", filepath.Join(f.dir, "tls.crt"), who, leaf.NotAfter.UTC().Format(time.RFC3339))
	return nil
}

// certificateOf reads the only Certificate of a file. What is to be said of it
// goes to standard error; that it makes no identity does not count where one is
// added.
func certificateOf(cmd *cobra.Command, file string, identity bool) (*mesh.Certificate, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	list, findings := config.ReadCertificates(config.File{Name: file, Data: data})
	failed := false
	for _, finding := range findings {
		if finding.Severity != config.Info || !identity {
			fmt.Fprintln(cmd.ErrOrStderr(), finding)
		}
		failed = failed || finding.Severity == config.Error
	}
	switch {
	case failed:
		return nil, errFindings
	case len(list) == 0:
		return nil, fmt.Errorf("%s: there is no Certificate of cert-manager.io in it", file)
	case len(list) > 1:
		var names []string
		for _, c := range list {
			names = append(names, c.Name)
		}
		return nil, fmt.Errorf("%s: there are several Certificates in it (%s): name a file with one", file, strings.Join(names, ", "))
	}
	if list[0].Authority {
		return nil, fmt.Errorf("%s: Certificate %s is to issue others (isCA): make an authority with isthmus certs init", list[0].Source, list[0].Name)
	}
	return list[0], nil
}
