package main

// report.go turns samples into tables: medians over the rounds, and how many times
// as fast as bbolt, from the pairs of samples of the same round.

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// peer is what the others are compared with.
const peer = "bbolt"

// result is what a workload came to.
type result struct {
	workload workload
	names    []string
	samples  map[string][]sample // per contender, one a round
}

// spread is the middle and the ends of some numbers.
type spread struct{ median, least, most float64 }

func spreadOf(xs []float64) spread {
	xs = slices.Sorted(slices.Values(xs))
	mid := len(xs) / 2
	median := xs[mid]
	if len(xs)%2 == 0 {
		median = (xs[mid-1] + xs[mid]) / 2
	}
	return spread{median, xs[0], xs[len(xs)-1]}
}

func spreadBy(samples []sample, f func(*sample) float64) spread {
	xs := make([]float64, len(samples))
	for i := range samples {
		xs[i] = f(&samples[i])
	}
	return spreadOf(xs)
}

// ratios is how many times as fast as the peer a contender was, round by round.
func (r *result) ratios(name string) (spread, bool) {
	mine, others := r.samples[name], r.samples[peer]
	if name == peer || len(others) != len(mine) {
		return spread{}, false
	}
	xs := make([]float64, len(mine))
	for i := range mine {
		xs[i] = others[i].nsPerOp() / mine[i].nsPerOp()
	}
	return spreadOf(xs), true
}

// header and rows are the table of a result.
func (r *result) header() []string {
	return []string{"store", "per " + r.workload.unit, "least..most", "allocations", "file", "times as fast as " + peer, "least..most"}
}

func (r *result) rows() [][]string {
	var rows [][]string
	for _, name := range r.names {
		samples := r.samples[name]
		t := spreadBy(samples, (*sample).nsPerOp)
		row := []string{
			name,
			duration(t.median),
			duration(t.least) + ".." + duration(t.most),
			fmt.Sprintf("%.1f", spreadBy(samples, (*sample).allocsPerOp).median),
			fileSize(samples[len(samples)-1].fileSize), "", "",
		}
		if x, ok := r.ratios(name); ok {
			row[5] = fmt.Sprintf("%.2f", x.median)
			row[6] = fmt.Sprintf("%.2f..%.2f", x.least, x.most)
		}
		rows = append(rows, row)
	}
	return rows
}

// duration formats nanoseconds with three digits or so.
func duration(ns float64) string {
	switch {
	case ns < 100:
		return fmt.Sprintf("%.1f ns", ns)
	case ns < 10_000:
		return fmt.Sprintf("%.0f ns", ns)
	case ns < 1_000_000:
		return fmt.Sprintf("%.1f µs", ns/1e3)
	}
	return fmt.Sprintf("%.2f ms", ns/1e6)
}

func fileSize(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// writeText prints the result for a terminal.
func (r *result) writeText(w io.Writer) error {
	fmt.Fprintf(w, "\n%s (%s), %d rounds\n", r.workload.title, r.workload.name, len(r.samples[r.names[0]]))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range append([][]string{r.header()}, r.rows()...) {
		fmt.Fprintln(t, strings.Join(row, "\t")+"\t")
	}
	return t.Flush()
}

// writeMarkdown prints the result for a document.
func (r *result) writeMarkdown(w io.Writer) {
	fmt.Fprintf(w, "\n## %s\n\n`%s`, %d rounds.\n\n", r.workload.title, r.workload.name, len(r.samples[r.names[0]]))
	header := r.header()
	fmt.Fprintf(w, "| %s |\n|---%s|\n", strings.Join(header, " | "), strings.Repeat("|---:", len(header)-1))
	for _, row := range r.rows() {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
	}
}

const introduction = `# Folio beside bbolt

Written by the benchmark in this directory; do not edit. To make it anew:

    cd bench && %s

%s, %s, Go %s, %s, bbolt %s, %s.

%d pairs: keys of %d bytes (hexadecimal digits, put in %s order except where the
title says otherwise), values of %d bytes. Stores of all kinds get the same pairs and
the same changes, take turns within every round, and start each round in another
order. A figure is the median over the rounds; a ratio is that of the two times of
the same round, and its median, least and most over the rounds say how far to trust
it. Every value read is compared with what it must be; at the end of each workload
every pair of every store is, outside the timed parts. The files are in the page
cache: reads measure the store, not the disk.

How each store is used:

%s`

// writeIntroduction says what the figures are and how they came about.
func writeIntroduction(w io.Writer, command string, m machine, c config) {
	var notes strings.Builder
	order := "random"
	if c.sorted {
		order = "key"
	}
	for _, e := range []engine{folioEngine, folioBucketEngine, bboltEngine} {
		fmt.Fprintf(&notes, "- **%s**: %s.\n", e.name, e.note)
	}
	fmt.Fprintf(&notes, "- **%s**: into a file written before; what a durable commit has to be measured by.\n", bareName)
	fmt.Fprintf(w, introduction, command, m.cpu, m.kernel, m.goVersion, m.fileSystem, m.bbolt,
		time.Now().Format(time.DateOnly), c.pairs, keySize, order, valueSize, notes.String())
}
