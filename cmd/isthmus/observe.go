package main

import (
	"cmp"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"isthmus/accesslog"
	"isthmus/admin"
	"isthmus/config"
	"isthmus/mesh"
	"isthmus/telemetry"
)

// defaultLog is where lines go that somebody asks for without saying where.
const defaultLog = "/dev/stdout"

// newAccessLog makes the log that the bootstrap file describes, or the one that
// Telemetry resources may ask for: Istio's text, at the process's output.
func newAccessLog(c config.AccessLog, log *slog.Logger) (*accesslog.Log, error) {
	o := accesslog.Options{Path: cmp.Or(c.Path, defaultLog), On: c.IsOn(), Rule: accesslog.Rule{Share: c.Sampling / 100}, Logger: log}
	var err error
	if o.Format, err = accesslog.ParseFormat(c.Format); err != nil {
		return nil, err
	}
	if c.Filter != "" {
		if o.Rule.Filter, err = accesslog.ParseFilter(c.Filter); err != nil {
			return nil, err
		}
	}
	return accesslog.New(o), nil
}

// publish hands a snapshot to the proxy. Where the bootstrap file says nothing of
// an access log, its lines go where the snapshot's mesh configuration says.
func (s *server) publish(snapshot *mesh.Snapshot) error {
	if err := s.proxy.Publish(snapshot); err != nil {
		return err
	}
	if said := snapshot.Config.AccessLog; !s.bootstrap.AccessLog.IsOn() && said != s.logged {
		format, err := accesslog.ParseFormat(said.Format) // config has refused others
		if err != nil {
			return err
		}
		s.logged = said
		s.accessLog.Move(cmp.Or(said.Path, defaultLog), format)
	}
	return nil
}

// registry gathers what there is little of to be counted.
func (s *server) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	p := s.proxy
	r.MustRegister(
		admin.NewCollector(s),
		telemetry.PoliciesCollector(p.PolicyMatches), p.Mirrors(), telemetry.LogCollector(s.accessLog.Lines), telemetry.SpansCollector(p.Spans),
		telemetry.OverloadCollector(p.Overload),
		telemetry.OverflowCollector(func() uint64 { return p.Requests().Overflowed() + p.Connections().Overflowed() }),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

// maxScrapes is how many may scrape at a time: Prometheus, its double, and
// somebody who looks.
const maxScrapes = 4

// metrics is the page of all that there is to be counted.
func (s *server) metrics() http.Handler {
	p := s.proxy
	return telemetry.Handler(maxScrapes, s.registry(), p.Requests(), p.Connections(), p.Links(), telemetry.Upstreams(p.Upstreams))
}
