package workload

// plan.go chooses what a transaction does. It draws from the seed, the transaction's
// number and the model alone, never from the store, so that any process that knows
// these makes the same choices. Each choice changes the model and leaves a step that
// does the same to a store.
//
// Transactions go in cycles of cycleLen: the store grows to some megabytes, changes,
// loses most of what it has, and goes on in small commits. So the file grows, is full of
// holes, and is cut short, again and again.

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
)

const (
	cycleLen    = 100
	growUntil   = 50
	changeUntil = 70
	shrinkUntil = 80

	maxBytes     = 2 << 20 // of keys and values; above it transactions shrink the store
	maxBuckets   = 24
	maxDepth     = 3
	numKeys      = 1500 // keys that a bucket can have
	numNames     = 16   // names that a bucket in another can have
	largestValue = 80_000
)

// The keys of a level: the stamp, then buckets, then pairs, so that a range of pairs
// never holds anything else.
const (
	stampKey     = "!stamp"
	bucketPrefix = "B"
	pairPrefix   = "k"
)

// planner makes the choices of one transaction.
type planner struct {
	rnd     *rand.Rand
	root    *bucket
	steps   []step
	scratch []byte
	depth   int // nested transactions around
}

// plan chooses transaction n, which finds the store as root describes. It changes root
// and returns the steps.
func plan(seed uint64, n int, root *bucket) []step {
	p := &planner{rnd: rand.New(rand.NewPCG(seed, uint64(n))), root: root}
	if n%epochLen == 0 {
		p.wipe()
		return p.steps
	}
	at, nbytes := n%cycleLen, p.size()
	switch {
	case at == shrinkUntil:
		p.deleteBuckets(n / cycleLen % 2)
	case at > shrinkUntil, p.rnd.IntN(4) == 0:
		p.small()
	case at >= changeUntil, nbytes > maxBytes:
		p.several(1+p.rnd.IntN(4), p.shrink)
	case at >= growUntil:
		p.several(1+p.rnd.IntN(5), p.change)
	default:
		p.several(1+p.rnd.IntN(5), p.grow)
	}
	return p.steps
}

func (p *planner) several(n int, choose func()) {
	for range n {
		choose()
	}
}

func (p *planner) do(s step) { p.steps = append(p.steps, s) }

func (p *planner) size() (nbytes int) {
	for _, b := range p.root.all(nil) {
		nbytes += b.nbytes
	}
	return nbytes
}

// small is a transaction of one or two little changes.
func (p *planner) small() {
	switch p.rnd.IntN(8) {
	case 0:
		p.sequence()
	case 1:
		p.delete(1)
	case 2:
		p.put(1, 300)
		p.delete(1)
	default:
		p.put(1, 300)
	}
}

func (p *planner) grow() {
	switch p.rnd.IntN(12) {
	case 0, 1, 2:
		p.put(20+p.rnd.IntN(150), 200)
	case 3:
		p.put(1+p.rnd.IntN(30), 2500)
	case 4, 5:
		p.large()
	case 6, 7:
		p.createBucket()
	case 8:
		p.nested(p.grow)
	case 9:
		p.moveBucket()
	case 10:
		p.delete(1 + p.rnd.IntN(20))
	case 11:
		p.sequence()
	}
}

func (p *planner) change() {
	switch p.rnd.IntN(12) {
	case 0, 1:
		p.put(1+p.rnd.IntN(60), 200)
	case 2:
		p.put(1+p.rnd.IntN(10), 2500)
	case 3:
		p.large()
	case 4, 5:
		p.delete(1 + p.rnd.IntN(60))
	case 6:
		p.deleteRange(1 + p.rnd.IntN(numKeys/4))
	case 7:
		p.deleteByCursor()
	case 8:
		p.createBucket()
	case 9:
		p.moveBucket()
	case 10:
		p.nested(p.change)
	case 11:
		p.deleteBucket()
	}
}

func (p *planner) shrink() {
	switch p.rnd.IntN(8) {
	case 0, 1, 2:
		p.deleteBucket()
	case 3, 4:
		p.deleteRange(numKeys/4 + p.rnd.IntN(numKeys))
	case 5:
		p.deleteByCursor()
	case 6:
		p.nested(p.shrink)
	case 7:
		p.delete(1 + p.rnd.IntN(200))
	}
}

// --- what is drawn

func (p *planner) drawBucket() *bucket {
	bs := p.root.all(nil)
	return bs[p.rnd.IntN(len(bs))]
}

// keyOf returns key i of b. Buckets differ in what their keys are like.
func keyOf(b *bucket, i int) string {
	switch b.number % 5 {
	case 1: // scattered
		h := uint64(i+1) * 0x9e3779b97f4a7c15
		return string(binary.LittleEndian.AppendUint64([]byte(pairPrefix), h))
	case 2: // with a long common prefix
		return fmt.Sprintf("%s%s%06d", pairPrefix, strings.Repeat("/shared", 20), i)
	case 3: // some too long for a page
		if i%50 == 7 {
			return fmt.Sprintf("%s%06d%s", pairPrefix, i, strings.Repeat("x", 1000+i))
		}
	case 4: // of many lengths
		return fmt.Sprintf("%s%04d%s", pairPrefix, i, strings.Repeat("y", i%90))
	}
	return fmt.Sprintf("%s%06d", pairPrefix, i)
}

// bucketName returns the name of a bucket; one is too long for a page.
func bucketName(number int) string {
	name := fmt.Sprintf("%s%02d", bucketPrefix, number)
	if number == 11 {
		return name + strings.Repeat("n", 2000)
	}
	return name
}

func (p *planner) drawValue(maxLen int) value {
	return value{p.rnd.Uint64(), p.rnd.IntN(maxLen)}
}

// --- pairs

// item is one pair to be put.
type item struct {
	key   string
	value value
}

// put puts n pairs of up to maxLen bytes, next to each other or scattered.
func (p *planner) put(n, maxLen int) {
	b := p.drawBucket()
	start, apart := p.rnd.IntN(numKeys), 1
	if p.rnd.IntN(2) == 0 {
		apart = 1 + p.rnd.IntN(numKeys)
	}
	items := make([]item, n)
	for i := range items {
		items[i] = item{keyOf(b, (start+i*apart)%numKeys), p.drawValue(maxLen)}
		p.scratch = b.put(items[i].key, items[i].value, p.scratch)
	}
	p.do(stepPut(b.path(), items))
}

// large puts a value that needs a run of pages.
func (p *planner) large() {
	b := p.drawBucket()
	it := item{keyOf(b, p.rnd.IntN(numKeys)), p.drawValue(largestValue)}
	p.scratch = b.put(it.key, it.value, p.scratch)
	p.do(stepPut(b.path(), []item{it}))
}

// delete deletes n keys, of which not all need to be there.
func (p *planner) delete(n int) {
	b := p.drawBucket()
	keys := make([]string, n)
	for i := range keys {
		keys[i] = keyOf(b, p.rnd.IntN(numKeys))
		b.remove(keys[i])
	}
	p.do(stepDelete(b.path(), keys))
}

// deleteRange deletes between two keys that are about width numbers apart.
func (p *planner) deleteRange(width int) {
	b := p.drawBucket()
	first := p.rnd.IntN(numKeys)
	lo, hi := keyOf(b, first), ""
	if last := first + width; last < numKeys {
		hi = keyOf(b, last)
		lo, hi = min(lo, hi), max(lo, hi)
	}
	p.do(stepDeleteRange(b.path(), lo, hi, b.removeRange(lo, hi)))
}

// deleteByCursor deletes some pairs in order, from one on, through a cursor.
func (p *planner) deleteByCursor() {
	b := p.drawBucket()
	from, n := keyOf(b, p.rnd.IntN(numKeys)), 1+p.rnd.IntN(100)
	var keys []string
	for k := range b.pairs {
		if k >= from {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	keys = keys[:min(n, len(keys))]
	for _, k := range keys {
		b.remove(k)
	}
	p.do(stepCursorDelete(b.path(), from, n, keys))
}

func (p *planner) sequence() {
	b := p.drawBucket()
	if p.rnd.IntN(3) == 0 {
		b.seq = p.rnd.Uint64N(1 << 40)
		p.do(stepSetSequence(b.path(), b.seq))
		return
	}
	b.seq++
	p.do(stepNextSequence(b.path(), b.seq))
}

// --- buckets

// createBucket makes a bucket and puts some pairs into it.
func (p *planner) createBucket() {
	all := p.root.all(nil)
	parent := all[p.rnd.IntN(len(all))]
	number := p.rnd.IntN(numNames)
	name := bucketName(number)
	if len(all) > maxBuckets || len(parent.path()) >= maxDepth || parent.has(name) {
		p.put(10, 200)
		return
	}
	b := newBucket(name, number, parent)
	parent.addSub(b)
	p.do(stepCreateBucket(parent.path(), name))
	items := make([]item, p.rnd.IntN(60))
	for i := range items {
		items[i] = item{keyOf(b, i), p.drawValue(400)}
		p.scratch = b.put(items[i].key, items[i].value, p.scratch)
	}
	p.do(stepPut(b.path(), items))
}

func (p *planner) deleteBucket() {
	b := p.drawBucket()
	if b.parent == nil {
		p.deleteRange(numKeys)
		return
	}
	p.do(stepDeleteBucket(b.parent.path(), b.name))
	b.parent.removeSub(b.name)
}

func (p *planner) moveBucket() {
	b, to := p.drawBucket(), p.drawBucket()
	if b.parent == nil || to.isBelow(b) || to.has(b.name) || len(to.path()) >= maxDepth {
		p.put(1, 200)
		return
	}
	p.do(stepMoveBucket(b.name, b.parent.path(), to.path()))
	b.parent.removeSub(b.name)
	to.addSub(b)
}

// nested makes some choices in a nested transaction, which is kept or undone.
func (p *planner) nested(choose func()) {
	if p.depth == 2 {
		choose()
		return
	}
	undo := p.rnd.IntN(2) == 0
	before, outer := p.root, p.steps
	if undo {
		p.root = p.root.clone(nil)
	}
	p.depth++
	p.steps = nil
	p.several(1+p.rnd.IntN(3), choose)
	inner := p.steps
	p.depth--
	p.root, p.steps = before, outer
	p.do(stepNested(inner, undo))
}

// wipe deletes everything.
func (p *planner) wipe() {
	p.deleteBuckets(0)
	p.root.seq = 0
	p.do(stepSetSequence(nil, 0))
}

// deleteBuckets deletes the root's pairs, and its buckets but for the first nkept.
func (p *planner) deleteBuckets(nkept int) {
	for _, s := range slices.Clone(p.root.subs[min(nkept, len(p.root.subs)):]) {
		p.do(stepDeleteBucket(nil, s.name))
		p.root.removeSub(s.name)
	}
	p.do(stepDeleteRange(nil, pairPrefix, "", p.root.removeRange(pairPrefix, "")))
}
