package folio

import (
	"fmt"
	"math/rand"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSmoke(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.folio")
	db, err := Open(path, 0o600, nil)
	require.NoError(t, err)
	model := map[string]string{}
	rnd := rand.New(rand.NewSource(1))
	for range 20 {
		require.NoError(t, db.Update(func(tx *Tx) error {
			for range 2000 {
				k := fmt.Sprintf("%08x", rnd.Intn(30000))
				if rnd.Intn(3) == 0 {
					delete(model, k)
					require.NoError(t, tx.Delete([]byte(k)))
					continue
				}
				v := fmt.Sprint(rnd.Int63())
				model[k] = v
				require.NoError(t, tx.Put([]byte(k), []byte(v)))
			}
			return nil
		}))
	}
	check := func() {
		require.NoError(t, db.View(func(tx *Tx) error {
			require.EqualValues(t, len(model), tx.Root().Len())
			n := 0
			last := ""
			for k, v := range tx.Root().All() {
				n++
				require.Equal(t, model[string(k)], string(v))
				require.Less(t, last, string(k))
				last = string(k)
			}
			require.Equal(t, len(model), n)
			for k, v := range model {
				require.Equal(t, v, string(tx.Get([]byte(k))))
			}
			return nil
		}))
	}
	check()
	t.Logf("%+v", db.Stats())
	require.NoError(t, db.Close())
	db, err = Open(path, 0o600, nil)
	require.NoError(t, err)
	check()
	require.NoError(t, db.Close())
}
