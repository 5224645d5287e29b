"""Search in galleries of 10^4, 10^5, 10^6 people: what it costs and what it misses. Writes benchmarks/search.json as it goes, and the table:

    python benchmarks/search.py --sizes 1e4 1e5 1e6

And in a gallery of embeddings that a trained network made, half an hour of `person-search index`:

    person-search index 'synth:tiny?test_scenes=20000&test_ids=20000&gallery=19990&queries=10&seed=77' --out runs/gallery --engine exact
    python benchmarks/search.py --sizes --gallery runs/gallery --like 1e6
    python benchmarks/search.py --sizes --gallery runs/gallery --like 1e7 --engines ivf-pq

with `--like` also among more people, drawn from these. And, printed only, what a graph in pages of 2 MB saves, and what the work of codes costs (the price of `Approximate._cost`):

    python benchmarks/search.py --sizes --pages 2e5
    python benchmarks/search.py --sizes --price 1e5 1e6
"""
import argparse, json, os, platform, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from itertools import product
from pathlib import Path
import faiss
import numpy as np
import torch
from person_search_nb.byte_rows import ByteRows, no_copy
from person_search_nb.files import atomic_write
from person_search_nb.gallery_files import Gallery
from person_search_nb.manifest import read_manifest
from person_search_nb import neighbours
from person_search_nb.neighbours import Approximate, crowd, exact_neighbours, recall, Rows

HERE = Path(__file__).parent
DIM, VIEWS, QUERIES, K = 256, 20, 200, 10
RECALLS, ENGINES = (.9, .95, .98, .99, .995), ('ivf-pq', 'hnsw')
EXACT, BYTES = 'exact', 'exact, bytes first'
TRIED = ('The settings: at 2 x 10^5, of the hundred rows that codes over all of them nominate, 0.63 of the ten nearest are there with 64 pieces of half a byte (0.36 ms), 0.94 with RaBitQ of one bit a number after a rotation (1.4 ms), 0.91 with 128 pieces (0.67 ms), '
         '0.998 with 128 pieces after a rotation (0.66 ms): these are taken. A graph with `efConstruction` 40 over float16 reaches 0.991 with 128 candidates (0.81 ms, built in 50 CPU s), with 100 over bytes 0.998 (0.70 ms, 97 CPU s). With 200, as now, a million rows take 1.7 (as a network makes them) to 2.0 times (drawn) as long to build as with 100, and a build for 0.99 chooses half as many candidates; 0.995 was named at a million drawn rows alone. Ten million drawn people were measured with the settings before, '
         'a graph over float16 with `efConstruction` 40 (recall@10 of 0.52 in 3 ms, 6,706 CPU s to build) and codes of a byte for four numbers (0.86 in 59 ms), and not with these. Exact search of one query, at 5 x 10^5 rows in memory: FAISS\'s scanner over the rows where they are takes 0.56 of the time of torch\'s multiplication in float16, which remains where FAISS is not installed. With a filter that leaves half of the rows or more the scanner takes twice as long as without, and torch more than four times. '
         'A graph lies in pages of 2 MB: at 2 x 10^5 rows a query takes 0.73 to 0.78 of the time (efforts of 32 to 512; `python benchmarks/search.py --sizes --pages 2e5`). '
         'Trainings ran beside this while indexes were built, and stood still while queries were timed; what others do on this shared machine shows in p99.')


LIKE = ("What a build says it reaches is of rows like those of its table, and so it is what other embeddings of the network find among its own. Rows that are drawn have siblings of one origin, and the network's queries have none: there codes find less than their build says, and a graph more where it was built for 0.98 and 0.99. ")


def bandwidth(rows, repeats=21):
    "GB/s at which one thread reads the table, as often as not: a maximum over integers does nothing else."
    tables, took = [p.reshape(-1).view(np.int64) for p in rows.parts], []
    for _ in range(repeats):
        start = time.process_time()
        for x in tables: x.max()
        took.append(time.process_time() - start)
    return sum(x.nbytes for x in tables) / np.median(took) / 1e9


def together(mapped, searches, queries, turns=60):
    "By the clock, in ms, medians: all cores read the table, and answer one query by each of these searches, in turn."
    cores, took = os.cpu_count(), []
    torch.set_num_threads(cores)
    shares = [s.reshape(-1).view(np.int64) for p in mapped.parts for s in np.array_split(p, cores)]
    with ThreadPoolExecutor(cores) as pool:
        ways = [lambda q: list(pool.map(np.max, shares)), *searches]
        for q in queries[:turns]:
            took.append([])
            for way in ways:
                start = time.perf_counter()
                way(q[None])
                took[-1].append((time.perf_counter() - start) * 1e3)
    torch.set_num_threads(1)
    return dict(cores=cores) | dict(zip(('read', EXACT, BYTES), np.median(took[1:], 0).tolist()))


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


def drawn(n, folder):
    "n people and queries, all drawn."
    feats = crowd((n + QUERIES) // VIEWS, VIEWS, DIM, seed=1)
    np.save(folder/f'{n}.npy', feats[:n])
    return Rows([np.load(folder/f'{n}.npy', mmap_mode='c')]), feats[n:].astype(np.float32)


def pages(n, folder, efforts=(32, 64, 128, 512), turns=3):
    "Effort -> processor time of a query in a graph that lies in pages of 2 MB, over that in one that does not."
    mapped, queries = drawn(n, folder)
    faiss.omp_set_num_threads(1)
    Approximate.build('hnsw', mapped).save(folder/'graph.faiss')
    ask, took = neighbours._graph_in_large_pages, {(e, large): [] for e in efforts for large in (False, True)}
    for large in (False, True) * turns:
        neighbours._graph_in_large_pages = ask if large else lambda *_: None
        graph = Approximate.load('hnsw', mapped, folder/'graph.faiss')
        for graph.effort in efforts: took[graph.effort, large].append(timed(lambda q: graph.search(q, K, longest=1.01), queries)[1]['cpu'])
    return {e: f'{min(took[e, True]) / min(took[e, False]):.2f}' for e in efforts}


def price(sizes, folder, efforts=(16, 64, 256, 512), nominated=(20, 40, 80, 160)):
    """What of a search by codes takes how long, in us of processor time: opening a cell, scanning a code in it, comparing a row again.
    Fitted by least squares of relative errors to the medians of all pairs of an effort and a number of rows."""
    faiss.omp_set_num_threads(1)
    work, took = [], []
    for n in sizes:
        mapped, queries = drawn(n, folder)
        codes = Approximate.build('ivf-pq', mapped, progress=False)
        for codes.effort, codes.nominated in product(efforts, nominated):
            took.append(1e3 * min(timed(lambda q: codes.search(q, K, longest=1.01), queries)[1]['cpu'] for _ in range(2)))
            work.append((1, codes.effort, codes.effort * n / codes._most, K * codes.nominated))
    work, took = np.array(work), np.array(took)
    us = np.linalg.lstsq(work / took[:, None], np.ones(len(took)))[0]
    print('largest relative error of the fit:', f'{abs(work @ us / took - 1).max():.2f}')
    return dict(zip(('a search', 'a cell', 'a code', 'a row'), us.round(4).tolist()))


def found(gallery, folder):
    "The people of a gallery but for some, and these as queries."
    feats = Gallery.open(gallery).det_feats
    order = np.random.default_rng(0).permutation(len(feats))
    rest = np.sort(order[QUERIES:])
    np.save(folder/'found.npy', feats[rest])
    return Rows([np.load(folder/'found.npy', mmap_mode='c')]), np.asarray(feats[order[:QUERIES]], np.float32)


def like(n, rows, folder, some=20_000):
    "n rows drawn from these: each is one of them, moved as far as another lies from its nearest neighbour."
    rng, moved = np.random.default_rng(1), np.lib.format.open_memmap(folder/'like.npy', 'w+', np.float16, (n, rows.shape[1]))
    asked = np.asarray(rows[np.sort(rng.choice(len(rows), min(some, len(rows)), replace=False))], np.float32)
    steps = asked - rows[exact_neighbours(rows, asked, 2, longest=1.01)[1][:, 1]].astype(np.float32)
    for a in range(0, n, 65536):
        x = rows[np.arange(a, min(a + 65536, n)) % len(rows)].astype(np.float32)
        x += steps[rng.integers(len(steps), size=len(x))]
        moved[a:a + 65536] = x / np.linalg.norm(x, axis=1, keepdims=True)
    moved.flush()
    return Rows([np.load(folder/'like.npy', mmap_mode='c')])


def directions(rows):
    "How many directions 99 of 100 parts of the variance lie in."
    x = np.asarray(rows[np.linspace(0, len(rows) - 1, 20000).astype(int)], np.float64)
    share = np.linalg.eigvalsh(np.cov(x.T))[::-1].cumsum()
    return int((share < .99 * share[-1]).sum()) + 1


def measure(mapped, queries, engines, threads, say, folder, **about):
    "One line for each engine and recall."
    n, dim = mapped.shape
    plain = lambda q: exact_neighbours(mapped, q, K, longest=1.01)
    truth, times = timed(plain, queries)
    line = dict(n=n, dim=dim, cpu_load=os.getloadavg()[0], bandwidth=bandwidth(mapped), **about)
    exact = line | dict(named='', reached='', effort='', recall1=1., recall10=1.)
    say(exact | dict(engine=EXACT, build=0, bytes=2 * dim, **times))
    if n >= neighbours.SCANNED_FROM and not no_copy(mapped):
        start, cpu = time.perf_counter(), time.process_time()
        copy = ByteRows.build(mapped, folder/'copy', progress=False)
        build, cpu, size = time.perf_counter() - start, time.process_time() - cpu, (folder/'copy').stat().st_size / n
        by_bytes = lambda q: copy.search(q, K, longest=1.01)
        rows, times = timed(by_bytes, queries)
        assert (rows == truth).all()
        say(exact | dict(engine=BYTES, build=build, build_cpu=cpu, bytes=2 * dim + size, index=size, **times, together=together(mapped, (plain, by_bytes), queries)))
    for name in engines:
        start, cpu = time.perf_counter(), time.process_time()
        faiss.omp_set_num_threads(threads)
        engine = Approximate.build(name, mapped, RECALLS[-1], progress=False)
        faiss.omp_set_num_threads(1)
        build, cpu = time.perf_counter() - start, time.process_time() - cpu
        size = engine.bytes / n
        best = (engine.effort, engine.nominated), engine.reached
        for engine.recall in RECALLS:  # what a build for this recall would have chosen
            (engine.effort, engine.nominated), engine.reached = next((t for t in engine.tried.items() if t[1] >= engine.recall), best)
            rows, times = timed(lambda q: engine.search(q, K, longest=1.01), queries)
            say(line | dict(engine=name, named=engine.recall, reached=engine.reached, effort=engine.effort, nominated=K * engine.nominated, build=build, build_cpu=cpu, threads=threads, bytes=2 * dim + size, index=size, **times,
                            recall1=float(np.mean(rows[:, 0] == truth[:, 0])), recall10=recall(rows, truth)))
        del engine


def big(n): return f'10^{round(np.log10(n))}'


HEAD = ['| people | engine | named | measured | effort | compared again | build (CPU s) | bytes per person | of them the index | CPU of one query (ms) | 32 at once (CPU ms each) | p50 (ms) | p99 (ms) | recall@1 | recall@10 |', '|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|']


def row(r, people):
    known = f'{r["named"]} | {r["reached"]:.3f} | {r["effort"]} | {r["nominated"]}' if r['named'] else '| | |'
    return f'| {people} | {r["engine"]} | {known} | {r.get("build_cpu", 0):.1f} | {r["bytes"]:.0f} | {r.get("index", 0):.0f} | {r["cpu"]:.2f} | {r["many"]:.2f} | {r["p50"]:.2f} | {r["p99"]:.2f} | {r["recall1"]:.3f} | {r["recall10"]:.3f} |'


def soonest(lines, people):
    "Which engine finds these shares of the ten nearest soonest: a line for each size."
    def cell(n, share):
        r = min((r for r in lines if r['n'] == n and r['recall10'] >= share), key=lambda r: r['p50'])
        return f'{r["p50"]:.2f} ms, {r["engine"]}' + (f' built for {r["named"]}, finds {r["recall10"]:.3f}' if r['named'] else '')
    return ['', '| people | 0.95 found soonest (p50) | 0.99 found soonest (p50) |', '|---|---|---|', *(f'| {people(n)} | {cell(n, .95)} | {cell(n, .99)} |' for n in sorted({r['n'] for r in lines}))]


def trained(lines):
    "The section on embeddings that a network made."
    if not lines: return []
    first, more = lines[0], sorted({r['n'] for r in lines if 'like' in r})
    return ['## Embeddings of a trained network', '', f'`{first["command"]}` found {first["n"] + QUERIES:,} people in {first["scenes"]:,} scenes; {QUERIES} of them, taken out, are the queries. An embedding has {first["dim"]} numbers, and 99% of their variance lies in {first["directions"]} directions (of the drawn ones above in {first["directions_drawn"]} of {DIM}). '
            + (f'The {" and ".join(f"{n:,}" for n in more)} rows are drawn from these: each is one of them, moved as far as another lies from its nearest neighbour; the queries are the same, as the network gave them. ' + LIKE) * bool(more)
            + f'Load {min(r["cpu_load"] for r in lines):.1f} to {max(r["cpu_load"] for r in lines):.1f}.', '', *HEAD, *(row(r, f'{r["n"]:,}') for r in lines), *soonest(lines, '{:,}'.format), '']


def report(lines):
    lines, of_network = ([r for r in lines if ('command' in r) is known] for known in (False, True))
    sizes = sorted({r['n'] for r in lines})
    top = sizes[-1]
    usual = [r for r in lines if r['named'] in ('', .99)]
    last = lambda n, e, key: next((r[key] for r in usual if r['n'] == n and r['engine'] == e and key in r), float('nan'))
    exact, quick, codes, graph = (next((r for r in reversed(usual) if r['engine'] == e), None) for e in (EXACT, BYTES, 'ivf-pq', 'hnsw'))  # at the largest size it was measured
    middle = [next(r for r in lines if r['n'] == top and r['engine'] == e and r['named'] == .95) for e in ENGINES]
    own = ''.join(f' Of {r["n"]:,} embeddings of a trained network {r["engine"]}, built for 0.99, finds {r["recall10"]:.3f} in {r["cpu"]:.1f} ms.' for r in of_network if r['named'] == .99 and 'like' not in r)
    out = ['# Search at scale', '', f'**Result.** Of {top:,} people, exact search takes {quick["cpu"]:.0f} ms of processor time for a query, by a copy of the rows in bytes; ' + '; '.join(f'{r["engine"]}, built for a recall of 0.95, finds {r["recall10"]:.3f} of ten neighbours in {r["cpu"]:.1f} ms' for r in middle) + '.' + own, '',
           f'`python benchmarks/search.py --sizes {" ".join(f"1e{round(np.log10(n))}" for n in sizes)}` · {date.today()} · {platform.system()} {platform.machine()}, {os.cpu_count()} cores, {os.environ.get("OMP_NUM_THREADS", "all")} thread(s) used · '
           f'numpy {np.__version__}, torch {torch.__version__.split("+")[0]}, faiss {faiss.__version__}', '',
           f'Embeddings of {DIM} numbers drawn by `neighbours.crowd`: {VIEWS} views of each person around a common direction, kept as float16 in a memory-mapped file that fits into the page cache. {QUERIES} queries are further views of the same people, which no index has seen; {K} matches wanted; recall is the share of '
           f'the first 1 and 10 of exact search that is found. Named is the recall an index was built for, measured what its build says it reaches, for the last two hundred rows, which wait outside while the effort is chosen. The load was {min(r["cpu_load"] for r in lines):.1f} to {max(r["cpu_load"] for r in lines):.1f} on {os.cpu_count()} cores. '
           'The columns marked CPU are processor time of this process; p50 and p99 are what the clock said.', '',
           *HEAD, *(row(r, big(r['n'])) for r in lines), *soonest(lines, big)]
    speed, limit = top * exact['bytes'] / exact['cpu'] / 1e6, exact['bandwidth']
    reading = lambda r: r['n'] * 2 * r['dim'] / r['bandwidth'] / 1e6  # ms for the rows alone
    share = lambda r: reading(r) / r['cpu']
    longer = ''.join(f'{share(r):.0%} {"by the bytes" if r["engine"] == BYTES else "by the rows"}, ' for r in of_network if r['engine'] in (EXACT, BYTES) and r['n'] == top)
    cores = quick['together']
    missing = [f'{e} at {big(n)}' for n in sizes for e in ENGINES if not any(r['n'] == n and r['engine'] == e for r in lines)]
    if missing: out += ['', f'Not measured: {", ".join(missing)}.']
    out += ['', 'Effort: cells opened of IVF-PQ (of 2√n), candidates on the way of HNSW (never fewer than 20); compared again: rows whose codes look nearest, by all their digits. The build of the first line of an engine includes choosing its effort. The bytes are those of the exact row (512) and of the index; the row may stay on disk, where a query fetches those that it compares again.', '', TRIED, '', *trained(of_network),
            '## How cost grows', '', 'Ratios between one size and the next, for a named recall of 0.99. A cost that grows with n shows 10, with √n 3.2, with log n about 1.2.', '',
            '| from, to | exact: query | ivf-pq: query | hnsw: query | ivf-pq: build | hnsw: build |', '|---|---|---|---|---|---|']
    for a, b in zip(sizes, sizes[1:]):
        pairs = [(e, 'cpu') for e in (EXACT, *ENGINES)] + [(e, 'build_cpu') for e in ENGINES]
        out.append((f'| {big(a)}, {big(b)} | ' + ' | '.join(f'{last(b, *p) / last(a, *p):.1f}x' for p in pairs) + ' |').replace('nanx', ''))
    out += ['', '## The limit of exact search', '', f'One query reads every row once. One thread that only reads the table of {big(top)} people takes {reading(exact):.1f} ms ({limit:.1f} GB/s; medians). A query over the rows where they lie, scanned by FAISS, takes {exact["cpu"]:.1f} ms of processor time: {share(exact):.0%} of the speed at which the memory gives them. '
            f'Who wants more has to read less. A copy of the rows in bytes (notebook [Rows in bytes](../nbs/tools/byte_rows.ipynb)), {quick["index"]:.0f} bytes more for each person, made in {quick["build_cpu"]:.0f} s of processor time, is scanned first, and what may be among the first is compared by its rows: {quick["cpu"]:.1f} ms, {share(quick):.0%} of the speed at which the rows could be read at all, and nothing is missed. '
            f'As the network makes them, rows of {of_network[0]["dim"]} numbers are searched at {longer}of the speed of reading them. '
            f'By the clock, with all {cores["cores"]} cores, which share one memory: reading {cores["read"]:.1f} ms, by the rows {cores[EXACT]:.1f}, by the bytes {cores[BYTES]:.1f}. '
            f'Up to a dozen queries together, 32 with a copy, are scanned for one by one; more are multiplied with the rows, which are read and widened once for all: {exact["many"]:.1f} ms each, 32 at once by the rows.', '']
    n, shard = 10**9, codes['n']
    shards, plan = n // shard, middle[0]
    out += ['## A plan for 10^9 people, on paper', '', f'From the numbers above: {shards:,} shards as large as the largest that was measured, at a named recall of 0.95. One person is {exact["bytes"]:.0f} bytes of row, {codes["index"]:.0f} of codes, {graph["index"]:.0f} of graph (a byte for each number included).', '',
            f'| what is kept where | for 10^9 | one shard of {big(shard)} |', '|---|---|---|',
            f'| exact rows, on SSD | {n * exact["bytes"] / 1e12:.2f} TB | {shard * exact["bytes"] / 1e9:.2f} GB |',
            f'| codes (IVF-PQ), in memory | {n * codes["index"] / 1e9:.0f} GB | {shard * codes["index"] / 1e9:.3f} GB |',
            f'| graph (HNSW), in memory | {n * graph["index"] / 1e9:.0f} GB | {shard * graph["index"] / 1e9:.2f} GB |',
            f'| boxes, scores, scenes (28 bytes) | {n * 28 / 1e9:.0f} GB | {shard * 28 / 1e9:.3f} GB |',
            f'| exact scan of all rows, one core at {speed:.1f} GB/s | {n * exact["bytes"] / speed / 1e9 / 60:.1f} min | {shard * exact["bytes"] / speed / 1e9:.2f} s |',
            f'| one query in the codes, {plan["effort"]} of {round(2 * shard**.5):,} cells, one core | {shards * plan["cpu"] / 1e3:.1f} s | {plan["cpu"]:.1f} ms |',
            f'| building the codes, one core | {shards * codes["build_cpu"] / 3600:.0f} hours | {codes["build_cpu"] / 60:.1f} min |', '',
            f'So the codes: {n * codes["index"] / 1e9:.0f} GB, which one machine of 128 GB holds, or four of 32 GB with {shards // 4} shards each; the rows are {n * exact["bytes"] / 1e12:.2f} TB on SSD. The seconds of a query are divided by the cores at work. Each shard then reads {plan["nominated"]} rows of 512 bytes, '
            f'{plan["nominated"] * shards:,} random reads in all: at 100,000 reads a second for an SSD, {plan["nominated"] * shards / 1e5:.0f} s on one, so that the rows want several, or larger shards. Merging {shards:,} lists of ten is nothing. Shards build side by side. Within its shard a query by the codes finds {plan["recall10"]:.0%} of the ten nearest; '
            f'the ten nearest of all shards are fewer in each, and nearer, so this should not be less for the whole, which was not measured. What no plan on paper shows is whether the ten nearest are the right person: with more strangers they are other rows (tutorial [15 Search a million people](../tutorials/15_million.ipynb) measures how that goes with the crowd).', '',
            'Where this is spread over machines, a gallery may lie on a Milvus server, behind the same calls (notebook [Milvus](../nbs/tools/milvus.ipynb)). '
            'No cluster was at hand, so none is in this table. Milvus Lite, which stands in for the server there, answers later than the folder at each of the sizes that the notebook compares, up to 8,000 people.', '',
            '## From where on which engine', '', f'`choose_engine` takes exact search below 300,000 rows (a query takes at most some twenty milliseconds and misses nothing) and codes above: at {big(top)} they are built in {codes["build_cpu"]:.0f} s of processor time where the graph takes {graph["build_cpu"]:.0f}, and hold {codes["index"]:.0f} bytes a person where it holds {graph["index"]:.0f}. The graph answers sooner ({middle[1]["cpu"]:.1f} against {middle[0]["cpu"]:.1f} ms at a named recall of 0.95; at 0.99 {graph["cpu"]:.1f} against {codes["cpu"]:.1f}), so it is there for those who name it: where a gallery stays as it is and is searched all day. '
            'These are judgements from this table, not laws: where queries come in hundreds, exact search for longer.', '']
    return '\n'.join(out)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--sizes', nargs='*', default=['1e4', '1e5'])
    p.add_argument('--engines', nargs='*', choices=ENGINES, default=ENGINES, help='beside exact search')
    p.add_argument('--threads', type=int, default=1, help='that build an index; queries are asked with one')
    p.add_argument('--gallery', help='a folder of `person-search index`, whose embeddings are measured as well')
    p.add_argument('--like', type=float, nargs='*', default=[], help='and so many people, drawn from those of the gallery')
    p.add_argument('--pages', type=float, help='people in a graph that is searched with and without pages of 2 MB')
    p.add_argument('--price', type=float, nargs='*', default=[], help='people whose codes are searched in all ways, to fit the price of the work')
    p.add_argument('--again', action='store_true', help='only write the report from search.json')
    a = p.parse_args()
    kept = HERE/'search.json'
    lines = json.loads(kept.read_text()) if kept.exists() else []
    def say(line):
        lines.append(line)
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()}, flush=True)
        atomic_write(kept, json.dumps(lines, indent=1).encode())
    def forget(n, of_network):
        "Lines that are measured anew."
        lines[:] = [r for r in lines if (r['n'], 'command' in r) != (n, of_network) or r['engine'] in set(ENGINES) - set(a.engines)]
    with tempfile.TemporaryDirectory() as folder:
        for n in () if a.again else map(int, map(float, a.sizes)):
            forget(n, False)
            measure(*drawn(n, Path(folder)), a.engines, a.threads, say, Path(folder))
        if a.pages: print('time with pages of 2 MB over time without, by effort:', pages(int(a.pages), Path(folder)))
        if a.price: print('us of processor time:', price(list(map(int, a.price)), Path(folder)))
        if a.gallery:
            rows, queries = found(a.gallery, Path(folder))
            about = dict(command=f"person-search index {read_manifest(Path(a.gallery))['sources'][0]['path']!r}", scenes=len(Gallery.open(a.gallery).names))
            forget(len(rows), True)
            measure(rows, queries, a.engines, a.threads, say, Path(folder), directions=directions(rows), directions_drawn=directions(Rows([crowd(10**5 // VIEWS, VIEWS, DIM)])), **about)
            for n in map(int, a.like):
                forget(n, True)
                measure(like(n, rows, Path(folder)), queries, a.engines, a.threads, say, Path(folder), like=True, **about)
    lines.sort(key=lambda r: ('like' in r, r['n'], [EXACT, BYTES, *ENGINES].index(r['engine'])))
    atomic_write(HERE/"search.md", report(lines).encode())
