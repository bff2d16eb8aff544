// Package statement makes what engines send to sources: names, passwords and
// verifiers, and the statements of a role with these in them, quoted for the
// dialect. Nothing here talks to a source.
//
// There is one file per dialect; engines whose protocol takes arguments need
// none.
package statement
