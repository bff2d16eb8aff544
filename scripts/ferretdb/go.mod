// The FerretDB that the tests of the engine for MongoDB run against: see
// scripts/install-ferretdb.sh.
module github.com/scaivault/scaivault/scripts/ferretdb

go 1.26.0

require github.com/FerretDB/FerretDB v1.24.0
