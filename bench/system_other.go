//go:build !linux

package main

// system_other.go stands in for system_linux.go elsewhere.

import (
	"os"
	"runtime"
)

func datasync(f *os.File) error    { return f.Sync() }
func fileSystem(dir string) string { return "unknown" }
func kernel() string               { return runtime.GOOS }
func cpuModel() string             { return "unknown " + runtime.GOARCH }
