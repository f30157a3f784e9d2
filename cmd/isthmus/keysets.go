package main

import (
	"fmt"

	"isthmus/auth"
	"isthmus/config"
	"isthmus/mesh"
)

// judgeKeySets looks at the key sets that the resources hold themselves (jwks): by one
// that cannot be used every token of its issuer would be refused.
func judgeKeySets(c *mesh.Config) (out []config.Finding) {
	for _, r := range c.RequestAuthentications {
		for i, t := range r.Rules {
			if len(t.Keys) == 0 {
				continue
			}
			if err := auth.CheckKeySet(t.Keys); err != nil {
				out = append(out, config.Finding{
					File: t.Source.File, Line: t.Source.Line, Severity: config.Error, Kind: r.Kind, Namespace: r.Namespace, Name: r.Name,
					Field: fmt.Sprintf("jwtRules[%d].jwks", i), Message: err.Error(), Code: config.IST0106,
				})
			}
		}
	}
	return out
}

// load reads a configuration as a running proxy does; see [config.Load].
func load(paths []string, node *mesh.Node) *config.Result {
	r := config.Load(paths, node)
	if !r.HasErrors() {
		r.Add(judgeKeySets(r.Config)...)
	}
	return r
}
