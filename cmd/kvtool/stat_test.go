package main

// stat_test.go tests `kvtool stat`.

import "testing"

func TestStat(t *testing.T) { runScripts(t, "stat_") }
