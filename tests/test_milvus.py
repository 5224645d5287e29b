"""A gallery on Milvus: equal to the exact gallery in memory, over the wire, never half-written, one line for every mistake.
Milvus Lite stands in for the server, in this process and in another one; a cluster is not needed."""
import os, pickle, shutil, subprocess, sys, time
from functools import partial

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('pymilvus', reason="needs pip install 'person_search_nb[milvus]'")
lite = pytest.importorskip('milvus_lite', reason="needs pip install 'person_search_nb[milvus]'")

from person_search_nb import indexing, milvus, milvus_tables
from person_search_nb.datasets import open_dataset
from person_search_nb.file_locks import BusyError
from person_search_nb.indexing import build_gallery
from person_search_nb.milvus import MilvusGallery, to_milvus
from person_search_nb.milvus_tables import Collections, parse_place
from person_search_nb.model_files import shipped_trunk
from person_search_nb.models import load_model
from person_search_nb.neighbours import crowd
from person_search_nb.search import Gallery
from person_search_nb.search_commands import search

SPEC = 'synth:tiny?test_scenes=10&test_ids=6&queries=4&gallery=9&size=128x224&seed=3'


@pytest.fixture(scope='module')
def net(): return load_model(shipped_trunk('hdl-student-fast-taught'))


@pytest.fixture
def lite_file(tmp_path):
    "A folder of Milvus Lite, whose server in this process is stopped afterwards."
    yield tmp_path/'m.db'
    lite.server_manager_instance.release_server(str(tmp_path/'m.db'))


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    "Nine pictures, two cameras, one a second."
    data, folder = open_dataset(SPEC, 'gallery', progress=False), tmp_path_factory.mktemp('pictures')
    for i in range(9): Image.fromarray(data.picture(i)).save(folder/f'c{i % 2 + 1}s1_{25 * i:06d}.png')
    return folder


@pytest.fixture
def shots(pictures, tmp_path):
    "A copy that a test may change."
    return shutil.copytree(pictures, tmp_path/'shots')


@pytest.fixture(scope='module')
def unbroken(net, pictures, tmp_path_factory): return build(net, pictures, tmp_path_factory.mktemp('unbroken')/'gallery')


def build(net, source, out, **kw): return build_gallery(net, source, out, **dict(batch_size=2, shard=3, half=False, progress=False) | kw)


def table(m=400, s=60, dim=32, **kw):
    rng = np.random.default_rng(1)
    boxes = rng.uniform(0, 50, (m, 4)).astype(np.float32)
    boxes[:, 2:] += boxes[:, :2] + 5
    feats = crowd(m // 20, dim=dim, dtype=np.float32)
    feats[9] = feats[3]  # equals: the earlier comes first
    given = dict(names=[f'a "{i}" \\ é.jpg' for i in range(s)], cameras=rng.integers(-1, 3, s), sizes=np.tile([100, 120], (s, 1)), model='a' * 16,
                 times=np.where(rng.random(s) < .2, np.nan, rng.uniform(0, 1000, s)))
    return Gallery(np.sort(rng.integers(0, s, m)), boxes, rng.uniform(0, 1, m).astype(np.float32).round(1), feats, **given | kw)


def same(here, there, numbers=True):
    def plain(found): return [(m.name, m.camera, str(m.time), m.score, *m.box.tolist(), *((m.scene, m.detection) if numbers else ())) for m in found]
    assert plain(here) == plain(there)
    assert np.allclose([m.similarity for m in here], [m.similarity for m in there], 0, 1e-12 if numbers else 1e-6)


FILTERS = [dict(), dict(number=40), dict(score_threshold=0), dict(score_threshold=.7), dict(camera=2), dict(camera=[0, 1], time=(100, 500)), dict(time=(None, 300)),
           dict(scenes=[1, 2, 3], score_threshold=0), dict(scenes=np.arange(60) % 2 == 0), dict(exclude=[4, 5], camera=1), dict(scenes=[]), dict(exclude=[]),
           dict(number=1000, score_threshold=0), dict(rerank='k-reciprocal', top=50), dict(rerank='cbgm', top=30), dict(rerank='cbgm', camera=1), dict(rerank='cbgm', scenes=[])]


@pytest.mark.parametrize('engine', ['exact', 'auto'])
def test_equal_to_the_exact_gallery(lite_file, engine, monkeypatch):
    exact = table()
    there = to_milvus(exact, f'milvus:{lite_file}/people', engine)
    for k, kw in enumerate(FILTERS):
        if kw.get('rerank') == 'cbgm': kw = kw | dict(context=exact.det_feats[20:23])
        if len(kw.get('scenes', [0])) or not kw.get('rerank'): same(exact.search(exact.det_feats[3 + k], **kw), there.search(exact.det_feats[3 + k], **kw))
    queries = exact.det_feats[:70]
    for a, b in zip(there.search(queries, camera=1), map(lambda q: exact.search(q, camera=1), queries)): same(b, a)
    for kw in dict(), dict(rerank='k-reciprocal', top=30), dict(rerank='cbgm', top=30, context=[queries[k:k + 2] for k in range(3)]), dict(number=400, score_threshold=0):
        for a, b in zip(exact.search(queries[:3], exclude=[[1], [], [2, 3]], **kw), there.search(queries[:3], exclude=[[1], [], [2, 3]], **kw)): same(a, b)
    assert there.search(queries[:0]) == []
    for k, wrong in enumerate([dict(scenes=[60]), dict(camera='left'), dict(time=5), dict(score_threshold=2), dict(number=0), dict(top=0), dict(rerank='best'), dict(rerank='cbgm'),
                               dict(exclude=[[1]]), dict(exclude=[[1], [60]]), dict(rerank='cbgm', context=[queries[:1]]), dict(exclude=60)]):
        texts = []
        for g in exact, there:
            with pytest.raises(ValueError) as e: g.search(queries[0] if k < 8 else queries[:2], **wrong)
            texts.append(str(e.value).replace(f'milvus:{lite_file}/people', 'this gallery'))
        assert texts[0] == texts[1]
    for bad in exact.det_feats[0, :9], 2 * exact.det_feats[0], np.full(32, np.nan, np.float32), exact.det_feats[None, :2]:
        with pytest.raises(ValueError, match='query'): there.search(bad)
    monkeypatch.setattr(milvus, 'MOST', 300)
    with pytest.raises(ValueError, match='400 matches: Milvus gives at most 300; ask for fewer'): there.search(queries[0], 20_000)
    if engine == 'auto':
        with pytest.raises(ValueError, match='engine=exact'): there.search(queries[0], exact=True)
    else: same(exact.search(queries[0]), there.search(queries[0], exact=True))


def test_columns_and_copies(lite_file, tmp_path, monkeypatch):
    for module in milvus, milvus_tables: monkeypatch.setattr(module, 'PAGE', 7)  # many pages
    exact, place = table(m=100, s=20), f'milvus:{lite_file}/people'
    exact.save(place)
    there = Gallery.open(place)
    assert isinstance(there, MilvusGallery) and len(there) == 100 and list(there.names) == exact.names
    assert exact.names[3] in there.names and 'x' not in there.names and there.names.index(exact.names[5]) == 5 and there.names[-1] == exact.names[-1]
    with pytest.raises(IndexError): there.names[20]
    with pytest.raises(ValueError, match='has no scene x'): there.names.index('x')
    np.testing.assert_array_equal(there.cameras, exact.cameras)
    np.testing.assert_array_equal(there.times, exact.times)
    assert there.dropped is None
    for k in 'det_image', 'det_boxes', 'det_scores', 'det_feats', 'sizes': np.testing.assert_array_equal(getattr(there, k), getattr(exact, k))
    both = there.append(exact)
    assert len(both) == 200 and both.names.count(exact.names[0]) == 2 and both.search(exact.det_feats[0], 1, score_threshold=0)[0].where.endswith('(scene 0)')
    left = both.forget([*range(20, 40), 2])
    assert left.dropped.tolist() == [2, *range(20, 40)] and 2 not in left.det_image and left._named(exact.names[0]) == [0]
    same(exact.search(exact.det_feats[0], exclude=2), left.search(exact.det_feats[0]))
    left.save(tmp_path/'folder', half=False)
    folder = Gallery.open(tmp_path/'folder')
    same(folder.search(exact.det_feats[0]), left.search(exact.det_feats[0]), numbers=False)
    assert len(folder.append(left)) == 2 * len(left) and len(exact.append(left)) == 100 + len(left)
    with pytest.raises(ValueError, match='people: lies on a server, and side by side are galleries in folders and files'): Gallery.open([tmp_path/'folder', place])
    assert isinstance(Gallery.open([place]), MilvusGallery)
    with pytest.raises(ValueError, match='Milvus makes its own index'): left.build_index('exact')


def test_unknown_cameras_and_unequal_rows(lite_file):
    exact = table(cameras=None, times=None, matching='euclidean')
    exact.det_feats = exact.det_feats * np.linspace(.5, 2, len(exact), dtype=np.float32)[:, None]
    there = to_milvus(exact, f'milvus:{lite_file}/far')
    assert there.manifest['engine'] == 'exact'
    same(exact.search(exact.det_feats[7]), there.search(exact.det_feats[7]))
    for kw in dict(camera=1), dict(time=(0, 1)):
        with pytest.raises(ValueError, match='does not know the'): there.search(exact.det_feats[0], **kw)


def test_index_as_into_a_folder(net, shots, lite_file, tmp_path, capsys):
    place, folder = f'milvus:{lite_file}/people', build(net, shots, tmp_path/'gallery')
    there = build(net, shots, place, model_file='shipped:hdl-student-fast-taught')
    assert f'{place}: {len(folder)} people in 9 scenes' in capsys.readouterr().out
    asked = folder.picture(0), folder.det_boxes[0]
    for kw in dict(), dict(rerank='cbgm'), dict(camera=1): same(folder.find(net, *asked, **kw), there.find(net, *asked, **kw), numbers=False)
    found = there.find(net, *asked)
    assert (found[0].thumbnail() == folder.find(net, *asked)[0].thumbnail()).all() and there.own_scenes(0, found) == [0]
    cut = found[0].thumbnail()
    same(folder.find(net, cut), there.find(net, cut), numbers=False)
    assert there.origin(0) == str(shots) and len(there.dataset()) == 9 and there.manifest['model_file'].startswith('shipped:')
    Image.fromarray(255 - there.picture(0)).save(shots/'c1s1_000000.png')
    (shots/'c2s1_000025.png').unlink()
    Image.fromarray(there.picture(4)).save(shots/'c1s1_000900.png')
    (shots/'c1s1_000999.png').write_bytes(b'no picture')
    with pytest.raises(ValueError, match='2 scenes of this source are not what was indexed, first c1s1_000000.png, which has changed'): build(net, shots, place)
    assert len(Gallery.open(place)) == len(folder)  # nothing was lost
    folder, there = (build(net, shots, g, changed='replace') for g in (tmp_path/'gallery', place))
    assert '2 forgotten' in (said := capsys.readouterr().out) and said.count('1 skipped, first c1s1_000999.png') == 2
    same(folder.search(folder.det_feats[-1], 90), there.search(folder.det_feats[-1], 90), numbers=False)
    folder.save(f'milvus:{lite_file}/copy')  # a gallery that outgrew its folder keeps its pictures, and goes on
    copy = build(net, shots, f'milvus:{lite_file}/copy')
    assert len(copy) == len(there) and copy.picture(0).shape == (128, 224, 3)


def test_parts_go_into_folders_and_then_together(net, shots, lite_file, tmp_path, monkeypatch, capsys, command):
    place = f'milvus:{lite_file}/people'
    with pytest.raises(ValueError, match=r"people: one process at a time writes to a collection, .* Gallery.open\(FOLDER\).save\('milvus:.*people'\)"): build(net, shots, place, part=(1, 2))
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(ValueError, match='one process at a time'): build(net, shots, place)
    monkeypatch.undo()
    for k in 1, 2: build(net, shots, tmp_path/'parts', part=(k, 2))
    Gallery.open(tmp_path/'parts').save(place)
    there = build(net, shots, place)
    assert 'people in 9 scenes' in capsys.readouterr().out and len(there.manifest['sources']) == 1 and len(there) == len(Gallery.open(tmp_path/'parts'))
    alone, box = Gallery.open(tmp_path/'parts'), there.det_boxes[0]
    for here, found in zip(*(g.find_all(net, [(0, box), (0, box)], 4, skip_own=True) for g in (alone, there))): same(here, found)
    assert found[0].folder == place and found[0].thumbnail().size
    for kw, text in (dict(recall=.9), 'Milvus makes its own'), (dict(engine='exact'), 'was begun with engine auto, which stays'):
        with pytest.raises(ValueError, match=text): build(net, shots, place, **kw)
    np.save(tmp_path/'q.npy', alone.det_feats[[0, 5]])
    done = command('search', '--gallery', place, '--queries', tmp_path/'q.npy', '--number', 2, '--out', tmp_path/'found.csv')
    assert done.returncode == 0 and (tmp_path/'found.csv').read_text().count(place) == 4, done.stderr
    for wrong, text in (('index', shots, '--out', place, '--part', '1/2'), 'one process at a time'), (('search', '--gallery', tmp_path/'parts', place, '--queries', tmp_path/'q.npy'), 'lies on a server'):
        done = command(*wrong)
        assert done.returncode == 1 and text in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.parametrize('where', ['create', 'write_about', '_insert', 'finish'])
def test_killed_and_gone_on_with(net, shots, unbroken, lite_file, monkeypatch, where):
    place, calls, whole = f'milvus:{lite_file}/people', [], getattr(Collections, where)
    def dies(self, *args):
        calls.append(args)
        if len(calls) == dict(create=1, write_about=3, _insert=4, finish=1)[where]: raise KeyboardInterrupt
        return whole(self, *args)
    monkeypatch.setattr(Collections, where, dies)
    with pytest.raises(KeyboardInterrupt): build(net, shots, place)
    monkeypatch.undo()
    with pytest.raises(ValueError, match='no gallery there' if where == 'create' else 'is not finished, . scenes so far; run person-search index again'): Gallery.open(place)
    there = build(net, shots, place)
    assert list(there.names) == list(unbroken.names)
    for k in 'det_image', 'det_boxes', 'det_scores', 'det_feats': np.testing.assert_array_equal(getattr(there, k), getattr(unbroken, k))


def test_killed_between_the_two_collections(lite_file, monkeypatch):
    place, whole = f'milvus:{lite_file}/people', Collections.call
    def dies(self, what, *args, **kw):
        if what == 'create_collection' and args[0] == 'people': raise KeyboardInterrupt
        return whole(self, what, *args, **kw)
    monkeypatch.setattr(Collections, 'call', dies)
    with pytest.raises(KeyboardInterrupt): table().save(place)
    monkeypatch.undo()
    table().save(place)
    assert len(Gallery.open(place)) == 400


def test_two_writers(lite_file):
    place = f'milvus:{lite_file}/people'
    to_milvus(table(), place)
    first, columns = Collections(place), table()._columns()
    about = first.resume()
    Gallery.open(place).append(table())
    with pytest.raises(BusyError, match='another process has written'): first.add(about, columns)
    assert len(Gallery.open(place)) == 800


MISTAKES = [('milvus:', 'names no server'), ('milvus:people', 'names no server'), ('milvus:http://127.0.0.1:1', 'names no server'), ('milvus:x.db', 'names no server'),
            ('milvus:http://127.0.0.1:1/', 'a name of letters'), ('milvus:x.db/my people', 'a name of letters'), ('milvus:http://me:secret@127.0.0.1:1/people', 'MILVUS_TOKEN')]


@pytest.mark.parametrize('place, text', MISTAKES)
def test_no_place(place, text):
    for ask in parse_place, Gallery.open, table().save:
        with pytest.raises(ValueError, match=text) as e: ask(place)
        assert '\n' not in str(e.value) and 'secret' not in str(e.value) and 'milvus:' in str(e.value)


def test_what_it_takes(net, shots, lite_file, tmp_path):
    "Numbers of numpy, a camera that no column holds, a pickled gallery, pictures that come along with what is appended."
    place, g = f'milvus:{lite_file}/people', build(net, shots, tmp_path/'g')
    there = to_milvus(table(), place)
    same(table().search(table().det_feats[3], 4), there.search(table().det_feats[3], np.int64(4)))
    assert there.search(table().det_feats[3], camera=2 ** 63) == []
    assert len(pickle.loads(pickle.dumps(there))) == len(there)
    with pytest.raises(ValueError, match='has no scene None; scenes= takes numbers'): there.forget(None)
    g.save(f'milvus:{lite_file}/grown')
    grown = Gallery.open(f'milvus:{lite_file}/grown').append(g)
    for i in (1, 10): np.testing.assert_array_equal(grown.picture(i), g.picture(1))
    grown.save(tmp_path/'back')
    np.testing.assert_array_equal(Gallery.open(tmp_path/'back').picture(10), g.picture(1))


def test_a_name_that_it_cannot_hold_is_said_first(net, shots, lite_file, monkeypatch):
    (shots/os.fsdecode(b'z\xe9.png')).write_bytes(next(shots.iterdir()).read_bytes())
    monkeypatch.setattr(indexing, 'find_people', lambda *a, **k: pytest.fail('hours were spent'))
    with pytest.raises(ValueError, match='z.*png: Milvus holds names in UTF-8'): build(net, shots, f'milvus:{lite_file}/people')


def test_mistakes_are_one_line(net, shots, lite_file, tmp_path):
    place = f'milvus:{lite_file}/people'
    exact = table()
    there = to_milvus(exact, place)
    base = there.base
    for name in 'other', 'half_scenes': base.call('create_collection', name, dimension=4)
    (tmp_path/'file.db').write_text('not a folder')
    def nameless(name): return table(names=[name] * 60)
    wrong = {'there is a gallery already': lambda: exact.save(place),
             'no gallery there; make one with person-search index': lambda: Gallery.open(f'milvus:{lite_file}/none'),
             'is a collection of something else': lambda: Gallery.open(f'milvus:{lite_file}/other'),
             'collection of something else, and no gallery': lambda: exact.save(f'milvus:{lite_file}/half'),
             'was made with another network': lambda: build(net, shots, place),
             'is of another network': lambda: there.append(table(model='b' * 16)),
             'another network .16 numbers': lambda: there.append(table(dim=16)),
             'these have 16': lambda: base.add(base.manifest(), table(dim=16)._columns()),
             "'auto' or 'exact', not 'hnsw'": lambda: build(net, shots, f'milvus:{lite_file}/new', engine='hnsw'),
             'cannot be opened .*nowhere': lambda: exact.save(f'milvus:{tmp_path}/nowhere/x.db/people'),
             'cannot be opened': lambda: exact.save(f'milvus:{tmp_path}/file.db/people'),
             'UTF-8': lambda: nameless('a\udcff.jpg').save(f'milvus:{lite_file}/new'),
             'of at most 65,535 bytes': lambda: nameless('a' * 70_000).save(f'milvus:{lite_file}/new'),
             'has no scene 60': lambda: there.forget(60),
             'does not answer': lambda: exact.save('milvus:http://127.0.0.1:1/people'),
             'the server does not answer': lambda: build(net, shots, 'milvus:http://127.0.0.1:1/people'),
             'Milvus refuses to query': lambda: base.query('people', 'no expression', [])}
    for text, f in wrong.items():
        with pytest.raises((ValueError, OSError), match=text) as e: f()
        assert '\n' not in str(e.value) and len(str(e.value)) < 400, text
    assert sorted(base.client.list_collections()) == ['half_scenes', 'other', 'people', 'people_scenes'] and len(Gallery.open(place)) == 400


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pymilvus', None)
    with pytest.raises(ImportError, match=r"pip install 'person_search_nb\[milvus\]'"): Gallery.open('milvus:x.db/people')


SERVE = """
import sys
from milvus_lite.adapter.grpc.server import start_server_in_thread
server, _, port = start_server_in_thread(sys.argv[1], '127.0.0.1', int(sys.argv[2]))
print(port, flush=True)
server.wait_for_termination()
"""


class Server:
    "Milvus Lite in a process of its own, at a port that it finds free, and later at the same."
    def __init__(self, folder):
        self.folder, self.port = folder, 0
        self.start()

    def start(self):
        self.process = subprocess.Popen([sys.executable, '-c', SERVE, str(self.folder), str(self.port)], stdout=subprocess.PIPE, text=True)
        said = self.process.stdout.readline()  # when it listens, or has ended
        assert said.strip().isdigit(), 'the server ended'
        self.port = int(said)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def server(tmp_path):
    s = Server(tmp_path/'server')
    yield s
    s.stop()


def test_over_the_wire(net, shots, server, tmp_path, monkeypatch, capsys):
    "By the commands; the server goes away in the middle of indexing, comes back, and nothing is half there."
    monkeypatch.setattr(milvus_tables, 'WAIT', 3.)
    place, whole, calls = f'milvus:http://127.0.0.1:{server.port}/people', Collections.add, []
    def add(self, *args):
        calls.append(1)
        if len(calls) == 2: server.stop()
        return whole(self, *args)
    monkeypatch.setattr(Collections, 'add', add)
    with pytest.raises(ConnectionError, match='the server does not answer') as e: build(net, shots, place)
    assert place in str(e.value) and '\n' not in str(e.value)
    monkeypatch.setattr(Collections, 'add', whole)
    with pytest.raises(ConnectionError): Gallery.open(place)
    server.start()
    for _ in range(100):  # a client that has seen it fall tries again every second
        try: Collections(place).manifest(); break
        except ConnectionError: time.sleep(.1)
    with pytest.raises(ValueError, match='is not finished, 3 scenes so far'): Gallery.open(place)

    command = 'from person_search_nb.cli import main; main()', 'index', shots, '--out', place, '--size', 'none', '--model', 'shipped:hdl-student-fast-taught'
    done = subprocess.run([sys.executable, '-c', *map(str, command)], capture_output=True, text=True, cwd=tmp_path, env=os.environ | dict(OMP_NUM_THREADS='1'))
    assert not done.returncode and 'people in 9 scenes' in done.stdout, done.stdout + done.stderr
    folder = build(net, shots, tmp_path/'gallery')
    first = folder.search(folder.det_feats[0])
    found = Gallery.open(place).search(folder.det_feats[0])  # indexed in other batches: the last bits differ
    assert [m.name for m in found] == [m.name for m in first] and np.allclose([m.similarity for m in found], [m.similarity for m in first], 0, 1e-4)
    box = ','.join(str(round(float(v))) for v in folder.det_boxes[0])
    look = partial(search.__wrapped__, gallery=place, image=str(shots/'c1s1_000000.png'), box=box)
    look(cameras=[1], out=str(tmp_path/'hits.html'))
    said = capsys.readouterr().out
    assert 'c1s1_000000.png' in said and 'camera 1' in said and 'camera 2' not in said and (tmp_path/'hits.html').stat().st_size > 10_000
    assert look(after='5000') == [] and f'nobody: {len(folder)} people in the gallery, of cameras [1, 2]' in capsys.readouterr().err
    server.stop()
    with pytest.raises(ConnectionError, match='does not answer'): look()
