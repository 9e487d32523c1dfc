package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/foliokv/folio"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files anew")

// testStore indexes testdata/src and returns the path of the store.
func testStore(t *testing.T) string {
	t.Helper()
	store := filepath.Join(t.TempDir(), "index.folio")
	require.NoError(t, run([]string{"index", store, "testdata/src"}, t.Output()))
	return store
}

func TestGolden(t *testing.T) {
	store := testStore(t)
	for name, args := range map[string][]string{
		"word":         {"word", store, "Cat"},
		"word-limit":   {"word", "-n", "2", store, "Lion"},
		"word-absent":  {"word", store, "Cactus"},
		"word-part":    {"word", store, "Anim"},
		"prefix":       {"prefix", store, "An"},
		"prefix-all":   {"prefix", "-n", "3", store, ""},
		"file":         {"file", store, "zoo/lion.go"},
		"directory":    {"file", store, "zoo/"},
		"index-report": {"index", filepath.Join(t.TempDir(), "other"), "testdata/src"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			require.NoError(t, run(args, &out))
			golden := filepath.Join("testdata", "golden", name)
			if *update {
				require.NoError(t, os.WriteFile(golden, out.Bytes(), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), out.String())
		})
	}
}

// The store is sound, also after it was filled again in place of what it held.
func TestIndexIsSound(t *testing.T) {
	store := testStore(t)
	require.NoError(t, run([]string{"index", store, "testdata/src"}, t.Output()))
	db, err := folio.Open(store, 0, nil)
	require.NoError(t, err)
	defer db.Close()
	require.Empty(t, slices.Collect(db.Check(t.Context())))
	require.NoError(t, db.View(func(tx *folio.Tx) error {
		require.EqualValues(t, 4, tx.Bucket(filesBucket).Len())
		return nil
	}))
}

func TestErrors(t *testing.T) {
	store := testStore(t)
	require.ErrorContains(t, run([]string{"file", store, "zoo/tiger.go"}, t.Output()), "zoo/tiger.go")
	require.ErrorIs(t, run([]string{"file", store}, t.Output()), errUsage)
	require.ErrorIs(t, run([]string{"sing", store, "la"}, t.Output()), errUsage)
	require.ErrorIs(t, run(nil, t.Output()), errUsage)

	empty := filepath.Join(t.TempDir(), "empty.folio")
	db, err := folio.Open(empty, 0o644, nil)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	require.ErrorContains(t, run([]string{"word", empty, "Cat"}, t.Output()), "no whole index")
	require.Error(t, run([]string{"index", store, "testdata/nothing"}, t.Output()))
}

func TestLinesCoding(t *testing.T) {
	for _, lines := range [][]int{nil, {1}, {1, 2, 300, 70000}} {
		got, err := decodeLines(encodeLines(lines))
		require.NoError(t, err)
		require.Equal(t, lines, got)
	}
	_, err := decodeLines([]byte{0x80})
	require.Error(t, err)
}

func TestWords(t *testing.T) {
	text := "One two\none_3 x Zürich\n" + strings.Repeat("y", maxWord+1) + " two two"
	require.Equal(t, wordLines{
		{"text", "One"}:    {1},
		{"text", "two"}:    {1, 3},
		{"text", "one_3"}:  {2},
		{"text", "Zürich"}: {2},
	}, wordsOf("notes.txt", []byte(text)))
}
