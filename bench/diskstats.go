package main

// diskstats.go reads how much a device wrote out of the text of /proc/diskstats.

import (
	"strconv"
	"strings"
)

const (
	diskstatsMajor   = 0
	diskstatsMinor   = 1
	diskstatsSectors = 9   // written
	sectorBytes      = 512 // in diskstats, whatever the device has
)

// writtenBytesIn returns the bytes written to a device, false where the text has no
// whole line for it.
func writtenBytesIn(text string, major, minor uint32) (int64, bool) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) <= diskstatsSectors || !isNumber(fields[diskstatsMajor], major) || !isNumber(fields[diskstatsMinor], minor) {
			continue
		}
		sectors, err := strconv.ParseInt(fields[diskstatsSectors], 10, 64)
		if err != nil || sectors < 0 {
			return 0, false
		}
		return sectors * sectorBytes, true
	}
	return 0, false
}

func isNumber(field string, n uint32) bool {
	got, err := strconv.ParseUint(field, 10, 32)
	return err == nil && uint32(got) == n
}
