package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAllWorkloads runs everything small: the workloads check what they read.
func TestAllWorkloads(t *testing.T) {
	dir := t.TempDir()
	md := filepath.Join(dir, "results.md")
	var out, log bytes.Buffer
	c := config{pairs: 3000, rounds: 2, commits: 5, names: "all", dir: dir, markdown: md}
	if err := run(c, &out, &log); err != nil {
		t.Fatalf("%v\n%s", err, log.Bytes())
	}
	text, err := os.ReadFile(md)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range workloads {
		if !strings.Contains(out.String(), w.title) || !strings.Contains(string(text), w.title) {
			t.Errorf("workload %s is missing in the report", w.name)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "folio-bench-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestUnknownWorkload(t *testing.T) {
	err := run(config{pairs: 1, rounds: 1, commits: 1, names: "get,nonsense"}, os.Stdout, os.Stderr)
	if err == nil || !strings.Contains(err.Error(), `"nonsense"`) {
		t.Errorf("got %v, want an error that names the workload", err)
	}
}

// TestVerifyFindsWrongValues shows that the check is one.
func TestVerifyFindsWrongValues(t *testing.T) {
	for _, e := range []engine{folioEngine, folioBucketEngine, bboltEngine} {
		s, err := e.open(filepath.Join(t.TempDir(), "store"), openOptions{npairs: 10})
		if err != nil {
			t.Fatal(err)
		}
		m := newModel(10)
		if err := s.apply([]op{m.put(1), m.put(2)}); err != nil {
			t.Fatal(err)
		}
		if err := m.verify(s); err != nil {
			t.Errorf("%s: %v", e.name, err)
		}
		m.put(1)
		if err := m.verify(s); err == nil {
			t.Errorf("%s: an old version passed for a new one", e.name)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSpread(t *testing.T) {
	if got := spreadOf([]float64{3, 1, 2}); got != (spread{2, 1, 3}) {
		t.Errorf("odd: %v", got)
	}
	if got := spreadOf([]float64{4, 1, 2, 3}); got != (spread{2.5, 1, 4}) {
		t.Errorf("even: %v", got)
	}
}
