package main

// report.go writes what the run came to: for each workload a table of figures and one of
// Folio's ratios to its peers, before them a summary, behind them every round's figures.

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// reference is the store that the ratios are of.
const reference = "folio"

// result is what a workload came to.
type result struct {
	workload   *workload
	contenders []*contender
	figures    figures
}

// report is what the run came to.
type report struct {
	config  config
	machine machine
	stores  []*engine
	results []*result
}

func newReport(c config, m machine, chosen []*workload, stores []*engine) *report {
	r := &report{config: c, machine: m, stores: stores}
	for _, w := range chosen {
		r.results = append(r.results, &result{w, w.contenders(stores), figures{}})
	}
	return r
}

// table is a header and rows; the first column is text, the others are figures.
type table [][]string

// write prints the tables to out, and the whole report to the file called path, if any.
func (r *report) write(path string, out io.Writer) error {
	for _, x := range r.results {
		fmt.Fprintf(out, "\n%s (%s)\n", x.workload.title, x.workload.name)
		for _, t := range []table{x.values(), x.ratios()} {
			if err := t.writeText(out); err != nil {
				return err
			}
		}
	}
	if path == "" {
		return nil
	}
	var text bytes.Buffer
	r.writeMarkdown(&text)
	return os.WriteFile(path, text.Bytes(), 0o644)
}

// values is the table of medians, and of least and most where there were several rounds.
func (x *result) values() table {
	header := []string{"store"}
	for _, m := range x.workload.metrics {
		header = append(header, m.name)
		if m.yardstick && x.workload.bare && x.workload.stores {
			header = append(header, m.name+" / bare's")
		}
	}
	t := table{header}
	for _, c := range x.contenders {
		row := []string{c.name}
		for _, m := range x.workload.metrics {
			s, ok := x.figures.spread(c.name, m.name)
			row = append(row, cell(s, ok, m.format))
			if m.yardstick && x.workload.bare && x.workload.stores {
				s, ok := x.figures.ratio(c.name, bareName, m.name)
				row = append(row, cell(s, ok, factor))
			}
		}
		t = append(t, row)
	}
	return t
}

// ratios is the table of Folio's figures divided by each peer's, nil without Folio.
func (x *result) ratios() table {
	var header []string
	for _, m := range x.workload.metrics {
		if m.compare {
			header = append(header, m.name+direction(m))
		}
	}
	t := table{append([]string{"folio / peer"}, header...)}
	for _, c := range x.peers() {
		row := []string{c.name}
		for _, m := range x.workload.metrics {
			if m.compare {
				s, ok := x.figures.ratio(reference, c.name, m.name)
				row = append(row, cell(s, ok, factor))
			}
		}
		t = append(t, row)
	}
	if len(t) == 1 {
		return nil
	}
	return t
}

// peers are the stores that Folio is compared with: none where it takes no part.
func (x *result) peers() []*contender {
	if len(x.figures[reference]) == 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(x.contenders), func(c *contender) bool {
		return c.engine == nil || c.name == reference
	})
}

// direction says which ratio is in Folio's favour.
func direction(m metric) string {
	if m.moreWins {
		return " (> 1: folio better)"
	}
	return " (< 1: folio better)"
}

// cell is a median, and in brackets the least and the most where they differ.
func cell(s spread, ok bool, format func(float64) string) string {
	if !ok {
		return "-"
	}
	text := format(s.median)
	if s.least == s.most {
		return text
	}
	return fmt.Sprintf("%s (%s..%s)", text, format(s.least), format(s.most))
}

// summary is how many times as good as each peer Folio was, in the metrics that matter
// most; nil without Folio or peers.
func (r *report) summary() table {
	var names []string
	for _, x := range r.results {
		for _, c := range x.peers() {
			if !slices.Contains(names, c.name) {
				names = append(names, c.name)
			}
		}
	}
	t := table{append([]string{"workload"}, names...)}
	for _, x := range r.results {
		if len(x.peers()) == 0 {
			continue
		}
		for _, m := range x.workload.metrics {
			if m.headline {
				t = append(t, x.advantages(m, names))
			}
		}
	}
	if len(t) == 1 {
		return nil
	}
	return t
}

// advantages is the row of the summary for one metric.
func (x *result) advantages(m metric, names []string) []string {
	row := []string{x.workload.name + ": " + m.name}
	for _, name := range names {
		s, ok := x.figures.advantage(name, m)
		row = append(row, cell(s, ok, factor))
	}
	return row
}

// advantage is the ratio to a peer, turned round where less is better.
func (f figures) advantage(peer string, m metric) (spread, bool) {
	if m.moreWins {
		return f.ratio(reference, peer, m.name)
	}
	return f.ratio(peer, reference, m.name)
}

func (t table) writeText(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range t {
		fmt.Fprintln(tw, strings.Join(row, "\t")+"\t")
	}
	return tw.Flush()
}

func (t table) writeMarkdown(w io.Writer) {
	for i, row := range t {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(w, "|---%s|\n", strings.Repeat("|---:", len(row)-1))
		}
	}
	fmt.Fprintln(w)
}

const introduction = `# Folio beside its peers

Written by the benchmark in this directory; do not edit. To make it anew:

    cd bench && %s

%s, %s memory, %s, %s on %s, Go %s, %s.
Versions: %s; folio as in this tree.

%d pairs: keys of %d bytes (hexadecimal digits, put in %s order except where the
title says otherwise), values of %d bytes that do not compress and are never put twice.
All stores get the same pairs and the same changes, and are as durable: a commit is on
the disk when it returns. Rounds: %d. In a round all workloads run, and within a
workload the stores take turns, of which another begins in each round. Each turn that
writes has a fresh copy of a store filled and changed beforehand, and the whole file system is
synced before it. A figure is the median of the rounds, in brackets the least and the
most; a ratio is that of the two figures of the same round, and its spread says how
far to trust it. After each turn the store is opened again, every pair in it is
counted and its stamp compared, and up to %d are read by key and compared whole; a
fault ends the run.

Bytes are what the device wrote, the file system's journal included, and so is
whatever else wrote to it meanwhile: in the run alone, or with the closing of the
store and a sync of the file system after it.

How each store is used:

`

func (r *report) writeMarkdown(w io.Writer) {
	order := "random"
	if r.config.Sorted {
		order = "key"
	}
	m := r.machine
	fmt.Fprintf(w, introduction, r.config.command(), m.cpu, m.memory, m.kernel, m.fileSystem, m.device, m.goVersion, m.date,
		strings.Join(m.versions, ", "), r.config.Pairs, keySize, order, valueSize, r.config.rounds, sampleSize)
	for _, e := range r.stores {
		fmt.Fprintf(w, "- **%s**: %s.\n", e.name, e.note)
	}
	fmt.Fprintln(w)
	if t := r.summary(); t != nil {
		fmt.Fprint(w, "## How many times as good as each peer Folio is\n\nAbove 1: folio is better, be it that more is better or less.\n\n")
		t.writeMarkdown(w)
	}
	for _, x := range r.results {
		fmt.Fprintf(w, "## %s\n\n`%s`. %s\n\n", x.workload.title, x.workload.name, x.workload.note)
		x.values().writeMarkdown(w)
		if t := x.ratios(); t != nil {
			t.writeMarkdown(w)
		}
	}
	r.writeRaw(w)
}

// writeRaw prints every figure of every round.
func (r *report) writeRaw(w io.Writer) {
	fmt.Fprint(w, "## Every round\n\nWorkload, store, metric, and the figures of the rounds in their order; times in nanoseconds.\n\n```csv\n")
	for _, x := range r.results {
		for _, c := range x.contenders {
			for _, m := range x.workload.metrics {
				fmt.Fprintf(w, "%s,%q,%q%s\n", x.workload.name, c.name, m.name, rawRounds(x.figures[c.name], m.name))
			}
		}
	}
	fmt.Fprintln(w, "```")
}

func rawRounds(samples []sample, metric string) string {
	var text strings.Builder
	for _, s := range samples {
		if x, ok := s[metric]; ok {
			fmt.Fprintf(&text, ",%.6g", x)
		} else {
			text.WriteString(",")
		}
	}
	return text.String()
}
