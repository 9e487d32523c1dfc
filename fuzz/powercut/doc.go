// Package powercut cuts the power under a real program: the unmodified binary runs on a
// small file system of ours, whose disk holds after the cut what was synced and any part
// of the rest.
//
// The other crash tests record a run at a seam inside the store (internal/mmap's Hook)
// and make images from the record. They can't see what goes past the seam, and trust the
// record to say what a sync covers. Here the kernel is the seam: the program's system
// calls and its mapping reach the disk through FUSE, and there is no other way to it. A
// write that bypassed the Hook, a sync that was forgotten or came too early, a name whose
// directory was never synced: all of that shows here.
//
// The disk (disk.go) is a model in memory; fs_linux.go shows it to the kernel. It lives
// in a process of its own (machine_linux.go). A fault in a mapping stops a thread in the
// kernel without the Go runtime's knowledge, so a process that maps a file of its own
// FUSE server could wait for itself.
//
// A kill alone loses nothing, and makes nothing durable either. So the writer is killed
// too, now and then, and the power cut under the next one.
//
// It is a module of its own, so that Folio does not depend on a FUSE library. It runs on
// Linux, as root or in a user namespace of one's own, and is skipped elsewhere:
//
//	go test -C fuzz/powercut
//	unshare -Urm go test -C fuzz/powercut
//
// FOLIO_CUTS says how many cuts TestPowerCut makes, FOLIO_SEED which: instants are counted
// in changes of the disk, not in time. (The writer's own goroutines may still differ where
// it syncs beside its commits.)
package powercut
