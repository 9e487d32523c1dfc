package main

// main_test.go runs the scripts in testdata/script, and has what all tests of the
// commands share. `go test -run 'TestGet/get_hex'` runs one script.

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kvtool": main})
}

// runScripts runs the scripts whose names begin with prefix.
//
// Beside the usual commands they have:
//
//	exits CODE COMMAND ...   run a command that must end with this exit code
//	snapshot DIR FILE        list all in DIR, with times and sums, into FILE
//	patch FILE OFFSET TEXT   overwrite bytes of a file, from its end if OFFSET < 0
//	cut FILE SIZE            truncate a file
func runScripts(t *testing.T, prefix string) {
	files, err := filepath.Glob(filepath.Join("testdata", "script", prefix+"*.txtar"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	testscript.Run(t, testscript.Params{
		Files: files,
		Setup: func(e *testscript.Env) error {
			// A process with the race detector else sleeps for a second at its end.
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "snapshot": snapshot, "patch": patch, "cut": cut,
		},
	})
}

func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d\n%s", code, want, ts.ReadFile("stderr"))
	}
}

func snapshot(ts *testscript.TestScript, _ bool, args []string) {
	var out strings.Builder
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		var sum [32]byte
		if st.Mode().IsRegular() {
			sum = sha256.Sum256([]byte(ts.ReadFile(path)))
		}
		fmt.Fprintln(&out, path, st.Mode(), st.Size(), st.ModTime().UnixNano(), fmt.Sprintf("%x", sum))
		return nil
	}))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(out.String()), 0o600))
}

func patch(ts *testscript.TestScript, _ bool, args []string) {
	b := []byte(ts.ReadFile(args[0]))
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	if at < 0 {
		at += len(b)
	}
	copy(b[at:], args[2])
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

func cut(ts *testscript.TestScript, _ bool, args []string) {
	size, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), size))
}

// kvtool runs one command line in this process.
func kvtool(stdin string, args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = run(args, streams{in: strings.NewReader(stdin), out: &out, err: &errs})
	return out.String(), errs.String(), code
}

// mustKvtool runs one command line that must succeed.
func mustKvtool(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, errs, code := kvtool(stdin, args...)
	require.Zero(t, code, "kvtool %v: %s", args, errs)
	return out
}
