package main

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"isthmus/config"
	"isthmus/mesh"
	"isthmus/tls"
)

// judgeCredentials looks at the certificates that a proxy would show or go by, as
// its Gateways and DestinationRules name them. A file that is not there yet is a
// warning: the proxy starts without it.
func judgeCredentials(c *mesh.Config, node *mesh.Node, store *tls.Store, now time.Time) (out []config.Finding) {
	j := credentialJudge{store: store, now: now}
	for _, g := range c.Gateways {
		if !mesh.MatchLabels(g.Selector, node.Labels) {
			continue
		}
		for i := range g.Servers {
			if t := g.Servers[i].Terminate; t != nil && !t.Mesh {
				j.server(g.Meta, fmt.Sprintf("servers[%d].tls", i), t)
			}
		}
	}
	for _, d := range c.DestinationRules {
		if !mesh.VisibleTo(d.ExportTo, d.Namespace, node.Namespace) || !mesh.MatchLabels(d.WorkloadSelector, node.Labels) {
			continue
		}
		j.policy(d.Meta, "trafficPolicy", &d.Policy)
		for i := range d.Subsets {
			j.policy(d.Meta, fmt.Sprintf("subsets[%d].trafficPolicy", i), &d.Subsets[i].Policy)
		}
	}
	return j.findings
}

type credentialJudge struct {
	store    *tls.Store
	now      time.Time
	findings []config.Finding
}

// server looks at what a Gateway's server shows.
func (j *credentialJudge) server(m mesh.Meta, path string, t *mesh.ServerTLS) {
	const effect = ": until it can be used, clients get the alert internal_error"
	say := func(field string, problem error) { j.say(m, t.Source, path+field, problem, effect) }
	roots := t.ClientCerts == mesh.NoClientCerts || t.SkipVerify || t.RootsFrom != ""
	for i, name := range t.Credentials {
		f, err := j.store.Named(name)
		if err == nil && i == 0 && !roots && f.Roots == "" {
			err = fmt.Errorf("credential %s: there is no ca.crt to judge clients by", name)
		}
		say(".credentialName", j.look(f, err))
	}
	for _, f := range t.Files {
		say(".serverCertificate", j.look(tls.Files(f), nil))
	}
	if t.RootsFrom != "" {
		f, err := j.store.Roots(t.RootsFrom)
		say(".caCertCredentialName", j.look(f, err))
	}
}

// policy looks at what a DestinationRule has shown to endpoints, for all ports and
// for single ones.
func (j *credentialJudge) policy(m mesh.Meta, path string, p *mesh.TrafficPolicy) {
	const effect = ": until it can be used, requests get 503"
	if t := p.TLS; t != nil && (t.Mode == mesh.TLSSimple || t.Mode == mesh.TLSMutual) {
		f, field := tls.Files(t.Files), ".tls"
		var err error
		if t.Credential != "" {
			f, err = j.store.Peer(t.Credential, t.Mode == mesh.TLSMutual, !t.SkipVerify)
			field = ".tls.credentialName"
		}
		if err != nil || f != (tls.Files{}) {
			j.say(m, t.Source, path+field, j.look(f, err), effect)
		}
	}
	for _, port := range slices.Sorted(maps.Keys(p.PortLevel)) {
		j.policy(m, fmt.Sprintf("%s.portLevelSettings(%d)", path, port), p.PortLevel[port])
	}
}

// look reads files and says what is wrong with them. err is why they are not even
// known.
func (j *credentialJudge) look(f tls.Files, err error) error {
	if err != nil {
		return err
	}
	c, err := j.store.Get(f)
	if err == nil && f.Certificate != "" && !j.now.Before(c.NotAfter) {
		err = fmt.Errorf("certificate %s has ended on %s", f.Certificate, c.NotAfter.UTC().Format(time.DateOnly))
	}
	return err
}

func (j *credentialJudge) say(m mesh.Meta, at mesh.Source, field string, problem error, effect string) {
	if problem == nil {
		return
	}
	j.findings = append(j.findings, config.Finding{
		File: at.File, Line: at.Line, Severity: config.Warning, Kind: m.Kind, Namespace: m.Namespace, Name: m.Name,
		Field: field, Message: problem.Error() + effect,
	})
}
