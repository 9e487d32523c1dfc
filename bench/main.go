// Command bench measures Folio beside bbolt: the same pairs, the same changes and
// the same durability, turn by turn in one process.
//
//	go run . [-pairs N] [-rounds N] [-workloads get,scan,...] [-dir DIR] [-md FILE]
package main

// main.go is the command line and the order in which things run.

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
)

// config is what the command line asks for.
type config struct {
	pairs, rounds, commits int
	names                  string // of workloads
	only                   string // contender
	sorted                 bool
	dir, markdown, profile string
}

func main() {
	var c config
	flag.IntVar(&c.pairs, "pairs", 1_000_000, "pairs in each store")
	flag.IntVar(&c.rounds, "rounds", 5, "rounds of each workload")
	flag.IntVar(&c.commits, "commits", 500, "commits in each round of the workload commit")
	flag.StringVar(&c.names, "workloads", "all", "workloads to run: "+workloadNames())
	flag.BoolVar(&c.sorted, "sorted", false, "fill the stores of get, viewget, scan, commit and churn in key order, not in random order")
	flag.StringVar(&c.only, "only", "", "run this store alone, to profile it")
	flag.StringVar(&c.dir, "dir", "", "directory for the stores, best on a disk (default: a temporary one)")
	flag.StringVar(&c.markdown, "md", "", "write the report to this file too, as Markdown")
	flag.StringVar(&c.profile, "cpuprofile", "", "write a CPU profile of the rounds to this file")
	flag.Parse()
	if err := run(c, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func workloadNames() string {
	names := make([]string, len(workloads))
	for i, w := range workloads {
		names[i] = w.name
	}
	return strings.Join(names, ",")
}

// run runs the workloads asked for and reports to out; progress goes to log.
func run(c config, out, log io.Writer) error {
	chosen, err := choose(c.names)
	if err != nil {
		return err
	}
	if c.pairs < 1 || c.rounds < 1 || c.commits < 1 {
		return fmt.Errorf("pairs, rounds and commits must be at least 1")
	}
	dir, err := os.MkdirTemp(c.dir, "folio-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{pairs: c.pairs, commits: c.commits, sorted: c.sorted, dir: dir, log: log, bases: map[string]string{}}
	m := describe(dir)
	fmt.Fprintf(out, "%s, %s, %s, %s, bbolt %s\n%d pairs\n", m.cpu, m.kernel, m.goVersion, m.fileSystem, m.bbolt, c.pairs)
	var report bytes.Buffer
	writeIntroduction(&report, command(), m, c)
	for _, w := range chosen {
		r, err := b.runWorkload(w, c)
		if err != nil {
			return fmt.Errorf("workload %s: %w", w.name, err)
		}
		r.writeMarkdown(&report)
		if err := r.writeText(out); err != nil {
			return err
		}
	}
	if c.markdown == "" {
		return nil
	}
	return os.WriteFile(c.markdown, report.Bytes(), 0o644)
}

func choose(names string) ([]workload, error) {
	if names == "all" {
		return workloads, nil
	}
	var chosen []workload
next:
	for name := range strings.SplitSeq(names, ",") {
		for _, w := range workloads {
			if w.name == name {
				chosen = append(chosen, w)
				continue next
			}
		}
		return nil, fmt.Errorf("no workload %q; there are %s", name, workloadNames())
	}
	return chosen, nil
}

// runWorkload runs all rounds of w. In each round every contender has its turn, and
// in each round another one begins, so that what drifts meets all alike.
func (b *bench) runWorkload(w workload, c config) (*result, error) {
	cs, err := w.prepare(b)
	if err != nil {
		return nil, err
	}
	r := &result{workload: w, samples: map[string][]sample{}}
	rounds := c.rounds
	if w.maxRounds > 0 {
		rounds = min(rounds, w.maxRounds)
	}
	fmt.Fprintf(b.log, "%s: %d rounds\n", w.name, rounds)
	stop, err := startProfile(c.profile)
	if err != nil {
		return nil, err
	}
	defer stop()
	for n := range rounds {
		for i := range cs {
			x := &cs[(n+i)%len(cs)]
			if c.only != "" && x.name != c.only {
				continue
			}
			s, err := x.round(n)
			if err != nil {
				return nil, fmt.Errorf("%s, round %d: %w", x.name, n, err)
			}
			r.samples[x.name] = append(r.samples[x.name], s)
		}
	}
	for _, x := range cs {
		if len(r.samples[x.name]) > 0 {
			r.names = append(r.names, x.name)
		}
		if err := x.done(); err != nil {
			return nil, fmt.Errorf("%s, at the end: %w", x.name, err)
		}
	}
	if len(r.names) == 0 {
		return nil, fmt.Errorf("no store %q takes part", c.only)
	}
	return r, nil
}

// startProfile starts a CPU profile, unless path is empty.
func startProfile(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() { pprof.StopCPUProfile(); f.Close() }, nil
}

// machine is what a figure depends on besides the code.
type machine struct{ cpu, kernel, goVersion, fileSystem, bbolt string }

func describe(dir string) machine {
	m := machine{
		cpu:        fmt.Sprintf("%s (%d cores)", cpuModel(), runtime.NumCPU()),
		kernel:     kernel(),
		goVersion:  strings.TrimPrefix(runtime.Version(), "go"),
		fileSystem: fileSystem(dir),
		bbolt:      "of unknown version",
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == "go.etcd.io/bbolt" {
				m.bbolt = d.Version
			}
		}
	}
	return m
}

// command is the command line that was given, but for directories and files of this machine.
func command() string {
	words := []string{"go run ."}
	flag.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "dir", "cpuprofile":
		case "md":
			words = append(words, "-md RESULTS.md")
		case "sorted":
			words = append(words, "-sorted="+f.Value.String())
		default:
			words = append(words, "-"+f.Name+" "+f.Value.String())
		}
	})
	return strings.Join(words, " ")
}
