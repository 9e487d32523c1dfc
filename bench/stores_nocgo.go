//go:build !cgo

package main

// stores_nocgo.go stands in for the stores that are written in C where there is no cgo.

var cgoEngines []*engine

// withoutCgo is what a message about an unknown store adds.
const withoutCgo = " (lmdb, mdbx and sqlite need cgo, which is off)"
