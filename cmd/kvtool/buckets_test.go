package main

// buckets_test.go tests `kvtool buckets`.

import "testing"

func TestBuckets(t *testing.T) { runScripts(t, "buckets_") }
