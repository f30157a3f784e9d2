package config

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"google.golang.org/protobuf/reflect/protoreflect"
	mesh "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"
	telemetry "istio.io/api/telemetry/v1alpha1"
)

// TestEffect_NoFieldIsIgnored: every field of what is read has its name in the
// code, or is among those that are said to have no effect. Whoever updates
// Istio's schema finds out what it brings.
func TestEffect_NoFieldIsIgnored(t *testing.T) {
	words := identifiers(t)
	seen := map[protoreflect.FullName]bool{}
	var walk func(m protoreflect.MessageDescriptor)
	walk = func(m protoreflect.MessageDescriptor) {
		if seen[m.FullName()] || !strings.HasPrefix(string(m.FullName()), "istio.") {
			return
		}
		seen[m.FullName()] = true
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			if noEffect[string(m.Name())+"."+f.JSONName()] != "" {
				continue
			}
			if f.Message() != nil && f.Message().Name() == "PolicyTargetReference" {
				continue // refused as a whole
			}
			name := goName(string(f.Name()))
			if !words[name] && !words["Get"+name] && !words["Message_"+name] {
				t.Errorf("%s.%s (%s) is in no file of this package: give it its effect, or a line in noEffect", m.Name(), f.JSONName(), name)
			}
			if f.Message() != nil && !f.IsMap() {
				walk(f.Message())
			}
		}
	}
	for _, m := range []protoreflect.ProtoMessage{
		&networking.VirtualService{}, &networking.DestinationRule{}, &networking.WorkloadGroup{}, &networking.WorkloadEntry{},
		&networking.Sidecar{}, &networking.Gateway{}, &networking.ServiceEntry{},
		&telemetry.Telemetry{}, &security.PeerAuthentication{}, &security.RequestAuthentication{}, &security.AuthorizationPolicy{},
		&mesh.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationHttpProvider{}, &mesh.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationGrpcProvider{},
		&mesh.MeshConfig_ExtensionProvider_ZipkinTracingProvider{}, &mesh.MeshConfig_ExtensionProvider_OpenTelemetryTracingProvider{},
	} {
		walk(m.ProtoReflect().Descriptor())
	}
	if len(seen) < 40 {
		t.Errorf("only %d messages looked at", len(seen))
	}
}

// identifiers are the names in this package's files. Of the types that stand for
// the alternatives of a oneof, such as HTTPRedirect_DerivePort, the last part is
// entered as "Message_DerivePort".
func identifiers(t *testing.T) map[string]bool {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	words := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				words[id.Name] = true
				if i := strings.LastIndexByte(id.Name, '_'); i > 0 {
					words["Message_"+id.Name[i+1:]] = true
				}
			}
			return true
		})
	}
	return words
}

// goName is the name of a field in Go, as protoc-gen-go makes it.
func goName(s string) string {
	var b strings.Builder
	upper := true
	for i, c := range s {
		switch {
		case c == '_' && i+1 < len(s) && 'a' <= s[i+1] && s[i+1] <= 'z':
			upper = true
			continue
		case upper:
			c = unicode.ToUpper(c)
		}
		b.WriteRune(c)
		upper = unicode.IsDigit(c)
	}
	return b.String()
}
