package fuzz

// seeded_test.go tests the tests: the engine is built with faults in it, one is switched
// on at a time, and the suite must catch each.

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foliokv/folio/internal/seeded"
	"github.com/stretchr/testify/require"
)

// Where the tests of the table are, as binaries built with the faults.
const (
	inFuzz = "."
	inRoot = ".."
)

// seededFaults says which test catches which fault; most are caught by others too. The
// comment of a fault in internal/seeded says what it does. The switches of the model of
// the commit rules that apply so far are named.
var seededFaults = []struct {
	fault seeded.Fault
	in    string
	test  string
}{
	{seeded.SyncSkipped, inFuzz, "TestCrash/cases/full"},
	{seeded.PublishedEarly, inFuzz, "TestFaults/cases/full"},
	{seeded.MetaFirst, inFuzz, "TestCrash/cases/two_phase"},
	{seeded.OnePhase, inFuzz, "TestCrash/cases/two_phase"},
	{seeded.WaitSkipped, inFuzz, "TestCrash/cases/full"},
	{seeded.TargetTooLate, inFuzz, "TestCrash/cases/interval"},
	{seeded.SyncsBeside, inRoot, "TestFailedSyncBesideACommit"},
	{seeded.CloseUnsynced, inFuzz, "TestCrash/cases/off"},
	{seeded.DurableSteps, inFuzz, "TestCrash/cases/off"}, // monoD
	{seeded.FailureForgotten, inFuzz, "TestFaults/cases/full"},
	{seeded.BornUnsynced, inFuzz, "TestCrashOfCreation"},
	{seeded.DirectoryUnsynced, inFuzz, "TestCrashOfCreation"},
	{seeded.TruncatedEarly, inFuzz, "TestCrash/cases/shrinking,_off"},

	{seeded.NothingPinned, inFuzz, "TestCrash/cases/full"},
	{seeded.DurableUnpinned, inFuzz, "TestCrash/cases/off"},
	{seeded.TargetUnpinned, inFuzz, "TestCrash/cases/interval"}, // pinC
	{seeded.TargetChanged, inRoot, "TestChangedInPlace"},        // newer
	{seeded.SpentEarly, inRoot, "TestChangedInPlace"},
	{seeded.VersionsMixed, inRoot, "TestChangedInPlace"},
	{seeded.ReadersUnpinned, inFuzz, "TestReadersUnderFire/off"},
	{seeded.DurableSlotReused, inFuzz, "TestCrash/cases/off"},
	{seeded.RecordsDroppedEarly, inRoot, "TestFreelogListsWhatIsToBeProven"},

	{seeded.RollbackLeaks, inFuzz, "TestCrash/cases/spilling"},
	{seeded.FailedCommitLeaks, inFuzz, "TestFaults/cases/full"},
	{seeded.FreedForgotten, inFuzz, "TestCrash/cases/full"},
	{seeded.UndoKeepsFreed, inFuzz, "TestCrash/cases/full"},
	{seeded.FailedMetaStays, inFuzz, "TestFaults/cases/full"},

	{seeded.ProofSkipped, inFuzz, "TestCrash/cases/full"},
	{seeded.ParentSumIgnored, inFuzz, "TestCrash/cases/full"}, // proof = txid
	{seeded.RunsUnproven, inFuzz, "TestCrash/cases/full"},
	{seeded.BucketsUnproven, inFuzz, "TestCrash/cases/full"},
	{seeded.TornMetaBelieved, inRoot, "TestMetaOfAWrongSum"},
	{seeded.RecoveryUnsynced, inFuzz, "TestCrash/cases/off"}, // D_open = proven
	{seeded.DurableStale, inFuzz, "TestCrash/cases/off"},     // D_open = stale
	{seeded.RejectedStay, inRoot, "TestMetaOfAWrongSum"},
	{seeded.SilentStepBack, inRoot, "TestLostDurableCommitIsDamage"},

	{seeded.GapIgnored, inFuzz, "TestCrash/cases/logged,_wrapping"},
	{seeded.LogCoverIgnored, inFuzz, "TestCrash/cases/logged,_wrapping"},
	{seeded.SegmentReusedEarly, inFuzz, "TestCrash/cases/logged,_filling"},
	{seeded.SegmentUsedEarly, inRoot, "TestLogGrowsAhead"},
	{seeded.CheckpointUnsynced, inRoot, "TestCheckpointCountsAfterItsSync"},
	{seeded.FailedRecordStays, inFuzz, "TestFaults/cases/logged"},
	{seeded.RunsUnpinned, inFuzz, "TestCrash/cases/logged,_wrapping"},
	{seeded.RunsUnreserved, inFuzz, "TestCrash/cases/logged,_wrapping"},
	{seeded.RunsUnsynced, inFuzz, "TestCrash/cases/logged,_wrapping"},
	{seeded.RecordRunsUnchecked, inFuzz, "TestCrash/cases/logged,_wrapping"},
	{seeded.BlockCleared, inFuzz, "TestCrash/cases/logged,_wrapping"},
	{seeded.TornRecordAccepted, inFuzz, "TestCrash/cases/logged"},
	{seeded.ChainIgnored, inFuzz, "TestLostRecordsStayLost"},
	{seeded.SaltKept, inFuzz, "TestRecoveryBeginsTheLogAnew"},
	{seeded.SaltIgnored, inFuzz, "TestWhichRecordsCount/another_salt"},
	{seeded.RecordTwice, inFuzz, "TestCrash/cases/logged"},
	{seeded.ReplayUnsynced, inFuzz, "TestCrash/cases/logged"},

	{seeded.NonceLeftOut, inFuzz, "TestLostRecordsStayLost"}, // nonce
	{seeded.CutIgnored, inFuzz, "TestRecoveryBeginsTheLogAnew"},
	{seeded.ReplayDurable, inFuzz, "TestCrash/cases/logged"},
	{seeded.ReplayedSegmentsFree, inRoot, "TestReplayedRecordsStay"},
	{seeded.ReplayedRunsUnpinned, inRoot, "TestReplayedRunsStay"}, // keepruns
	{seeded.FreelogFromCache, inRoot, "TestRecoveryBelievesTheDisk"},
	{seeded.RunsFromCache, inRoot, "TestRecoveryBelievesTheDisk"},
	{seeded.ReplayMisplaced, inFuzz, "TestCrash/cases/logged"},
}

// TestSeededFaults runs the table. It takes minutes, so it wants FOLIO_SEEDED_TABLE.
func TestSeededFaults(t *testing.T) {
	if os.Getenv("FOLIO_SEEDED_TABLE") == "" {
		t.Skip("set FOLIO_SEEDED_TABLE=1 to run the table of seeded faults")
	}
	dir := t.TempDir()
	build := func(pkg string, binary string) string {
		binary = filepath.Join(dir, binary)
		out, err := exec.Command("go", "test", "-c", "-tags", "folio_seeded", "-o", binary, pkg).CombinedOutput()
		require.NoError(t, err, string(out))
		return binary
	}
	binaries := map[string]string{inFuzz: build(".", "fuzz.test"), inRoot: build("..", "folio.test")}
	t.Run("none", func(t *testing.T) {
		for _, in := range []string{inFuzz, inRoot} {
			out, failed := runSeeded(t, "none", in, binaries[in], "TestCrash|TestFaults|TestMetaOf|TestLostDurable|TestFailedSync", 500)
			require.False(t, failed, "with no fault on the tests must pass:\n%s", out)
		}
	})
	var ncaught atomic.Int32
	t.Run("faults", func(t *testing.T) {
		for _, s := range seededFaults {
			t.Run(string(s.fault), func(t *testing.T) {
				t.Parallel()
				start := time.Now()
				out, failed := runSeeded(t, s.fault, s.in, binaries[s.in], "^"+s.test+"$", 400_000)
				require.True(t, failed, "not caught by %s:\n%s", s.test, out)
				ncaught.Add(1)
				t.Logf("caught by %s in %.1f s: %s", s.test, time.Since(start).Seconds(), verdict(out))
			})
		}
	})
	t.Logf("%d of %d seeded faults caught", ncaught.Load(), len(seededFaults))
}

// runSeeded runs a test with a fault switched on, for at most so many crash images.
func runSeeded(t *testing.T, f seeded.Fault, in, binary, test string, nimages int) (out string, failed bool) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run", strings.ReplaceAll(test, "/", "$/^"), "-rapid.nofailfile", "-rapid.shrinktime", "100ms")
	cmd.Dir = in
	cmd.Env = append(os.Environ(), "FOLIO_SEEDED="+string(f), "FOLIO_IMAGES="+fmt.Sprint(nimages), "FOLIO_FAULTS="+fmt.Sprint(nimages/30), "FOLIO_SEEDED_TABLE=")
	b, err := cmd.CombinedOutput()
	require.NoError(t, ctx.Err(), "it hangs:\n%s", b)
	return string(b), err != nil
}

var verdictLine = regexp.MustCompile(`(?m)^.*(failed after|Error:|violation|panic).*$`)

// verdict returns the line of a test's output that says what was wrong.
func verdict(out string) string {
	line := strings.TrimSpace(verdictLine.FindString(out))
	return line[:min(len(line), 240)]
}

// TestSeededTableIsWhole checks that every fault that there is has its row.
func TestSeededTableIsWhole(t *testing.T) {
	source, err := os.ReadFile("../internal/seeded/seeded.go")
	require.NoError(t, err)
	rows := map[string]bool{}
	for _, s := range seededFaults {
		rows[string(s.fault)] = true
	}
	for _, m := range regexp.MustCompile(`Fault += "([a-z-]+)"`).FindAllStringSubmatch(string(source), -1) {
		require.True(t, rows[m[1]], "%s has no row in the table", m[1])
		delete(rows, m[1])
	}
	require.Empty(t, rows)
}
