// Command bench measures Folio beside its peers: the same pairs, the same changes, the
// same durability and the same machine, turn by turn in one run.
//
//	go run . [-stores folio,bbolt,...] [-workloads single,reads,...] [-rounds N] [-n PAIRS] [-dir DIR] [-o FILE]
//
// The stores written in C take part where cgo is on.
package main

// main.go is the command line and the order in which things run.

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"time"
)

// config is what the command line asks for.
type config struct {
	sizes
	rounds               int
	workloads, stores    string
	seed                 uint64
	smoke                bool
	dir, output, profile string
}

func main() {
	runIfChild()
	c, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err == nil {
		err = run(c, os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// flags puts the command line into c.
func flags(c *config) *flag.FlagSet {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.IntVar(&c.rounds, "rounds", 5, "rounds of all workloads")
	fs.StringVar(&c.workloads, "workloads", "all", "workloads to run: "+workloadNames())
	fs.StringVar(&c.stores, "stores", "all", "stores that take part: "+engineNames())
	fs.StringVar(&c.dir, "dir", "", "directory for the stores, best on a disk (default: a temporary one)")
	fs.StringVar(&c.output, "o", "", "write the report to this file, as Markdown")
	fs.StringVar(&c.profile, "cpuprofile", "", "write a CPU profile of the run to this file")
	fs.Uint64Var(&c.seed, "seed", 0, "seed of keys and values; 0: another one each time")
	fs.BoolVar(&c.smoke, "smoke", false, "tiny sizes and one round, to see that everything works; other flags of sizes are ignored")
	fs.IntVar(&c.Pairs, "n", 1_000_000, "pairs in the filled stores")
	fs.BoolVar(&c.Sorted, "sorted", false, "fill the stores in key order, not in random order")
	fs.IntVar(&c.Aging, "aging", 200, "durable transactions of 1,000 puts in the filled stores, before any turn")
	fs.IntVar(&c.bareWrites, "bare", 10_000, "bare: writes in a round")
	fs.IntVar(&c.singleCommits, "single", 20_000, "single: commits in a round")
	fs.IntVar(&c.groupCommits, "group", 60_000, "group16, group64: commits in a round, of all goroutines together; a tenth where each has a sync of its own")
	fs.IntVar(&c.loadPairs, "load", 1_000_000, "load-random, load-ordered: pairs")
	fs.IntVar(&c.churnBatches, "churn", 300, "churn: transactions of 1,000 changes in a round")
	fs.Float64Var(&c.mixedSeconds, "mixed", 10, "mixed: seconds")
	fs.IntVar(&c.gets, "gets", 1_000_000, "reads: gets of each kind in a round")
	fs.IntVar(&c.ranges, "ranges", 10_000, "reads: range scans of 100 pairs in a round")
	fs.IntVar(&c.killedCommits, "killed", 2_000, "open-killed: commits of one put before the kill")
	fs.IntVar(&c.coldBatches, "cold", 290, "open-cold: transactions of 1,000 puts before the kill")
	fs.IntVar(&c.tailPreload, "tail-preload", 100_000, "checkpoint-tail: puts before what is timed")
	fs.Float64Var(&c.tailSeconds, "tail", 15, "checkpoint-tail: seconds")
	return fs
}

// smokeSizes are as small as still makes sense.
var smokeSizes = sizes{
	Pairs: 3_000, Aging: 2, bareWrites: 50, singleCommits: 20, groupCommits: 64, loadPairs: 12_000, churnBatches: 2,
	mixedSeconds: 0.05, gets: 2_000, ranges: 50, killedCommits: 10, coldBatches: 3, tailPreload: 2_000, tailSeconds: 0.05,
}

func parse(args []string) (config, error) {
	var c config
	fs := flags(&c)
	if err := fs.Parse(args); err != nil {
		return c, err
	}
	if fs.NArg() > 0 {
		return c, fmt.Errorf("unexpected argument %q; see -h", fs.Arg(0))
	}
	if c.smoke {
		c.sizes, c.rounds = smokeSizes, 1
	}
	if c.seed == 0 {
		c.seed = uint64(time.Now().UnixNano())
	}
	return c, c.check()
}

// check refuses sizes that make no sense.
func (c *config) check() error {
	for _, n := range []int{
		c.rounds, c.Pairs, c.bareWrites, c.singleCommits, c.groupCommits, c.loadPairs, c.churnBatches,
		c.gets, c.ranges, c.killedCommits, c.coldBatches,
	} {
		if n < 1 {
			return errors.New("rounds and sizes must be at least 1")
		}
	}
	if c.mixedSeconds <= 0 || c.tailSeconds <= 0 || c.tailPreload < 0 {
		return errors.New("times must be above 0, and tail-preload not below")
	}
	return nil
}

// command is the command line that makes such a report again, without what belongs to
// one machine or one run.
func (c *config) command() string {
	asked := *c
	if c.smoke { // it brings its sizes with it
		standard := config{}
		flags(&standard)
		asked.sizes, asked.rounds = standard.sizes, standard.rounds
	}
	text := "go run ."
	var given config
	fs := flags(&given)
	given = asked
	fs.VisitAll(func(f *flag.Flag) {
		switch f.Name {
		case "dir", "cpuprofile", "seed", "o":
			return
		}
		if value := f.Value.String(); value != f.DefValue {
			text += " -" + f.Name + "=" + value
		}
	})
	return text + " -o RESULTS.md"
}

// run runs the workloads asked for and reports to out; progress goes to log.
func run(c config, out, log io.Writer) (err error) {
	chosen, err := chooseWorkloads(c.workloads)
	if err != nil {
		return err
	}
	stores, err := chooseEngines(c.stores)
	if err != nil {
		return err
	}
	b, err := newBench(c, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	defer removeOnInterrupt(b.dir)()
	stop, err := startProfile(c.profile)
	if err != nil {
		return err
	}
	defer stop()
	r := newReport(c, describe(b.dir, b.disk, stores), chosen, stores)
	if err := b.runRounds(r, c.rounds); err != nil {
		return err
	}
	return r.write(c.output, out)
}

func newBench(c config, log io.Writer) (*bench, error) {
	dir, err := os.MkdirTemp(c.dir, "folio-bench-")
	if err != nil {
		return nil, err
	}
	d, err := diskOf(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &bench{sizes: c.sizes, seed: c.seed, dir: dir, disk: d, log: log, bases: map[string]string{}}, nil
}

// removeOnInterrupt removes the stores, which are large, where the run is interrupted.
func removeOnInterrupt(dir string) (stop func()) {
	interrupts := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(interrupts, os.Interrupt)
	go func() {
		select {
		case <-interrupts:
			os.RemoveAll(dir)
			os.Exit(1)
		case <-done:
		}
	}()
	return func() { signal.Stop(interrupts); close(done) }
}

// runRounds runs all rounds. In a round each workload has its place, and in a workload
// each contender has its turn; in each round another one begins, so that what drifts
// meets all alike.
func (b *bench) runRounds(r *report, rounds int) error {
	for round := range rounds {
		for _, x := range r.results {
			for i := range x.contenders {
				c := x.contenders[(round+i)%len(x.contenders)]
				if err := b.runTurn(x, c, round); err != nil {
					return fmt.Errorf("workload %s, %s, round %d: %w", x.workload.name, c.name, round+1, err)
				}
			}
		}
	}
	return nil
}

func (b *bench) runTurn(x *result, c *contender, round int) error {
	start := time.Now()
	s, err := x.workload.turn(b, c, round)
	if err != nil {
		return err
	}
	x.figures[c.name] = append(x.figures[c.name], s)
	first := x.workload.metrics[0]
	fmt.Fprintf(b.log, "round %d, %s, %s: %s %s (turn of %.1f s)\n", round+1, x.workload.name, c.name,
		first.format(s[first.name]), first.name, time.Since(start).Seconds())
	return nil
}

// startProfile starts a CPU profile, unless path is empty.
func startProfile(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	var profile bytes.Buffer
	if err := pprof.StartCPUProfile(&profile); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		if err := os.WriteFile(path, profile.Bytes(), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "bench: write the profile:", err)
		}
	}, nil
}
