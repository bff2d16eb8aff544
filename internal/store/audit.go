package store

import "encoding/binary"

// auditMessage names the layout of [AuditMessage]; another layout gets another name.
const auditMessage = "scaivault audit entry v1"

// AuditMessage is what the chain's MAC covers for a row: MAC = chain(previous MAC, AuditMessage).
// It binds the entry's bytes to its place, so that a row copied to another node's chain, another
// number or another tenant does not verify:
//
//	"scaivault audit entry v1" | u32 len(node) | node | u64 seq | u32 len(tenant) | tenant | raw
//
// Numbers are big endian. Raw comes last and needs no length. Before the first entry of a chain
// the previous MAC is empty.
func AuditMessage(row *AuditRow) []byte {
	m := make([]byte, 0, len(auditMessage)+16+len(row.Node)+len(row.Tenant)+len(row.Raw))
	m = append(m, auditMessage...)
	m = binary.BigEndian.AppendUint32(m, uint32(len(row.Node)))
	m = append(m, row.Node...)
	m = binary.BigEndian.AppendUint64(m, uint64(row.Seq))
	m = binary.BigEndian.AppendUint32(m, uint32(len(row.Tenant)))
	m = append(m, row.Tenant...)
	return append(m, row.Raw...)
}
