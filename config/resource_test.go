package config

import "testing"

// TestResources_Hash: what a resource says, however it is written.
func TestResources_Hash(t *testing.T) {
	const plain = "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: {x: y}}\nspec: {ports: [{name: http, port: 80}], selector: {app: a}}\n"
	hash := func(text string) uint64 {
		r := Read([]File{{Name: "f.yaml", Data: []byte(text)}}, nil)
		if len(r.Resources) != 1 {
			t.Fatalf("%d resources in %q: %v", len(r.Resources), text, r.Findings)
		}
		return r.Resources[0].Hash
	}
	for _, tt := range []struct {
		name, text string
		same       bool
	}{
		{"comments, order and quotes", "# mine\nkind: \"Service\"\napiVersion: v1\nspec:\n  selector: {app: 'a'}\n  ports:\n  - port: 80\n    name: http\nmetadata:\n  labels: {x: y}\n  name: a\n", true},
		{"what a cluster adds", plain + "status: {loadBalancer: {}}\n", true},
		{"a version of the cluster", "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: {x: y}, resourceVersion: '7', uid: z}\nspec: {ports: [{name: http, port: 80}], selector: {app: a}}\n", true},
		{"another port", "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: {x: y}}\nspec: {ports: [{name: http, port: 81}], selector: {app: a}}\n", false},
		{"another label", "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: {x: z}}\nspec: {ports: [{name: http, port: 80}], selector: {app: a}}\n", false},
		{"a label less", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{name: http, port: 80}], selector: {app: a}}\n", false},
	} {
		if got := hash(tt.text) == hash(plain); got != tt.same {
			t.Errorf("%s: same %v, want %v", tt.name, got, tt.same)
		}
	}
}
