package workload

// step.go does to a store what the plan did to the model, and compares what Folio
// returns on the way.

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/foliokv/folio"
)

// step is one change of a store. It changes nothing outside tx, so it can be done
// again on another one.
type step func(tx *folio.Tx) error

var errUndo = errors.New("undo the nested transaction")

// at opens the bucket at path.
func at(tx *folio.Tx, path []string) (*folio.Bucket, error) {
	b := tx.Root()
	for i, name := range path {
		if b = b.Bucket([]byte(name)); b == nil {
			return nil, errors.Join(fmt.Errorf("open bucket %.40q: it is missing", path[:i+1]), tx.Err())
		}
	}
	return b, nil
}

// in makes a step of a change of the bucket at path.
func in(path []string, change func(b *folio.Bucket) error) step {
	return func(tx *folio.Tx) error {
		b, err := at(tx, path)
		if err != nil {
			return err
		}
		return change(b)
	}
}

func stepPut(path []string, items []item) step {
	return in(path, func(b *folio.Bucket) error {
		var buf []byte
		for _, it := range items {
			buf = it.value.appendTo(buf[:0])
			if err := b.Put([]byte(it.key), buf); err != nil {
				return err
			}
		}
		return nil
	})
}

func stepDelete(path []string, keys []string) step {
	return in(path, func(b *folio.Bucket) error {
		for _, k := range keys {
			if err := b.Delete([]byte(k)); err != nil {
				return err
			}
		}
		return nil
	})
}

func stepDeleteRange(path []string, lo, hi string, want uint64) step {
	return in(path, func(b *folio.Bucket) error {
		var end []byte
		if hi != "" {
			end = []byte(hi)
		}
		n, err := b.DeleteRange([]byte(lo), end)
		if err == nil && n != want {
			err = fmt.Errorf("delete range %.40q to %.40q: %d pairs, want %d", lo, hi, n, want)
		}
		return err
	})
}

func stepCursorDelete(path []string, from string, n int, want []string) step {
	return in(path, func(b *folio.Bucket) error {
		c := b.Cursor()
		i := 0
		for k, _ := c.Seek([]byte(from)); k != nil && i < n; k, _ = c.Next() {
			if i >= len(want) || string(k) != want[i] {
				return fmt.Errorf("delete by cursor from %.40q: pair %d is %.40q", from, i, k)
			}
			if err := c.Delete(); err != nil {
				return err
			}
			i++
		}
		if i != len(want) {
			return errors.Join(fmt.Errorf("delete by cursor from %.40q: %d pairs, want %d", from, i, len(want)), b.Tx().Err())
		}
		return nil
	})
}

func stepSetSequence(path []string, v uint64) step {
	return in(path, func(b *folio.Bucket) error { return b.SetSequence(v) })
}

func stepNextSequence(path []string, want uint64) step {
	return in(path, func(b *folio.Bucket) error {
		n, err := b.NextSequence()
		if err == nil && n != want {
			err = fmt.Errorf("next sequence: %d, want %d", n, want)
		}
		return err
	})
}

func stepCreateBucket(path []string, name string) step {
	return in(path, func(b *folio.Bucket) error {
		_, err := b.CreateBucket([]byte(name))
		return err
	})
}

func stepDeleteBucket(path []string, name string) step {
	return in(path, func(b *folio.Bucket) error { return b.DeleteBucket([]byte(name)) })
}

func stepMoveBucket(name string, from, to []string) step {
	return func(tx *folio.Tx) error {
		src, err := at(tx, from)
		if err != nil {
			return err
		}
		dst, err := at(tx, to)
		if err != nil {
			return err
		}
		return tx.MoveBucket([]byte(name), src, dst)
	}
}

func stepNested(steps []step, undo bool) step {
	return func(tx *folio.Tx) error {
		err := tx.Nested(func(tx *folio.Tx) error {
			if err := do(tx, steps); err != nil {
				return err
			}
			if undo {
				return errUndo
			}
			return nil
		})
		if undo && err == errUndo {
			return nil
		}
		return err
	}
}

// stepStamp says what the store is from here on: the state after transaction n.
func stepStamp(n int, digest uint64) step {
	return func(tx *folio.Tx) error {
		v := binary.BigEndian.AppendUint64(nil, uint64(n))
		return tx.Put([]byte(stampKey), binary.BigEndian.AppendUint64(v, digest))
	}
}

func do(tx *folio.Tx, steps []step) error {
	for _, s := range steps {
		if err := s(tx); err != nil {
			return err
		}
	}
	return nil
}
