#!/usr/bin/env bash
# Passes every test. Needs Go; with root, the tests on a small mounted file system run
# too, and with lmdb-utils and db5.3-util those against mdb_load and its kin.
#
#   ./test.sh          everything, in under 25 minutes
#   ./test.sh quick    formatting, vet and the tests once, without the race detector
#   ./test.sh crash    crash images, faults at every operation, kills (docs/crash-model.md)
#   ./test.sh seeded   the tests must catch each fault that is built into the engine
#   ./test.sh soak     all that is random with new seeds, until interrupted or failed
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p build

step() { printf '\n== %s\n' "$*"; }

check_format() {
	step gofmt
	local bad
	bad=$(gofmt -l .)
	[ -z "$bad" ] || { printf 'not formatted:\n%s\n' "$bad"; exit 1; }
}

# vet_for OS ARCH: the library and its tests compile there.
vet_for() { GOOS=$1 GOARCH=$2 CGO_ENABLED=0 go vet ./...; }

# fuzz_round PACKAGE SECONDS: each fuzz target of the package for so long.
fuzz_round() {
	local target log=build/fuzz.log
	for target in $(grep -ho 'func Fuzz[A-Za-z0-9_]*(f ' "$1"/*_test.go | sed 's/func //; s/(f //'); do
		echo "$1 $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$2s" "$1" >$log 2>&1 && { tail -2 $log; continue; }
		# The end of the time, when it meets a worker in the middle of an input, is now and
		# then reported as that input's failure. A real one names the file of the input.
		if grep -q 'context deadline exceeded' $log && ! grep -qE 'Failing input|panic|_test.go' $log; then
			echo "the time ended within an input"
			continue
		fi
		cat $log
		exit 1
	done
}

quick() {
	check_format
	step vet
	go vet ./...
	step tests
	go test ./...
}

# crash_round [IMAGES FAULTS KILLS]: the tests of docs/crash-model.md, with their counts.
crash_round() {
	step "crashes, faults, kills, readers"
	FOLIO_IMAGES=${1:-100000} FOLIO_FAULTS=${2:-6000} FOLIO_KILLS=${3:-500} go test -count=1 -v -timeout 30m \
		-run 'TestCrash|TestFaults|TestKill|TestReaders' ./fuzz >build/crash.log 2>&1 || { cat build/crash.log; exit 1; }
	grep -E '^(---|ok)|distinct|injected|kills' build/crash.log
}

seeded() {
	step "seeded faults"
	FOLIO_SEEDED_TABLE=1 go test -count=1 -v -timeout 60m -run TestSeededFaults ./fuzz >build/seeded.log 2>&1 || { cat build/seeded.log; exit 1; }
	grep -E 'caught' build/seeded.log | cut -c1-160
}

power_cuts() {
	step "power cuts"
	(cd fuzz/powercut && go vet ./... && FOLIO_CUTS=$1 go test -count=1 -timeout 0 ./...)
}

soak() {
	for ((round = 1; ; round++)); do
		step "round $round"
		go test -count=1 -timeout 0 -run 'TestModel|TestFreel|TestDamage' . -rapid.checks=2000
		crash_round 200000 20000 500
		power_cuts 500
		fuzz_round ./fuzz 60
		fuzz_round . 60
	done
}

full() {
	check_format
	step "vet, here and for other systems"
	go vet ./...
	go vet -tags folio_invariants ./...
	vet_for linux arm64
	vet_for darwin arm64
	vet_for freebsd amd64
	step staticcheck
	go build -C tools -o ../build/staticcheck honnef.co/go/tools/cmd/staticcheck
	build/staticcheck ./...
	step "tests, with the race detector and with invariants checked"
	FOLIO_IMAGES=1000 FOLIO_FAULTS=200 FOLIO_KILLS=20 go test -race -timeout 30m $(go list ./... | grep -v '^github.com/foliokv/folio$')
	go test -race -timeout 30m -tags folio_invariants . -rapid.checks=200
	step "tests, as they are built for use"
	go test -timeout 30m $(go list ./... | grep -v /fuzz$)
	go test -run 'Fuzz|SeededTable' ./fuzz
	crash_round
	seeded
	power_cuts 60
	step "a round of each fuzz target"
	fuzz_round ./fuzz 10
	fuzz_round . 5
	fuzz_round ./cmd/kvtool/internal/bucketpath 5
	step "bench module"
	(cd bench && go vet ./... && go test ./...)
}

case "${1:-full}" in
full) full ;;
quick) quick ;;
crash) crash_round ;;
seeded) seeded ;;
soak) soak ;;
*) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
