"Exact search by a copy in bytes: the same result as of the rows themselves, whatever the rows, and no file is trusted."
import json, subprocess, sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from person_search_nb import neighbours
from person_search_nb.byte_rows import _BEGIN, ByteRows
from person_search_nb.search import Gallery
from person_search_nb.manifest import read_manifest
from person_search_nb.neighbours import crowd, exact_neighbours, Rows

pytest.importorskip('faiss')


@pytest.fixture(scope='module')
def place(tmp_path_factory): return tmp_path_factory.mktemp('copies')


def copy_of(feats, path): return ByteRows.build(feats, path, progress=False)


def same(copy, table, queries, k, keep=None):
    "Not FAISS, not bytes: the rows as one float16 array are multiplied block by block."
    found, want = copy.search(queries, k, keep, longest=1.01), exact_neighbours(np.asarray(table), queries, k, keep)
    np.testing.assert_array_equal(found[1], want[1])
    np.testing.assert_array_equal(found[0], want[0])


def grown(copy, table): return ByteRows(table, copy.codes.parts[0], copy.rotation, copy.step, copy.error, copy.longest)


def table_of(data, rng, n, d):
    "Rows of which many are alike, or nearly, or far longer than others."
    x = rng.standard_normal((n, d)) * data.draw(st.sampled_from([1e-3, 1., 100.]))
    if data.draw(st.booleans()): x[rng.random(n) < .5] = x[0]
    if data.draw(st.booleans()): x[rng.random(n) < .5] *= 1e-3
    if data.draw(st.booleans()): x += 3 * x[:1]
    if data.draw(st.booleans()): x[:, 0] *= 50
    return x.astype(np.float16)


@given(data=st.data())
@settings(max_examples=150)
def test_nothing_is_missed(data, place):
    neighbours._SHARE, share = 7, neighbours._SHARE  # by several threads
    threads = torch.get_num_threads()
    torch.set_num_threads(data.draw(st.integers(1, 3)))
    try:
        rng = np.random.default_rng(data.draw(st.integers(0, 10 ** 6)))
        n, d, k = data.draw(st.integers(1, 1200)), data.draw(st.integers(1, 40)), data.draw(st.sampled_from([1, 3, 10, 51]))
        x = table_of(data, rng, n, d)
        cut, known = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(1, n))))
        table = Rows([x[:cut], x[cut:]])
        copy = grown(copy_of(Rows([x[:known]]), place/'a'), table)
        query = x[:1].astype(np.float32) if data.draw(st.booleans()) else rng.standard_normal((1, d)).astype(np.float32)
        keep = rng.random(n) < data.draw(st.sampled_from([.05, .5, 1.])) if data.draw(st.booleans()) else None
        if abs(x).max() < 1000: same(copy, table, query, k, keep)
    finally:
        neighbours._SHARE = share
        torch.set_num_threads(threads)


@pytest.mark.parametrize('exact_codes', [False, True])
def test_no_similarity_is_farther_off_than_is_said(exact_codes, place):
    "Rows that bytes hold exactly leave the rounding of the query alone to be seen."
    rng = np.random.default_rng(0)
    feats = (rng.integers(-127, 128, (2000, 16)) / 128).astype(np.float16)
    copy = copy_of(Rows([feats]), place/'b')
    if exact_codes: copy = ByteRows(Rows([feats]), (feats * 128 + 128).astype(np.uint8), np.eye(16, dtype=np.float32), 1 / 128, 0., float(np.linalg.norm(feats.astype(float), axis=1).max()))
    worst = 0
    for query in rng.standard_normal((200, 16)).astype(np.float32):
        (s, r, least), off = copy._named(query, 2001, None)
        assert len(set(r)) == 2000 and (least == -np.inf).all()
        worst = max(worst, np.abs(s - feats[r].astype(float) @ query).max() / off)
    assert .2 < worst <= 1
    if exact_codes:  # and a result that would be another without it
        for query in rng.standard_normal((200, 16)).astype(np.float32): same(copy, copy.feats, query[None], 3)


def test_rows_that_came_later_are_rounded_too(place):
    "A copy of one short row is hardly ever off; the products of longer rows, which FAISS sums up in float32, are."
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = np.r_[np.float16([[1e-3]]), rng.standard_normal((67, 1))].astype(np.float16)
        copy = grown(copy_of(Rows([x[:1]]), place/'c'), Rows([x[:1], x[1:]]))
        same(copy, copy.feats, rng.standard_normal((1, 1)).astype(np.float32), 1)


def test_the_bytes_are_asked(monkeypatch, place):
    "That the result is right does not show it: the rows themselves give it, too."
    feats, asked = Rows([crowd(500, 20, 64)]), crowd(500, 20, 64, dtype=np.float32, seed=4)[:20]
    copy = copy_of(feats, place/'d')
    monkeypatch.setattr('person_search_nb.byte_rows.exact_neighbours', lambda *a, **kw: 1 / 0)
    for q in asked: assert copy.search(q[None], 10)[1].shape == (1, 10)
    assert copy.search(asked, 50)[1].shape == (20, 50)
    for queries, k in ((np.tile(asked, (2, 1)), 10), (asked[:1], 51)):  # many are multiplied, long lists would often be asked in vain
        with pytest.raises(ZeroDivisionError): copy.search(queries, k)


def test_what_a_copy_is_not_asked(monkeypatch, place):
    feats = Rows([crowd(500, 20, 64)])
    copy = copy_of(feats, place/'e')
    for wrong in (np.ones((1, 63)), np.ones((1, 65))):
        with pytest.raises(ValueError, match='as many numbers as a row has'): copy.search(wrong)
    with pytest.raises(ValueError, match='query 0 of the embeddings is not finite'): copy.search(np.full((1, 64), np.nan))
    for query in (np.zeros((1, 64)), np.full((1, 64), 1e-6), np.full((1, 64), 1e5)): same(copy, feats, query.astype(np.float32), 5)
    assert copy.search(np.zeros((0, 64)))[1].shape == (0, 10) and copy.search(np.ones((1, 64)), 0)[1].shape == (1, 0)
    bad = crowd(5, 20, 64)
    bad[7, 3] = np.nan
    with pytest.raises(ValueError, match='row 10007 of the embeddings is not finite'): grown(copy, Rows([feats.parts[0], bad])).search(np.ones((1, 64)))
    with pytest.raises(ValueError, match='row 7 of the embeddings is not finite'): copy_of(Rows([bad]), place/'bad')
    assert not (place/'bad').exists()
    broken = feats[:]
    broken[1234, 3] = np.nan  # after the copy was made
    with pytest.raises(ValueError, match='row 1234 of the embeddings is not finite'): grown(copy, Rows([broken])).search(feats[1234:1235].astype(np.float32))
    copy = grown(copy, Rows([feats.parts[0], np.asfortranarray(crowd(5, 20, 64))]))  # FAISS cannot read these
    same(copy, copy.feats, np.asarray(feats[:1], np.float32), 5)
    monkeypatch.setitem(sys.modules, 'faiss', None)
    same(copy, copy.feats, np.asarray(feats[:1], np.float32), 5)


@pytest.mark.parametrize('change, why', [
    (lambda b: b'', 'not a readable index'), (lambda b: b[:5000], 'not a readable index'), (lambda b: b + b'0', 'not a readable index'),
    (lambda b: b'[]'.ljust(_BEGIN - 1) + b'\n' + b[_BEGIN:], 'not a readable index'), (lambda b: b'\xff' + b[1:], 'not a readable index'),
    (lambda b: b'[' * _BEGIN + b[_BEGIN:], 'not a readable index'), (lambda b: b[:_BEGIN + 5] + b'\x80' + b[_BEGIN + 6:], 'is damaged'), (lambda b: b[:-3] + b'\x80' + b[-2:], 'is damaged'),
])
def test_a_broken_file_is_named(tmp_path, change, why):
    feats = Rows([crowd(50, 20, 64)])
    copy_of(feats, tmp_path/'c')
    (tmp_path/'c').write_bytes(change((tmp_path/'c').read_bytes()))
    with pytest.raises(ValueError, match=f'c: {why}; build it again: Gallery.open'): ByteRows.load(feats, tmp_path/'c')


@pytest.mark.parametrize('change', [dict(shape=[10 ** 12, 64]), dict(shape=[-1, 64]), dict(shape=[1000.0, 64]), dict(shape=[True, 64]), dict(shape=3), dict(step=-1.), dict(step=float('nan')), dict(error=float('inf')),
                                    dict(error='1'), dict(longest=None), dict(longest=1e-9), dict(error=1e-9), dict(step=0.), dict(crc=0), dict(more=1.), dict(person_search_nb_bytes=9)])
def test_a_first_line_is_not_trusted(tmp_path, change):
    feats = Rows([crowd(50, 20, 64)])
    copy_of(feats, tmp_path/'c')
    data = (tmp_path/'c').read_bytes()
    line = json.dumps(json.loads(data[:_BEGIN]) | change).encode().ljust(_BEGIN - 1) + b'\n'
    (tmp_path/'c').write_bytes(line + data[_BEGIN:])
    with pytest.raises(ValueError, match='c: .*; build it again: Gallery.open'): ByteRows.load(feats, tmp_path/'c')


@pytest.mark.parametrize('rows', [np.zeros((30, 64)), np.full((30, 2048), 3e4), np.full((30, 64), 6e-8)])
def test_every_copy_can_be_read(tmp_path, rows):
    feats = Rows([rows.astype(np.float16)])
    same(copy_of(feats, tmp_path/'c'), feats, np.ones((1, rows.shape[1]), np.float32), 5)
    same(ByteRows.load(feats, tmp_path/'c'), feats, np.ones((1, rows.shape[1]), np.float32), 5)


def test_a_search_while_python_ends(tmp_path):
    "No thread may be started then: a server's last answer was an error."
    code = """if True:
        import threading, time, torch
        from person_search_nb import neighbours
        neighbours.SCANNED_FROM, neighbours._SHARE = 1000, 500
        torch.set_num_threads(2)
        feats = neighbours.crowd(200, 20, 64)
        def serve():
            threading.main_thread().join()
            time.sleep(.5)
            print(neighbours.exact_neighbours(neighbours.Rows([feats]), feats[7:8], 1, longest=1.01)[1])
        threading.Thread(target=serve).start()"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == '[[7]]', done.stderr


def test_in_a_gallery(tmp_path, monkeypatch, capsys):
    "`build_index('exact')` of many: written beside the rows, mapped when it is asked, right after the gallery has grown."
    monkeypatch.setattr(neighbours, 'SCANNED_FROM', 1000)
    feats = crowd(150, 20, 64)
    def gallery(part):
        n = len(part)
        return Gallery(np.arange(n) // 3, np.tile(np.float32([0, 0, 9, 9]), (n, 1)), np.full(n, .9, np.float32), part, [f's{i}.png' for i in range(-(-n // 3))], np.full(-(-n // 3), -1))
    gallery(feats[:2700]).save(tmp_path/'g')
    Gallery.open(tmp_path/'g').build_index(progress=False)
    assert 'exact: scans 2,700 rows in bytes first; nothing is missed' in capsys.readouterr().out
    about = read_manifest(tmp_path/'g')['index']
    assert about['name'] == 'exact' and about['recall'] == .99 and (tmp_path/'g'/about['file']).stat().st_size == about['bytes'] and about['reached'] == 1
    opened = Gallery.open(tmp_path/'g')
    assert isinstance(opened.engine, ByteRows) and isinstance(opened.engine.codes.parts[0], np.memmap)
    def lists(g, **kw): return [[(m.detection, m.similarity) for m in g.search(feats[q].astype(np.float32), 9, **kw)] for q in (3, 2600, 2900)]
    assert lists(opened) == lists(opened, exact=True)
    Gallery.open(tmp_path/'g').append(gallery(feats[2700:]))
    grown = Gallery.open(tmp_path/'g')
    assert len(grown.engine.codes) == 2700 and len(grown) == 3000 and lists(grown) == lists(grown, exact=True) and lists(grown)[2][0][0] == 2900
    grown.build_index('hnsw', progress=False)
    assert not list((tmp_path/'g').glob('*.exact'))
    with monkeypatch.context() as m:
        m.setattr(neighbours, 'SCANNED_FROM', 10 ** 6)
        assert grown.build_index('exact', progress=False).engine is None and read_manifest(tmp_path/'g')['index'] is None
    small = gallery(feats[:300]).build_index('exact', progress=False)
    assert small.engine is None
    grown.build_index('exact', progress=False)
    file = next((tmp_path/'g').glob('*.exact'))
    file.write_bytes(file.read_bytes()[:-1] + b'\x80')
    with pytest.raises(ValueError, match=f'{file.name}: is damaged; build it again'): Gallery.open(tmp_path/'g').search(feats[3].astype(np.float32))
