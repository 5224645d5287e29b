"Galleries: exact whatever the blocks, the files and the processes; killed at any format_time they open, and end as if unbroken."
import json, os, shutil, signal, stat, sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from person_search_nb import gallery_files, neighbours
from person_search_nb.distributed import spawn
from person_search_nb.datasets import open_dataset
from person_search_nb.file_locks import BusyError, locked
from person_search_nb.model_files import shipped_trunk
from person_search_nb.reranking import cbgm, k_reciprocal
from person_search_nb.models import load_model
from person_search_nb.neighbours import Approximate, choose_engine, crowd, exact_neighbours
from person_search_nb.neighbours import recall, Rows
from person_search_nb.manifest import read_manifest, write_manifest
from person_search_nb.shards import compact
from person_search_nb.sources import open_source, time_in
from person_search_nb.gallery import fingerprint, format_time, thumbnail
from person_search_nb.hits_page import hits_page
from person_search_nb.search import Gallery
from person_search_nb.indexing import build_gallery

SPEC = 'synth:tiny?test_scenes=10&test_ids=6&queries=4&gallery=9&size=128x224&seed=3'


@pytest.fixture(scope='module')
def net(): return load_model(shipped_trunk('hdl-student-fast-taught'))


@pytest.fixture(scope='module')
def shots(tmp_path_factory):
    "A folder of ten pictures, two cameras, one a second."
    folder, data = tmp_path_factory.mktemp('shots'), open_dataset(SPEC, 'gallery', progress=False)
    for i in range(10): Image.fromarray(data.picture(i)).save(folder/f'c{i % 2 + 1}s1_{25 * i:06d}.png')
    return folder


@pytest.fixture
def mine(shots, tmp_path):
    "A copy that a test may spoil."
    (tmp_path/'shots').mkdir()
    for p in shots.iterdir(): (tmp_path/'shots'/p.name).write_bytes(p.read_bytes())
    return tmp_path/'shots'


def build(net, source, out, **kw): return build_gallery(net, source, out, progress=False, **dict(batch_size=2, shard=3) | kw)


@pytest.fixture
def one_thread():
    "One thread in this process, as in those that `spawn` starts; afterwards as many as before."
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same(a, b):
    "Bit for bit: the same batches, by the same number of threads."
    for k in ('det_image', 'det_boxes', 'det_scores', 'det_feats', 'cameras', 'times', 'sizes'): np.testing.assert_array_equal(np.asarray(getattr(a, k)), np.asarray(getattr(b, k)), err_msg=k)
    assert a.names == b.names


def alike(a, b):
    "The same scenes and people, up to the order in which numbers were added: another number of threads, or other batches."
    assert a.names == b.names
    for k in ('det_image', 'cameras', 'times', 'sizes'): np.testing.assert_array_equal(np.asarray(getattr(a, k)), np.asarray(getattr(b, k)), err_msg=k)
    for k, atol in (('det_boxes', 1e-2), ('det_scores', 1e-4), ('det_feats', 1e-3)):
        np.testing.assert_allclose(np.asarray(getattr(a, k), np.float32), np.asarray(getattr(b, k), np.float32), rtol=0, atol=atol, err_msg=k)


# neighbours -----------------------------------------------------------------------------------------------------------

def loop(feats, query, k, keep):
    rows = [r for r in range(len(feats)) if keep is None or keep[r]]
    return sorted(rows, key=lambda r: (-sum(float(a) * float(b) for a, b in zip(feats[r], query)), r))[:k]


@given(st.data())
@settings(max_examples=60)
def test_exact_is_the_loop(data):
    neighbours.SCANNED_FROM, worth = 0, neighbours.SCANNED_FROM  # FAISS scans the smallest tables, too
    neighbours._SHARE, share = 3, neighbours._SHARE  # by several threads
    neighbours._AT_ONCE, width = 1, neighbours._AT_ONCE  # rows of any length
    threads = torch.get_num_threads()
    torch.set_num_threads(data.draw(st.integers(1, 4)))
    try: is_the_loop(data)
    finally:
        neighbours.SCANNED_FROM, neighbours._SHARE, neighbours._AT_ONCE = worth, share, width
        torch.set_num_threads(threads)


def is_the_loop(data):
    "Small whole numbers, so that many are equal: falling similarity, then the earlier row, for any block, any parts, any filter."
    rng = np.random.default_rng(data.draw(st.integers(0, 10 ** 6)))
    n, k, block, cuts = data.draw(st.tuples(st.integers(0, 40), st.integers(1, 12), st.integers(1, 50), st.lists(st.integers(0, 40), max_size=3)))
    feats = rng.integers(-2, 3, (n, 4)).astype(data.draw(st.sampled_from([np.float16, np.float32])))
    queries = rng.integers(-2, 3, (3, 4)).astype(np.float32)
    keep = rng.random(n) < .5 if data.draw(st.booleans()) else None
    parts = Rows(np.split(feats, sorted(min(c, n) for c in cuts)))
    sims, rows = exact_neighbours(parts, queries, k, keep, block)
    for q in range(3):
        want = loop(feats, queries[q], k, keep)
        assert rows[q][:len(want)].tolist() == want and (rows[q][len(want):] == -1).all() and (sims[q][len(want):] == -np.inf).all()
        assert sims[q][:len(want)].tolist() == [float(feats[r].astype(float) @ queries[q].astype(float)) for r in want]
        alone = exact_neighbours(parts, queries[q:q + 1], k, keep, block, longest=4.)
        assert alone[1][0].tolist() == rows[q].tolist() and alone[0][0].tolist() == sims[q].tolist()


def test_blocks_do_not_show():
    feats, asked = crowd(100, 20, 96), crowd(100, 20, 96, dtype=np.float32)[:7]
    answers = [exact_neighbours(feats, asked, 20, block=b) for b in (1, 33, 8192)] + [exact_neighbours(Rows([feats[:5], feats[5:900], feats[900:]]), asked, 20, longest=1.01)]
    for s, r in answers[1:]: np.testing.assert_array_equal(s, answers[0][0]); np.testing.assert_array_equal(r, answers[0][1])


def test_many_queries_are_compared_in_parts(monkeypatch):
    "The products of a hundred thousand queries with a block of rows would take more memory than there is."
    feats = Rows([crowd(50, 8, 64)])
    asked, keep = feats[:23].astype(np.float32), np.arange(400) % 3 > 0
    whole = exact_neighbours(feats, asked, 5, keep)
    monkeypatch.setattr('person_search_nb.neighbours._QUERIES', 5)
    for a, b in zip(whole, exact_neighbours(feats, asked, 5, keep)): np.testing.assert_array_equal(a, b)
    asked[17, 3] = np.nan
    with pytest.raises(ValueError, match='query 17 of'): exact_neighbours(feats, asked, 5, keep)


def test_long_rows_need_no_unit_length():
    rng = np.random.default_rng(0)
    feats = rng.standard_normal((500, 8)).astype(np.float32) * rng.uniform(.01, 1000, (500, 1)).astype(np.float32)
    assert exact_neighbours(feats, feats[:3], 5, block=64)[1].tolist() == [loop(feats, q, 5, None) for q in feats[:3]]


@pytest.mark.parametrize('name', ['hnsw', 'ivf-pq'])
def test_engines(name, tmp_path):
    pytest.importorskip('faiss')
    feats, asked = crowd(150, 20, 64), crowd(150, 20, 64, dtype=np.float32)[:40]
    engine, truth = Approximate.build(name, feats, progress=False), exact_neighbours(feats, asked, 10)
    sims, rows = engine.search(asked, 10)
    assert recall(rows, truth[1]) > .95 and (np.diff(sims) <= 0).all()
    found = rows == truth[1]
    np.testing.assert_array_equal(sims[found], truth[0][found])                                    # similarities are those of the rows, not of codes
    keep = np.arange(len(feats)) % 3 == 0
    assert (engine.search(asked, 10, keep)[1] % 3 == 0).all()
    grown = Approximate(name, Rows([feats, asked[:2].astype(np.float16)]), engine.index, engine.effort, engine.nominated)  # two rows came after the index
    assert (np.sort(grown.search(asked[:2], 2)[1], 1) == [[0, 3000], [1, 3001]]).all()
    engine.save(tmp_path/'i')
    np.testing.assert_array_equal(Approximate.load(name, feats, tmp_path/'i').search(asked, 10)[1], rows)
    (tmp_path/'i').write_bytes((tmp_path/'i').read_bytes()[:200])
    with pytest.raises(ValueError, match='not a readable index'): Approximate.load(name, feats, tmp_path/'i')


def test_an_index_is_written_piece_by_piece_and_whole_or_not_at_all(tmp_path):
    faiss = pytest.importorskip('faiss')
    import resource
    engine = Approximate.build('hnsw', crowd(100, 20, 64), progress=False)
    engine.save(tmp_path/'i')
    whole = (tmp_path/'i').read_bytes()
    assert engine.bytes == len(whole) and whole.partition(b'\n')[2] == faiss.serialize_index(engine.index).tobytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) // 2, limits[1]))  # as on a full disk
    try:
        with pytest.raises(OSError, match='i: cannot be written .*the file that was there before is intact'): engine.save(tmp_path/'i')
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path/'i').read_bytes() == whole and os.listdir(tmp_path) == ['i']


@pytest.mark.parametrize('name', ['hnsw', 'ivf-pq'])
@pytest.mark.parametrize('wanted', [.8, .99])
def test_an_index_finds_the_share_that_was_named(name, wanted, tmp_path):
    "The effort was a number in units of its own, whose recall nobody knew; here it is measured on queries that the index has not seen."
    pytest.importorskip('faiss')
    feats, asked = np.split(crowd(510, 20, 64, seed=3), [10_000])
    asked = asked.astype(np.float32)
    engine = Approximate.build(name, feats, wanted, progress=False)
    assert engine.reached >= wanted and recall(engine.search(asked, 10)[1], exact_neighbours(feats, asked, 10)[1]) > wanted - .03
    engine.save(tmp_path/'i')
    again = Approximate.load(name, feats, tmp_path/'i')
    assert (again.effort, again.nominated, again.recall, again.reached) == (engine.effort, engine.nominated, wanted, engine.reached) and f'recall={wanted}' in repr(again)


def test_more_recall_takes_more_effort_and_too_much_is_said():
    pytest.importorskip('faiss')
    feats = crowd(500, 20, 64)
    least, most = (Approximate.build('ivf-pq', feats, r, progress=False).effort for r in (.5, .99))
    assert least < most
    rng = np.random.default_rng(0)
    alike = np.ones(64) + 1e-3 * rng.standard_normal((2000, 64))  # nearer to each other than codes can tell
    alike = (alike / np.linalg.norm(alike, axis=1, keepdims=True)).astype(np.float32)
    with pytest.warns(UserWarning, match="at its highest effort, and recall=1 was named; engine='exact' misses nothing"): engine = Approximate.build('ivf-pq', alike, 1, progress=False)
    assert engine.reached < 1 and (engine.effort, engine.nominated) == (engine._most, 160)


def test_codes_take_the_cheapest_pair_that_finds_enough(tmp_path):
    "More cells where cells are closed, more rows compared again where codes are unlucky: four hundred rows of one origin, whose codes are nearly the same."
    pytest.importorskip('faiss')
    rng = np.random.default_rng(0)
    alike = crowd(10, 1, 64, dtype=np.float32).repeat(400, 0) + .02 * rng.standard_normal((4000, 64)).astype(np.float32)
    alike = rng.permutation(alike / np.linalg.norm(alike, axis=1, keepdims=True)).astype(np.float16)
    few, many = (Approximate.build('ivf-pq', alike, r, progress=False) for r in (.6, .99))
    for engine in (few, many):
        *cheaper, last = engine.tried.values()
        assert all(r < engine.recall for r in cheaper) and last == engine.reached >= engine.recall
        assert list(engine.tried)[-1] == (engine.effort, engine.nominated)
    assert few.nominated < many.nominated
    many.save(tmp_path/'i')
    whole = (tmp_path/'i').read_bytes()
    for wrong in (b'0', b'-1', b'1.5', b'"2"', b'null'):
        (tmp_path/'i').write_bytes(whole.replace(b'"nominated": %d' % many.nominated, b'"nominated": ' + wrong, 1))
        with pytest.raises(ValueError, match='i: not a readable index; build it again'): Approximate.load('ivf-pq', alike, tmp_path/'i')


@pytest.mark.parametrize('wrong', [1.5, 0, -.1, float('nan'), 'x', True, None])
def test_a_recall_that_is_none(wrong):
    for use in (lambda: Approximate.build('hnsw', crowd(5, 4, 16), wrong), lambda: drawn(10).build_index('exact', wrong)):
        with pytest.raises(ValueError, match='give the share of the ten nearest to be found') as e: use()
        assert '\n' not in str(e.value)


@pytest.mark.parametrize('rows', [1, 2, 11])
def test_an_index_over_hardly_any_rows(rows):
    pytest.importorskip('faiss')
    feats = crowd(rows, 1, 16, dtype=np.float32)
    assert set(Approximate.build('hnsw', feats, progress=False).search(feats[:1], 10)[1][0]) - {-1} == set(range(min(rows, 10))) or rows > 10


@pytest.mark.parametrize('scans, share', [(True, 50_000), (True, 700), (False, 50_000)])
def test_one_query_of_half_precision_is_as_exact_as_many(scans, share, monkeypatch):
    "It is multiplied in float16, or scanned by FAISS if that is there, in several threads: what rounding may hide is compared again."
    monkeypatch.setattr(neighbours, 'SCANNED_FROM', 0)
    monkeypatch.setattr(neighbours, '_SHARE', share)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 9)
    if scans: pytest.importorskip('faiss')
    else: monkeypatch.setitem(sys.modules, 'faiss', None)
    feats, asked = crowd(500, 20, 64), crowd(500, 20, 64, dtype=np.float32, seed=4)[:20]
    near = asked[0] + .02 * np.random.default_rng(0).standard_normal((3000, 64))  # nearer to each other than float16 can tell
    feats[5000:8000] = near / np.linalg.norm(near, axis=1, keepdims=True)
    feats[8000:8100] = feats[5000:5100]  # equals
    parts = Rows([feats[:10], feats[10:6000], feats[6000:]])
    for keep in (None, np.arange(len(feats)) % 3 > 0):
        s, r = exact_neighbours(feats, asked, 20, keep)
        for q in range(20):
            for table, block in ((feats, 77), (feats, 16384), (parts, 16384)):
                one = exact_neighbours(table, asked[q:q + 1], 20, keep, block, longest=1.01)
                np.testing.assert_array_equal(one[0][0], s[q]), np.testing.assert_array_equal(one[1][0], r[q])


@pytest.mark.parametrize('what', [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named(what, monkeypatch):
    "By one query as by several, though a scan would pass over it."
    monkeypatch.setattr(neighbours, 'SCANNED_FROM', 0)
    feats = crowd(500, 20, 64)
    feats[7003, 5] = what
    for n in (1, 2):
        with pytest.raises(ValueError, match='row 7003 of the embeddings is not finite'): exact_neighbours(Rows([feats[:100], feats[100:]]), feats[:n], 5, longest=1.01)
    keep = np.arange(len(feats)) != 7003
    assert exact_neighbours(Rows([feats]), feats[:1], 5, keep, longest=1.01)[1].tolist() == exact_neighbours(feats, feats[:1], 5, keep)[1].tolist()


def test_what_a_scan_must_not_read(monkeypatch):
    "FAISS is told where numbers lie: of another length or type, or not side by side, it would read others."
    monkeypatch.setattr(neighbours, 'SCANNED_FROM', 0)
    feats, asked = crowd(100, 20, 64), crowd(100, 20, 64, dtype=np.float32, seed=5)[:1]
    for width in (1, 63, 65, 4096):
        with pytest.raises(ValueError, match='as many numbers as a row has'): exact_neighbours(Rows([feats]), np.ones((1, width)), longest=1.01)
    with pytest.raises(ValueError, match=r'longer than those of others: \[32, 64\]'): Rows([feats, feats[:, :32]])
    other = crowd(100, 20, 64, seed=9)
    for second in (other.astype(np.float32), np.asfortranarray(other), other[::-1], np.repeat(other, 2, 1)[:, ::2]):
        for parts in ([feats, second], [second, feats]):
            found = exact_neighbours(Rows(parts), asked, np.int64(10), longest=1.01)
            want = exact_neighbours(np.concatenate(parts, dtype=np.float32), asked, 10)
            np.testing.assert_array_equal(found[1], want[1]), np.testing.assert_array_equal(found[0], want[0])
    table = Rows([np.repeat(feats[::20], 60, 0)])
    assert exact_neighbours(Rows([feats * np.float16(1e-3)]), asked * 1e6, 5, longest=.00101)[1].tolist() == exact_neighbours(feats * np.float16(1e-3), asked, 5)[1].tolist()
    for far in (1e6, 1e30): assert exact_neighbours(table, asked * far, 5, longest=1.01)[1].tolist() == exact_neighbours(table, asked, 5)[1].tolist()  # beyond float16


def test_an_index_of_an_earlier_version(tmp_path, capsys):
    faiss = pytest.importorskip('faiss')
    g = drawn(3000)
    g.save(tmp_path/'g')
    opened = Gallery.open(tmp_path/'g').build_index('hnsw', progress=False)
    assert 'hnsw: finds ' in capsys.readouterr().out and opened.manifest['index']['reached'] == opened.engine.reached and opened.manifest['index']['recall'] == .99
    file = tmp_path/'g'/opened.manifest['index']['file']
    file.write_bytes(faiss.serialize_index(opened.engine.index).tobytes())  # without the line that says what it is
    write_manifest(tmp_path/'g', read_manifest(tmp_path/'g', files=False) | dict(index=dict(name='hnsw', file=file.name, rows=3000, bytes=file.stat().st_size)))
    old = Gallery.open(tmp_path/'g')
    with pytest.raises(ValueError, match='an index of an earlier version; build it again: .*build_index.., or person-search index'): old.search(g.det_feats[3], 5)
    assert old.search(g.det_feats[3], 5, exact=True)
    assert Gallery.open(tmp_path/'g').build_index('hnsw', progress=False).search(g.det_feats[3], 5, score_threshold=0)[0].detection == 3


def test_choice_of_an_engine(monkeypatch):
    assert [choose_engine(n)[0] for n in (10, 299_999, 300_000, 3_000_000)] == ['exact', 'exact', 'ivf-pq', 'ivf-pq']
    assert choose_engine(10 ** 8, unit=False)[0] == 'exact'
    monkeypatch.setattr(neighbours.importlib.util, 'find_spec', lambda name: None)
    assert choose_engine(10 ** 8)[0] == 'exact' and 'person_search_nb[search]' in choose_engine(10 ** 8)[1]


# building -------------------------------------------------------------------------------------------------------------

def test_a_folder_with_its_rows_in_bytes(net, mine, tmp_path, monkeypatch, capsys):
    "Made once, made again when it is broken or far behind, left out with a word where it cannot be."
    pytest.importorskip('faiss')
    monkeypatch.setattr(neighbours, 'SCANNED_FROM', 5)
    late = sorted(mine.iterdir())[5:]
    for p in late: p.rename(tmp_path/p.name)
    def index(**kw):
        made = build(net, mine, tmp_path/'g', **kw)
        query = np.asarray(made.det_feats[0], np.float32)
        lists = [[(m.detection, m.similarity) for m in made.search(query, 5, exact=way)] for way in (False, True)]
        assert lists[0] == lists[1] and len(lists[0]) == 5
        files, about = [p.name for p in (tmp_path/'g').glob('*.exact')], made.manifest['index']
        assert files == ([about['file']] if about and about['name'] == 'exact' else [])
        return files
    first = index()
    assert first and 'rows in bytes first; nothing is missed' in capsys.readouterr().out
    assert index() == index(engine='exact') == index(recall=.9) == index(engine='exact', recall=.5) == first
    damaged = bytearray((tmp_path/'g'/first[0]).read_bytes())
    damaged[5000] ^= 1
    (tmp_path/'g'/first[0]).write_bytes(damaged)
    with pytest.raises(ValueError, match=f"{first[0]}: is damaged; build it again: Gallery.open.FOLDER..build_index.'exact'"): Gallery.open(tmp_path/'g').search(np.ones(320) / 320 ** .5)
    second = index()
    assert second and second != first and 'is damaged; build it again' in capsys.readouterr().out
    (tmp_path/'g'/second[0]).unlink()
    third = index()
    assert third not in (first, second) and index() == third
    for p in late: (tmp_path/p.name).rename(mine/p.name)
    assert index() not in ([], third)  # twice as many
    with monkeypatch.context() as m:
        m.setattr(neighbours, 'SCANNED_FROM', 10 ** 6)
        assert index(engine='hnsw') == index(engine='exact') == [] and 'no copy' not in capsys.readouterr().out
    with monkeypatch.context() as m:
        m.setattr('person_search_nb.byte_rows.importlib.util.find_spec', lambda name: None)
        assert index(engine='exact') == [] and "no copy of the rows in bytes: pip install 'person_search_nb[search]'" in capsys.readouterr().out
    with monkeypatch.context() as m:
        m.setattr('person_search_nb.byte_rows.atomic_write', lambda path, write: (_ for _ in ()).throw(OSError(f'{path}: cannot be written (no space)')))
        with pytest.warns(UserWarning, match='cannot be written .no space.: searching without a copy'): assert index() == []
    assert index()
    one, two = Gallery.open(tmp_path/'g'), Gallery.open(tmp_path/'g')
    for g in (one, two, one): g.build_index('exact', progress=False)
    assert len(list((tmp_path/'g').glob('*.exact'))) == 1


def test_a_folder_becomes_a_gallery(net, shots, tmp_path):
    made = build(net, shots, tmp_path/'g')
    assert made.names == sorted(p.name for p in shots.iterdir()) and made.cameras.tolist() == [1] * 5 + [2] * 5
    assert made.times[:3].tolist() == [0., 2., 4.] and len(made.manifest['shards']) == 4 and made.det_feats.dtype == np.float16
    again = build(net, shots, tmp_path/'g')                                                        # nothing to do
    assert read_manifest(tmp_path/'g')['shards'] == made.manifest['shards']; same(made, again)
    memory = Gallery.from_model(net, open_dataset(SPEC, 'gallery', progress=False), progress=False)
    box = made.det_boxes[0]
    asked = made.embed(net, shots/made.names[0], box)
    assert made.search(asked, 1)[0].detection == 0
    np.testing.assert_allclose(asked, made.embed(net, 0, box), atol=1e-6)
    for threshold in (.5, .9): assert [(m.scene, m.detection) for m in made.search(asked, 8, score_threshold=threshold)] == [(int(made.det_image[r]), r) for r in loop(np.asarray(made.det_feats), asked, 8, made.det_scores >= threshold)]
    assert len(memory) >= len(made)                                                                # which keeps weak ones, too


def test_append_is_one_build(net, mine, tmp_path):
    late = [p for p in sorted(mine.iterdir())[6:]]
    kept = {p: p.read_bytes() for p in late}
    for p in late: p.unlink()
    build(net, mine, tmp_path/'g')
    for p, b in kept.items(): p.write_bytes(b)
    same(build(net, mine, tmp_path/'g'), build(net, mine, tmp_path/'whole'))                       # shards of 3: the cut falls between two
    both = build(net, SPEC, tmp_path/'g')                                                          # another source joins
    assert len(both.names) == 20 and both.picture(15).shape == (128, 224, 3)


def test_compact_keeps_every_row(net, shots, tmp_path):
    made = build(net, shots, tmp_path/'g', shard=1)
    compact(tmp_path/'g', most=2)
    small = Gallery.open(tmp_path/'g')
    same(made, small)
    assert len(small.manifest['shards']) == 1 and len(list((tmp_path/'g').glob('*.npy'))) == 1
    np.testing.assert_array_equal(small.picture(4), made.picture(4))
    assert len(build(net, shots, tmp_path/'g').names) == 10


def test_what_is_copied_or_appended_keeps_its_pictures(net, mine, tmp_path, capsys):
    "And so it is known: indexing the same pictures adds nobody twice."
    for part in (1, 2): build(net, mine, tmp_path/'parts', part=(part, 2), model_file='shipped:hdl-student-fast-taught')
    parts = Gallery.open(tmp_path/'parts')
    parts.save(tmp_path/'copy')
    copy = Gallery.open(tmp_path/'copy')
    assert people_of(copy) == people_of(parts) and copy.manifest['model_file'] == 'shipped:hdl-student-fast-taught'
    for i, name in enumerate(copy.names): np.testing.assert_array_equal(copy.picture(i), np.asarray(Image.open(mine/name)))
    assert len(build(net, mine, tmp_path/'copy')) == len(parts)
    other = tmp_path/'other'
    other.mkdir()
    (other/'late.png').write_bytes((mine/'c1s1_000000.png').read_bytes())
    grown = copy.append(build(net, other, tmp_path/'g'))
    np.testing.assert_array_equal(grown.picture(10), copy.picture(copy.names.index('c1s1_000000.png')))
    assert len(build(net, other, tmp_path/'copy').names) == 11
    (other/'late.png').unlink()
    (other/'new.png').write_bytes((mine/'c2s1_000025.png').read_bytes())
    fewer = build(net, other, tmp_path/'copy', changed='replace')
    assert fewer.dropped.tolist() == [10]
    again = fewer.append(Gallery.open(tmp_path/'g'))                                               # what was forgotten, by hand
    assert again.dropped.tolist() == [10] and again.names[12] == 'late.png'
    with pytest.raises(ValueError, match='late.png: was added without its picture'): again.picture(12)
    again.save(tmp_path/'last')
    assert Gallery.open(tmp_path/'last').names == [n for i, n in enumerate(again.names) if i != 10]


def test_opened_while_another_process_joins_its_shards(net, shots, tmp_path, monkeypatch):
    made, read, times = build(net, shots, tmp_path/'g', shard=1), gallery_files.read_shard, []
    def slow(*args):
        times.append(1)
        if len(times) == 2: compact(tmp_path/'g', most=2)                                          # between the manifest and its files
        return read(*args)
    monkeypatch.setattr(gallery_files, 'read_shard', slow)
    same(made, Gallery.open(tmp_path/'g'))
    (tmp_path/'g'/'000001.npz').unlink(missing_ok=True)
    for p in (tmp_path/'g').glob('*.npz'): p.write_bytes(p.read_bytes()[:99])
    with pytest.raises(ValueError, match='cut short, or changed; run person-search index'): Gallery.open(tmp_path/'g')


def people_of(gallery):
    "What a gallery says of each scene, whatever their order."
    rows = lambda i: [(m.tolist(), f.tolist()) for m, f in zip(gallery.det_boxes[gallery.det_image == i], np.asarray(gallery.det_feats[np.flatnonzero(gallery.det_image == i)]))]
    return {gallery.names[i]: (rows(i), gallery.cameras[i], gallery.times[i]) for i in range(len(gallery.names))}


def _shared_build(shots, out): return len(build(load_model(shipped_trunk('hdl-student-fast-taught')), shots, out, batch_size=1))


def test_two_processes_of_a_launcher_make_two_parts(net, shots, tmp_path, one_thread):
    "Each its own; together, to the last bit, what one makes alone. Nothing is done again, and nothing is missed when a picture comes."
    one = build(net, shots, tmp_path/'one', batch_size=1)
    counts = spawn(_shared_build, 2, shots, tmp_path/'two')
    assert sorted(p.name for p in (tmp_path/'two').iterdir()) == ['1-of-2', '2-of-2'] and sum(counts) == len(one) and all(counts)
    both = Gallery.open(tmp_path/'two')
    assert [len(m) for m in both.members] == counts and people_of(both) == people_of(one)
    query = np.asarray(one.det_feats[7], np.float32)
    assert [(m.name, m.similarity) for m in both.search(query, 9)] == [(m.name, m.similarity) for m in one.search(query, 9)]


@pytest.mark.parametrize('n', [1, 3, 16])
def test_parts_by_number(net, mine, tmp_path, n, capsys):
    "A part that is made again, after pictures were added, keeps its scenes and takes its share of the new; more parts than pictures leave some empty."
    late = sorted(mine.iterdir())[3]
    kept = late.read_bytes()
    late.unlink()
    for k in range(1, n + 1): build(net, mine, tmp_path/'g', part=(k, n))
    before = people_of(Gallery.open(tmp_path/'g'))
    late.write_bytes(kept)
    for k in range(1, n + 1): build(net, mine, tmp_path/'g', part=(k, n))
    after = people_of(Gallery.open(tmp_path/'g'))
    assert len(after) == 10 and len(before) == 9 and {k: after[k] for k in before} == before
    assert ('falls to this part' in capsys.readouterr().out) == (n == 16)


def test_parts_that_are_missing_or_mixed(net, shots, tmp_path):
    for k in (1, 3): build(net, shots, tmp_path/'g', part=(k, 3))
    with pytest.raises(ValueError, match=r'g: part 2 of 3 is missing; run person-search index --part 2/3'): Gallery.open(tmp_path/'g')
    build(net, shots, tmp_path/'g', part=(1, 2))
    with pytest.raises(ValueError, match='g: holds parts of 2 and of 3; remove the parts of one'): Gallery.open(tmp_path/'g')
    with pytest.raises(ValueError, match='is no gallery, and not empty'): build(net, shots, tmp_path/'g')
    for part in ((3, 2), (0, 2), 2, 'a', (1, 2., 3)):
        with pytest.raises(ValueError, match=r'give \(which, of how many\), such as \(2, 8\)'): build(net, shots, tmp_path/'h', part=part)


def test_each_worker_takes_one_stretch_of_a_film(net, tmp_path):
    pytest.importorskip('av')
    film(tmp_path/'c2 yard.mp4')
    build(net, tmp_path/'c2 yard.mp4', tmp_path/'one', every=.2)
    for k in (1, 2): build(net, tmp_path/'c2 yard.mp4', tmp_path/'g', every=.2, part=(k, 2))
    assert list(Gallery.open(tmp_path/'g').names) == list(Gallery.open(tmp_path/'one').names)


def _agent(words, said):
    "An agent of torchrun, what it and its process say in a file."
    for number in (1, 2): os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    from torch.distributed.run import main
    main(words)


def test_two_machines_of_torchrun(shots, tmp_path, child):
    "Two agents on this host, as on two machines: each process writes a gallery of its own, and one name opens both."
    import socket, sys
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    agent = ['--nnodes', '2', '--nproc-per-node', '1', '--rdzv-backend', 'c10d', '--rdzv-endpoint', f'localhost:{port}', '--rdzv-id', 'g', '--no-python',
             sys.executable, '-c', 'from person_search_nb.cli import main; main()', 'index', shots, '--out', tmp_path/'g', '--device', 'cpu']
    said = [tmp_path/f'{k}.txt' for k in 'ab']
    agents = [child(_agent, [str(a) for a in agent], str(f)) for f in said]
    for a in agents: a.join(600)
    assert [a.exitcode for a in agents] == [0, 0], [f.read_text() for f in said]
    both = Gallery.open(tmp_path/'g')
    assert [m.folder.name for m in both.members] == ['1-of-2', '2-of-2'] and len(both.names) == 10 and all(len(m.names) for m in both.members)


def _failing_build(shots, out):
    try: build(load_model(shipped_trunk('hdl-student-fast-taught')), shots, out)
    except ValueError as e: return str(e)


def test_an_error_reaches_every_process(tmp_path):
    assert all('no such folder' in e for e in spawn(_failing_build, 2, tmp_path/'nowhere', tmp_path/'g'))


def _killed(shots, out, at, threads):
    "Build, and die at a write: every file passes fsync, here with its bytes half on the disk."
    torch.set_num_threads(threads)
    fsync, calls = os.fsync, 0
    def dying(f):
        nonlocal calls
        if stat.S_ISDIR(os.fstat(f).st_mode): return fsync(f)
        calls += 1
        if calls == at:
            os.ftruncate(f, os.fstat(f).st_size // 2); os.kill(os.getpid(), signal.SIGKILL)
        fsync(f)
    os.fsync = dying
    build(load_model(shipped_trunk('hdl-student-fast-taught')), shots, out)


def test_killed_at_every_kind_of_write(net, shots, tmp_path, child):
    "kill -9 while manifest, rows or columns are written: the gallery opens, holds whole shards, and ends as if unbroken, with as many threads before and after."
    unbroken, opened = build(net, shots, tmp_path/'whole'), []
    for at in (1, 2, 3, 4, 6):
        done = child(_killed, shots, tmp_path/'g', at, torch.get_num_threads())
        done.join()
        assert done.exitcode == -signal.SIGKILL
        if (tmp_path/'g/manifest.json').exists(): opened.append(len(Gallery.open(tmp_path/'g').names))
    assert opened == sorted(opened) and len(opened) > 2 and opened[-1] >= 3
    same(build(net, shots, tmp_path/'g'), unbroken)


class Watched(torch.nn.Module):
    "Notes the batches it is given, and gives up after some of them, as at Ctrl-C."
    def __init__(self, net, most=None): super().__init__(); self.net, self.config, self.most, self.batches = net, net.config, most, []
    def state_dict(self): return self.net.state_dict()
    def forward(self, images):
        if len(self.batches) == self.most: raise KeyboardInterrupt
        self.batches.append([i.numpy().tobytes() for i in images])
        return self.net(images)


@pytest.mark.parametrize('after', range(7))
def test_a_break_cuts_no_batch_in_two(net, mine, tmp_path, after):
    "Wherever a build stops, what is left is put together as in an unbroken run: so the numbers are the same, and not only alike. One picture cannot be read."
    (sorted(mine.iterdir())[4]).write_bytes(b'not a picture')
    whole, first, second = Watched(net), Watched(net, after), Watched(net)
    unbroken = build(whole, mine, tmp_path/'whole')
    assert len(whole.batches) == 7           # shards of 3, batches of 2
    with pytest.raises(KeyboardInterrupt): build(first, mine, tmp_path/'g')
    resumed = build(second, mine, tmp_path/'g')
    assert first.batches == whole.batches[:after] and second.batches == whole.batches[len(whole.batches) - len(second.batches):]
    assert len(first.batches) + len(second.batches) - len(whole.batches) in (0, 1)   # of the shard that was not finished
    same(resumed, unbroken)


def test_other_threads_and_batches_find_the_same_people(net, shots, tmp_path, request):
    "Sums in another order differ in the last bits: the people are the same, the numbers alike."
    some = build(net, shots, tmp_path/'some')              # by as many threads as there are here
    request.getfixturevalue('one_thread')
    alike(build(net, shots, tmp_path/'fours', batch_size=4, shard=9), some)


def test_disk_full_leaves_the_gallery_as_it_was(net, mine, tmp_path, monkeypatch):
    made = build(net, mine, tmp_path/'g')
    Image.new('RGB', (224, 128)).save(mine/'z.png'); Image.fromarray(made.picture(0)).save(mine/'zz.png')
    class Full:
        def __init__(self, *a): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(np.lib.format, 'write_array_header_1_0', Full)
    with pytest.raises(OSError, match='rows.npy: cannot be written .No space left.*as it was'): build(net, mine, tmp_path/'g')
    monkeypatch.undo()
    same(Gallery.open(tmp_path/'g'), made)
    assert not list((tmp_path/'g').glob('*.part')) and len(build(net, mine, tmp_path/'g').names) == 12


# bad input ------------------------------------------------------------------------------------------------------------

def test_corrupt_pictures_are_listed_and_skipped(net, mine, tmp_path, capsys):
    whole = (mine/'c1s1_000000.png').read_bytes()
    (mine/'a.png').write_bytes(b''); (mine/'b.jpg').write_bytes(b'not a picture'); (mine/'c.png').write_bytes(whole[:len(whole) // 2])
    made = build(net, mine, tmp_path/'g')
    assert len(made.names) == 10 and [s['key'] for s in made.manifest['skipped']] == ['a.png', 'b.jpg', 'c.png'] and '3 skipped, first a.png' in capsys.readouterr().out
    (mine/'a.png').write_bytes(whole)                                                              # repaired: it joins
    made = build(net, mine, tmp_path/'g')
    assert len(made.names) == 11 and [s['key'] for s in made.manifest['skipped']] == ['b.jpg', 'c.png']


def test_nothing_but_corrupt_pictures(net, tmp_path):
    (tmp_path/'bad').mkdir(); (tmp_path/'bad/a.png').write_bytes(b'x')
    with pytest.raises(ValueError, match='not one of 1 pictures can be read'): build(net, tmp_path/'bad', tmp_path/'g')


def test_changed_and_vanished_pictures(net, mine, tmp_path):
    made = build(net, mine, tmp_path/'g')
    first, second = sorted(mine.iterdir())[:2]
    Image.fromarray(made.picture(5)).save(first); second.unlink()
    with pytest.raises(ValueError, match='2 scenes .* first c1s1_000000.png, which has changed; .*changed=replace'): build(net, mine, tmp_path/'g')
    with pytest.raises(ValueError, match='has changed since it was indexed'): Gallery.open(tmp_path/'g').picture(0)
    new = build(net, mine, tmp_path/'g', changed='replace')
    assert sorted(new.dropped.tolist()) == [0, 1] and new.names[-1] == first.name
    shown = {m.scene for m in new.search(np.asarray(new.det_feats[0], np.float32), 1000)}
    assert not shown & {0, 1} and 10 in shown
    assert build(net, mine, tmp_path/'g').manifest['shards'] == new.manifest['shards']


def test_another_network_and_other_settings(net, shots, tmp_path):
    other, made = load_model(shipped_trunk('hdl-student-fast')), build(net, shots, tmp_path/'g')
    assert fingerprint(net) != fingerprint(other) and fingerprint(net) == fingerprint(load_model(shipped_trunk('hdl-student-fast-taught'))) == made.model
    with pytest.raises(ValueError, match='made with another network'): build(other, shots, tmp_path/'g')
    with pytest.raises(ValueError, match='made with another network'): made.find(other, 0, made.det_boxes[0])
    with pytest.raises(ValueError, match='begun with size=None, now'): build(net, shots, tmp_path/'g', size=(96, 160))
    with pytest.raises(ValueError, match='of another network'): made.append(Gallery.from_model(other, open_dataset(SPEC, 'gallery', progress=False), progress=False))
    with pytest.raises(ValueError, match='function cannot be'): build(net, shots, tmp_path/'h', size=lambda h, w: 1.)
    with pytest.raises(ValueError, match="changed is 'error' or 'replace'"): build(net, shots, tmp_path/'h', changed='no')


@pytest.mark.parametrize('kind', ['rows', 'columns', 'gone', 'manifest', 'format', 'version'])
def test_truncated_galleries(net, shots, tmp_path, kind):
    made = build(net, shots, tmp_path/'g')
    file = tmp_path/'g'/dict(rows='000002.rows.npy', gone='000002.rows.npy', columns='000002.npz').get(kind, 'manifest.json')
    text, names = file.read_bytes(), list(made.names)  # from the disk, before it is damaged
    if kind == 'gone': file.unlink()
    elif kind in ('format', 'version'): file.write_text(json.dumps(json.loads(text) | {kind: 99}))
    else: file.write_bytes(text[:len(text) // 2])
    with pytest.raises(ValueError, match=dict(format='is not the manifest', version='use a newer one', manifest='cannot be read', gone='000002.rows.npy: is missing').get(kind, f'{file.name}: has .* bytes instead of')):
        Gallery.open(tmp_path/'g')
    if kind not in ('rows', 'columns', 'gone'): return
    repaired = build(net, shots, tmp_path/'g')                                                       # the three scenes are made again, at the end
    assert sorted(repaired.names) == names and len(repaired) == len(made)


def test_no_gallery_there(tmp_path, net, shots):
    with pytest.raises(ValueError, match='no gallery there'): Gallery.open(tmp_path)
    (tmp_path/'notes.txt').write_text('mine')
    with pytest.raises(ValueError, match='is no gallery, and not empty'): build(net, shots, tmp_path)


def test_boxes_and_queries(net, shots, tmp_path):
    made = build(net, shots, tmp_path/'g')
    for box, what in (((300, 10, 350, 90), 'mostly outside'), ((50, 10, 20, 90), 'no area'), ((np.nan, 0, 5, 5), 'not finite')):
        with pytest.raises(ValueError, match=f'the query box .*{what}'): made.find(net, shots/made.names[0], box)
    with pytest.raises(ValueError, match='nobody.png: no such picture; give a file that is there, or the number or the name of a scene'): made.find(net, 'nobody.png', None)
    for wrong, why in (('', "'': is no picture; give a scene's number"), (True, 'True: is no picture; give'), ('x' * 5000, 'no such picture')):
        with pytest.raises(ValueError, match=why): made.seen(wrong)
    with pytest.raises(ValueError, match='shape'): made.search(np.ones(3))
    with pytest.raises(ValueError, match='not finite'): made.search(np.full(made.det_feats.shape[1], np.nan))
    with pytest.raises(ValueError, match="rerank is"): made.search(np.asarray(made.det_feats[0]), rerank='best')
    cut = made.embed(net, thumbnail(made.picture(0), made.det_boxes[0], 70, 0))
    assert abs(np.linalg.norm(cut) - 1) < 1e-4


# films ----------------------------------------------------------------------------------------------------------------

def film(path, frames=20, rate=5, size=(128, 224)):
    av = pytest.importorskip('av')
    data = open_dataset(SPEC, 'gallery', progress=False)
    with av.open(str(path), 'w') as out:
        s = out.add_stream('mpeg4', rate=rate); s.height, s.width = size; s.pix_fmt, s.bit_rate, s.gop_size = 'yuv420p', 3_000_000, 7
        for i in range(frames): out.mux(s.encode(av.VideoFrame.from_ndarray(data.picture(i * 10 // max(frames, 10)), format='rgb24')))
        out.mux(s.encode())
    return path


def test_a_film_becomes_scenes(net, tmp_path):
    made = build(net, film(tmp_path/'c3 gate.mp4'), tmp_path/'g', every=.5)
    assert len(made.names) == 8 and set(made.cameras.tolist()) == {3} and np.allclose(made.times, [0, .6, 1, 1.6, 2, 2.6, 3, 3.6])
    source = open_source(tmp_path/'c3 gate.mp4', .5)
    keys = [i.key for i in source.scan()]
    passing, jumping = [source.read(k) for k in keys], [open_source(tmp_path/'c3 gate.mp4').read(k) for k in reversed(keys)][::-1]
    assert all((a == b).all() for a, b in zip(passing, jumping))
    workers = build(net, tmp_path/'c3 gate.mp4', tmp_path/'h', every=.5, workers=2)
    same(made, workers)
    assert made.search(np.asarray(made.det_feats[0], np.float32), 5, time=(1, 2)) and all(1 <= m.time <= 2 for m in made.search(np.asarray(made.det_feats[0], np.float32), 5, time=(1, 2)))


def test_films_of_zero_length_and_broken_ones(net, tmp_path):
    pytest.importorskip('av')
    (tmp_path/'none.mp4').write_bytes(b''); (tmp_path/'no.mp4').write_bytes(b'not a film' * 99)
    for name, what in (('none.mp4', 'has no bytes'), ('no.mp4', 'cannot be opened as a film'), ('gone.mp4', 'no such film')):
        with pytest.raises(ValueError, match=f'{name}: .*{what}|{name}: {what}'): build(net, tmp_path/name, tmp_path/'g')
    empty = film(tmp_path/'empty.mkv', frames=0)
    with pytest.raises(ValueError, match='empty.mkv'): build(net, empty, tmp_path/'g')
    whole = film(tmp_path/'w.mkv').read_bytes()
    (tmp_path/'cut.mkv').write_bytes(whole[:len(whole) * 2 // 3])                                  # a copy that broke off
    made = build(net, tmp_path/'cut.mkv', tmp_path/'g', every=.4)
    assert 3 <= len(made.names) < 10
    with pytest.raises(ValueError, match='above 0'): build(net, tmp_path/'w.mkv', tmp_path/'h', every=0)


# searching ------------------------------------------------------------------------------------------------------------

def drawn(n=300, seed=0):
    rng = np.random.default_rng(seed)
    image = np.sort(rng.integers(0, 60, n))
    x = rng.uniform(0, 100, (n, 2))
    return Gallery(image, np.hstack([x, x + rng.uniform(10, 50, (n, 2))]).astype(np.float32), rng.uniform(.3, 1, n).astype(np.float32), crowd(n // 10, 10, 32, seed=seed, dtype=np.float32), [f's{i}' for i in range(60)],
                   cameras=rng.integers(1, 4, 60), times=np.where(rng.random(60) < .2, np.nan, rng.uniform(0, 100, 60)))


@given(st.data())
@settings(max_examples=40)
def test_filters_are_the_loop(data):
    g = drawn(seed=1)
    cameras, low, high = data.draw(st.one_of(st.none(), st.integers(0, 4), st.lists(st.integers(1, 3)))), data.draw(st.one_of(st.none(), st.floats(0, 50))), data.draw(st.one_of(st.none(), st.floats(50, 100)))
    scenes, least = data.draw(st.one_of(st.none(), st.lists(st.integers(0, 59)))), data.draw(st.sampled_from([.3, .5, .8]))
    time = (low, high) if data.draw(st.booleans()) else None
    def ok(r):
        s = g.det_image[r]
        return (g.det_scores[r] >= least and (cameras is None or g.cameras[s] in np.atleast_1d(cameras)) and (scenes is None or s in scenes)
                and (time is None or (not np.isnan(g.times[s])) and (low is None or g.times[s] >= low) and (high is None or g.times[s] <= high)))
    keep = [ok(r) for r in range(len(g))]
    assert [m.detection for m in g.search(g.det_feats[7], 12, scenes, least, cameras, time)] == loop(g.det_feats, g.det_feats[7], 12, keep)


def test_filters_that_cannot_be():
    g = drawn()
    g.times = None
    with pytest.raises(ValueError, match='does not know the time'): g.search(g.det_feats[0], time=(0, 1))
    with pytest.raises(ValueError, match='ends before it begins'): drawn().search(g.det_feats[0], time=(5, 1))


def test_reranking_is_that_of_the_evaluation():
    g, q = drawn(), 40
    found, rows = dict(det_image=g.det_image, det_boxes=g.det_boxes, det_scores=np.ones(len(g), np.float32), det_feats=g.det_feats), np.arange(len(g))
    s = k_reciprocal(found, g.det_feats[[q]])(0, rows)
    assert [m.detection for m in g.search(g.det_feats[q], 20, score_threshold=0, rerank='k-reciprocal', top=500)] == np.argsort(-s, kind='stable')[:20].tolist()
    class Asked: gallery_index, boxes = g.det_image[[q]], g.det_boxes[[q]]
    from person_search_nb.matching import paired_iou
    s = cbgm(found, g.det_feats[[q]], Asked)(0, rows)
    here = np.flatnonzero((g.det_image == g.det_image[q]) & (paired_iou(g.det_boxes.astype(float), np.repeat(g.det_boxes[[q]].astype(float), len(g), 0)) < .5))
    mine = g.search(g.det_feats[q], 20, score_threshold=0, rerank='cbgm', context=g.det_feats[here], top=len(g))
    assert [m.detection for m in mine] == np.argsort(-s, kind='stable')[:20].tolist()
    with pytest.raises(ValueError, match='give context='): g.search(g.det_feats[q], rerank='cbgm')


def test_boxes_and_names_stay_on_the_disk(tmp_path):
    "Mapped, and equal to what was written; names that are no text, and the same name twice, among them."
    g = drawn()
    g.names = ['', 'Zoë.jpg', 'x\udcff.jpg', 's5', *g.names[4:]]
    g.save(tmp_path/'g')
    opened = Gallery.open(tmp_path/'g').append(g)
    assert [type(p) for p in opened.det_boxes.parts] == [np.memmap] * 2 and all(type(data) is np.memmap for data, _ in opened.names.parts)
    assert opened.names == g.names * 2 and list(opened.names) == g.names * 2 and opened.names[61] == 'Zoë.jpg' and opened.names[-1] == 's59'
    boxes, mask = np.concatenate([g.det_boxes] * 2), np.arange(2 * len(g)) % 7 == 3
    for key in (mask, slice(290, 310), [5, 599], np.s_[:, 2], np.s_[mask, :2], -1): np.testing.assert_array_equal(opened.det_boxes[key], boxes[key])
    assert opened._named('s5') == [3, 5, 63, 65] and opened._named('nobody') == []
    compact(tmp_path/'g', most=1)
    assert list(Gallery.open(tmp_path/'g').names) == g.names * 2


def test_galleries_of_an_earlier_revision_are_read(tmp_path):
    "Their texts were one piece of JSON."
    g = drawn()
    g.save(tmp_path/'g', half=False)
    file, made = tmp_path/'g/000001.npz', Gallery.open(tmp_path/'g')
    before = replace(made, names=list(made.names), det_boxes=np.array(made.det_boxes), sizes=np.array(made.sizes))
    with np.load(file) as z: columns = {k: z[k] for k in ('image', 'boxes', 'scores', 'cameras', 'times', 'sizes')}
    text = json.dumps(dict(names=list(made.names), scenes=[[-1, n, ''] for n in made.names]))
    np.savez(file, **columns, text=np.frombuffer(text.encode(), np.uint8))
    m = json.loads((tmp_path/'g/manifest.json').read_text())
    m['shards'][0]['bytes']['000001.npz'] = file.stat().st_size
    (tmp_path/'g/manifest.json').write_text(json.dumps(m))
    same(Gallery.open(tmp_path/'g'), before)
    assert len(Gallery.open(tmp_path/'g').append(g).names) == 120


@pytest.mark.parametrize('change', [dict(names_ends=np.arange(60)[::-1]), dict(names_ends=np.arange(59)), dict(names=np.full(170, 0x80, np.uint8)), dict(names=np.zeros((85, 2), np.uint8)), dict(keys=np.zeros(3, np.uint8)),
                                    dict(sources=np.full(60, -9, np.int32)), dict(sources=np.zeros(60)), dict(stamps_ends=np.zeros(60))])
def test_texts_that_are_none_are_refused(tmp_path, change):
    drawn().save(tmp_path/'g')
    file = tmp_path/'g/000001.npz'
    with np.load(file) as z: columns = dict(z)
    np.savez(file, **columns | change)
    m = json.loads((tmp_path/'g/manifest.json').read_text())
    m['shards'][0]['bytes']['000001.npz'] = file.stat().st_size
    (tmp_path/'g/manifest.json').write_text(json.dumps(m))
    with pytest.raises(ValueError, match='000001.npz: not a part of a gallery .*run person-search index'): Gallery.open(tmp_path/'g')


def rows_of(lists): return [[(m.scene, m.detection, m.similarity) for m in found] for found in lists]


@pytest.mark.parametrize('rerank', ['', 'k-reciprocal', 'cbgm'])
def test_many_queries_at_once_are_each_alone(rerank):
    "The same lists to the last bit, with filters for all, and with scenes left out of each."
    g = drawn()
    queries, own = g.det_feats[3:40:4], [[int(s)] for s in g.det_image[3:40:4]]
    kw = dict(number=7, camera=[1, 2], rerank=rerank, top=20)
    context = [g.det_feats[k:k + 3] for k in range(len(queries))] if rerank == 'cbgm' else [None] * len(queries)
    several = dict(kw, context=context if rerank == 'cbgm' else None)
    assert rows_of(g.search(queries, **several)) == rows_of([g.search(q, **kw, context=c) for q, c in zip(queries, context)])
    alone = [g.search(q, **kw, context=c, exclude=e) for q, c, e in zip(queries, context, own)]
    together = g.search(queries, **several, exclude=own)
    assert rows_of(together) == rows_of(alone) and all(m.scene != e[0] for found, e in zip(together, own) for m in found)
    assert rows_of(g.search(queries, **several, exclude=[1, 2])) == rows_of([g.search(q, **kw, context=c, exclude=[1, 2]) for q, c in zip(queries, context)])
    assert [len(found) for found in g.search(queries[:1], number=7)] == [7] and g.search(queries[:0]) == []


def test_queries_as_they_come():
    "Tensors that want a gradient, of half precision, in a list; numbers of numpy."
    g = drawn()
    x, plain = torch.tensor(g.det_feats[:2]), rows_of(g.search(g.det_feats[:2], 3))
    assert rows_of(g.search(x.clone().requires_grad_(), np.int64(3))) == rows_of(g.search([*x.clone().requires_grad_()], 3)) == plain
    assert rows_of([g.search(x[0].clone().requires_grad_(), 3)]) == plain[:1]
    assert g.search(x[0].bfloat16(), 1)[0].detection == plain[0][0][1]
    for wrong in ('who', None, [x[0], x[0][:3]], x.numpy().astype(complex)):
        with pytest.raises(ValueError, match='query is no array of numbers; give embeddings'): g.search(wrong)
    with pytest.raises(ValueError, match='context is no array of numbers'): g.search(x[0], rerank='cbgm', context='who')


def test_a_picture_among_many_that_is_wrong_is_named(net, shots, tmp_path):
    g = build(net, shots, tmp_path/'g')
    asked = [(shots/g.names[0], g.det_boxes[0]), (shots/g.names[1], (1, 2, 9000, 4))]
    with pytest.raises(ValueError, match='^query 1: .*give left, top, right, bottom'): g.find_all(net, asked)


def test_what_is_no_gallery_network_picture_or_query_is_said(net, shots, tmp_path):
    g = build(net, shots, tmp_path/'g')
    box, scene = g.det_boxes[0], shots/g.names[0]
    wrong = {'None: is no network; open its file with load_model': lambda: g.find(None, scene, box),
             'model.safetensors.*: is no network': lambda: build(Path('model.safetensors'), shots, tmp_path/'new'),
             'is no gallery; open it first': lambda: g.append(str(tmp_path/'g')),
             'is no source; give one folder': lambda: build(net, [shots, shots], tmp_path/'new'),
             'has no scene 99; there are 10, numbered from 0': lambda: g.picture(99),
             'is no picture; give a scene': lambda: g.find(net, Image.open(scene), box),
             'the query box has shape': lambda: g.find(net, scene, '1,2,3,4')}
    for text, ask in wrong.items():
        with pytest.raises(ValueError, match=text): ask()
    for k, asked in (0, [str(scene)]), (0, scene), (1, [(scene, box), (scene, box, 5)]), (0, ((scene, box) for _ in 'ab')):
        with pytest.raises(ValueError, match=f'^query {k}: is not .picture,. or .picture, box.'): g.find_all(net, asked)
    assert not (tmp_path/'new').exists()


def test_an_index_that_another_process_replaced(tmp_path):
    pytest.importorskip('faiss', reason="needs pip install 'person_search_nb[search]'")
    drawn().save(tmp_path/'g')
    Gallery.open(tmp_path/'g').build_index('hnsw', progress=False)
    early = Gallery.open(tmp_path/'g')
    Gallery.open(tmp_path/'g').build_index('hnsw', .9, progress=False)
    with pytest.warns(UserWarning, match='its index is gone, .*comparing all rows; open it again'): found = early.search(drawn().det_feats[5], 3)
    assert rows_of([found]) == rows_of([early.search(drawn().det_feats[5], 3, exact=True)])


def test_a_folder_in_use_is_said_before_an_index_is_built(tmp_path, monkeypatch):
    drawn().save(tmp_path/'g')
    monkeypatch.setattr(Approximate, 'build', lambda *a, **kw: pytest.fail('hours were spent'))
    with locked(tmp_path/'g', 'another'), pytest.raises(BusyError, match='in use by'): Gallery.open(tmp_path/'g').build_index('hnsw', progress=False)


def test_it_says_in_a_line_what_it_is():
    g = drawn()
    assert repr(g) == f'Gallery({len(g)} people in {len(g.names)} scenes)'


def test_many_queries_read_the_rows_once(monkeypatch):
    g, passes = drawn(), []
    blocks = neighbours.blocks
    monkeypatch.setattr(neighbours, 'blocks', lambda *a, **kw: passes.append(1) or blocks(*a, **kw))
    g.search(g.det_feats[:32], exclude=[[0]] * 32)
    assert len(passes) == 1


def test_a_query_among_many_that_is_wrong_is_named():
    g = drawn()
    with pytest.raises(ValueError, match='^query 2 has length 2; divide'): g.search(g.det_feats[:4] * np.float32([[1], [1], [2], [1]]))
    with pytest.raises(ValueError, match='^query 1 is not finite'): g.search(np.where([[0], [1]], np.nan, g.det_feats[:2]))
    with pytest.raises(ValueError, match='exclude= has 1 lists of scenes for 2 queries; give one for each'): g.search(g.det_feats[:2], exclude=[[1]])
    with pytest.raises(ValueError, match='has no scene 99; exclude= takes numbers from 0 to 59'): g.search(g.det_feats[:2], exclude=[[1], [99]])
    with pytest.raises(ValueError, match='context has 1 tables for 2 queries'): g.search(g.det_feats[:2], rerank='cbgm', context=[g.det_feats[:1]])
    with pytest.raises(ValueError, match=r'query has shape \(2, 2, 2\)'): g.search(np.zeros((2, 2, 2)))


def in_parts(tmp_path, sizes=(20, 5, 35), **kw):
    "Folders with the scenes of `drawn()`, so many in each, and one with all of them."
    g, folders, first = drawn(), [], 0
    for n in sizes:
        mine, scenes = (g.det_image >= first) & (g.det_image < first + n), slice(first, first + n)
        part = Gallery(g.det_image[mine] - first, g.det_boxes[mine], g.det_scores[mine], g.det_feats[mine], g.names[scenes], g.cameras[scenes], g.times[scenes])
        part.save(tmp_path/f'part{first}', **kw)
        folders.append(tmp_path/f'part{first}')
        first += n
    g.save(tmp_path/'whole', **kw)
    return folders, Gallery.open(tmp_path/'whole')


@pytest.mark.parametrize('rerank', ['', 'k-reciprocal', 'cbgm'])
def test_galleries_side_by_side_are_one(tmp_path, rerank):
    "Equal to the last bit to one gallery of all, with every filter, and each match knows its folder."
    folders, whole = in_parts(tmp_path)
    parts = Gallery.open(folders)
    same(parts, whole)
    queries = np.asarray(whole.det_feats[3:60:9], np.float32)
    for kw in ({}, dict(camera=2), dict(time=(20, 70)), dict(scenes=range(18, 40), exclude=[21]), dict(score_threshold=.9), dict(exclude=[[int(s)] for s in whole.det_image[3:60:9]]), dict(number=400)):
        kw = dict(number=9, top=30, rerank=rerank, context=[queries[:2]] * len(queries) if rerank == 'cbgm' else None) | kw
        assert rows_of(parts.search(queries, **kw)) == rows_of(whole.search(queries, **kw))
    found = parts.search(queries[0], 300, score_threshold=0)
    assert {m.folder for m in found} == set(folders) and all(m.folder == folders[(m.scene >= 20) + (m.scene >= 25)] for m in found)
    assert [(m.name, m.camera, m.time) for m in found if m.time == m.time] == [(m.name, m.camera, m.time) for m in whole.search(queries[0], 300, score_threshold=0) if m.time == m.time]


def test_files_side_by_side_are_told_apart(tmp_path):
    "A match names its file, the same file is not given twice, and errors name it."
    files = [tmp_path/'a.npz', tmp_path/'b.npz']
    for f in files: drawn(40).save(f)
    both = Gallery.open(files)
    found = both.search(np.asarray(both.det_feats[0], np.float32), 2)
    assert {m.folder for m in found} == set(files) and all(m.where.endswith(f' of {m.folder})') for m in found)
    with pytest.raises(ValueError, match='a.npz: is given twice'): Gallery.open([files[0], tmp_path/'.'/'a.npz'])
    with pytest.raises(ValueError, match='b.npz: was made without pictures'): Gallery.open(files[1]).picture(0)
    assert 'a.npz' in repr(Gallery.open(files[0]))


def test_galleries_each_by_its_index(tmp_path, capsys):
    pytest.importorskip('faiss')
    g = drawn(3000)
    for k, name in enumerate('ab'):
        rows = slice(1500 * k, 1500 * k + 1500)
        Gallery(g.det_image[rows], g.det_boxes[rows], g.det_scores[rows], g.det_feats[rows], g.names).save(tmp_path/name)
    Gallery.open(tmp_path/'a').build_index('hnsw', progress=False)
    parts = Gallery.open([tmp_path/'a', tmp_path/'b'])
    assert [m.engine is None for m in parts.members] == [False, True]
    for q in g.det_feats[::300]: assert parts.search(q, 1, score_threshold=0)[0].detection == parts.search(q, 1, score_threshold=0, exact=True)[0].detection
    parts.build_index('exact')
    assert Gallery.open(tmp_path/'a').engine is None


def test_galleries_that_do_not_belong_together(tmp_path):
    folders, whole = in_parts(tmp_path, (30, 30))
    other = drawn(seed=2)
    other.model = 'abcdef0123456789'
    other.save(tmp_path/'other')
    with pytest.raises(ValueError, match='other and .*part0: cannot be searched side by side; the other gallery is of another network'): Gallery.open([*folders, tmp_path/'other'])
    with pytest.raises(ValueError, match='part0: is given twice'): Gallery.open([*folders, folders[0]])
    with pytest.raises(ValueError, match='give at least one gallery'): Gallery.open([])
    with pytest.raises(ValueError, match='nowhere: no gallery there'): Gallery.open([folders[0], tmp_path/'nowhere'])
    with pytest.raises(ValueError, match='open one of them and append to it'): Gallery.open(folders).append(drawn())
    empty = Gallery(np.zeros(0, int), np.zeros((0, 4)), np.zeros(0), np.zeros((0, 0)), [])
    empty.save(tmp_path/'empty')
    for order in ([tmp_path/'empty', *folders], [*folders, tmp_path/'empty']): same(Gallery.open(order), whole)


def test_galleries_with_pictures_and_by_command(net, mine, tmp_path, command):
    "The same name in both: a match is told by its source; and a page shows it."
    (tmp_path/'more').mkdir()
    for p in sorted(mine.iterdir())[:4]: shutil.copy(p, tmp_path/'more'/p.name)
    for name, folder in (('a', mine), ('b', tmp_path/'more')): build(net, folder, tmp_path/name, model_file='shipped:hdl-student-fast-taught')
    parts = Gallery.open([tmp_path/'a', tmp_path/'b'])
    np.testing.assert_array_equal(parts.picture(11), parts.picture(1))
    found = parts.find(net, 1, parts.det_boxes[parts.det_image == 1][0], 2)
    assert [m.scene for m in found] == [1, 11] and [m.folder.name for m in found] == ['a', 'b'] and found[1].where == f'{found[1].name} (scene 11 of {tmp_path}/more)'
    box = ','.join(f'{v:.1f}' for v in parts.det_boxes[parts.det_image == 1][0])
    done = command('search', '--gallery', tmp_path/'a', tmp_path/'b', '--image', mine/parts.names[1], '--box', box, '--number', 2, '--device', 'cpu', '--out', tmp_path/'hits.html')
    assert done.returncode == 0 and f'scene 11 of {tmp_path}/more' in done.stdout, done.stderr
    assert (tmp_path/'hits.html').read_text().count('data:image/jpeg') == 3


def test_index_beside_a_gallery(tmp_path, monkeypatch, capsys):
    pytest.importorskip('faiss')
    g = drawn(3000)
    g.save(tmp_path/'g')
    opened = Gallery.open(tmp_path/'g').build_index('hnsw', progress=False)
    assert 'asked for' in capsys.readouterr().out
    again = Gallery.open(tmp_path/'g')
    for q in (3, 500): assert [m.detection for m in again.search(g.det_feats[q], 5)][0] == [m.detection for m in again.search(g.det_feats[q], 5, exact=True)][0] == [m.detection for m in opened.search(g.det_feats[q], 5)][0]
    grown = again.append(g)
    assert {m.detection for m in grown.search(g.det_feats[3], 2, score_threshold=0)} == {3, 3003}  # the second is not in the index
    file = tmp_path/'g'/grown.manifest['index']['file']
    monkeypatch.setattr(neighbours.importlib.util, 'find_spec', lambda name: None)
    with pytest.warns(UserWarning, match='comparing all rows'): assert len(Gallery.open(tmp_path/'g').search(g.det_feats[3], 2)) == 2
    monkeypatch.undo()
    file.write_bytes(file.read_bytes()[:99])
    with pytest.raises(ValueError, match=f'{file.name}: has 99 bytes instead of'): Gallery.open(tmp_path/'g')


def test_page_without_its_pictures(net, mine, tmp_path):
    made = build(net, mine, tmp_path/'g')
    hits = made.search(np.asarray(made.det_feats[0], np.float32), 4)
    assert hits_page(hits).count('data:image/jpeg') == 4
    (mine/hits[0].name).unlink()
    page = hits_page(hits)
    assert page.count('data:image/jpeg') == 4 - sum(h.scene == hits[0].scene for h in hits) and 'is gone since it was indexed; put it back' in page
    assert drawn().search(drawn().det_feats[0], 1)[0].camera in (1, 2, 3)
    with pytest.raises(ValueError, match='made without pictures'): drawn().search(drawn().det_feats[0], 1)[0].thumbnail()


def test_times_in_names():
    assert time_in('c6s2_000250.jpg') == 10 and format_time(10.) == '0:00:10.0'
    assert time_in('x/2023_01_02-03.04.05.png') == datetime(2023, 1, 2, 3, 4, 5, tzinfo=timezone.utc).timestamp()
    assert np.isnan(time_in('1234567890123456.jpg'))


# command line ---------------------------------------------------------------------------------------------------------

def test_command_line(net, mine, tmp_path, command):
    done = command('index', mine, '--out', tmp_path/'g', '--device', 'cpu')
    assert done.returncode == 0 and '10 scenes' in done.stdout and 'exact' in done.stdout, done.stderr
    made = Gallery.open(tmp_path/'g')
    name, box = made.names[made.det_image[4]], ','.join(f'{v:.1f}' for v in made.det_boxes[4])
    done = command('search', '--gallery', tmp_path/'g', '--image', mine/name, '--box', box, '--number', 3, '--out', tmp_path/'hits.html', '--device', 'cpu')
    assert done.returncode == 0 and name in done.stdout.splitlines()[0] and len(done.stdout.splitlines()) == 4, done.stderr
    page = (tmp_path/'hits.html').read_text()
    assert page.count('data:image/jpeg') == 4 and 'src="http' not in page
    done = command('search', '--gallery', tmp_path/'g', '--image', mine/name, '--box', '900,0,950,50')
    assert done.returncode == 1 and 'mostly outside' in done.stderr and 'Traceback' not in done.stderr
    done = command('search', shipped_trunk('hdl-student-fast'), '--gallery', tmp_path/'g', '--image', mine/name, '--box', box)
    assert done.returncode == 1 and 'another network' in done.stderr
    assert 'give a MODEL' in command('search').stderr
    assert command('index', tmp_path/'nowhere').stderr.strip().endswith('such as prw:PATH')


def test_command_of_many_queries(net, mine, tmp_path, command):
    made = build(net, mine, tmp_path/'g', model_file='shipped:hdl-student-fast-taught')
    rows = (0, 4, 7)
    lines = [f'{made.names[made.det_image[r]]},' + ','.join(f'{v:.1f}' for v in made.det_boxes[r]) for r in rows]
    (tmp_path/'q.csv').write_text('\ufeffpicture,x1,y1,x2,y2\n' + '\n'.join(lines) + '\n\n', encoding='utf-8')
    ask = 'search', '--gallery', tmp_path/'g', '--number', 3, '--device', 'cpu', '--queries'
    done = command(*ask, tmp_path/'q.csv', '--out', tmp_path/'found.json', '--cameras', 1)
    assert done.returncode == 0 and 'found.json: 9 matches of 3 queries' in done.stdout, done.stderr
    found = json.loads((tmp_path/'found.json').read_text())['matches']
    assert {m['camera'] for m in found} == {1} and [m['query'] for m in found] == [0] * 3 + [1] * 3 + [2] * 3
    done = command(*ask, tmp_path/'q.csv', '--skip-own')
    assert [line for line in done.stdout.splitlines() if line.startswith('query')] == [f'query {k}: {made.names[made.det_image[r]]}' for k, r in enumerate(rows)]
    assert not any(made.names[made.det_image[r]] in part for r, part in zip(rows, done.stdout.split('query ')[1:]) for part in part.splitlines()[1:])
    np.save(tmp_path/'q.npy', made.det_feats[list(rows)])
    assert command(*ask, tmp_path/'q.npy', '--out', tmp_path/'found.csv').returncode == 0
    assert [line.split(',')[5] for line in (tmp_path/'found.csv').read_text().splitlines()[1::3]] == [str(made.det_image[r]) for r in rows]
    for bad, why in (('picture,x1,y1,x2,y2\nnowhere.png,1,2,3,4', 'bad.csv: nowhere.png: no such picture; a picture is a file'), ('a,b', 'bad.csv: line 1 is not picture,x1,y1,x2,y2'),
                     (f'picture,x1,y1,x2,y2\n{made.names[0]},1,2,3', 'bad.csv: line 2 is not'), (f'picture,x1,y1,x2,y2\n{made.names[0]},9,2,3,4', 'bad.csv: line 2: box 9,2,3,4')):
        (tmp_path/'bad.csv').write_text(bad)
        done = command(*ask, tmp_path/'bad.csv')
        assert done.returncode == 1 and why in done.stderr and 'Traceback' not in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    np.save(tmp_path/'bad.npy', 2 * np.asarray(made.det_feats[:2], np.float32))
    assert 'bad.npy: query 0 has length 2' in command(*ask, tmp_path/'bad.npy').stderr
    assert 'bad.npy: holds embeddings, which were taken from no picture; leave out --skip-own' in command(*ask, tmp_path/'bad.npy', '--skip-own').stderr
    assert 'leave --image and --box out' in command(*ask, tmp_path/'q.csv', '--box', '1,2,3,4').stderr
    assert 'no such file' in command(*ask, tmp_path/'gone.csv').stderr


# explorer -------------------------------------------------------------------------------------------------------------

def test_explorer_on_a_gallery(net, shots, tmp_path):
    pytest.importorskip('ipywidgets')
    from person_search_nb.search_explorer import SearchExplorer
    build(net, shots, tmp_path/'g')
    page = SearchExplorer(net, tmp_path/'g')
    assert len(page.scenes) == 10 and page.matches and page.person.value == 0
    with pytest.raises(ValueError, match='another network'): SearchExplorer(load_model(shipped_trunk('hdl-student-fast')), tmp_path/'g')


def test_explorer_with_a_picture_gone(net, shots, tmp_path):
    "The other matches are shown all the same."
    pytest.importorskip('ipywidgets')
    from person_search_nb.search_explorer import SearchExplorer
    mine = tmp_path/'mine'
    shutil.copytree(shots, mine)
    build(net, mine, tmp_path/'g')
    gone = SearchExplorer(net, tmp_path/'g').matches[1]
    (mine/gone.name).unlink()
    page = SearchExplorer(net, tmp_path/'g')
    cards = [note.value for note in page.notes[:len(page.matches)]]
    lost = [gone.name == m.name for m in page.matches]
    assert any(lost) and not all(lost)
    assert [('similarity' not in c and Path(gone.name).stem in c) for c in cards] == lost


def test_explorer_without_pictures(net, tmp_path):
    pytest.importorskip('ipywidgets')
    from person_search_nb.search_explorer import SearchExplorer
    drawn().save(tmp_path/'g')
    with pytest.raises(ValueError, match='made without pictures'): SearchExplorer(net, tmp_path/'g')
    with pytest.raises(ValueError, match='give a gallery'): SearchExplorer(net, None)
