package main

// stores.go is the one interface behind which the stores stand, and the list of them.
// Each store has a file of its own, in which it is driven through its own API, the way
// its documentation advises. The timed loops are there too, so that no indirection of
// the benchmark's own is measured.

import (
	"fmt"
	"strings"
)

// store is one open store under test.
type store interface {
	apply(ops []op) error                                           // all of them in one transaction
	gets(ls []lookup) error                                         // all of them in one read transaction
	viewGets(ls []lookup) error                                     // each in a read transaction of its own
	ranges(rs []rangeLookup) error                                  // all of them in one read transaction
	scan() (tally, error)                                           // everything, in key order
	view(fn func(get func(key []byte) ([]byte, error)) error) error // reads that are not timed; nil for an absent key
	close() error                                                   // everything is on disk after it
}

// batcher is a store that has a second way to commit, which gathers the transactions
// of many goroutines.
type batcher interface{ batch(ops []op) error }

// settler is a store that has work to do in the background after a load, and can do
// it at once.
type settler interface{ settle() error }

// openOptions say what a store is opened for.
type openOptions struct {
	create  bool // it is not there yet
	durable bool // each commit is on disk when it returns
	sorted  bool // keys will be put in ascending order
	npairs  int  // how many it will hold
}

// engine is a kind of store. A store is a directory, which is there when it is opened.
type engine struct {
	name     string
	module   string // whose version is reported
	note     string // how it is used, for the report
	optional bool   // takes part only where it is asked for
	batches  string // name of the variant that commits by batcher, or none
	alone    bool   // each commit has a sync of its own, however many wait for one
	open     func(dir string, o openOptions) (store, error)
}

// engines are all kinds of store that this build has, Folio first.
var engines = append([]*engine{folioEngine, folioBucketEngine, bboltEngine, pebbleEngine, badgerEngine}, cgoEngines...)

func engineNames() string {
	names := make([]string, len(engines))
	for i, e := range engines {
		names[i] = e.name
	}
	return strings.Join(names, ",")
}

// chooseEngines returns the stores called names; "all" are those that are not optional.
func chooseEngines(names string) ([]*engine, error) {
	var chosen []*engine
	if names == "all" {
		for _, e := range engines {
			if !e.optional {
				chosen = append(chosen, e)
			}
		}
		return chosen, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		e, err := engineByName(name)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, e)
	}
	return chosen, nil
}

func engineByName(name string) (*engine, error) {
	for _, e := range engines {
		if e.name == name {
			return e, nil
		}
	}
	return nil, fmt.Errorf("no store %q in this build; there are %s%s", name, engineNames(), withoutCgo)
}
