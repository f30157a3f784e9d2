package main

import (
	"cmp"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"isthmus/accesslog"
	"isthmus/admin"
	"isthmus/config"
	"isthmus/telemetry"
)

// newAccessLog makes the log that the bootstrap file describes, or the one that
// Telemetry resources may ask for: Istio's text, at the process's output.
func newAccessLog(c config.AccessLog) (*accesslog.Log, error) {
	o := accesslog.Options{Path: cmp.Or(c.Path, "/dev/stdout"), On: c.IsOn(), Rule: accesslog.Rule{Share: c.Sampling / 100}}
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

// metrics gathers all that there is to be counted.
func (s *server) metrics() *prometheus.Registry {
	r := prometheus.NewRegistry()
	p := s.proxy
	r.MustRegister(
		admin.NewCollector(s),
		p.Requests(), p.Connections(), p.Links(), telemetry.UpstreamsCollector(p.Upstreams),
		telemetry.PoliciesCollector(p.PolicyMatches), p.Mirrors(), telemetry.LogCollector(s.accessLog.Lines), telemetry.SpansCollector(p.Spans),
		telemetry.OverflowCollector(func() uint64 { return p.Requests().Overflowed() + p.Connections().Overflowed() }),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}
