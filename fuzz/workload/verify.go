package workload

// verify.go reads all that a transaction sees, by every way of reading, and says which
// state of the sequence it is, or what differs.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/foliokv/folio"
)

// Verify reads all that tx sees and returns the number of the transaction whose state
// it is, 0 for the empty store. The error says what differs if it is not exactly the
// state after a transaction of the sequence; n is then what the stamp claims. Several
// goroutines may verify while another applies.
func (w *Workload) Verify(tx *folio.Tx) (n int, err error) {
	sum, err := summarize(tx.Root())
	if err == nil {
		err = tx.Err()
	}
	if err != nil {
		return 0, fmt.Errorf("verify: %w", err)
	}
	stamp := tx.Get([]byte(stampKey))
	if stamp == nil {
		if sum != (summary{}) {
			return 0, errors.Join(errors.New("verify: the store has content and no stamp"), tx.Err())
		}
		return 0, nil
	}
	if len(stamp) != 16 {
		return 0, fmt.Errorf("verify: stamp of %d bytes", len(stamp))
	}
	claim, digest := binary.BigEndian.Uint64(stamp), binary.BigEndian.Uint64(stamp[8:])
	if claim == 0 || claim > math.MaxInt32 {
		return 0, fmt.Errorf("verify: stamp of transaction %d", claim)
	}
	n = int(claim)
	if sum.digest() != digest {
		err = errors.New("it is not one whole commit: its digest is not that of its stamp")
	} else if w.digestOf(n) != digest {
		err = errors.New("it is whole, but not what the sequence has there")
	}
	if err != nil {
		return n, fmt.Errorf("verify: the state with the stamp of transaction %d of seed %d: %w; %w", n, w.seed, err, w.difference(tx, n))
	}
	return n, nil
}

// VerifyNewest is Verify on a new read transaction of db.
func (w *Workload) VerifyNewest(db *folio.DB) (n int, err error) {
	err = db.View(func(tx *folio.Tx) error {
		n, err = w.Verify(tx)
		return err
	})
	return n, err
}

// probeEvery: of so many pairs one is also read by key and by rank.
const probeEvery = 61

// summarize reads b and all below it. The root's stamp is left out.
func summarize(b *folio.Bucket) (s summary, err error) {
	s.sequence = b.Sequence()
	var last []byte
	i := uint64(0)
	for k, v := range b.All() {
		if i > 0 && bytes.Compare(last, k) >= 0 {
			return s, fmt.Errorf("key %.40q after %.40q", k, last)
		}
		last = k
		if i%probeEvery == 0 {
			if err := probe(b, i, k, v); err != nil {
				return s, err
			}
		}
		i++
		switch {
		case v == nil:
			err = summarizeBelow(&s, b, k)
		case string(k) != stampKey:
			s.npairs++
			s.pairs += hashPair(k, v)
		}
		if err != nil {
			return s, err
		}
	}
	if n := b.Len(); n != i {
		return s, errors.Join(fmt.Errorf("a bucket of length %d yields %d pairs", n, i), b.Tx().Err())
	}
	return s, nil
}

func summarizeBelow(s *summary, b *folio.Bucket, name []byte) error {
	nested := b.Bucket(name)
	if nested == nil {
		return errors.Join(fmt.Errorf("bucket %.40q cannot be opened", name), b.Tx().Err())
	}
	below, err := summarize(nested)
	if err != nil {
		return fmt.Errorf("bucket %.40q: %w", name, err)
	}
	s.addBucket(name, below.digest())
	return nil
}

// probe compares what other ways of reading give for pair i of b.
func probe(b *folio.Bucket, i uint64, k, v []byte) error {
	if got := b.Get(k); !bytes.Equal(got, v) || (got == nil) != (v == nil) {
		return fmt.Errorf("get %.40q: %d bytes, but iterating gave %d", k, len(got), len(v))
	}
	if got := b.Rank(k); got != i {
		return fmt.Errorf("rank of %.40q is %d, but iterating met it as %d", k, got, i)
	}
	if got, _ := b.At(i); !bytes.Equal(got, k) {
		return fmt.Errorf("at %d is %.40q, but iterating met %.40q", i, got, k)
	}
	if got, _ := b.Cursor().Seek(k); !bytes.Equal(got, k) {
		return fmt.Errorf("seek %.40q gives %.40q", k, got)
	}
	return nil
}

// maxDifferences is how many differences an error lists.
const maxDifferences = 8

// difference says where tx and the state after transaction n differ.
func (w *Workload) difference(tx *folio.Tx, n int) error {
	want := New(w.seed) // beside w, which goes on
	want.seek(n)
	d := &differ{}
	d.compare(tx.Root(), want.root)
	if len(d.errs) == 0 {
		return errors.New("all pairs, buckets and sequences are as they should be; only the stamp's digest differs")
	}
	return errors.Join(d.errs...)
}

// differ collects differences.
type differ struct{ errs []error }

func (d *differ) note(b *bucket, format string, args ...any) {
	if len(d.errs) < maxDifferences {
		d.errs = append(d.errs, fmt.Errorf("in bucket %.40q: %s", b.path(), fmt.Sprintf(format, args...)))
	}
}

func (d *differ) compare(b *folio.Bucket, want *bucket) {
	if got := b.Sequence(); got != want.seq {
		d.note(want, "sequence %d, want %d", got, want.seq)
	}
	seen := map[string]bool{}
	for k, v := range b.All() {
		key := string(k)
		seen[key] = true
		if v != nil && !(key == stampKey && want.parent == nil) {
			d.comparePair(want, key, v)
		}
		if v == nil {
			d.compareSub(b, want, key)
		}
	}
	for key := range want.pairs {
		if !seen[key] {
			d.note(want, "%.40q is missing", key)
		}
	}
	for _, s := range want.subs {
		if !seen[s.name] {
			d.note(want, "bucket %.40q is missing", s.name)
		}
	}
}

func (d *differ) comparePair(want *bucket, key string, v []byte) {
	p, ok := want.pairs[key]
	if !ok {
		d.note(want, "%.40q should not be there", key)
		return
	}
	if !bytes.Equal(p.value.appendTo(nil), v) {
		d.note(want, "%.40q has another value, of %d bytes, want %d", key, len(v), p.value.nbytes)
	}
}

func (d *differ) compareSub(b *folio.Bucket, want *bucket, name string) {
	i, ok := want.find(name)
	if !ok {
		d.note(want, "bucket %.40q should not be there", name)
		return
	}
	nested := b.Bucket([]byte(name))
	if nested == nil {
		d.note(want, "bucket %.40q cannot be opened", name)
		return
	}
	d.compare(nested, want.subs[i])
}
