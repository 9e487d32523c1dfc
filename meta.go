package folio

// meta.go is the meta page: what a commit says of the whole store. There are four
// slots; docs/format.md has the layout as a table.

import (
	"encoding/binary"
	"fmt"
)

// Offsets of a meta page's fields, after the page header.
const (
	offMagic    = headerSize                                 // 8 bytes
	offVersion  = offMagic + 8                               // u32
	offPageSize = offVersion + 4                             // u32 bytes
	offFeatures = offPageSize + 4                            // u64 bits that a reader must understand
	offUUID     = offFeatures + 8                            // 16 bytes
	offDurable  = offUUID + 16                               // u64 the txid known durable when this was written
	offNPages   = offDurable + 8                             // u64 high-water mark: pages from here on do not exist
	offRoot     = offNPages + 8                              // record of the root bucket
	offNextTree = offRoot + recordSize                       // u64 the largest bucket id given out
	offLogSeg   = offNextTree + 8                            // u32 the redo log's segment where the next record goes
	offLogSect  = offLogSeg + 4                              // u32 its sector there
	offLogSum   = offLogSect + 4                             // u64 sum of the record before it, or the salt
	offLogSalt  = offLogSum + 8                              // u64 where the chain of sums starts
	offLogSegs  = offLogSalt + 8                             // segments: first page u64, pages u32; 0 from the last on
	offFreeHead = offLogSegs + maxLogSegments*logSegmentSize // u64 newest freelog page, 0 for none
	offFreeSum  = offFreeHead + 8                            // u64 its sum
	offFreeOld  = offFreeSum + 8                             // u64 oldest freelog page
	offFreeFrom = offFreeOld + 8                             // u64 freelog page where reading begins, 0: at the tail
	offFreeLen  = offFreeFrom + 8                            // u32 freelog pages
	offTailLen  = offFreeLen + 4                             // u32 bytes of the tail
	offTail     = offTailLen + 4                             // the newest freelog entries

	logSegmentSize = 12

	flagClean = 1 << 0 // page flag of a meta that changes nothing

	formatVersion = 3
	magic         = "FOLIO\r\n\x1a"
)

// meta is a decoded meta page.
type meta struct {
	txid     txid
	durable  txid // the commit known durable when this was written
	clean    bool // it changes nothing: it says that the commit before it is durable
	psize    int
	uuid     [16]byte
	npages   uint64
	root     record
	nextTree uint64
	log      logState
	free     freelogState
}

// tailCap returns the bytes that a meta page has for the freelog's tail.
func tailCap(psize int) int { return psize - offTail }

// encode fills p, a whole page, with the meta for the given slot.
func (m *meta) encode(p page, slot int) {
	clear(p)
	p.init(kindMeta, 0, 0)
	copy(p[offMagic:], magic)
	binary.LittleEndian.PutUint32(p[offVersion:], formatVersion)
	binary.LittleEndian.PutUint32(p[offPageSize:], uint32(m.psize))
	copy(p[offUUID:], m.uuid[:])
	binary.LittleEndian.PutUint64(p[offDurable:], uint64(m.durable))
	binary.LittleEndian.PutUint64(p[offNPages:], m.npages)
	putRecord(p[offRoot:], m.root)
	binary.LittleEndian.PutUint64(p[offNextTree:], m.nextTree)
	m.log.encode(p)
	binary.LittleEndian.PutUint64(p[offFreeHead:], uint64(m.free.head))
	binary.LittleEndian.PutUint64(p[offFreeSum:], m.free.headSum)
	binary.LittleEndian.PutUint64(p[offFreeOld:], uint64(m.free.oldest))
	binary.LittleEndian.PutUint64(p[offFreeFrom:], uint64(m.free.start))
	binary.LittleEndian.PutUint32(p[offFreeLen:], m.free.chainLen)
	binary.LittleEndian.PutUint32(p[offTailLen:], uint32(len(m.free.tail)))
	copy(p[offTail:], m.free.tail)
	p.setLower(offTail + len(m.free.tail))
	if m.clean {
		p.setFlags(flagClean)
	}
	p.seal(pgno(slot), m.txid)
}

// encode writes what a meta says of the redo log.
func (l *logState) encode(p page) {
	binary.LittleEndian.PutUint32(p[offLogSeg:], uint32(l.next.segment))
	binary.LittleEndian.PutUint32(p[offLogSect:], l.next.sector)
	binary.LittleEndian.PutUint64(p[offLogSum:], l.sum)
	binary.LittleEndian.PutUint64(p[offLogSalt:], l.salt)
	for i, e := range l.segments {
		at := p[offLogSegs+i*logSegmentSize:]
		binary.LittleEndian.PutUint64(at, uint64(e.start))
		binary.LittleEndian.PutUint32(at[8:], uint32(e.npages))
	}
}

// decode reads what encode wrote; ok is false where there is something behind the last
// segment.
func (l *logState) decode(p page) (ok bool) {
	l.next.segment = int(binary.LittleEndian.Uint32(p[offLogSeg:]))
	l.next.sector = binary.LittleEndian.Uint32(p[offLogSect:])
	l.sum = binary.LittleEndian.Uint64(p[offLogSum:])
	l.salt = binary.LittleEndian.Uint64(p[offLogSalt:])
	for i := range maxLogSegments {
		at := p[offLogSegs+i*logSegmentSize:]
		e := extent{pgno(binary.LittleEndian.Uint64(at)), uint64(binary.LittleEndian.Uint32(at[8:]))}
		if e == (extent{}) {
			return isZero(at[:(maxLogSegments-i)*logSegmentSize])
		}
		l.segments = append(l.segments, e)
	}
	return true
}

// hasMagic reports whether p begins like a meta page.
func hasMagic(p page) bool {
	return len(p) >= offVersion+4 && string(p[offMagic:offMagic+8]) == magic
}

// isWhole reports whether p's sum is right: it was written as a whole, here or elsewhere.
func isWhole(p page) bool { return p.sum() == p.computeSum() }

// decodeMeta decodes p, a whole meta page of slot. It checks all that can be told
// from the page alone.
func decodeMeta(p page, slot int) (m meta, err error) {
	n := pgno(slot)
	if v := binary.LittleEndian.Uint32(p[offVersion:]); v != formatVersion {
		return m, versionError(v)
	}
	if f := binary.LittleEndian.Uint64(p[offFeatures:]); f != 0 {
		return m, fmt.Errorf("%w: the store uses features %#x that format version %d lacks; open it with a newer Folio", ErrVersionMismatch, f, formatVersion)
	}
	m.txid = p.txid()
	m.clean = p.flags()&flagClean != 0
	m.durable = txid(binary.LittleEndian.Uint64(p[offDurable:]))
	m.psize = int(binary.LittleEndian.Uint32(p[offPageSize:]))
	copy(m.uuid[:], p[offUUID:])
	m.npages = binary.LittleEndian.Uint64(p[offNPages:])
	root, ok := getRecord(p[offRoot:])
	m.root = root
	m.nextTree = binary.LittleEndian.Uint64(p[offNextTree:])
	segmentsOK := m.log.decode(p)
	m.free = freelogState{
		head:     pgno(binary.LittleEndian.Uint64(p[offFreeHead:])),
		headSum:  binary.LittleEndian.Uint64(p[offFreeSum:]),
		oldest:   pgno(binary.LittleEndian.Uint64(p[offFreeOld:])),
		start:    pgno(binary.LittleEndian.Uint64(p[offFreeFrom:])),
		chainLen: binary.LittleEndian.Uint32(p[offFreeLen:]),
	}
	tailLen := int(binary.LittleEndian.Uint32(p[offTailLen:]))
	switch {
	case p.kind() != kindMeta || p.pgno() != n:
		return m, corrupt(n, "a %s page that says to be page %d where a meta should be", p.kind(), p.pgno())
	case m.psize != len(p):
		return m, corrupt(n, "page size %d in a page of %d bytes", m.psize, len(p))
	case p.flags()&^flagClean != 0:
		return m, corrupt(n, "unknown page flags")
	case m.txid == 0 || m.durable > m.txid:
		return m, corrupt(n, "commit %d knows commit %d durable", m.txid, m.durable)
	case m.txid > maxCounter || m.nextTree > maxCounter:
		return m, corrupt(n, "impossible commit %d or bucket id %d", m.txid, m.nextTree)
	case m.root.root.pgno > maxPgno:
		return m, corrupt(n, "reference to a page number that cannot be")
	case !isZero(p[offTree:offKind]) || p.level() != 0 || p.count() != 0 || p.prefixLen() != 0 || p.upper() != len(p) || p.npages() != 1 || p.dead() != 0:
		return m, corrupt(n, "header fields that a meta has no use for are set")
	case m.npages < numMetas || m.npages > maxPgno:
		return m, corrupt(n, "impossible page count %d", m.npages)
	case !ok:
		return m, corrupt(n, "bad record of the root bucket")
	case tailLen > tailCap(len(p)) || p.lower() != offTail+tailLen:
		return m, corrupt(n, "freelog tail of %d bytes leaves the page", tailLen)
	case !isZero(p[offTail+tailLen:]) || !segmentsOK:
		return m, corrupt(n, "reserved bytes are not zero")
	}
	if rule := m.log.validate(m.npages, m.psize); rule != "" {
		return m, corrupt(n, "%s", rule)
	}
	m.free.tail = append([]byte(nil), p[offTail:offTail+tailLen]...)
	return m, nil
}

func versionError(v uint32) error {
	return fmt.Errorf("%w: the store has format version %d, this Folio knows version %d", ErrVersionMismatch, v, formatVersion)
}

func isZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
