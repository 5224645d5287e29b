"""Search in galleries of 10^4, 10^5, 10^6 people: what it costs and what it misses. Writes benchmarks/search.json as it goes, and the table:

    python benchmarks/search.py --sizes 1e4 1e5 1e6
"""
import argparse, json, os, platform, tempfile, time
from datetime import date
from pathlib import Path
import faiss
import numpy as np
import torch
from person_search_nb.files import atomic_write
from person_search_nb.neighbours import Approximate, crowd, exact_neighbours, recall, Rows

HERE = Path(__file__).parent
DIM, VIEWS, QUERIES, K = 256, 20, 200, 10
RECALLS, ENGINES = (.9, .95, .99), ('ivf-pq', 'hnsw')


def bandwidth(megabytes=256, repeats=5):
    "GB/s at which one thread reads memory that is in no cache: a maximum over integers does nothing else."
    x, best = np.ones(megabytes * 2**17, np.int64), 1e9
    for _ in range(repeats): start = time.perf_counter(); x.max(); best = min(best, time.perf_counter() - start)
    return x.nbytes / best / 1e9


def timed(search, queries):
    "(rows, times in ms: p50 and p99 of one query at a time, p50 of its processor time, processor time per query when 32 come together)"
    search(queries[:1])
    single, cpu, rows = [], [], []
    for q in queries:
        start, begin = time.perf_counter(), time.process_time()
        rows.append(search(q[None])[1][0])
        single.append((time.perf_counter() - start) * 1e3), cpu.append((time.process_time() - begin) * 1e3)
    begin = time.process_time()
    for a in range(0, 64, 32): search(queries[a:a + 32])
    return np.array(rows), dict(p50=float(np.percentile(single, 50)), p99=float(np.percentile(single, 99)), cpu=float(np.median(cpu)), many=(time.process_time() - begin) / 64 * 1e3)


def measure(n, folder, engines, threads, say):
    "One line for each engine and recall."
    table = folder/f'{n}.npy'
    feats = crowd((n + QUERIES) // VIEWS, VIEWS, DIM, seed=1)
    queries = feats[n:].astype(np.float32)
    np.save(table, feats[:n])
    del feats
    mapped = Rows([np.load(table, mmap_mode='c')])
    truth, times = timed(lambda q: exact_neighbours(mapped, q, K, longest=1.01), queries)
    line = dict(n=n, cpu_load=os.getloadavg()[0], bandwidth=bandwidth())
    say(line | dict(engine='exact', named='', reached='', effort='', build=0, bytes=2 * DIM, **times, recall1=1., recall10=1.))
    for name in engines:
        start, cpu = time.perf_counter(), time.process_time()
        faiss.omp_set_num_threads(threads)
        engine = Approximate.build(name, mapped, RECALLS[0], progress=False)
        faiss.omp_set_num_threads(1)
        build, cpu = time.perf_counter() - start, time.process_time() - cpu
        size = engine.bytes / n
        for engine.recall in RECALLS:
            engine._choose_effort(0)
            rows, times = timed(lambda q: engine.search(q, K, longest=1.01), queries)
            say(line | dict(engine=name, named=engine.recall, reached=engine.reached, effort=engine.effort, build=build, build_cpu=cpu, threads=threads, bytes=2 * DIM + size, index=size, **times,
                            recall1=float(np.mean(rows[:, 0] == truth[:, 0])), recall10=recall(rows, truth)))
        del engine
    table.unlink()


def big(n): return f'10^{round(np.log10(n))}'


def report(lines):
    sizes = sorted({r['n'] for r in lines})
    out = ['# Search at scale', '', f'`python benchmarks/search.py --sizes {" ".join(f"1e{round(np.log10(n))}" for n in sizes)}` · {date.today()} · {platform.system()} {platform.machine()}, {os.cpu_count()} cores, {os.environ.get("OMP_NUM_THREADS", "all")} thread(s) used · '
           f'numpy {np.__version__}, torch {torch.__version__.split("+")[0]}, faiss {faiss.__version__}', '',
           f'Embeddings of {DIM} numbers drawn by `neighbours.crowd`: {VIEWS} views of each person around a common direction, kept as float16 in a memory-mapped file that fits into the page cache. {QUERIES} queries are further views of the same people; {K} matches wanted; recall is the share of '
           f'the first 1 and 10 of exact search that is found. Other work ran beside this (load {min(r["cpu_load"] for r in lines):.1f} to {max(r["cpu_load"] for r in lines):.1f} on {os.cpu_count()} cores when a size was begun): '
           'the columns marked CPU are processor time of this process, near to what a quiet machine would take.', '',
           '| people | engine | effort | build (CPU s) | bytes per person | of them the index | CPU of one query (ms) | 32 at once (CPU ms each) | p50 (ms) | p99 (ms) | recall@1 | recall@10 |', '|---|---|---|---|---|---|---|---|---|---|---|---|']
    for r in lines:
        out.append(f'| {big(r["n"])} | {r["engine"]} | {r["effort"]} | {r.get("build_cpu", 0):.1f} | {r["bytes"]:.0f} | {r.get("index", 0):.0f} | {r["cpu"]:.2f} | {r["many"]:.2f} | {r["p50"]:.2f} | {r["p99"]:.2f} | {r["recall1"]:.3f} | {r["recall10"]:.3f} |')
    top = sizes[-1]
    exact, codes, graph = (next((r for r in reversed(lines) if r['engine'] == e), None) for e in ('exact', 'ivf-pq', 'hnsw'))  # at the largest size it was measured
    speed, limit = top * exact['bytes'] / exact['cpu'] / 1e6, max(r['bandwidth'] for r in lines)
    missing = [f'{e} at {big(n)}' for n in sizes for e in EFFORTS if not any(r['n'] == n and r['engine'] == e for r in lines)]
    if missing: out += ['', f'Not measured: {", ".join(missing)}.']
    several = ', '.join(sorted({f'{r["engine"]} at {big(r["n"])} by {r["threads"]}' for r in lines if r.get('threads', 1) > 1}))
    out += ['', 'Effort: cells opened of IVF-PQ (of √n), candidates on the way of HNSW (never fewer than 100, ten times the matches: 32 and 128 are 100 and 128 here). ' + (f'Built by more than one thread: {several}. ' if several else '') + 'The bytes are those of the exact row (512) and of the index; the row may stay on disk, where a query fetches a hundred of them.', '',
            '## How cost grows', '', 'Ratios between one size and the next, at the highest effort. A cost that grows with n shows 10, with √n 3.2, with log n about 1.2.', '',
            '| from, to | ' + ' | '.join(f'{e}: query' for e in ('exact', 'ivf-pq', 'hnsw')) + ' | ivf-pq: build | hnsw: build |', '|---|---|---|---|---|---|']
    last = lambda n, e, key: next((r[key] for r in reversed(lines) if r['n'] == n and r['engine'] == e and key in r), float('nan'))
    for a, b in zip(sizes, sizes[1:]):
        out.append((f'| {big(a)}, {big(b)} | ' + ' | '.join(f'{last(b, e, "cpu") / last(a, e, "cpu"):.1f}x' for e in ('exact', 'ivf-pq', 'hnsw')) + f' | {last(b, "ivf-pq", "build_cpu") / last(a, "ivf-pq", "build_cpu"):.1f}x | {last(b, "hnsw", "build_cpu") / last(a, "hnsw", "build_cpu"):.1f}x |').replace('nanx', ''))
    out += ['', '## The limit of exact search', '', f'One query reads every byte of the table once. At {big(top)} people it read {speed:.1f} GB/s ({top * 512 / 1e9:.2f} GB in {exact["cpu"]:.0f} ms of processor time, widening float16 on the way); one thread that only reads memory does {limit:.1f} GB/s on this machine while it is shared. '
            f'So one core, which also widens and multiplies, is at {speed / limit:.0%} of what the memory allows; with more cores the memory is the limit: no exact query over {big(top)} rows takes less than {top * 512 / limit / 1e6:.0f} ms here, and then only fewer bytes or more memory channels help. Queries that come together share the reading: {exact["cpu"] / exact["many"]:.1f} times less each, 32 at once.', '']
    if codes and graph:
        n, shard = 10**9, codes['n']
        shards, cells = n // shard, round(shard**.5)
        out += ['## A plan for 10^9 people, on paper', '', f'From the numbers above: {shards} shards as large as the largest that was measured. One person is {exact["bytes"]:.0f} bytes of row, {codes["index"]:.0f} of codes, {graph["index"]:.0f} of graph (its own float16 copy included).', '',
                f'| what is kept where | for 10^9 | one shard of {big(shard)} |', '|---|---|---|',
                f'| exact rows, on SSD | {n * exact["bytes"] / 1e12:.2f} TB | {shard * exact["bytes"] / 1e9:.1f} GB |',
                f'| codes (IVF-PQ), in memory | {n * codes["index"] / 1e9:.0f} GB | {shard * codes["index"] / 1e9:.2f} GB |',
                f'| graph (HNSW), in memory | {n * graph["index"] / 1e9:.0f} GB | {shard * graph["index"] / 1e9:.1f} GB |',
                f'| boxes, scores, scenes (28 bytes) | {n * 28 / 1e9:.0f} GB | {shard * 28 / 1e9:.2f} GB |',
                f'| exact scan of all rows, one core at {speed:.1f} GB/s | {n * exact["bytes"] / speed / 1e9 / 60:.1f} min | {shard * exact["bytes"] / speed / 1e9:.1f} s |',
                f'| one query in the codes, {codes["effort"]} of {cells:,} cells, one core | {shards * codes["cpu"] / 1e3:.1f} s | {codes["cpu"]:.0f} ms |',
                f'| building the codes, one core | {shards * codes["build_cpu"] / 3600:.0f} hours | {codes["build_cpu"] / 60:.0f} min |', '',
                f'So: {shards} shards of {big(shard)} on IVF-PQ. Their codes are {n * codes["index"] / 1e9:.0f} GB, which one machine of 128 GB holds, or four of 32 GB with {shards // 4} shards each; the rows are {n * exact["bytes"] / 1e12:.2f} TB on SSD. The seconds of a query are divided by the cores at work. Each shard then reads 100 rows of 512 bytes, '
                f'{100 * shards:,} random reads in all: at 100,000 reads a second for an SSD, {shards / 1e3:.1f} s on one, less on several. Merging {shards} lists of ten is nothing. Shards build side by side. HNSW would answer faster, but wants {n * graph["index"] / 1e12:.2f} TB of memory, and at {big(graph["n"])} finds {graph["recall10"]:.0%} of the ten nearest. Within its shard a query by the codes finds {codes["recall10"]:.0%} of the ten nearest; '
                f'the ten nearest of all shards are fewer in each, and nearer, so this should not be less for the whole, which was not measured. What no plan on paper shows is whether the ten nearest are the right person: with a hundred times more strangers they are other rows than at {big(top)} (tutorial 15 measures how that goes with the crowd).', '']
    out += ['## From where on which engine', '', '`choose_engine` takes exact search below 300,000 rows (a query takes a few dozen milliseconds and misses nothing), a graph below 3 million (its memory is bearable, and it answers first), codes above. What either misses grows with the crowd; more cells help the codes. The graph, with 32 neighbours a row, is no engine for ten million of these at such an effort; efforts above 128, and more care in building it, were not tried. These are judgements from this table, not laws: where memory is short, codes from the start; where queries come in hundreds, exact search for longer.', '']
    return '\n'.join(out)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--sizes', nargs='+', default=['1e4', '1e5'])
    p.add_argument('--engines', nargs='*', choices=ENGINES, default=ENGINES, help='beside exact search')
    p.add_argument('--threads', type=int, default=1, help='that build an index; queries are asked with one')
    p.add_argument('--again', action='store_true', help='only write the report from search.json')
    a = p.parse_args()
    kept = HERE/'search.json'
    lines = json.loads(kept.read_text()) if kept.exists() else []
    def say(line):
        lines.append(line)
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()}, flush=True)
        atomic_write(kept, json.dumps(lines, indent=1).encode())
    with tempfile.TemporaryDirectory() as folder:
        for n in () if a.again else map(int, map(float, a.sizes)):
            lines[:] = [r for r in lines if r['n'] != n or r['engine'] in set(ENGINES) - set(a.engines)]
            measure(n, Path(folder), a.engines, a.threads, say)
    lines.sort(key=lambda r: (r['n'], ['exact', *ENGINES].index(r['engine'])))
    atomic_write(HERE/"search.md", report(lines).encode())
