package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const testSeed = 5

// emptyStore opens a new store of kind e that is closed at the end of the test.
func emptyStore(t *testing.T, e *engine) store {
	t.Helper()
	s, err := e.open(t.TempDir(), openOptions{create: true, npairs: 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestVerifyFindsFaults shows that the check is one.
func TestVerifyFindsFaults(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			s := emptyStore(t, e)
			m := newModel(testSeed, 10)
			if err := s.apply([]op{m.put(1), m.put(2)}); err != nil {
				t.Fatal(err)
			}
			check := func(m *model) error { return m.verify(s, roundRand(testSeed, 0), 100) }
			if err := check(m); err != nil {
				t.Error(err)
			}
			for name, spoil := range map[string]func(m *model){
				"old":       func(m *model) { m.put(1) },
				"missing":   func(m *model) { m.put(3) },
				"undeleted": func(m *model) { m.remove(2) },
				"other run": func(m *model) { m.salt++ },
			} {
				spoiled := m.clone()
				spoil(spoiled)
				if err := check(spoiled); err == nil {
					t.Errorf("%s: passed", name)
				}
			}
		})
	}
}

// TestReadsFindFaults shows that the timed reads look at what they read.
func TestReadsFindFaults(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			s := emptyStore(t, e)
			m := newModel(testSeed, 5)
			if err := s.apply([]op{m.put(0), m.put(1), m.put(2), m.put(3), m.put(4)}); err != nil {
				t.Fatal(err)
			}
			if err := readEverything(s, m); err != nil {
				t.Error(err)
			}
			m.put(3)
			rnd := roundRand(testSeed, 0)
			if s.gets(m.lookups(rnd, 50, false)) == nil || s.viewGets(m.lookups(rnd, 50, false)) == nil || s.ranges(m.ranges(rnd, 50, 3)) == nil {
				t.Error("an old version passed for a new one")
			}
		})
	}
}

// readEverything reads all pairs in every way.
func readEverything(s store, m *model) error {
	rnd := roundRand(testSeed, 0)
	for _, read := range []func() error{
		func() error { return s.gets(m.lookups(rnd, 20, false)) },
		func() error { return s.viewGets(m.lookups(rnd, 20, true)) },
		func() error { return s.ranges(m.ranges(rnd, 20, 3)) },
		func() error { return scanWhole(s, m.tally()) },
	} {
		if err := read(); err != nil {
			return err
		}
	}
	return nil
}

// TestBatch sees that a batcher commits.
func TestBatch(t *testing.T) {
	s := emptyStore(t, bboltEngine)
	m := newModel(testSeed, 100)
	shares := make([][]op, 4)
	for i := range m.versions {
		shares[i%4] = append(shares[i%4], m.put(i))
	}
	latencies, err := commitTogether(s.(batcher).batch, shares)
	if err != nil || len(latencies) != 100 || slices.Min(latencies) <= 0 {
		t.Fatalf("%d latencies, %v", len(latencies), err)
	}
	if err := m.verify(s, roundRand(testSeed, 0), 100); err != nil {
		t.Error(err)
	}
}

func TestMovingLookup(t *testing.T) {
	m := newModel(testSeed, 10)
	old := m.put(7)
	m.put(7)
	fixed, moving := m.lookup(7, false), m.lookup(7, true)
	newer, foreign := m.put(7), m.put(8)
	for _, test := range []struct {
		name          string
		value         []byte
		fixed, moving bool
	}{
		{"old", old.value, false, false},
		{"newer", newer.value, false, true},
		{"of another key", foreign.value, false, false},
		{"cut short", newer.value[:valueSize-1], false, false},
		{"none", nil, false, false},
	} {
		if ok := fixed.check(test.value) == nil; ok != test.fixed {
			t.Errorf("%s, fixed: %v", test.name, ok)
		}
		if ok := moving.check(test.value) == nil; ok != test.moving {
			t.Errorf("%s, moving: %v", test.name, ok)
		}
	}
}

// TestChurnKeepsSize sees that a store neither grows nor shrinks.
func TestChurnKeepsSize(t *testing.T) {
	m := filledModel(testSeed, 4_000, false, 0)
	rnd := roundRand(testSeed, 0)
	for range 5 {
		if n := len(churn(m, rnd)); n != smallBatch || m.present != 4_000 {
			t.Fatalf("%d changes, then %d pairs", n, m.present)
		}
	}
}

// TestShares sees that no pair is in two shares, and none of the commits is lost.
func TestShares(t *testing.T) {
	b := bench{sizes: sizes{Pairs: 500}, seed: testSeed}
	m := filledModel(testSeed, 500, false, 0)
	owner := map[string]int{}
	n := 0
	for g, ops := range b.shares(m, 0, 16, 100) {
		for _, o := range ops {
			n++
			if other, ok := owner[string(o.key)]; ok && other != g {
				t.Fatalf("key %s is in shares %d and %d", o.key, other, g)
			}
			owner[string(o.key)] = g
		}
	}
	if n != 112 {
		t.Errorf("%d commits, want the multiple of 16 above 100", n)
	}
}

// TestCopyStore sees that content and holes are as before.
func TestCopyStore(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	content := bytes.Repeat([]byte("content "), 5_000)
	sparse := filepath.Join(from, "sparse")
	if err := os.WriteFile(sparse, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(sparse, 64<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "empty"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := copyStore(from, to); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(to, "sparse"))
	if err != nil || len(got) != 64<<20 || !bytes.HasPrefix(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	before, err := allocatedIn(from)
	if err != nil {
		t.Fatal(err)
	}
	if after, err := allocatedIn(to); err != nil || after > before+(1<<20) {
		t.Errorf("%d bytes allocated, %d in the copy, %v", before, after, err)
	}
}

// TestKill kills a child and opens what it left.
func TestKill(t *testing.T) {
	b, err := newBench(parsed(t, "-smoke", "-dir", t.TempDir()), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	for _, batch := range []int{1, 50} {
		s, err := b.openTurn(&contender{engine: folioEngine}, 0, batch, 5, warmCache)
		if err != nil || s[openTime] <= 0 {
			t.Errorf("batches of %d: %v, %v", batch, s, err)
		}
	}
}

// TestChildThatFails sees that its error is not taken for a kill.
func TestChildThatFails(t *testing.T) {
	order := childOrder{Engine: "folio", Dir: filepath.Join(t.TempDir(), "nowhere"), Pairs: 10, Batch: 1}
	if _, err := runAndKill(order, 1); err == nil {
		t.Error("passed")
	}
	if err := runChild(fmt.Sprintf(`{"Engine":%q}`, "nonsense"), t.Output()); err == nil {
		t.Error("an unknown store passed")
	}
}
