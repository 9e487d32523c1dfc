// Package workload is an endless sequence of transactions that a seed determines, and
// the knowledge of what a store holds after each of them.
//
// After every transaction the store holds a stamp: the number of the transaction and a
// digest of all else. So a snapshot tells by itself whether it is one whole commit, and
// which. What must be there is known from a model that never reads the store.
package workload

// workload.go advances the model along the sequence and keeps the digest of each state
// that it passes.

import (
	"fmt"
	"sync"

	"github.com/foliokv/folio"
)

// epochLen: each transaction whose number is a multiple of it deletes everything, so
// the state after any transaction is found without those of earlier epochs.
const epochLen = 200

// Workload is a sequence of transactions. All its methods are safe for concurrent use.
type Workload struct {
	seed uint64

	mu      sync.Mutex
	root    *bucket // the state after transaction n
	n       int
	steps   []step         // of transaction n; nil where the model did not come to it by a step
	digests map[int]uint64 // of the states that were passed
}

// New returns the sequence of seed.
func New(seed uint64) *Workload {
	w := &Workload{seed: seed, digests: map[int]uint64{}}
	w.restart(0)
	return w
}

// Apply does transaction n, counted from 1, on tx, which must see the state after
// n-1. The caller commits. Errors are those of Folio, and results of it that are wrong.
func (w *Workload) Apply(tx *folio.Tx, n int) error {
	if err := do(tx, w.stepsOf(n)); err != nil {
		return fmt.Errorf("apply transaction %d of seed %d: %w", n, w.seed, err)
	}
	return nil
}

func (w *Workload) stepsOf(n int) []step {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n != n || w.steps == nil {
		w.seek(n - 1)
		w.advance()
	}
	return w.steps
}

// digestOf returns the digest of the state after transaction n.
func (w *Workload) digestOf(n int) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.digests[n]; !ok {
		w.seek(n)
	}
	return w.digests[n]
}

// seek brings the model to the state after transaction n; mu is held.
func (w *Workload) seek(n int) {
	if start := n - n%epochLen; w.n > n || w.n < start {
		w.restart(start)
	}
	for w.n < n {
		w.advance()
	}
}

// restart brings the model to the start of an epoch.
func (w *Workload) restart(n int) {
	w.root, w.n, w.steps = newBucket("", 0, nil), n, nil
	w.digests[n] = w.root.digest()
}

// advance brings the model to the state after the next transaction.
func (w *Workload) advance() {
	w.n++
	w.steps = plan(w.seed, w.n, w.root)
	digest := w.root.digest()
	w.digests[w.n] = digest
	w.steps = append(w.steps, stepStamp(w.n, digest))
}
