package fuzz

// create_test.go crashes the creation of a store: its file has its name and is whole,
// or it has no name and the next open makes it.

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/foliokv/folio"
	"github.com/stretchr/testify/require"
)

func TestCrashOfCreation(t *testing.T) {
	seed := seedOf(t)
	dir := scratchDir(t)
	nimages := 0
	for i, opts := range []folio.Options{{}, {PageSize: 65536}, {Sync: folio.SyncOff}, {TwoPhase: true}} {
		r := newRunner(filepath.Join(dir, "store"), opts, origin{state: emptyState()})
		first := script{
			{kind: stepCommit, ops: []op{{kind: opPut, n: 3, step: 1, nbytes: 100}}},
			{kind: stepSync},
			{kind: stepCommit, ops: []op{{kind: opPut, bucket: 1, n: 2, step: 1, nbytes: 3000}}},
		}
		require.NoError(t, r.record(first))
		require.NoError(t, os.Remove(r.path))
		c := newCrasher(r.path+".image", opts, rand.New(rand.NewPCG(seed, uint64(i))))
		s := sampler{rnd: c.rnd, psize: r.psize(), maxAll: 8, nrandom: 20}
		points(nil, r.rec.events, func(p *crashPoint) {
			require.NoError(t, c.crashUnnamed(p))
			if !p.named {
				return
			}
			s.choices(p, func(ch choice) bool {
				require.NoError(t, c.verify(p.image(ch, nil), p, r.states, 0), "crash after event %d of %d", p.index, len(r.rec.events))
				return true
			})
		})
		nimages += c.nimages
	}
	t.Logf("%d distinct images of new stores", nimages)
}

// crashUnnamed is the crash after which the file has no name. That is a new beginning,
// unless something was durable by then.
func (c *crasher) crashUnnamed(p *crashPoint) error {
	if p.nameOK {
		return nil
	}
	if p.acked > 0 || p.begun > 0 && p.named {
		return errors.New("commits were begun before the file's name was durable")
	}
	if err := os.RemoveAll(c.path + "new"); err != nil {
		return err
	}
	d, err := c.openOnce(c.path + "new")
	if err == nil && d != emptyState().digest {
		err = errors.New("a new store is not empty")
	}
	return err
}
