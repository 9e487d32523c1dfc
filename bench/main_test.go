package main

// main_test.go runs everything small, children included, and sees to the command line.

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	runIfChild() // the workloads that kill a process start this program again
	os.Exit(m.Run())
}

// parsed returns what a command line asks for.
func parsed(t *testing.T, args ...string) config {
	t.Helper()
	c, err := parse(args)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSmoke runs all workloads with all stores: they check what they read.
func TestSmoke(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "results.md")
	var out, log bytes.Buffer
	if err := run(parsed(t, "-smoke", "-dir", dir, "-o", file), &out, &log); err != nil {
		t.Fatalf("%v\n%s", err, log.Bytes())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range workloads {
		checkReported(t, &workloads[i], out.String(), string(text), log.String())
	}
	left, err := filepath.Glob(filepath.Join(dir, "folio-bench-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// checkReported looks for the workload, and each contender's turn in it.
func checkReported(t *testing.T, w *workload, out, text, log string) {
	t.Helper()
	if !strings.Contains(out, w.title) || !strings.Contains(text, w.title) {
		t.Errorf("workload %s is missing in the report", w.name)
	}
	stores, err := chooseEngines("all")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range w.contenders(stores) {
		if !strings.Contains(log, w.name+", "+c.name+":") {
			t.Errorf("workload %s: %s took no turn", w.name, c.name)
		}
	}
}

// TestSorted runs what depends on the order of the fill, and the optional stores.
func TestSorted(t *testing.T) {
	c := parsed(t, "-smoke", "-dir", t.TempDir(), "-stores", engineNames(), "-workloads", "reads,churn,open-killed")
	c.Sorted = true
	var out, log bytes.Buffer
	if err := run(c, &out, &log); err != nil {
		t.Fatalf("%v\n%s", err, log.Bytes())
	}
}

// TestRounds sees that another contender begins in each round.
func TestRounds(t *testing.T) {
	c := parsed(t, "-smoke", "-dir", t.TempDir(), "-stores", "folio,bbolt", "-workloads", "load-random,churn")
	c.rounds = 2
	var out, log bytes.Buffer
	if err := run(c, &out, &log); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(log.String()) {
		if turn, _, ok := strings.Cut(line, ":"); ok && strings.HasPrefix(turn, "round") {
			got = append(got, turn)
		}
	}
	want := []string{
		"round 1, load-random, folio", "round 1, load-random, bbolt", "round 1, churn, folio", "round 1, churn, bbolt",
		"round 2, load-random, bbolt", "round 2, load-random, folio", "round 2, churn, bbolt", "round 2, churn, folio",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestUnknownNames(t *testing.T) {
	for _, c := range []config{{workloads: "single,nonsense", stores: "all"}, {workloads: "all", stores: "folio,nonsense"}} {
		err := run(c, os.Stdout, os.Stderr)
		if err == nil || !strings.Contains(err.Error(), `"nonsense"`) {
			t.Errorf("got %v, want an error that names what is unknown", err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, args := range [][]string{{"-n=0"}, {"-rounds=0"}, {"-mixed=0"}, {"-single=-1"}, {"surplus"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v: accepted", args)
		}
	}
}

func TestCommand(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "go run . -o RESULTS.md"},
		{[]string{"-n", "500", "-dir", "/somewhere", "-o", "x.md"}, "go run . -n=500 -o RESULTS.md"},
		{[]string{"-smoke", "-n", "500"}, "go run . -smoke=true -o RESULTS.md"},
		{[]string{"-rounds", "5", "-stores", "folio,bbolt", "-seed", "7"}, "go run . -stores=folio,bbolt -o RESULTS.md"},
	} {
		c := parsed(t, test.args...)
		if got := c.command(); got != test.want {
			t.Errorf("%v: got %q, want %q", test.args, got, test.want)
		}
	}
}
