package main

import (
	"strings"
	"testing"
	"time"
)

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		xs   []float64
		want spread
	}{
		{[]float64{7}, spread{7, 7, 7}},
		{[]float64{3, 1, 2}, spread{2, 1, 3}},
		{[]float64{4, 1, 2, 3}, spread{2.5, 1, 4}},
	} {
		if got := spreadOf(test.xs); got != test.want {
			t.Errorf("%v: got %v, want %v", test.xs, got, test.want)
		}
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(100 - i)
	}
	for _, test := range []struct {
		latencies []time.Duration
		p         float64
		want      time.Duration
	}{
		{nil, 50, 0},
		{[]time.Duration{5}, 50, 5},
		{[]time.Duration{5}, 99, 5},
		{[]time.Duration{3, 1, 2}, 50, 2},
		{[]time.Duration{4, 3, 1, 2}, 50, 2},
		{[]time.Duration{3, 1, 2}, 0, 1},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 100, 100},
	} {
		if got := percentile(test.latencies, test.p); got != test.want {
			t.Errorf("%d latencies, %v: got %d, want %d", len(test.latencies), test.p, got, test.want)
		}
	}
}

// TestRatio sees that figures of the same round are divided, not medians.
func TestRatio(t *testing.T) {
	f := figures{
		"folio": {{"x": 10}, {"x": 40}, {"x": 90}},
		"peer":  {{"x": 10}, {"x": 10}, {"x": 30}},
		"gaps":  {{}, {"x": 0}, {"x": 45}},
		"none":  nil,
	}
	for _, test := range []struct {
		contender, other string
		want             spread
		ok               bool
	}{
		{"folio", "peer", spread{3, 1, 4}, true},
		{"peer", "folio", spread{1. / 3, 0.25, 1}, true},
		{"folio", "gaps", spread{2, 2, 2}, true},
		{"folio", "none", spread{}, false},
	} {
		if got, ok := f.ratio(test.contender, test.other, "x"); got != test.want || ok != test.ok {
			t.Errorf("%s / %s: got %v, %v, want %v, %v", test.contender, test.other, got, ok, test.want, test.ok)
		}
	}
	if _, ok := f.ratio("folio", "peer", "y"); ok {
		t.Error("a ratio of a metric that nobody has")
	}
	if got, _ := f.advantage("peer", metric{name: "x", moreWins: true}); got.median != 3 {
		t.Errorf("advantage where more wins: %v", got)
	}
	if got, _ := f.advantage("peer", metric{name: "x"}); got.median != 1./3 {
		t.Errorf("advantage where less wins: %v", got)
	}
}

func TestWrittenBytes(t *testing.T) {
	const text = `   7       0 loop0 1 2 3 4 5 6 7 8 9 10 11
 254       0 vda 1541823 229088 96854818 625056 11483594 280869 446350840 13673755 0 983232 14838833 545036 14 298655960 186004 746577 354017
 254       1 vda1 1 1 1 1 1 1 2 1 1 1 1
 253       0 zram0 0 0 0 0 0 0 0 0 0 0 0
 259       0 short 1 2 3
 259       1 words 1 2 3 4 5 6 many 8 9 10 11
`
	for _, test := range []struct {
		major, minor uint32
		want         int64
		ok           bool
	}{
		{7, 0, 7 * 512, true},
		{254, 0, 446350840 * 512, true},
		{254, 1, 2 * 512, true},
		{253, 0, 0, true},
		{259, 0, 0, false},
		{259, 1, 0, false},
		{8, 0, 0, false},
		{25, 4, 0, false},
	} {
		if got, ok := writtenBytesIn(text, test.major, test.minor); got != test.want || ok != test.ok {
			t.Errorf("%d:%d: got %d, %v, want %d, %v", test.major, test.minor, got, ok, test.want, test.ok)
		}
	}
	if _, ok := writtenBytesIn("", 7, 0); ok {
		t.Error("an empty text has a device")
	}
}

// TestDisk sees that the device of a directory counts what is written to it.
func TestDisk(t *testing.T) {
	d, err := diskOf(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.sync(); err != nil {
		t.Fatal(err)
	}
	if _, known := d.writtenBytes(); !known {
		t.Skip("the file system tells of no device here")
	}
	b := bench{dir: t.TempDir(), disk: d}
	s, err := b.bareTurn(100)
	if err != nil {
		t.Fatal(err)
	}
	if s[deviceInRun] < barePageBytes {
		t.Errorf("a synced write of %d bytes wrote %.0f to the device", barePageBytes, s[deviceInRun])
	}
}

func TestFormat(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{duration(12.34), "12.3 ns"},
		{duration(9_999), "9999 ns"},
		{duration(12_340), "12.3 µs"},
		{duration(1_234_000), "1.23 ms"},
		{count(7), "7"},
		{count(999), "999"},
		{count(1_000), "1,000"},
		{count(1_234_567.8), "1,234,568"},
		{factor(0.123), "0.12"},
		{factor(12.34), "12.3"},
		{size(3 << 20), "3.0 MiB"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

// TestTables sees the figures at their places: medians, ratios, and what is unknown.
func TestTables(t *testing.T) {
	w := &workload{
		name: "w", title: "W", stores: true, bare: true,
		metrics: []metric{
			{name: "rate", moreWins: true, format: count, compare: true, headline: true},
			{name: "time", format: duration, compare: true, yardstick: true},
			{name: "bytes", format: count},
		},
	}
	stores := []*engine{{name: "folio"}, {name: "peer"}}
	r := newReport(config{}, machine{}, []*workload{w}, stores)
	x := r.results[0]
	x.figures = figures{
		"bare":  {{"time": 10}, {"time": 10}},
		"folio": {{"rate": 2000, "time": 20, "bytes": 5}, {"rate": 3000, "time": 40, "bytes": 5}},
		"peer":  {{"rate": 1000, "time": 40}, {"rate": 1000, "time": 20}},
	}
	checkTable(t, x.values(), `store|rate|time|time / bare's|bytes
bare|-|10.0 ns|1.00|-
folio|2,500 (2,000..3,000)|30.0 ns (20.0 ns..40.0 ns)|3.00 (2.00..4.00)|5
peer|1,000|30.0 ns (20.0 ns..40.0 ns)|3.00 (2.00..4.00)|-`)
	checkTable(t, x.ratios(), `folio / peer|rate (> 1: folio better)|time (< 1: folio better)
peer|2.50 (2.00..3.00)|1.25 (0.50..2.00)`)
	checkTable(t, r.summary(), `workload|peer
w: rate|2.50 (2.00..3.00)`)
	delete(x.figures, "folio")
	if x.ratios() != nil || r.summary() != nil {
		t.Error("ratios without folio")
	}
}

func checkTable(t *testing.T, got table, want string) {
	t.Helper()
	var rows []string
	for _, row := range got {
		rows = append(rows, strings.Join(row, "|"))
	}
	if text := strings.Join(rows, "\n"); text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}
