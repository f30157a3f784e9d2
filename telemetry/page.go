package telemetry

import (
	"io"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// Page is the metrics as text, on its way to whoever scrapes. It goes out piece
// by piece: however many series there are, it is never held as a whole, and
// nothing is made for each of them.
type Page struct {
	out    io.Writer
	extend func(time.Time) error // when the piece that is written next has to be taken
	buf    []byte
	labels []byte // of the series that is being shown
	open   bool   // it is OpenMetrics
	err    error  // whoever scrapes has gone
}

// Source shows counters of which there are many on a page. Few may as well be
// a [prometheus.Collector].
type Source interface{ Show(*Page) }

// pieceSize is how much goes out at once: some 50 lines, which take as long as a
// few requests. Requests are served in between.
const pieceSize = 32 << 10

// pieceTime is how long whoever scrapes may take for a piece: who reads no further
// must not keep others from it for ever.
const pieceTime = 10 * time.Second

// pages are those that nobody writes.
var pages = sync.Pool{New: func() any { return &Page{buf: make([]byte, 0, 2*pieceSize)} }}

// Handler returns what serves the page of the sources and of what g gathers. At
// most so many are made at a time; who else asks is told that there are too many.
// Whoever asks for OpenMetrics gets exemplars with it. The page is not
// compressed: that would cost more than all the rest of it.
func Handler(most int, g prometheus.Gatherer, sources ...Source) http.Handler {
	room := make(chan struct{}, most)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case room <- struct{}{}:
			defer func() { <-room }()
		default:
			http.Error(w, "there are "+strconv.Itoa(most)+" who scrape already", http.StatusServiceUnavailable)
			return
		}
		families, err := g.Gather()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		format := expfmt.NegotiateAccept(r.Header, expfmt.FmtText, expfmt.FmtOpenMetrics_1_0_0, expfmt.FmtOpenMetrics_0_0_1)
		w.Header().Set("Content-Type", string(format))
		p := pages.Get().(*Page)
		defer pages.Put(p)
		connection := http.NewResponseController(w)
		p.out, p.extend, p.buf, p.open, p.err = w, connection.SetWriteDeadline, p.buf[:0], format.FormatType() == expfmt.TypeOpenMetrics, nil
		defer func() { p.out, p.extend = nil, nil }()
		for _, s := range sources {
			s.Show(p)
		}
		encoder := expfmt.NewEncoder(p, format)
		for _, f := range families {
			if p.err == nil {
				p.err = encoder.Encode(f)
			}
		}
		if c, ok := encoder.(expfmt.Closer); ok && p.err == nil {
			p.err = c.Close()
		}
		p.flush()
		connection.Flush()
		connection.SetWriteDeadline(time.Time{}) // what comes next on it may take its time
	})
}

// Write adds text as it is; the page is an [io.Writer] for those who know how to
// write metrics.
func (p *Page) Write(b []byte) (int, error) {
	p.buf = append(p.buf, b...)
	p.breathe()
	return len(b), p.err
}

// breathe sends what has gathered if it is enough, and lets others have a turn.
func (p *Page) breathe() {
	if len(p.buf) >= pieceSize {
		p.flush()
		runtime.Gosched()
	}
}

func (p *Page) flush() {
	if p.err == nil && p.out != nil {
		if p.extend != nil && p.extend(time.Now().Add(pieceTime)) != nil {
			p.extend = nil // the connection knows of no such thing
		}
		_, p.err = p.out.Write(p.buf)
	}
	p.buf = p.buf[:0]
}

// family is what stands above the series of a metric.
type family struct{ name, kind, help string }

// begin begins a family.
func (p *Page) begin(f *family) {
	name, kind := f.name, f.kind
	if p.open {
		switch kind {
		case "counter":
			name = strings.TrimSuffix(name, "_total")
		case "untyped":
			kind = "unknown"
		}
	}
	p.buf = append(append(append(append(append(p.buf, "# HELP "...), name...), ' '), f.help...), '\n')
	p.buf = append(append(append(append(append(p.buf, "# TYPE "...), name...), ' '), kind...), '\n')
}

// sample adds a line, with the labels that were set. Names that end otherwise
// than their family's have a suffix.
func (p *Page) sample(f *family, suffix string) {
	p.buf = append(append(append(p.buf, f.name...), suffix...), '{')
	p.buf = append(append(p.buf, p.labels...), "} "...)
}

// count adds a line of a whole number.
func (p *Page) count(f *family, v uint64) {
	p.sample(f, "")
	p.buf = append(strconv.AppendUint(p.buf, v, 10), '\n')
	p.breathe()
}

// value adds a line of a number.
func (p *Page) value(f *family, v float64) {
	p.sample(f, "")
	p.buf = append(strconv.AppendFloat(p.buf, v, 'g', -1, 64), '\n')
	p.breathe()
}

// le are the bounds of buckets as labels, in either format.
var le = func() (out [2][len(bounds) + 1]string) {
	for i, b := range bounds {
		text := strconv.FormatFloat(b, 'g', -1, 64)
		out[0][i] = `,le="` + text + `"} `
		if !strings.ContainsAny(text, ".e") {
			text += ".0"
		}
		out[1][i] = `,le="` + text + `"} `
	}
	for i := range out {
		out[i][len(bounds)] = `,le="+Inf"} `
	}
	return out
}()

// histogram adds the lines of a histogram; unit is how much of its values is one
// of the family's. x may be nil.
func (p *Page) histogram(f *family, h *histogram, unit float64, x *exemplar) {
	bounds := &le[0]
	if p.open {
		bounds = &le[1]
	}
	at := -1
	if x != nil && p.open {
		at = bucket(float64(x.took) / unit)
	}
	sum, n := h.sum.Load(), uint64(0)
	for i := range h.buckets {
		n += h.buckets[i].Load()
		p.buf = append(append(append(p.buf, f.name...), "_bucket{"...), p.labels...)
		p.buf = strconv.AppendUint(append(p.buf, bounds[i]...), n, 10)
		if i == at {
			p.buf = x.append(p.buf, unit)
		}
		p.buf = append(p.buf, '\n')
	}
	p.sample(f, "_sum")
	p.buf = append(strconv.AppendFloat(p.buf, float64(sum)/unit, 'g', -1, 64), '\n')
	p.sample(f, "_count")
	p.buf = append(strconv.AppendUint(p.buf, n, 10), '\n')
	p.breathe()
}

// labelNamesOf are names in the order in which lines have them, which is that of
// the alphabet, each with what stands in front of its value.
type labelNamesOf struct {
	order []int // of the names that were given
	begin []string
}

func newLabels(names ...string) *labelNamesOf {
	l := &labelNamesOf{order: make([]int, len(names))}
	for i := range names {
		l.order[i] = i
	}
	slices.SortFunc(l.order, func(a, b int) int { return strings.Compare(names[a], names[b]) })
	for i, n := range l.order {
		begin := names[n] + `="`
		if i > 0 {
			begin = "," + begin
		}
		l.begin = append(l.begin, begin)
	}
	return l
}

// set sets the labels of the series to come; values are in the order in which the
// names were given.
func (p *Page) set(l *labelNamesOf, values ...string) {
	p.labels = p.labels[:0]
	for i, n := range l.order {
		p.labels = append(p.labels, l.begin[i]...)
		p.labels = append(appendLabel(p.labels, values[n]), '"')
	}
}

// appendLabel appends a value as it stands between quotes.
func appendLabel(dst []byte, s string) []byte {
	if !strings.ContainsAny(s, "\\\"\n") {
		return append(dst, strings.ToValidUTF8(s, "\uFFFD")...)
	}
	for _, r := range s {
		switch r {
		case '\\', '"':
			dst = append(dst, '\\', byte(r))
		case '\n':
			dst = append(dst, '\\', 'n')
		default:
			dst = append(dst, string(r)...)
		}
	}
	return dst
}
