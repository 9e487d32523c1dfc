module github.com/foliokv/folio/fuzz/powercut

go 1.26.0

replace github.com/foliokv/folio => ../..

require (
	github.com/foliokv/folio v0.0.0
	github.com/hanwen/go-fuse/v2 v2.12.1
	github.com/stretchr/testify v1.12.1
	golang.org/x/sys v0.50.0
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	go.yaml.in/yaml/v3 v3.0.6 // indirect
)
