package main

// machine.go describes what a figure depends on besides the code.

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// machine is what the run was made on, and with.
type machine struct {
	cpu, memory, kernel, fileSystem, device, goVersion, date string
	versions                                                 []string // of the stores' modules
}

func describe(dir string, d *disk, stores []*engine) machine {
	m := machine{
		cpu:        fmt.Sprintf("%s (%d cores)", cpuModel(), runtime.NumCPU()),
		memory:     memory(),
		kernel:     kernel(),
		fileSystem: fileSystem(dir),
		device:     d.name,
		goVersion:  strings.TrimPrefix(runtime.Version(), "go"),
		date:       time.Now().Format(time.DateOnly),
	}
	if m.device == "" {
		m.device = "unknown"
	}
	versions := moduleVersions()
	for _, e := range stores {
		if version := versions[e.module]; version != "" {
			m.versions = append(m.versions, e.name+" "+version)
		}
	}
	return m
}

// moduleVersions returns the versions of the modules that this program is built from.
// A module that is built from its source here has none.
func moduleVersions() map[string]string {
	versions := map[string]string{}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return versions
	}
	for _, d := range info.Deps {
		if d.Replace == nil {
			versions[d.Path] = d.Version
		}
	}
	return versions
}
