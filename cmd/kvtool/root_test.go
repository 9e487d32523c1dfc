package main

// root_test.go tests what is the same for all commands: help, usage errors, exit codes.

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/foliokv/folio"
	"github.com/stretchr/testify/require"
)

func TestRoot(t *testing.T) { runScripts(t, "root_") }

func TestExitCode(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("open: %w", err) }
	for want, errs := range map[int][]error{
		exitOK:       {nil},
		exitNotFound: {notFoundf("no key"), wrap(notFoundf("no key"))},
		exitUsage:    {usageErrorf("bad"), wrap(usageErrorf("bad"))},
		exitDamage: {
			wrap(folio.ErrCorrupt), wrap(folio.ErrInvalid), wrap(folio.ErrPageFault), wrap(errDamaged),
			errors.Join(notFoundf("no key"), folio.ErrCorrupt),
		},
		exitFailure: {
			wrap(folio.ErrTimeout), wrap(folio.ErrVersionMismatch), wrap(fs.ErrPermission), errors.New("disk full"),
		},
	} {
		for _, err := range errs {
			require.Equal(t, want, exitCode(err), "%v", err)
		}
	}
}

func TestEveryCommandHasHelpAndExamples(t *testing.T) {
	root := newRootCmd(&app{})
	for _, cmd := range root.Commands() {
		if cmd.Name() == "help" {
			continue
		}
		require.NotEmpty(t, cmd.Short, cmd.Name())
		require.NotEmpty(t, cmd.Long, cmd.Name())
		require.NotEmpty(t, cmd.Example, cmd.Name())
		for line := range strings.SplitSeq(rootHelp+"\n"+cmd.Long, "\n") {
			require.LessOrEqual(t, len(line), 100, line)
		}
	}
}

// noRoom fails every write, as a full disk does.
type noRoom struct{}

func (noRoom) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestWriteFails(t *testing.T) {
	store := t.TempDir() + "/s.folio"
	mustKvtool(t, "", "put", "-b", "b", store, "k", "v")
	for _, args := range [][]string{
		{"get", "-b", "b", store, "k"}, {"get", "-b", "b", "--hex", store, "6b"}, {"get", "-b", "b", "--json", store, "k"},
		{"dump", store}, {"dump", "-p", store}, {"stat", store}, {"stat", "--json", store}, {"stat", "--buckets", store},
		{"buckets", store}, {"buckets", "--json", store}, {"check", store}, {"check", "--json", store},
	} {
		var errs strings.Builder
		code := run(args, streams{in: strings.NewReader(""), out: noRoom{}, err: &errs})
		require.Equal(t, exitFailure, code, "%v", args)
		require.Contains(t, errs.String(), "no space left", "%v", args)
	}
}

func TestLocked(t *testing.T) {
	store := t.TempDir() + "/s.folio"
	db, err := folio.Open(store, 0o600, &folio.Options{Exclusive: true})
	require.NoError(t, err)
	defer db.Close()
	for _, timeout := range []string{"0", "20ms"} {
		_, errs, code := kvtool("", "put", "--timeout", timeout, store, "k", "v")
		require.Equal(t, exitFailure, code)
		require.Contains(t, errs, "wait longer with --timeout")
	}
}
