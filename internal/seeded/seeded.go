// Package seeded holds the faults that are built into the engine under the build tag
// folio_seeded, to test its tests: each must be caught (fuzz/seeded_test.go has the
// table). Without the tag Has is a constant false, and nothing of them is compiled in.
package seeded

// Fault names one seeded fault. With the tag, the environment variable FOLIO_SEEDED
// says which one is on.
type Fault string

// What is synced, and when.
const (
	SyncSkipped       Fault = "sync-skipped"       // a commit's sync does nothing
	PublishedEarly    Fault = "published-early"    // readers see a commit before its sync
	MetaFirst         Fault = "meta-first"         // the meta is written before the pages
	OnePhase          Fault = "one-phase"          // TwoPhase does without its first sync
	WaitSkipped       Fault = "wait-skipped"       // CommitAsync's wait does not sync
	TargetTooLate     Fault = "target-too-late"    // a sync claims what was committed while it ran
	SyncsBeside       Fault = "syncs-beside"       // two syncs may run at once
	CloseUnsynced     Fault = "close-unsynced"     // Close calls durable what it has not synced
	DurableSteps      Fault = "durable-steps-back" // the durable commit may become an older one
	FailureForgotten  Fault = "failure-forgotten"  // a failed sync leaves the store writable
	BornUnsynced      Fault = "born-unsynced"      // a new store gets its name before it is synced
	DirectoryUnsynced Fault = "directory-unsynced" // the name of a new store is not synced
	TruncatedEarly    Fault = "truncated-early"    // the end is cut off before the smaller store is durable
)

// What may be overwritten.
const (
	NothingPinned       Fault = "nothing-pinned"        // freed pages are reused at once
	DurableUnpinned     Fault = "durable-unpinned"      // the durable commit keeps no pages
	TargetUnpinned      Fault = "target-unpinned"       // a sync's target keeps no pages and no slot
	TargetChanged       Fault = "target-changed"        // a page that a sync's target has is changed at its place
	VersionsMixed       Fault = "versions-mixed"        // readers get the youngest version of a page in memory
	SpentEarly          Fault = "spent-early"           // the buffer of a page that was written is used again while readers have it
	ReadersUnpinned     Fault = "readers-unpinned"      // readers keep no pages
	DurableSlotReused   Fault = "durable-slot-reused"   // the durable commit's meta is overwritten
	RecordsDroppedEarly Fault = "records-dropped-early" // freelog records go that a proof still needs
)

// What is forgotten.
const (
	RollbackLeaks     Fault = "rollback-leaks"      // spilled pages of a rollback stay taken
	FailedCommitLeaks Fault = "failed-commit-leaks" // places of a commit that failed stay taken
	FreedForgotten    Fault = "freed-forgotten"     // a commit does not record what it freed
	UndoKeepsFreed    Fault = "undo-keeps-freed"    // an undone nested transaction frees pages all the same
	FailedMetaStays   Fault = "failed-meta-stays"   // the meta of a commit that failed is not wiped
)

// What a recovery does.
const (
	ProofSkipped     Fault = "proof-skipped"      // the newest whole meta is believed
	ParentSumIgnored Fault = "parent-sum-ignored" // a page proves itself: number, commit and own sum
	RunsUnproven     Fault = "runs-unproven"      // runs are not part of the proof
	BucketsUnproven  Fault = "buckets-unproven"   // nested buckets are not
	TornMetaBelieved Fault = "torn-meta-believed" // a meta's sum is not looked at
	RecoveryUnsynced Fault = "recovery-unsynced"  // what a killed process left is called durable unsynced
	DurableStale     Fault = "durable-stale"      // the durable commit is the one that the meta knew
	RejectedStay     Fault = "rejected-stay"      // refuted metas are left
	SilentStepBack   Fault = "silent-step-back"   // a durable commit that is gone is passed over
)

// What the redo log does.
const (
	GapIgnored          Fault = "gap-ignored"           // a commit is logged after one that has no record, and a replay goes past it
	LogCoverIgnored     Fault = "log-cover-ignored"     // a sync covers its own record and not those before it
	SegmentReusedEarly  Fault = "segment-reused-early"  // a segment is written again before the durable commit has passed it
	SegmentUsedEarly    Fault = "segment-used-early"    // a new segment is written before the durable commit has it
	CheckpointUnsynced  Fault = "checkpoint-unsynced"   // a checkpoint's target is called durable before its sync
	FailedRecordStays   Fault = "failed-record-stays"   // the record of a commit that failed is not wiped
	RunsUnpinned        Fault = "runs-unpinned"         // runs that records name do not wait for the durable commit
	RunsUnreserved      Fault = "runs-unreserved"       // a replay may write over the runs that records name
	RunsUnsynced        Fault = "runs-unsynced"         // runs that records name are not synced with them
	RecordRunsUnchecked Fault = "record-runs-unchecked" // nor looked at before a replay
	BlockCleared        Fault = "block-cleared"         // a record takes those before it in its block with it
	TornRecordAccepted  Fault = "torn-record-accepted"  // a record's sum is not looked at
	ChainIgnored        Fault = "chain-ignored"         // nor that of the record before it
	SaltKept            Fault = "salt-kept"             // a recovery goes on with the log's salt
	SaltIgnored         Fault = "salt-ignored"          // a record of another salt is read
	RecordTwice         Fault = "record-twice"          // each record is replayed twice
	ReplayUnsynced      Fault = "replay-unsynced"       // what a replay made is called durable unsynced

	NonceLeftOut         Fault = "nonce-left-out"         // the first record after an open is like any other
	CutIgnored           Fault = "cut-ignored"            // the log goes on where a record was cut short
	ReplayDurable        Fault = "replay-durable"         // what a replay keeps in memory is called durable with its pages
	ReplayedSegmentsFree Fault = "replayed-segments-free" // segments with replayed records may be written again at once
	ReplayedRunsUnpinned Fault = "replayed-runs-unpinned" // runs that only replayed records name do not wait for the durable commit
	FreelogFromCache     Fault = "freelog-from-cache"     // new freelog pages are believed that the disk may not have
	RunsFromCache        Fault = "runs-from-cache"        // and so are runs that records name
	ReplayMisplaced      Fault = "replay-misplaced"       // after a replay the next record goes where the first one is
)
