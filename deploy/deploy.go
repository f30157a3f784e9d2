// Package deploy holds what is deployed with Isthmus: manifests, and the
// examples that the demonstration and the tests run.
package deploy

import "embed"

// Examples are the resources in the folder examples.
//
//go:embed examples
var Examples embed.FS
