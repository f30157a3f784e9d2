// Package isthmus holds nothing but the test of the module's structure; the
// program is in cmd/isthmus, and docs/architecture.md shows the way.
package isthmus
