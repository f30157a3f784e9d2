package main

import (
	"io"
	"path/filepath"

	"isthmus/config"
)

// SARIF is the format in which code review tools take findings in (OASIS SARIF
// 2.1.0); this is what of it Isthmus writes.
type sarifLog struct {
	Version string     `json:"version"`
	Schema  string     `json:"$schema"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool struct {
		Driver sarifDriver `json:"driver"`
	} `json:"tool"`
	Results []sarifResult `json:"results"`
}

type sarifDriver struct {
	Name    string      `json:"name"`
	Version string      `json:"version"`
	Rules   []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID               string    `json:"id"`
	ShortDescription sarifText `json:"shortDescription"`
	Help             sarifText `json:"help"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifResult struct {
	RuleID    string          `json:"ruleId"`
	Level     string          `json:"level"`
	Message   sarifText       `json:"message"`
	Locations []sarifLocation `json:"locations"`
}

type sarifLocation struct {
	PhysicalLocation struct {
		ArtifactLocation struct {
			URI string `json:"uri"`
		} `json:"artifactLocation"`
		Region *sarifRegion `json:"region,omitempty"`
	} `json:"physicalLocation"`
}

type sarifRegion struct {
	StartLine int `json:"startLine"`
}

// printSARIF writes findings with the rules that they are by.
func printSARIF(w io.Writer, findings []config.Finding) error {
	run := sarifRun{Results: []sarifResult{}}
	run.Tool.Driver = sarifDriver{Name: "isthmus validate", Version: version().Version, Rules: []sarifRule{}}
	used := map[config.Code]bool{}
	for _, f := range findings {
		used[f.Code] = true
		r := sarifResult{RuleID: string(f.Code), Level: [...]string{"error", "warning", "note"}[f.Severity]}
		place := f
		place.File, place.Code = "", "" // which are said beside it
		r.Message.Text = place.String()
		var at sarifLocation
		at.PhysicalLocation.ArtifactLocation.URI = filepath.ToSlash(f.File)
		if f.Line > 0 {
			at.PhysicalLocation.Region = &sarifRegion{f.Line}
		}
		r.Locations = []sarifLocation{at}
		run.Results = append(run.Results, r)
	}
	for _, c := range config.Codes {
		if used[c.Code] {
			run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{string(c.Code), sarifText{c.Title}, sarifText{"docs/findings/" + string(c.Code) + ".md"}})
		}
	}
	return printJSON(w, sarifLog{Version: "2.1.0", Schema: "https://json.schemastore.org/sarif-2.1.0.json", Runs: []sarifRun{run}})
}
