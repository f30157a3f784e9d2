package config

import (
	"fmt"

	networking "istio.io/api/networking/v1alpha3"

	"isthmus/mesh"
)

// mirrors reads mirror with its percentage, or mirrors. An absent percentage
// means every request.
func (d *document) mirrors(r *networking.HTTPRoute, path string) []mesh.Mirror {
	if len(r.Route) == 0 && r.Delegate == nil && (r.Mirror != nil || len(r.Mirrors) > 0) {
		d.warning(join(path, mirrorField(r)), "has no effect without a route: nothing is sent on that could be copied")
	}
	share, named := d.mirrorShare(r, path)
	if r.Mirror != nil {
		return []mesh.Mirror{{Destination: d.destination(r.Mirror, path+".mirror"), Share: share, Field: path + ".mirror"}}
	}
	if named != "" {
		d.warning(join(path, named), "has no effect without mirror; in mirrors each has its own percentage")
	}
	var out []mesh.Mirror
	for i, m := range r.Mirrors {
		at := fmt.Sprintf("%s.mirrors[%d]", path, i)
		if m.Destination == nil {
			d.error(at+".destination", "is missing")
			continue
		}
		share := mesh.AllRequests
		if m.Percentage != nil {
			share = d.share(m.Percentage, at+".percentage")
		}
		at += ".destination"
		out = append(out, mesh.Mirror{Destination: d.destination(m.Destination, at), Share: share, Field: at})
	}
	return out
}

func mirrorField(r *networking.HTTPRoute) string {
	if r.Mirror != nil {
		return "mirror"
	}
	return "mirrors"
}

// mirrorShare reads mirrorPercentage, or the deprecated mirrorPercent, and
// tells which of them is there.
func (d *document) mirrorShare(r *networking.HTTPRoute, path string) (share mesh.Fraction, field string) {
	//lint:ignore SA1019 still written by users
	old := r.MirrorPercent
	if old != nil {
		field = "mirrorPercent"
		d.warning(join(path, field), "is deprecated: write mirrorPercentage: {value: N}")
	}
	switch {
	case r.MirrorPercentage != nil:
		return d.share(r.MirrorPercentage, path+".mirrorPercentage"), "mirrorPercentage"
	case old != nil:
		return d.share(&networking.Percent{Value: float64(old.Value)}, join(path, field)), field
	}
	return mesh.AllRequests, ""
}
