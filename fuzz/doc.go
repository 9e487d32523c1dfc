// Package fuzz holds the tests that try to break a store: crashes at every instant with
// any part of what was not synced on the disk, crashes of the recovery, kills, power
// cuts, faults of every operation, readers beside it all, and arbitrary input.
// docs/crash-model.md says what is promised and which test shows it.
//
// The order of reading: record.go records a run, disk.go makes from the record what a
// disk may hold, model_test.go and script_test.go say what a run does and what the
// store should hold, crash_test.go puts them together.
package fuzz
