package config

import (
	"encoding/json"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// jsonTexts are texts whose strings YAML would read otherwise, or not at all.
var jsonTexts = []string{
	`"https:\/\/a.test\/"`, `"\ud83d\ude00 \u2713 \u0041"`, `"\ud83d alone, \ude00 too, \ud83d\u0041"`, "\"\x7f, \u0085, \u2028, \u2029, \ufeff and \U000e0001 as they are\"", "\"é ✓ 😀\"",
	`"\u0085\u2028\u0000\u001f\"\\\b\f\n\r\t"`, `"\\ud83d\\/ \\\/ \u005c \u0022"`, `" spaces\u0020 at its ends "`, `"# : { [ & * ! | > ' % @ - ?"`, `""`,
}

// TestFromJSON: whatever JSON may hold, what is read is what JSON says, in the same lines.
func TestFromJSON(t *testing.T) {
	for _, text := range jsonTexts {
		data := []byte("{\n\t\"a\": [\n\t\t" + text + "\t,\n  1.5e3, true, null],\"b\":{}\n}\n")
		var want struct {
			A []any
		}
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatal(err)
		}
		var doc yaml.Node
		if err := yaml.Unmarshal(fromJSON(data), &doc); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := child(doc.Content[0], "a").Content[0]; got.Value != want.A[0] || got.Tag != "!!str" || got.Line != 3 {
			t.Errorf("%s: read as %q (%s) in line %d, want %q", text, got.Value, got.Tag, got.Line, want.A[0])
		}
	}
	for _, text := range []string{"a: \"\\/\"", "{a: \"\\/\"}", "{\"a\": \"\\/\"} # no JSON", "{\"a\": \"\xff\\/\"}", "", "{"} {
		if got := fromJSON([]byte(text)); string(got) != text {
			t.Errorf("%q, which is no JSON, has become %q", text, got)
		}
	}
}

// TestRead_JSON: resources, and what stands as a text within one.
func TestRead_JSON(t *testing.T) {
	text := `{"apiVersion": "v1", "kind": "List", "items": [
		{"apiVersion": "networking.istio.io\/v1", "kind": "VirtualService", "metadata": {"name": "v", "annotations": {"owner": "\ud83d\ude00"}},
			"spec": {"hosts": ["s.test"], "http": [{"directResponse": {"status": 200, "body": {"string": "\u2713 \ud83d\ude00 \/"}}}]}},
		{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio"}, "data": {"mesh": "{\"connectTimeout\": \"3\\u0073\", \"accessLogFile\": \"\\/dev\\/stdout\"}"}}
	]}`
	r := Read([]File{{Name: "f.json", Data: []byte(text)}}, nil)
	if r.HasErrors() {
		t.Fatal(r.Findings)
	}
	v := r.Config.VirtualServices[0]
	if got := string(v.HTTP[0].DirectResponse.Body); got != "✓ 😀 /" || v.Annotations["owner"] != "😀" || v.HTTP[0].Source.Line != 3 {
		t.Errorf("body %q, annotation %q, %s", got, v.Annotations["owner"], v.HTTP[0].Source)
	}
	if got := r.Config.AccessLog.Path; got != "/dev/stdout" {
		t.Errorf("the access log goes to %q", got)
	}
	r = Read([]File{{Name: "f.json", Data: []byte(strings.Replace(text, `"http"`, `"htpp"`, 1))}}, nil)
	if !r.HasErrors() || r.Findings[0].Line != 3 {
		t.Errorf("findings %v, want one in line 3", r.Findings)
	}
}
