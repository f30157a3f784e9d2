package telemetry

import (
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
)

// Overrides say which of Istio's metrics are shown otherwise than Istio has them,
// by their names: as the caller's proxy reports them, and as the application's
// does. What the counters themselves keep stays as it is.
type Overrides struct{ Source, Destination map[string]Override }

// Override is how one metric is shown.
type Override struct {
	Hidden bool
	Tags   []Tag // one for a label; at most MaxTags
}

// MaxTags is how many labels of a metric may be others than Istio's.
const MaxTags = 32

// Tag is what becomes of a label.
type Tag struct {
	Name   string
	Remove bool
	Value  string
	From   int // one more than the place of its value in Exchange.Tags; 0: it is Value
}

// of are those of a side.
func (o *Overrides) of(reporter string) map[string]Override {
	if reporter == "source" {
		return o.Source
	}
	return o.Destination
}

// shape is how the series of some metrics look that bear other labels than
// Istio's. They are counted by these labels: what is not shown tells nothing apart.
type shape struct {
	reporter string
	families []*family
	tags     []Tag

	labels *labelNamesOf
	from   []int           // of each label: its place among Istio's, or behind them, in tags
	gone   map[string]bool // labels of Istio's that are removed, or mean something else
	drawn  int             // how many tags are of the exchange
	series atomic.Int64    // with such tags
	over   *atomic.Uint64  // exchanges whose tags were too many
}

func newShape(reporter string, names []string, tags []Tag) *shape {
	s := &shape{reporter: reporter, tags: tags, gone: map[string]bool{}}
	var shown []string
	for _, t := range tags {
		s.gone[t.Name] = true
	}
	for i, name := range names {
		if !s.gone[name] {
			shown, s.from = append(shown, name), append(s.from, i)
		}
	}
	for i, t := range tags {
		if !t.Remove {
			shown, s.from = append(shown, t.Name), append(s.from, numLabels+i)
		}
		if t.From > 0 {
			s.drawn++
		}
	}
	s.labels = newLabels(shown...)
	return s
}

// project takes away what the labels do not tell apart.
func (s *shape) project(l *Labels) {
	a, b := &l.Source, &l.Destination
	for name, field := range map[string]*string{
		"source_workload": &a.Workload, "source_workload_namespace": &a.Namespace, "source_principal": &a.Principal, "source_app": &a.App, "source_version": &a.Version,
		"source_cluster": &a.Cluster, "source_canonical_service": &a.Service, "source_canonical_revision": &a.Revision,
		"destination_workload": &b.Workload, "destination_workload_namespace": &b.Namespace, "destination_principal": &b.Principal, "destination_app": &b.App, "destination_version": &b.Version,
		"destination_cluster": &b.Cluster, "destination_canonical_service": &b.Service, "destination_canonical_revision": &b.Revision,
		"destination_service": &l.DestinationService, "destination_service_name": &l.DestinationName, "destination_service_namespace": &l.DestinationNamespace,
	} {
		if s.gone[name] {
			*field = ""
		}
	}
	if s.gone["connection_security_policy"] {
		l.MTLS = false
	}
}

// outcome takes away what the labels do not tell apart of an exchange's, and adds
// what the tags do.
func (s *shape) outcome(e *Exchange) outcome {
	o := outcome{status: e.Status, flag: e.Flag, grpc: e.GRPC}
	if s.gone["response_code"] {
		o.status = 0
	}
	if s.gone["response_flags"] {
		o.flag = NoFlag
	}
	if s.gone["grpc_response_status"] && o.grpc != NoGRPC {
		o.grpc = GRPCNoStatus
	}
	if s.gone["request_protocol"] && o.grpc == GRPCNoStatus {
		o.grpc = NoGRPC
	}
	if s.drawn > 0 {
		values := make([]string, 0, MaxTags)
		for _, t := range s.tags {
			switch {
			case t.From == 0:
			case t.From <= len(e.Tags):
				values = append(values, e.Tags[t.From-1])
			default:
				values = append(values, unknown)
			}
		}
		o.tags = strings.Join(values, tagSeparator)
	}
	return o
}

// tagSeparator stands in none of the values: they are what a request may hold.
const tagSeparator = "\x00"

// tooMany is an outcome whose tags are too many to be told apart.
func (s *shape) tooMany(o outcome) outcome {
	o.tags = strings.TrimSuffix(strings.Repeat(unknown+tagSeparator, s.drawn), tagSeparator)
	return o
}

// set sets the labels of a series, of what Istio's are and of the exchange's tags.
func (s *shape) set(p *Page, v *labelValues, tags string) {
	var values [numLabels + MaxTags]string
	drawn := strings.Split(tags, tagSeparator)
	var at [MaxTags]string
	for i, t := range s.tags {
		if at[i] = t.Value; t.From > 0 {
			at[i], drawn = drawn[0], drawn[1:]
		}
	}
	for i, from := range s.from {
		if from < numLabels {
			values[i] = v[from]
		} else {
			values[i] = at[from-numLabels]
		}
	}
	p.set(s.labels, values[:len(s.from)]...)
}

// Override shows metrics otherwise from now on. What was counted under other
// labels is not counted again under these.
func (s *Store[T, C]) Override(o *Overrides) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if reflect.DeepEqual(s.said, *o) {
		return
	}
	s.said, s.views = *o, nil
	for _, reporter := range []string{"source", "destination"} {
		for _, f := range C(nil).families() {
			said, ok := o.of(reporter)[f.name]
			if !ok || said.Hidden {
				continue
			}
			i := slices.IndexFunc(s.views, func(v *Store[T, C]) bool {
				return v.shape.reporter == reporter && slices.Equal(v.shape.tags, said.Tags)
			})
			if i < 0 {
				i = len(s.views)
				s.views = append(s.views, s.view(newShape(reporter, C(nil).labelNames(), said.Tags)))
			}
			s.views[i].shape.families = append(s.views[i].shape.families, f)
		}
	}
	for _, k := range s.byLabels {
		s.attach(k.counter)
	}
	for _, c := range s.rest {
		s.attach(c)
	}
}

// view makes the store of counters that look otherwise. They live as long as
// those of s do that they go with.
func (s *Store[T, C]) view(shape *shape) *Store[T, C] {
	v := NewStore[T, C](s.make, func(found func(*T)) {
		for _, c := range s.List() {
			for _, other := range C(c).base().others() {
				if C(other).base().shape == shape {
					found(other)
				}
			}
		}
	})
	v.shape, shape.over = shape, &s.over
	return v
}

// attach has a counter count in the views as well. The caller holds mu.
func (s *Store[T, C]) attach(c *T) {
	var list []*T
	own := C(c).base()
	for _, v := range s.views {
		if v.shape.reporter == own.labels.Reporter {
			l := own.labels
			v.shape.project(&l)
			list = append(list, v.Of(l))
		}
	}
	own.views.Store(&list)
}

// shows reports whether a counter of s shows a family, as said has it.
func (s *Store[T, C]) shows(c *T, f *family, said *Overrides) bool {
	if s.shape != nil {
		return slices.Contains(s.shape.families, f)
	}
	_, otherwise := said.of(C(c).base().labels.Reporter)[f.name]
	return !otherwise
}
