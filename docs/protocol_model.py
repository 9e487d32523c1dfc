"""An abstract model of the commit, recovery and reuse rules in design.md.

It enumerates short histories (logged, direct and unsynced commits, checkpoints, aborts, spills, kills,
crashes with any subset of unsynced pages on disk, crashes inside recovery) and checks that every
acknowledged commit is there and that no state shows that never existed. Each rule is a switch of class
R: with all on the model finds nothing, with one off it prints a shortest history that breaks. The
switches are the first entries of the table of seeded faults that the crash tests must catch.
Commits of mode 'mem' are logged ones whose pages stay in memory (resident.go): nothing but their record
is written; a checkpoint writes the pages and the meta of its target, and every commit that writes a meta
first writes what the commit before it has in memory. A page of memory that is changed again keeps its place,
where neither the durable commit nor a checkpoint's target has it ('ckt' takes the target, before it is written). Memory is gone after a kill as after a crash. What a
recovery replays stays in memory too, as commit of the last record's number, and the log goes on behind that;
where a meta was refuted the replay becomes a commit that is synced as a whole, with a new salt.
Not modelled: torn sectors, freelog pages, segment wrap, readers, failed syncs.
    python3 protocol_model.py          the table, a few minutes
"""
import sys, itertools, time, random
# Abstract model. Nondeterminism by replay of choice sequences (random or exhaustive DFS).
class Prune(Exception): pass
class Bad(Exception): pass
class Oracle:
    def __init__(s, prefix): s.p=list(prefix); s.i=0; s.n=[]
    def __call__(s, n):
        if n==1: return 0
        if s.i<len(s.p): c=s.p[s.i]
        else: c=0; s.p.append(0)
        s.n.append(n); s.i+=1
        return c
class Rand:
    def __init__(s, seed): s.r=random.Random(seed); s.p=[]
    def __call__(s,n): 
        c=s.r.randrange(n); return c
class R: # rules
    proof='merkle'      # 'txid' | 'merkle'
    D_open='sync'       # 'stale' | 'proven' | 'sync'
    nslots=4; pinC=True; pinInflight=True
    gap=True            # record carries predecessor txid; replay demands it; logged after unlogged -> direct
    logcover=True       # sync covers from last durable log position
    shareD=True
    runpin=True; reserve=True
    ckpt_after_replay=True
    salt=True
    monoD=True
    runs=False; onemeta=True
    nonce=True          # a record differs from all that were written before the store was opened
    memreplay=True      # what a replay makes stays in memory, and the log goes on, where no meta was refuted
    recproof=True       # a record that knows the commit durable which it follows from stands for the proof of that
    recD='durable'      # what a record calls durable: 'durable' | 'target' (of a checkpoint under way)
    keepruns=True       # runs of replayed records that a later one let go of stay until D has passed the replay
    flush=True          # a meta is written only after all pages of its commit that were in memory
    inplace=True        # a page that is in memory is changed at its place
    newer=True          # but only where no target and no durable commit has it
    def __init__(s,**k):
        for a,b in k.items():
            assert hasattr(R,a),a; setattr(s,a,b)
ZERO=('zero',)
class M:
    def __init__(s, ch, rules, ops, maxops):
        s.ch=ch; s.r=rules; s.ops=ops; s.maxops=maxops
        s.disk={}; s.cache={}; s.trace=[]; s.mem={}; s.mem0={}; s.keep=False; s.nopens=0
        s.val=0; s.salt=0
        # creation: leaves at page 10,11 root 12 ; txid 1
        l0=(10,1,'leaf',0,None); l1=(11,1,'leaf',0,None); root=(12,1,'root',(10,l0),(11,l1))
        m=('meta',1,1,(12,root),((1,(10,11,12),()),),0,None,0)
        for p,c in ((10,l0),(11,l1),(12,root),(('m',0),m)): s.disk[p]=[c]
        s.hist=[(1,(0,0))]   # timeline: (id,state)
        s.acked=0            # index in hist known acknowledged durable
        s.burn=0
        s.load(m,1)
    # --- disk
    def write(s,p,c): s.cache.setdefault(p,[]).append(c)
    def writepage(s,p,c):
        if s.keep: s.mem[p]=c
        else: s.mem.pop(p,None); s.write(p,c)
    def flush(s,m):
        """writes what commit m has in memory"""
        def walk(ref):
            if s.mem.get(ref[0])==ref[1]: s.write(ref[0],s.mem.pop(ref[0]))
            c=ref[1]
            if c[2]=='root': walk(c[3]); walk(c[4])
            if c[2]=='leaf' and c[4]: walk(c[4])
        walk(m[3])
    def read(s,p):
        if s.cache.get(p): return s.cache[p][-1]
        o=s.disk.get(p,[ZERO])
        if len(o)>1:
            o=[o[s.ch(len(o))]]; s.disk[p]=o
        return o[0]
    def syncall(s):
        for p,v in s.cache.items():
            if v: s.disk[p]=[v[-1]]
        s.cache={}
    def syncpage(s,p):
        v=s.cache.get(p)
        if v: s.disk[p]=[v[-1]]; s.cache[p]=[]
    def crash(s):
        for p,v in s.cache.items():
            if v:
                o=list(s.disk.get(p,[ZERO]))
                for c in v:
                    if c not in o: o.append(c)
                s.disk[p]=o
        s.cache={}
    # --- writer state
    def load(s,m,D):
        s.N=m; s.D=D; s.C=None; s.ck=None; s.unlogged=False; s.unl=[] ; s.logdur=m[5]
        # rebuild
        s.alloc={}; s.free={}   # page->A ; page->(A,T,isrun)
        for t,al,fr in m[4]:
            for p in fr: s.free[p]=(s.alloc.pop(p,0),t,False)
            for p in al: s.alloc[p]=t; s.free.pop(p,None)
        s.nextp=max([12]+list(s.alloc)+list(s.free))+1
        s.reserved=set(); s.loglive={}
    def pins(s):
        x={s.D,s.N[1]}
        if s.C and s.r.pinC: x.add(s.C[1])
        return x
    def getpage(s):
        pins=s.pins()
        for p in sorted(s.free):
            A,T,run=s.free[p]
            if p in s.reserved: continue
            if any(A<=x<T for x in pins): continue
            if run and s.r.runpin and s.D<T: continue
            del s.free[p]; return p
        while s.nextp in s.reserved: s.nextp+=1
        p=s.nextp; s.nextp+=1; return p
    def place(s,ref,newtx,al,fr):
        """where the page at ref goes, changed by commit newtx"""
        p,c=ref
        unwritten=s.mem0 is not None and s.mem0.get(p)==c
        if s.r.inplace and unwritten and (c[1]>max(s.D,s.C[1] if s.C else 0) or not s.r.newer):
            s.alloc[p]=newtx; return p
        p=s.getpage(); al.append(p); fr.append((ref[0],False)); return p
    def slot(s):
        prot=s.pins() if s.r.pinC else {s.D,s.N[1]}
        for i in range(s.r.nslots):
            c=s.read(('m',i))
            if c[0]!='meta' or c[1] not in prot or (c!=s.N and c[1]==s.N[1]): return i
        raise Prune() # would wait
    def nexttx(s):
        return max(s.N[1],s.burn)+1
    def build(s,ops,newtx,spill=False,adopt=None):
        """ops: list of (leaf,val,run?) ; returns meta (pages written)"""
        N=s.N; root=N[3][1]; al=[];fr=[]
        refs=[root[3],root[4]]
        dirty={}
        for (li,val,run) in ops:
            old=refs[li][1]
            rr=None
            if run:
                if run=='new':
                    p=s.getpage(); rc=(p,newtx,'run',val); s.write(p,rc); al.append(p); s.alloc[p]=newtx
                else:
                    p,rc=run; al.append(p); s.alloc[p]=newtx; s.free.pop(p,None); s.nextp=max(s.nextp,p+1)
                rr=(p,rc)
            if li in dirty:
                p=dirty[li]
            else:
                p=dirty[li]=s.place(refs[li],newtx,al,fr)
            if old[4]: 
                fr.append((old[4][0],True))
            nl=(p,newtx,'leaf',val,rr); refs[li]=(p,nl)
        for li in dirty:
            if spill: s.write(refs[li][0],(refs[li][0],newtx,'leaf','spilled',None))
            s.writepage(refs[li][0],refs[li][1])
        p=s.place(N[3],newtx,al,fr)
        nr=(p,newtx,'root',refs[0],refs[1]); s.writepage(p,nr)
        s.lastops=[(li,val,refs[li][1][4] if True else None) for li,val,run in ops]
        al2=tuple(x for x in al); 
        return (p,nr),al2,fr
    def finish(s,rootref,al,fr,newtx,logpos,logprev):
        both=[x for x,_ in fr if x in al]
        rec=(newtx,tuple(x for x in al if x not in both),tuple(x for x,_ in fr if x not in both))
        m=('meta',newtx,s.D,rootref,s.N[4]+(rec,),logpos,logprev,s.salt)
        if not s.keep: s.write(('m',s.slot()),m)
        for x,run in fr:
            s.free[x]=(s.alloc.pop(x,0),newtx,run)
        for x in al:
            if x not in both: s.alloc[x]=newtx
        s.N=m
        return m
    def state(s,m):
        rt=m[3][1]; return (rt[3][1][3],rt[4][1][3])
    def commit(s,mode,leaf,run=False,spill=False,val=None):
        newtx=s.nexttx(); s.val+=1
        if val is None: val=s.val
        N=s.N
        s.keep=mode=='mem'
        if s.keep: mode='log'
        if mode in('log','logasync') and s.r.gap and s.unlogged: mode='direct' if mode=='log' else 'none'; s.keep=False
        s.mem0=None if spill else dict(s.mem)   # a page that was written early has a new place
        if not s.keep and s.r.flush: s.flush(N)
        rootref,al,fr=s.build([(leaf,val,'new' if run else None)],newtx,spill)
        lp,lprev=N[5],N[6]
        if mode in('log','logasync'):
            rr=rootref[1][3+leaf][1][4]
            rec=('rec',newtx,N[1],lprev,leaf,val,rr,s.salt,s.nopens if s.r.nonce else 0,
                 s.C[1] if s.C and s.r.recD=='target' else s.D)
            lpg=('L',lp); s.write(lpg,rec); 
            lp+=1; lprev=rec
        s.finish(rootref,al,fr,newtx,lp,lprev); s.keep=False
        s.hist.append((newtx,s.state(s.N)))
        if mode=='direct':
            s.syncall(); s.setD(newtx); s.acked=len(s.hist)-1; s.unlogged=False; s.logdur=lp
        elif mode=='log':
            if s.r.logcover:
                for i in range(s.logdur,lp): 
                    s.syncpage(('L',i)); 
                    c=s.read(('L',i))
                    if c[0]=='rec' and c[6]: s.syncpage(c[6][0])
            else:
                s.syncpage(('L',lp-1))
                if rr: s.syncpage(rr[0])
            s.logdur=lp; s.acked=len(s.hist)-1
        elif mode=='none': s.unlogged=True
    def flushtarget(s,m):
        s.flush(m)
        if not any(s.read(('m',i))==m for i in range(s.r.nslots)): s.write(('m',s.slot()),m)
    def setD(s,d):
        s.D=max(s.D,d) if s.r.monoD else d
    # --- recovery
    def prove(s,m):
        d=m[2]; live={}
        for t,al,fr in m[4]:
            for p in fr: live.pop(p,None)
            for p in al: live[p]=t
        need={p:t for p,t in live.items() if t>d}
        if s.r.proof=='txid':
            for p,t in need.items():
                c=s.read(p)
                if c==ZERO or c[0]!=p or c[1]!=t: return False
            return True
        def walk(ref):
            if ref[0] not in need: return True
            c=s.read(ref[0])
            if c!=ref[1]: return False
            if c[2]=='root': return walk(c[3]) and walk(c[4])
            if c[2]=='leaf' and c[4]: return walk(c[4])
            return True
        return walk(m[3])
    def chain(s,base):
        recs=[]; pos,prev,pt=base[5],base[6],base[1]
        while True:
            c=s.read(('L',pos))
            if c[0]!='rec' or c[3]!=prev or (s.r.salt and c[7]!=base[7]): return recs
            if s.r.gap and c[2]!=pt: return recs
            if not s.r.gap and c[1]<=base[1]: return recs
            if c[6] and s.r.reserve and s.read(c[6][0])!=c[6][1]: return recs
            recs.append(c); pos+=1; prev=c; pt=c[1]
    def ops_have_log(s): return any(o.startswith(('log','run','mem')) for o in s.ops)
    def fullread(s,m):
        def walk(ref):
            c=s.mem[ref[0]] if s.mem.get(ref[0])==ref[1] else s.read(ref[0])
            if c!=ref[1]: raise Bad('tree page %s damaged in chosen state'%(ref[0],))
            if c[2]=='root': walk(c[3]); walk(c[4])
            if c[2]=='leaf' and c[4]: walk(c[4])
        walk(m[3])
    def reopen(s,kill):
        s.mem={}; s.mem0=None; s.keep=False; s.nopens+=1
        if s.r.D_open=='sync': s.syncall()
        ms=[]
        for i in range(s.r.nslots):
            c=s.read(('m',i))
            if c[0]=='meta': ms.append((c[1],i,c))
        ms.sort(key=lambda x:(-x[0],x[1])); seen=max([x[0] for x in ms]+[0]); base=None; rej=[]
        for t,i,c in ms:
            if s.r.recproof and any(x[9]>=t for x in s.chain(c)) or s.prove(c): base=c; break
            rej.append(i)
        if base is None: raise Bad('no meta proven: refuses to open')
        D=base[2] if s.r.D_open=='stale' else base[1]
        s.load(base,D); s.burn=seen
        recs=s.chain(base); pos=base[5]+len(recs); s.burn=max([s.burn]+[c[1] for c in recs])
        stays=s.r.memreplay and s.r.ckpt_after_replay and not rej
        if stays: s.salt=base[7]
        elif s.r.salt and s.r.ckpt_after_replay: s.salt=base[7]+1+s.burn
        for i in rej: s.write(('m',i),ZERO)
        if recs:
            if s.r.reserve:
                for c in recs:
                    if c[6]: s.reserved.add(c[6][0])
            if stays:
                last={}
                for c in recs: last[c[4]]=c
                s.keep=True
                rootref,al,fr=s.build([(c[4],c[5],c[6]) for c in last.values()],recs[-1][1])
                s.finish(rootref,al,fr,recs[-1][1],pos,recs[-1]); s.keep=False
                for c in recs:
                    if c[6] and c not in last.values():   # let go of by a later record
                        s.free[c[6][0]]=(0 if s.r.keepruns else recs[-1][1],recs[-1][1],s.r.keepruns)
            elif s.r.onemeta:
                last={}
                for c in recs: last[c[4]]=c
                newtx=s.burn+1
                rootref,al,fr=s.build([(c[4],c[5],c[6]) for c in last.values()],newtx); s.burn=newtx
                s.finish(rootref,al,fr,newtx,pos,recs[-1])
            else:
                for c in recs:
                    if c[6] and s.read(c[6][0])!=c[6][1]:
                        pos-=1; break
                    newtx=s.burn+1 if s.r.ckpt_after_replay else c[1]
                    rootref,al,fr=s.build([(c[4],c[5],c[6])],newtx); s.burn=max(s.burn,newtx)
                    s.finish(rootref,al,fr,newtx,c_pos(base,recs,c),c)
            s.reserved=set()
        if stays: s.logdur=s.N[5]
        elif s.r.ckpt_after_replay:
            if not recs and (rej or s.ops_have_log()):   # an empty commit that carries the new salt
                newtx=s.burn+1; N=s.N
                s.finish(N[3],(),[],newtx,0 if s.r.salt else N[5],None if s.r.salt else N[6])
            if getattr(s,'midcrash',0):
                s.midcrash-=1; s.trace.append('(crash in recovery)'); s.crash(); return s.reopen(kill)
            s.syncall()
            s.D=s.N[1]; s.logdur=s.N[5]
        else: s.logdur=s.N[5]
        st=s.state(s.N)
        idx=None
        for k in range(len(s.hist)-1,-1,-1):
            if s.hist[k][1]==st: idx=k; break
        if idx is None: raise Bad('state %s never existed (hist %s)'%(st,s.hist))
        if idx<s.acked: raise Bad('acked commit lost: got %s want>=%s'%(s.hist[idx],s.hist[s.acked]))
        if kill and idx!=len(s.hist)-1: raise Bad('kill lost commit %s vs %s'%(s.hist[idx],s.hist[-1]))
        s.fullread(s.N)
        s.hist=s.hist[:idx]+[(s.N[1],st)]
        s.acked=min(s.acked,idx)
        if s.r.ckpt_after_replay or stays: s.acked=idx
    def run(s):
        n=0
        while n<s.maxops:
            op=s.ops[s.ch(len(s.ops))]; n+=1
            if op in('ckb','cke'):
                if (op=='ckb')==(s.ck is not None): raise Prune()
            s.trace.append(op)
            s.do(op)
        s.trace.append('CRASH'); s.crash(); s.reopen(False)
    def do(s,op):
        if op[:-1] in('none','direct','log','logasync','mem'): s.commit(op[:-1],int(op[-1]))
        elif op[:-1]=='run': s.commit('log',int(op[-1]),run=True)
        elif op[:-1]=='same': s.commit('logasync',int(op[-1]),val=-1)   # as if a transaction were tried again
        elif op[:-1]=='spill': s.commit('direct',int(op[-1]),spill=True)
        elif op=='spillcrash':   # direct commit with spill; crash during the sync
            pre=s.syncall; s.syncall=lambda: None
            sa=s.acked; s.commit('direct',0,spill=True); s.acked=sa; del s.syncall
            s.crash(); s.reopen(False)
        elif op[:-1]=='abort':  # spilled then rolled back / killed before meta
            tx=s.nexttx(); 
            a=dict(s.free),dict(s.alloc),s.nextp; s.mem0=None
            s.build([(int(op[-1]),'aborted',None)],tx)
            s.free,s.alloc,s.nextp=a
        elif op=='ckt':
            if s.C is not None: raise Prune()
            s.C=s.N
        elif op=='ckb':
            if s.C is None: s.C=s.N
            s.flushtarget(s.C)
            s.ck={p:len(v) for p,v in s.cache.items() if v}; s.cklp=s.C[5]
        elif op=='cke':
            for p,k in s.ck.items():
                v=s.cache.get(p,[])
                if len(v)>=k and k>0:
                    s.disk[p]=[v[k-1]]; s.cache[p]=v[k:]
            c=s.C; s.C=None; s.ck=None
            s.setD(c[1])
            if s.D==s.N[1]: s.unlogged=False
            s.logdur=max(s.logdur,s.cklp)
            for k,(t,_) in enumerate(s.hist):
                if t==c[1]: s.acked=max(s.acked,k)
        elif op=='sync':
            if s.C is not None: raise Prune()
            s.flushtarget(s.N); s.syncall(); s.setD(s.N[1]); s.acked=len(s.hist)-1; s.unlogged=False; s.logdur=s.N[5]
        elif op=='kill': s.reopen(True)
        elif op=='crash': s.crash(); s.reopen(False)
        elif op=='crash2': s.midcrash=1; s.crash(); s.reopen(False)
        elif op=='crash3': s.midcrash=2; s.crash(); s.reopen(False)
        elif op=='switch':  # other process becomes writer
            if not s.r.shareD: s.load(s.N,s.N[2])
def c_pos(base,recs,c): return base[5]+recs.index(c)+1
def dfs(rules,ops,maxops,limit=60):
    t0=time.time(); prefix=[]; n=0
    while True:
        o=Oracle(prefix); m=M(o,rules,ops,maxops); n+=1
        try: m.run()
        except Prune: pass
        except Bad as e:
            return ('HOLE',str(e),m.trace,n)
        p=o.p[:o.i]; k=o.n
        while p and p[-1]==k[len(p)-1]-1: p.pop()
        if not p: return ('clean exhaustive',n,round(time.time()-t0,1))
        p[-1]+=1; prefix=p
        if time.time()-t0>limit: return ('clean (time limit)',n)
def rnd(rules,ops,maxops,limit=30,seed=0):
    t0=time.time(); n=0
    while time.time()-t0<limit:
        m=M(Rand(seed*10**9+n),rules,ops,maxops); n+=1
        try: m.run()
        except Prune: pass
        except Bad as e: return ('HOLE',str(e),m.trace,n)
    return ('clean random',n)
def search(rules,ops,hi,limit=60):
    for k in range(1,hi+1):
        r=dfs(rules,ops,k,limit)
        if r[0]=='HOLE' : return k,r
    return k,r
if __name__=='__main__':
    base=['none0','none1','direct0']
    tests=[
     ('fixed: unsynced+direct+kill+crash', R(), base+['kill','crash','sync'],5),
     ('D=stale on reopen', R(D_open='stale',ckpt_after_replay=False), base+['kill'],6),
     ('D=proven w/o sync', R(D_open='proven',ckpt_after_replay=False), base+['kill'],6),
     ('txid proof, spill twice', R(proof='txid'), ['none0','direct1','spillcrash'],3),
     ('txid proof, aborted', R(proof='txid'), ['direct0','abort0','none0'],4),
     ('txid proof, crash history reuse', R(proof='txid'), ['none0','none1','crash'],6),
     ('merkle, spill/abort/crash', R(), ['none0','direct1','spillcrash','abort0','crash'],5),
     ('ckpt beside writer, 3 slots no pin', R(nslots=3,pinC=False), base+['ckb','cke'],6),
     ('ckpt beside writer, 4 slots no pin', R(nslots=4,pinC=False), base+['ckb','cke'],7),
     ('ckpt beside writer, 4 slots pin', R(), base+['ckb','cke','kill'],6),
     ('process switch, D not shared', R(shareD=False), base+['switch'],6),
     ('log gap', R(gap=False), ['none0','log1','direct0','crash'],5),
     ('log cover off', R(logcover=False), ['logasync0','log1','direct0'],4),
     ('runs: no pin', R(runpin=False), ['run0','log0','log1'],6),
     ('runs: no reserve', R(reserve=False), ['run0','log0','log1'],5),
     ('no ckpt after replay', R(ckpt_after_replay=False), ['log0','none1','crash','direct1'],6),
     ('monoD off', R(monoD=False), ['none0','none1','direct0','ckb','cke'],6),
     ('memory: meta before its pages', R(flush=False), ['mem0','none1','direct1','kill'],4),
     ('changed in place, also what a target has', R(newer=False), ['mem0','mem1','ckt','ckb','cke'],6),
     ('changed in place', R(), ['mem0','mem1','ckt','ckb','cke','direct1'],6),
     ('changed in place, with all else', R(), ['mem0','run1','none1','direct0','ckt','ckb','cke','kill','abort0'],5),
     ('memory with all else', R(), ['mem0','mem1','none0','direct1','ckb','cke','kill','crash'],5),
     ('memory, runs, crashes in recovery', R(), ['mem0','run1','ckb','cke','crash2','sync'],5),
     ('replay in memory, no nonce', R(nonce=False), ['same0','logasync1','crash'],5),
     ('replay in memory, runs let go of at once', R(keepruns=False), ['run1','mem0','crash'],5),
     ('replay in memory, a transaction again', R(), ['same0','logasync1','mem0','ckb','cke','crash'],5),
     ('replay in memory, runs', R(), ['mem0','run1','logasync0','ckb','cke','crash','sync'],5),
     ('replay settled, with all else', R(memreplay=False), ['mem0','run1','none0','direct1','ckb','cke','kill','crash'],5),
     ('records that know too much', R(recD='target'), ['mem0','log1','ckb','cke'],5),
     ('all fixed: log+run+ckpt', R(), ['log0','run1','logasync0','none1','direct0','ckb','cke','crash'],5),
    ]
    sel=sys.argv[1:] 
    for i,(name,r,ops,hi) in enumerate(tests):
        if sel and str(i) not in sel: continue
        print(i,name,'->',*search(r,ops,hi,45),flush=True)
