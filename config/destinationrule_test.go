package config

import (
	"strings"
	"testing"
)

// rulesFor are two DestinationRules for one host, the second one with a subset.
func rulesFor(first, second string) string {
	const head = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: "
	text := head + "first}\nspec: {host: a.test, trafficPolicy: " + first + "}\n"
	if second != "" {
		text += "---\n" + head + "second}\nspec: {host: a.test, " + second + "}\n"
	}
	return text
}

// TestDestinationRule_PortConflicts: of two rules for one host, the block of a port that has
// no effect is named.
func TestDestinationRule_PortConflicts(t *testing.T) {
	const port = "{portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE}}]}"
	const beside = "trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}, loadBalancer: {simple: RANDOM}}]}"
	for first, want := range map[string]string{
		"{tls: {mode: SIMPLE}}": "DestinationRule default/second: trafficPolicy.portLevelSettings: f.yaml:4 sets tls for a.test too, port 80 included, and wins",
		port:                    "DestinationRule default/second: trafficPolicy.portLevelSettings: f.yaml:4 sets tls for a.test too, port 80 included, and wins",
		"{tls: {mode: SIMPLE}, portLevelSettings: [{port: {number: 80}, outlierDetection: {}}]}": "",
		strings.Replace(port, "80", "81", 1):                                                     "",
	} {
		checkFinding(t, rulesFor(first, beside), want, ISM0017)
	}
}

// TestDestinationRule_SubsetPorts: an entry for a port of a subset takes the blocks of the rule
// with it, too.
func TestDestinationRule_SubsetPorts(t *testing.T) {
	for port, want := range map[string]string{
		"80, tls: {mode: SIMPLE}": "subsets[0].trafficPolicy.portLevelSettings: for port 80 they stand in the place of all that is above them, so connectionPool and outlierDetection has no effect there: write it",
		"81, tls: {mode: SIMPLE}": "so connectionPool and loadBalancer and outlierDetection has no effect there",
		"81, loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {maxConnections: 1}}, outlierDetection: {}": "",
	} {
		number, blocks, _ := strings.Cut(port, ",")
		text := "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec:\n  host: a.test\n" +
			"  trafficPolicy: {outlierDetection: {}, portLevelSettings: [{port: {number: 81}, loadBalancer: {simple: RANDOM}, outlierDetection: {}}]}\n" +
			"  subsets: [{name: v1, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}, portLevelSettings: [{port: {number: " + number + "}," + blocks + "}]}}]\n"
		checkFinding(t, text, want, ISM0062)
	}
}
