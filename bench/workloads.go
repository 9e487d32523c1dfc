package main

// workloads.go is the list of what is measured, and who takes part in what.

import (
	"fmt"
	"strings"
)

// contender is one store, or one way of using it, or the bare disk, in a workload.
type contender struct {
	name   string
	engine *engine // nil for the bare disk
	batch  bool    // commits by batcher
}

// metric is one figure of a workload.
type metric struct {
	name      string
	moreWins  bool
	format    func(x float64) string
	compare   bool // is given as Folio's ratio to each peer too
	headline  bool // is in the summary
	yardstick bool // is given as a multiple of the bare disk's too
}

// Names of metrics that several workloads have.
const (
	commitRate   = "commits/s"
	median       = "p50"
	tail         = "p99"
	deviceInRun  = "device bytes a commit, in the run"
	deviceWhole  = "device bytes a commit, with closing"
	deviceTotal  = "device bytes, with closing"
	spaceOnDisk  = "space on disk"
	getTime      = "get in one transaction"
	viewGetTime  = "get in its own transaction"
	rangeTime    = "pair of a range scan"
	scanTime     = "pair of a full scan"
	openTime     = "open and get"
	pairRate     = "pairs/s"
	changeRate   = "changes/s"
	deviceChange = "device bytes a change, with closing"
	writeRate    = "puts/s"
	readRate     = "gets/s"
	tailFactor   = "p99 / p50"
	longest      = "longest"
)

var latencyMetrics = []metric{
	{name: commitRate, moreWins: true, format: count, compare: true, headline: true},
	{name: median, format: duration, compare: true, yardstick: true},
	{name: tail, format: duration, compare: true},
}

var commitMetrics = append(latencyMetrics[:len(latencyMetrics):len(latencyMetrics)],
	metric{name: deviceInRun, format: count},
	metric{name: deviceWhole, format: count, compare: true},
)

var loadMetrics = []metric{
	{name: pairRate, moreWins: true, format: count, compare: true, headline: true},
	{name: deviceTotal, format: size, compare: true, headline: true},
	{name: spaceOnDisk, format: size, compare: true},
}

var openMetrics = []metric{{name: openTime, format: duration, compare: true, headline: true}}

// workload is one thing to measure. Its first metric is what it is about.
type workload struct {
	name, title, note string
	metrics           []metric
	stores            bool // stores take part
	bare              bool // the bare disk takes part
	batches           bool // variants that commit by batcher take part
	turn              func(b *bench, c *contender, round int) (sample, error)
}

var workloads = []workload{
	{
		name: "bare", title: "The bare disk: pwrite and msync of 4 KiB",
		note:    "Successive pages of a mapped file that was written before: what a durable commit has to be measured by.",
		metrics: latencyMetrics, bare: true, turn: (*bench).bareWorkload,
	},
	{
		name: "single", title: "Durable commits of one put, one goroutine",
		note:    "Random existing keys. The bare disk takes its turn among the stores; p50 is given as a multiple of its p50 of the same round.",
		metrics: commitMetrics, stores: true, bare: true, turn: (*bench).singleWorkload,
	},
	{
		name: "group16", title: "Durable commits of one put, 16 goroutines",
		note:    "Random existing keys. Where a store has one writer at a time, the goroutines queue for it.",
		metrics: commitMetrics, stores: true, batches: true, turn: groupWorkload(16),
	},
	{
		name: "group64", title: "Durable commits of one put, 64 goroutines",
		note:    "As with 16.",
		metrics: commitMetrics, stores: true, batches: true, turn: groupWorkload(64),
	},
	{
		name: "load-random", title: "Load in random order, durable transactions of 10,000 puts",
		note:    "Into an empty store. The rate is that of the transactions; what an LSM tree leaves to compact later is not in it, but what it writes until it is closed is in the bytes.",
		metrics: loadMetrics, stores: true, turn: loadWorkload(false),
	},
	{
		name: "load-ordered", title: "Load in key order, durable transactions of 10,000 puts",
		note:    "Into an empty store.",
		metrics: loadMetrics, stores: true, turn: loadWorkload(true),
	},
	{
		name: "churn", title: "Updates, deletes and inserts at random, durable transactions of 1,000",
		note: "Half are updates, a quarter deletes, a quarter inserts, so that the store keeps its size.",
		metrics: []metric{
			{name: changeRate, moreWins: true, format: count, compare: true, headline: true},
			{name: deviceChange, format: count, compare: true},
		},
		stores: true, turn: (*bench).churnWorkload,
	},
	{
		name: "mixed", title: "Two readers beside a durable writer of 100 puts a transaction",
		note: "For a fixed time. Readers get random keys, each in a transaction of its own; all keys are there all the time.",
		metrics: []metric{
			{name: writeRate, moreWins: true, format: count, compare: true, headline: true},
			{name: readRate, moreWins: true, format: count, compare: true, headline: true},
		},
		stores: true, turn: (*bench).mixedWorkload,
	},
	{
		name: "reads", title: "Random gets, range scans of 100 pairs, full scans",
		note: "One goroutine, files in the page cache, every value looked at.",
		metrics: []metric{
			{name: getTime, format: duration, compare: true, headline: true},
			{name: viewGetTime, format: duration, compare: true, headline: true},
			{name: rangeTime, format: duration, compare: true, headline: true},
			{name: scanTime, format: duration, compare: true, headline: true},
		},
		stores: true, turn: (*bench).readsWorkload,
	},
	{
		name: "open-killed", title: "Open after a kill, files in the page cache",
		note:    "A process makes durable commits of one put and is killed (SIGKILL) within one. Then: the time to open the store, and get a pair that it had changed.",
		metrics: openMetrics, stores: true, turn: (*bench).openKilledWorkload,
	},
	{
		name: "open-cold", title: "Open after a kill, files dropped from the page cache",
		note:    "The process makes durable transactions of 1,000 puts, as many as Folio's log holds before a checkpoint, and is killed. Dropping is posix_fadvise(DONTNEED) on each file after a sync: an approximation, since the kernel may keep pages, and a virtual disk has caches that it does not reach.",
		metrics: openMetrics, stores: true, turn: (*bench).openColdWorkload,
	},
	{
		name: "checkpoint-tail", title: "Latency of durable commits of one put while checkpoints and compactions run",
		note: "One goroutine, for a fixed time, right after transactions of 1,000 puts that fill logs and memtables and are not timed.",
		metrics: []metric{
			{name: tailFactor, format: factor, compare: true, headline: true},
			{name: median, format: duration, compare: true},
			{name: tail, format: duration, compare: true, headline: true},
			{name: longest, format: duration, compare: true},
			{name: commitRate, moreWins: true, format: count, compare: true},
		},
		stores: true, turn: (*bench).tailWorkload,
	},
}

// contenders returns who takes part in w, of the stores asked for.
func (w *workload) contenders(chosen []*engine) []*contender {
	var cs []*contender
	if w.bare {
		cs = append(cs, &contender{name: bareName})
	}
	if !w.stores {
		return cs
	}
	for _, e := range chosen {
		cs = append(cs, &contender{name: e.name, engine: e})
		if w.batches && e.batches != "" {
			cs = append(cs, &contender{name: e.batches, engine: e, batch: true})
		}
	}
	return cs
}

func workloadNames() string {
	names := make([]string, len(workloads))
	for i := range workloads {
		names[i] = workloads[i].name
	}
	return strings.Join(names, ",")
}

// chooseWorkloads returns the workloads called names, or all.
func chooseWorkloads(names string) ([]*workload, error) {
	var chosen []*workload
	if names == "all" {
		names = workloadNames()
	}
	for name := range strings.SplitSeq(names, ",") {
		w, err := workloadByName(name)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, w)
	}
	return chosen, nil
}

func workloadByName(name string) (*workload, error) {
	for i := range workloads {
		if workloads[i].name == name {
			return &workloads[i], nil
		}
	}
	return nil, fmt.Errorf("no workload %q; there are %s", name, workloadNames())
}
