package config

import (
	"strings"
	"testing"

	"isthmus/mesh"
)

// TestRead_AccessLog: where the mesh configuration wants lines, and how.
func TestRead_AccessLog(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       mesh.AccessLog
		err        string
	}{
		{"text", "accessLogFile: /dev/stdout", mesh.AccessLog{Path: "/dev/stdout", Format: "text"}, ""},
		{"json", "{accessLogFile: /var/log/a, accessLogEncoding: JSON}", mesh.AccessLog{Path: "/var/log/a", Format: "json"}, ""},
		{"own", `{accessLogFile: /dev/stdout, accessLogFormat: "%DURATION%\n"}`, mesh.AccessLog{Path: "/dev/stdout", Format: "%DURATION%\n"}, ""},
		{"no file", "{accessLogFile: '', accessLogEncoding: JSON, enableAutoMtls: true}", mesh.AccessLog{}, ""},
		{"encoding", "{accessLogFile: /dev/stdout, accessLogEncoding: XML}", mesh.AccessLog{}, "none of TEXT and JSON"},
		{"operator", "{accessLogFile: /dev/stdout, accessLogFormat: '%NOPE%'}", mesh.AccessLog{}, "is no operator"},
	} {
		r := Read([]File{{Name: "a.yaml", Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    " + tt.text + "\n")}}, nil)
		if tt.err != "" {
			if r.Count(Error) != 1 || !strings.Contains(r.Findings[0].String(), tt.err) || r.Findings[0].Line < 5 {
				t.Errorf("%s: %v", tt.name, r.Findings)
			}
			continue
		}
		if r.Count(Error) > 0 || r.Config.AccessLog != tt.want {
			t.Errorf("%s: %+v, %v", tt.name, r.Config.AccessLog, r.Findings)
		}
	}
}
