package main

import (
	"cmp"

	"isthmus/accesslog"
	"isthmus/config"
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
