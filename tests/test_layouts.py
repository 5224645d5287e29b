"""Benchmarks on disk: what is read equals what was written, genuine files give the published counts, and every kind of damage ends in one `DataError`."""
import json, re, struct as struct_
from dataclasses import asdict, replace

import numpy as np, pytest
from PIL import Image

from person_search_nb.cuhk_files import GalleryLists, read_lists
from person_search_nb.files import DataError
from person_search_nb.mot_files import read_mot
from person_search_nb.scenes import check_scene, cross_camera, QuerySet, Scene, SceneDataset
from person_search_nb.specs import SPLITS
from person_search_nb.streets import SYNTH
from person_search_nb.synthetic import write_dataset
from person_search_nb.layouts import cuhk_scenes, prw_scenes, recognize
from person_search_nb.datasets import format_summary, open_dataset, open_protocol, protocols
from person_search_nb.datasets import summary
from test_matfile import cell, save, struct

scipy_io = pytest.importorskip('scipy.io')
MINI = replace(SYNTH['tiny'], size=(96, 160), train_scenes=14, test_scenes=30, train_ids=12, test_ids=40, cameras=3, queries=25, gallery=12)
SPEC = 'synth:tiny?' + '&'.join(f'{k}={"x".join(map(str, v)) if k == "size" else v}' for k, v in asdict(MINI).items() if v != getattr(SYNTH['tiny'], k))


# -- trees of make-data -----------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def trees(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trees')
    for layout in ('cuhk-sysu', 'prw'): write_dataset(MINI, folder/layout, layout, workers=1, galleries=(6, 12, 20), progress=False)
    return folder

@pytest.fixture(scope='module')
def rendered(): return {(s, g): open_dataset(SPEC.replace('gallery=12', f'gallery={g}'), s, progress=False) for g in (6, 12, 20) for s in SPLITS}

def same(a, b, known=None):
    ids = {}
    assert a.names == b.names and (a.cameras - a.cameras.min() == b.cameras - b.cameras.min()).all()
    for s, t in zip(a.scenes, b.scenes):
        assert s.size == t.size and s.boxes.dtype == np.float32
        np.testing.assert_allclose(s.boxes, t.boxes, atol=.11)
        for p, q in zip(s.person_id.tolist(), t.person_id.tolist()): assert ids.setdefault(p, q if known is None or q in known else -1) == (q if known is None or q in known else -1)
    assert len(set(ids.values())) == len(ids)
    return ids

@pytest.mark.parametrize('size', [6, 12, 20])
def test_cuhk_reads_back_identical(trees, rendered, size):
    spec = f'cuhk-sysu:{trees}/cuhk-sysu?gallery={size}'
    train, gallery, query = (open_dataset(spec, s) for s in SPLITS)
    want = rendered['query', size]
    ids = same(gallery, rendered['gallery', size], set(want.person_id.tolist()))
    same(train, rendered['train', size])
    assert train.num_ids == rendered['train', size].num_ids and gallery.faults == train.faults == []
    assert [ids[p] for p in query.person_id.tolist()] == want.person_id.tolist()
    for key in ('scene', 'gallery_index', 'candidates'): np.testing.assert_array_equal(getattr(query, key), getattr(want, key))
    np.testing.assert_allclose(query.boxes, want.boxes, atol=.11)
    subset = rendered['query', 20].subsets  # written with the gallery nearest to 100
    assert {k: v.tolist() for k, v in query.subsets.items()} == {k: v.tolist() for k, v in subset.items() if len(v)}
    image, box, pid = query[3]
    np.testing.assert_array_equal(image, gallery.image(query.scene[3])); np.testing.assert_allclose(box[0], query.boxes[3])


def test_cuhk_protocols(trees, rendered):
    spec = f'cuhk-sysu:{trees}/cuhk-sysu'
    want = rendered['query', 20].subsets
    assert protocols(spec) == ['gallery=6', 'gallery=12', 'gallery=20', 'gallery=full'] + [f'subset={k}' for k in ('occluded', 'low_resolution') if len(want[k])]
    assert (open_dataset(spec, 'query').candidates == open_dataset(spec + '?gallery=6', 'query').candidates).all()
    answers = {}
    for name in protocols(spec):
        p = open_protocol(spec, name)
        assert p.name == name and p.published['images'] == 6978 and p.published.get('queries') == (None if name.startswith('subset') else 2900)
        assert p.queries.candidates is None or not (p.queries.candidates == p.queries.gallery_index[:, None]).any()
        answers[name] = p.answers().tolist()
        assert min(answers[name]) > 0 and (p.searched() >= p.answers()).all()
        if name == 'gallery=full': assert (p.searched() == len(p.gallery) - 1).all()
        elif name.startswith('gallery'): assert (p.searched() == int(name[8:])).all()
        else: assert len(p.queries) == len(want[name[7:]]) and not p.queries.subsets and (p.queries.scene == rendered['query', 20].scene[want[name[7:]]]).all()
    assert answers['gallery=20'] == answers['gallery=full'], 'a list of 20 holds all sightings'
    for first in protocols(spec):  # a name takes the place of the protocol in a spec
        assert open_protocol(f"{spec}?{first}", 'gallery=12').answers().tolist() == answers['gallery=12']


def test_prw_reads_back_identical(trees, rendered):
    spec = f'prw:{trees}/prw'
    train, gallery, query = (open_dataset(spec, s) for s in SPLITS)
    same(train, rendered['train', 12])
    ids, want = same(gallery, rendered['gallery', 12]), rendered['query', 12]
    assert [ids[p] for p in query.person_id.tolist()] == want.person_id.tolist() and (query.scene == want.scene).all() and (query.gallery_index == want.scene).all() and query.candidates is None
    np.testing.assert_allclose(query.boxes, want.boxes, atol=.11)
    assert sorted({p for s in train.scenes for p in s.person_id.tolist()} - {-1}) == list(range(train.num_ids))
    assert protocols(spec) == ['protocol=all', 'protocol=cross-camera']
    every, across = (open_protocol(spec, p) for p in protocols(spec))
    c = across.gallery.cameras
    for q, row in enumerate(across.queries.candidates): assert sorted(row[row >= 0]) == np.flatnonzero(c != c[query.scene[q]]).tolist()
    assert (every.searched() == len(gallery) - 1).all() and (across.searched() < every.searched()).all() and (across.answers() <= every.answers()).all() and (every.answers() > 0).all()


def test_relative_path_and_size(trees, monkeypatch):
    monkeypatch.chdir(trees)
    data = open_dataset('prw:prw', 'gallery', size=(48, 80))
    assert data[0][0].shape == (3, 48, 80)


def test_cross_camera_without_other_cameras():
    scenes = [Scene(str(i), (9, 9), np.zeros((0, 4)), np.zeros(0), 0) for i in range(3)]
    data = SceneDataset(scenes, None)
    queries = QuerySet(data, np.array([0, 2]), np.zeros((2, 4), np.float32), np.zeros(2, np.int64), np.array([0, 2]))
    assert cross_camera(queries, data.cameras).shape == (2, 0)


def test_summary(trees):
    found = summary(f'prw:{trees}/prw', progress=False)
    assert found['splits']['gallery']['images'] == 30 and found['protocols']['protocol=all']['searched'] == 29 and found['protocols']['protocol=all']['unanswered'] == 0
    assert sum(found['splits']['train']['heights']) == found['splits']['train']['boxes'] and not found['faults']
    for row in found['splits'].values():
        assert np.add(row['labelled_heights'], row['other_heights']).tolist() == row['heights'] and sum(row['labelled_heights']) == row['labelled']
    text = format_summary(found)
    assert '[5,704]' in text and '[25,062]' in text and '[483]' in text and '[2,057]' in text
    assert 'protocol=cross-camera' in format_summary(summary(SPEC, progress=False))


def test_recognize(trees, tmp_path):
    for layout in ('cuhk-sysu', 'prw'): assert recognize(trees/layout) == f'{layout}:{trees/layout}'
    (tmp_path/'a.json').write_text('{}')
    assert recognize(tmp_path/'a.json') == f'coco:{tmp_path/"a.json"}' and recognize(tmp_path) == '' and recognize(tmp_path/'gone') == ''


# -- variants of the layouts ------------------------------------------------------------------------------------------

def write_prw(folder, key='box_new', ends='\n', type_=float, change=lambda rows: None, query='7 10 10 20 40 c1s1_000001\n8 40 10 20 40 c1s1_000001\n'):
    "Two training and three test frames of two cameras; one is empty."
    rows = {'c1s1_000000': [[5, 10, 10, 20, 40]], 'c2s1_000000': [[5, 12, 10, 20, 40], [-2, 50, 5, 12, 30]],
            'c1s1_000001': [[7, 10, 10, 20, 40], [8, 40, 10, 20, 40]], 'c2s1_000001': [[7, 30, 10, 20, 40], [8, 60, 10, 20, 40], [-2, 5, 5, 12, 30]], 'c2s1_000002': []}
    change(rows)
    (folder/'frames').mkdir(parents=True, exist_ok=True)
    for name, r in rows.items():
        Image.fromarray(np.full((60, 100, 3), 90, np.uint8)).save(folder/'frames'/f'{name}.jpg')
        save(folder/'annotations'/f'{name}.jpg.mat', **{key: np.array(r, type_).reshape(-1, 5) if r else np.zeros((0, 0))})
    for split, number in (('train', '0'), ('test', '12')): save(folder/f'frame_{split}.mat', **{f'img_index_{split}': cell([n for n in rows if n[-1] in number])})
    (folder/'query_info.txt').write_bytes(query.replace('\n', ends).encode())
    return f'prw:{folder}'

@pytest.mark.parametrize('ends', ['\n', '\r\n', '\n\n'])
@pytest.mark.parametrize('key', ['box_new', 'anno_file', 'anno_previous'])
@pytest.mark.parametrize('type_', [np.int16, np.float64])
def test_prw_variants(tmp_path, key, ends, type_):
    spec = write_prw(tmp_path, key, ends, type_)
    train, gallery, query = (open_dataset(spec, s) for s in SPLITS)
    assert train.truth(1)['person_id'].tolist() == [0, -1] and gallery.names == ['c1s1_000001.jpg', 'c2s1_000001.jpg', 'c2s1_000002.jpg'] and len(gallery.scenes[2].boxes) == 0
    assert query.person_id.tolist() == [7, 8] and query.boxes.tolist() == [[10, 10, 30, 50], [40, 10, 60, 50]] and query.scene.tolist() == [0, 0]
    assert open_dataset(spec + '?protocol=cross-camera', 'query').candidates.tolist() == [[1, 2]] * 2


def test_prw_prefers_the_newest_boxes(tmp_path):
    spec = write_prw(tmp_path)
    save(tmp_path/'annotations'/'c1s1_000001.jpg.mat', anno_previous=np.array([[7, 1, 1, 9, 20]]), anno_file=np.array([[7, 2, 2, 9, 20]]), box_new=np.array([[7, 10, 10, 20, 40]]))
    assert open_dataset(spec, 'gallery').scenes[0].boxes.tolist() == [[10, 10, 30, 50]]


def test_int16_boxes_do_not_overflow(tmp_path):
    Image.new('L', (40000, 30)).save(tmp_path/'wide.png')
    spec = write_prw(tmp_path, type_=np.int16, change=lambda rows: rows['c1s1_000000'].__setitem__(0, [5, 30000, 10, 9000, 20]))
    Image.new('L', (40000, 30)).save(tmp_path/'frames'/'c1s1_000000.jpg')
    assert open_dataset(spec).scenes[0].boxes.tolist() == [[30000, 10, 39000, 30]]


def lists(change=lambda rows: None, empty=np.zeros((1, 0))):
    rows = [[('a.jpg', [[5, 5, 20, 40]], 'p7'), [('b.jpg', [[9, 5, 20, 40]]), ('c.jpg', empty)]], [('b.jpg', [[9, 50, 20, 40]], 'p8'), [('c.jpg', empty), ('a.jpg', [[30, 5, 20, 40]]), ('d.jpg', empty)]]]
    change(rows)
    return struct(['Query', 'Gallery'], [(struct(['imname', 'idlocate', 'idname'], [q]), struct(['imname', 'idlocate'], g)) for q, g in rows])

@pytest.mark.parametrize('empty', [np.zeros((1, 0)), np.zeros((0, 0)), np.zeros((0, 4)), np.zeros((1, 0), np.uint8)])
@pytest.mark.parametrize('pack', [True, False])
def test_lists(tmp_path, empty, pack):
    save(tmp_path/'TestG2.mat', pack, TestG2=lists(empty=empty))
    for _ in range(2):  # read, then from the cache
        got = read_lists(tmp_path/'TestG2.mat')
        assert got.names.tolist() == ['a.jpg', 'b.jpg', 'c.jpg', 'd.jpg'] and got.query_scene.tolist() == [0, 1] and got.query_id.tolist() == [7, 8]
        assert got.query_box.tolist() == [[5, 5, 25, 45], [9, 50, 29, 90]] and got.gallery.tolist() == [[1, 2, -1], [2, 0, 3]]
        assert (got.hit_query.tolist(), got.hit_scene.tolist(), got.hit_box.tolist()) == ([0, 1], [1, 0], [[9, 5, 29, 45], [30, 5, 50, 45]])


def test_single_query_and_any_order(tmp_path):
    save(tmp_path/'TestG1.mat', TestG1=lists(lambda rows: rows.pop()))
    assert len(read_lists(tmp_path/'TestG1.mat')) == 1
    save(tmp_path/'TestG3.mat', TestG3=lists(lambda rows: (rows.pop(), rows[0][1].pop())))  # one query, one row
    assert read_lists(tmp_path/'TestG3.mat').gallery.tolist() == [[1]]
    save(tmp_path/'TestG4.mat', TestG4=lists(lambda rows: [r[1].reverse() for r in rows]))
    a = read_lists(tmp_path/'TestG4.mat')
    assert [{a.names[s] for s in row if s >= 0} for row in a.gallery] == [{'b.jpg', 'c.jpg'}, {'a.jpg', 'c.jpg', 'd.jpg'}] and a.hit_box.tolist() == [[9, 5, 29, 45], [30, 5, 50, 45]]


@pytest.mark.parametrize('change,message', [
    (lambda r: r[1][1].__setitem__(1, ('a.jpg', [[30, np.nan, 20, 40]])), r'query 1 \(p8, scene b.jpg\), gallery row 1 \(scene a.jpg\).*not finite.*write'),
    (lambda r: r[0][1].__setitem__(0, ('b.jpg', [[9, 5, 20, -4]])), r'query 0 .*gallery row 0 .*no area.*above 0'),
    (lambda r: r[0][1].__setitem__(0, ('b.jpg', [[9, 5, 20]])), r'query 0 .*gallery row 0 .*3 numbers; write x, y, width, height'),
    (lambda r: r[1].__setitem__(0, ('b.jpg', [[9, 50, 0, 40]], 'p8')), r'query 1 .*no area'),
    (lambda r: r[1].__setitem__(0, ('b.jpg', np.zeros((1, 0)), 'p8')), r'query 1 .*0 numbers'),
    (lambda r: r[1].__setitem__(0, ('b.jpg', [[9, 50, 10, 40]], 'eve')), r"query 1 .*idname 'eve' has no number"),
    (lambda r: r[0][1].__setitem__(1, ('a.jpg', np.zeros((1, 0)))), r'query 0 .*gallery row 1 \(scene a.jpg\) is the scene of the query itself; delete'),
    (lambda r: r[1][1].append(('c.jpg', np.zeros((1, 0)))), r'query 1 .*gallery row 3 \(scene c.jpg\) is a scene listed before; delete'),
    (lambda r: r[1][1].pop(1), r'query 1 \(p8, scene b.jpg\) is in no scene of its gallery; take the query off'),
    (lambda r: r[1].__setitem__(1, []), r'query 1 .*is in no scene of its gallery'),
])
def test_bad_lists(tmp_path, change, message):
    save(tmp_path/'TestG2.mat', TestG2=lists(change))
    with pytest.raises(DataError, match='TestG2.mat: ' + message): read_lists(tmp_path/'TestG2.mat')


# -- bad trees --------------------------------------------------------------------------------------------------------

def frames(folder): return sorted((folder/'frames').iterdir())
def annotation(rows, name='c2s1_000001'): return lambda folder: save(folder/'annotations'/f'{name}.jpg.mat', box_new=np.array(rows, float).reshape(-1, 5))
def query(text): return lambda folder: (folder/'query_info.txt').write_bytes(text if isinstance(text, bytes) else text.encode())

@pytest.mark.parametrize('change,message', [
    (lambda f: (f/'frames/c2s1_000001.jpg').unlink(), r'c2s1_000001.jpg: no such picture; put it there'),
    (lambda f: (f/'frames/c2s1_000001.jpg').write_bytes((f/'frames/c2s1_000001.jpg').read_bytes()[:300]), r'c2s1_000001.jpg: cannot be decoded.*again'),
    (annotation([[7, 30, 10, 20, 40], [8, 160, 10, 20, 40]]), r'c2s1_000001.jpg.mat: row 1 .*100 x 60 px.*outside the picture; correct the row'),
    (annotation([[7, 30, 10, 20, 40], [8, 60, 10, 0, 40]]), r'c2s1_000001.jpg.mat: row 1: .*no area'),
    (annotation([[7, 30, 10, 20, 40], [8, 60, np.nan, 9, 40]]), r'c2s1_000001.jpg.mat: row 1: .*not finite'),
    (annotation([[7, 30, 10, 20, 40], [8.5, 60, 10, 9, 40]]), r'c2s1_000001.jpg.mat: row 1: identity 8.5 is no whole number'),
    (annotation([[7, 30, 10, 20, 40], [7, 60, 10, 20, 40]]), r'c2s1_000001.jpg.mat: row 1 .*identity 7 is there twice \(before: row 0\); .*correct'),
    (lambda f: save(f/'annotations/c2s1_000001.jpg.mat', box_new=np.ones((2, 4))), r'c2s1_000001.jpg.mat: has rows of 4 numbers; write id'),
    (lambda f: save(f/'annotations/c2s1_000001.jpg.mat', boxes=np.ones((2, 5))), r'c2s1_000001.jpg.mat: holds boxes and not box_new or anno_file or anno_previous'),
    (lambda f: save(f/'annotations/c2s1_000001.jpg.mat', box_new=cell(['a'])), r'c2s1_000001.jpg.mat: .*no matrix of numbers'),
    (lambda f: (f/'annotations/c2s1_000001.jpg.mat').unlink(), r'c2s1_000001.jpg.mat: no such file'),
    (annotation([]), r'query_info.txt: line 1 \(identity 7, scene c1s1_000001.jpg\): nobody with this identity is in another test scene; take the line off'),
    (query('7 10 10 20 40 c1s1_000001\n7 10 10 20\n'), r"query_info.txt: line 2 is '7 10 10 20'; write id x y width height frame"),
    (query('7 10 10 x 40 c1s1_000001\n'), r'query_info.txt: line 1 is'),
    (query('7 10 10 nan 40 c1s1_000001\n'), r'query_info.txt: line 1: .*not finite'),
    (query('7.5 10 10 20 40 c1s1_000001\n'), r'query_info.txt: line 1: identity 7.5'),
    (query('7 110 10 20 40 c1s1_000001\n'), r'query_info.txt: line 1 .*mostly outside the picture \(100 x 60 px\)'),
    (query('7 10 10 20 40 c9s1_000001\n'), r'query_info.txt: line 1 .*is no scene of the test split'),
    (query('7 40 10 20 40 c1s1_000001\n'), r'query_info.txt: line 1 .*its box is that of identity 8; correct identity or box'),
    (query('7 75 10 20 40 c1s1_000001\n'), r'query_info.txt: line 1 .*the person is elsewhere in this scene, with the corners \[10.0, 10.0, 30.0, 50.0\]'),
    (query('7 10 10 20 40 c1s1_000001\n8 40 10 20 40 c1s1_000001\n7 10 10 20 40.0 c1s1_000001.jpg\n'), r'query_info.txt: line 3 .*is line 1 again; delete one'),
    (query('\n \n'), r'query_info.txt: lists no queries'), (query(b'\xff\xfe7 1'), r'query_info.txt: is not text in UTF-8'),
    (lambda f: (f/'query_info.txt').unlink(), r'query_info.txt: no such file'),
    (lambda f: save(f/'frame_test.mat', img_index_test=cell(['c1s1_000001'] * 2)), r'frame_test.mat: lists c1s1_000001 twice'),
    (lambda f: save(f/'frame_test.mat', img_index_test=cell(['c1s1_000000'])), r'frame_test.mat: frame c1s1_000000 is in frame_train.mat, too'),
    (lambda f: [g.unlink() for g in f.glob('frame_*.mat')], r'frame_train.mat: no such file'),
])
def test_bad_prw(tmp_path, change, message):
    spec = write_prw(tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=message) as e: open_dataset(spec, 'query')
    assert str(tmp_path) in str(e.value)


def write_cuhk(folder, boxes=None, train=None, test=None, pool=('a.jpg', 'b.jpg', 'c.jpg', 'd.jpg'), images=None):
    boxes = boxes or {'t.jpg': [[1, 1, 20, 40]], 'u.jpg': [[2, 1, 20, 40], [40, 5, 20, 40]], 'a.jpg': [[5, 5, 20, 40], [30, 5, 20, 40]], 'b.jpg': [[9, 5, 20, 40], [9, 50, 20, 40]], 'c.jpg': [], 'd.jpg': [[1, 2, 9, 20]]}
    for n in boxes:
        (folder/'Image/SSM').mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((100, 80, 3), 90, np.uint8)).save(folder/'Image/SSM'/n)
    ann = folder/'annotation'
    save(ann/'Images.mat', Img=struct(['imname', 'nAppear', 'box'], [(n, len(b), struct(['idlocate', 'ishard'], [([r], 0) for r in b])) for n, b in (images or boxes).items()]))
    save(ann/'pool.mat', pool=cell(list(pool)))
    train = train if train is not None else [('p1', [('t.jpg', [[1, 1, 20, 40]], 0), ('u.jpg', [[2, 1, 20, 40]], 0)])]
    save(ann/'test/train_test/Train.mat', Train=cell([struct(['idname', 'nAppear', 'scene'], [(n, len(rows), struct(['imname', 'idlocate', 'ishard'], rows))]) for n, rows in train]))
    save(ann/'test/train_test/TestG3.mat', TestG3=lists() if test is None else test)
    return f'cuhk-sysu:{folder}'

def test_cuhk_by_hand(tmp_path):
    spec = write_cuhk(tmp_path)
    train, gallery, query = (open_dataset(spec, s) for s in SPLITS)
    assert train.names == ['t.jpg', 'u.jpg'] and [s.person_id.tolist() for s in train.scenes] == [[0], [0, -1]]
    assert [s.person_id.tolist() for s in gallery.scenes] == [[7, 8], [7, 8], [], [-1]]
    assert query.candidates.tolist() == [[1, 2, -1], [2, 0, 3]] and query.boxes.tolist() == [[5, 5, 25, 45], [9, 50, 29, 90]]
    save(tmp_path/'annotation/test/subset/Occlusion.mat', anything=lists(lambda r: r.pop(0)))
    assert {k: v.tolist() for k, v in open_dataset(spec, 'query').subsets.items()} == {'occluded': [1]} and open_dataset(spec + '?subset=occluded', 'query').person_id.tolist() == [8]


@pytest.mark.parametrize('kind,message', [
    (dict(boxes={'a.jpg': [[5, 5, 0, 40]]}), r'Images.mat: scene a.jpg, box 0: .*no area'),
    (dict(boxes={'a.jpg': [[5, 5, np.inf, 40]]}), r'Images.mat: scene a.jpg, box 0: .*not finite'),
    (dict(boxes={'a.jpg': [[5, 5, 40]]}), r'Images.mat: scene a.jpg, box 0: idlocate has 3 numbers'),
    (dict(pool=['a.jpg', 'a.jpg', 'b.jpg', 'c.jpg', 'd.jpg']), r'pool.mat: lists a.jpg twice'),
    (dict(pool=['a.jpg', 'b.jpg', 'c.jpg', 'z.jpg']), r'pool.mat: scene z.jpg is not in Images.mat'),
    (dict(pool=['a.jpg', 'b.jpg', 'd.jpg']), r'TestG3.mat: query 0, gallery scene c.jpg is not in pool.mat'),
    (dict(pool=['a.jpg', 'c.jpg', 'd.jpg']), r'p8, scene b.jpg: the scene is not one of the test scenes'),
    (dict(train=[('p1', [('a.jpg', [[5, 5, 20, 40]], 0)])]), r'Train.mat: p1, scene a.jpg: the scene is not one of the training scenes'),
    (dict(train=[('p1', [('t.jpg', [[3, 1, 20, 40]], 0)])]), r'Train.mat: p1, scene t.jpg: its box is not among the boxes of this scene'),
    (dict(train=[('p1', [('t.jpg', [[1, 1, 20, 40]], 0)]), ('p2', [('t.jpg', [[1, 1, 20, 40]], 0)])]), r'Train.mat: p2, scene t.jpg: its box is that of p1'),
    (dict(train=[('p1', [('u.jpg', [[2, 1, 20, 40]], 0), ('u.jpg', [[40, 5, 20, 40]], 0)])]), r'Train.mat: p1, scene u.jpg: the person is there twice'),
    (dict(train=[('anna', [('t.jpg', [[1, 1, 20, 40]], 0)])]), r"Train.mat: .*idname 'anna' has no number"),
    (dict(train=[]), r'Train.mat: lists no people'), (dict(test=lists(lambda r: r.clear())), r'TestG3.mat: lists no queries'),
])
def test_bad_cuhk(tmp_path, kind, message):
    if 'boxes' in kind: kind = dict(images={'a.jpg': kind['boxes']['a.jpg'], 'b.jpg': [], 'c.jpg': [], 'd.jpg': []})
    spec = write_cuhk(tmp_path, **kind)
    with pytest.raises(DataError, match=message):
        for s in SPLITS: open_dataset(spec, s)


def test_wrong_layouts_and_options(tmp_path, trees):
    for spec, message in ((f'cuhk-sysu:{trees}/prw', 'annotation/Images.mat.*it looks like prw:'), (f'prw:{trees}/cuhk-sysu', 'it looks like cuhk-sysu:'), (f'mot:{tmp_path}', 'gt/gt.txt.*give the folder'),
                          (f'duke:{tmp_path}/gone', 'gone: no such folder'), (f'prw:{trees}/prw?camera=1', "no option 'camera'; there are protocol"), (f'prw:{trees}/prw?protocol=some', 'protocol=some is not one of all, cross-camera'),
                          (f'cuhk-sysu:{trees}/cuhk-sysu?gallery=77', 'there is no gallery=77; there are gallery=6, gallery=12'), (f'cuhk-sysu:{trees}/cuhk-sysu?gallery=x', 'there is no gallery=x'),
                          (f'cuhk-sysu:{trees}/cuhk-sysu?subset=tall', 'there is no subset=tall'), (f'cuhk-sysu:{trees}/cuhk-sysu?gallery=6&subset=occluded', 'not both')):
        with pytest.raises(DataError, match=message): open_dataset(spec, 'query')


# -- tracking sets and crops ------------------------------------------------------------------------------------------

def write_mot(folder, change=lambda lines: lines, columns=9, films=('A-01-DPM', 'A-01-SDP', 'A-02-DPM')):
    for film in films:
        for d in ('img1', 'gt'): (folder/film/d).mkdir(parents=True, exist_ok=True)
        (folder/film/'seqinfo.ini').write_text('[Sequence]\nname=x\nimDir=img1\nframeRate=10\nseqLength=80\nimWidth=100\nimHeight=60\nimExt=.png\n')
        lines = [[f, p, 5 + 20 * p, 10, 12, 30 + p, 1, 1, .9] for p, (a, b) in enumerate([(1, 30), (1, 25), (45, 80), (50, 80)], 1) for f in range(a, b + 1)]
        lines += [[11, 9, 1, 1, 9, 20, 0, 3, 1], [11, 8, 1, 1, 9, 20, 1, 7, 1], [11, 7, 1, 1, 9, 20, 1, 1, .1]]  # a car; someone sitting; someone hidden
        (folder/film/'gt'/'gt.txt').write_text('\n'.join(','.join(f'{v:g}' for v in l[:columns]) for l in change(lines)) + '\n')
        for f in range(1, 81, 5): Image.new('RGB', (100, 60)).save(folder/film/'img1'/f'{f:06d}.png')
    return f'mot:{folder}'

def test_mot(tmp_path):
    spec = write_mot(tmp_path)
    train, gallery, query = (open_dataset(spec, s) for s in SPLITS)
    assert train.names[:4] == [f'A-01-DPM/0000{f}.png' for f in ('01', '11', '21', '31')] and len(train) == len(gallery) == 8 and train.cameras.tolist() == [0] * 4 + [1] * 4
    assert train.num_ids == gallery.num_ids == 4 and train.scenes[1].person_id.tolist() == [0, 1, -1] and train.scenes[3].boxes.shape == (0, 4)
    assert train.scenes[1].boxes.tolist()[:2] == [[25, 10, 37, 41], [45, 10, 57, 42]]
    assert not set(train.names) & set(gallery.names) and len(query) == 4 and (query.gallery_index == query.scene).all()
    shared = open_dataset(spec + '?shared=yes&protocol=cross-camera', 'query')
    assert len(set(shared.person_id.tolist())) == 2 and all(shared.dataset.cameras[c] != shared.dataset.cameras[s] for row, s in zip(shared.candidates, shared.scene) for c in row if c >= 0)
    assert len(open_dataset(spec + '?every=5', 'gallery')) == 16 and len(open_dataset(spec + '?visible=0').scenes[1].boxes) == 4
    assert open_dataset(f'mot:{tmp_path}/A-02-DPM').names[0] == 'A-02-DPM/000001.png'

def test_mot15_and_empty(tmp_path):
    spec = write_mot(tmp_path, lambda lines: [l[:7] + [-1, -1, -1] for l in lines[:-3]], 10)
    assert open_dataset(spec).num_ids == 4
    (tmp_path/'A-02-DPM'/'gt'/'gt.txt').write_text('')
    assert open_dataset(spec).num_ids == 2
    assert [len(x) for x in read_mot(tmp_path/'A-02-DPM'/'gt'/'gt.txt')] == [0, 0, 0, 0]

@pytest.mark.parametrize('change,message', [
    (lambda l: [[1, 2, 3]] * 3, r'gt.txt: has 3 numbers per line; write frame, track'), (lambda l: l + [[1, 2]], r'gt.txt: .*columns.*row \d+.*write lines'),
    (lambda l: [[1, 1, 5, 5, float('nan'), 9, 1, 1, 1]] + l, r'gt.txt: line 1: .*not finite'), (lambda l: [[1, 1, 5, 5, 0, 9, 1, 1, 1]] + l, r'gt.txt: line 1: .*no area'),
    (lambda l: [[1, 1.5, 5, 5, 9, 9, 1, 1, 1]] + l, r'gt.txt: line 1: track 1.5'), (lambda l: [[0, 1, 5, 5, 9, 9, 1, 1, 1]] + l, r'gt.txt: line 1: frame 0 is not in 1 to 80'),
    (lambda l: l + [[1, 1, 5, 5, 9, 9, 1, 1, 1]], r'gt.txt: line \d+ .*identity 0 is there twice \(before: line 1\)'), (lambda l: [[1, 5, 500, 5, 9, 9, 1, 1, 1]] + l, r'gt.txt: line 1 .*outside the picture'),
])
def test_bad_mot(tmp_path, change, message):
    with pytest.raises(DataError, match=message): open_dataset(write_mot(tmp_path, change, 10))

def test_bad_mot_files(tmp_path):
    spec = write_mot(tmp_path)
    for option, message in (('every=0', 'every=0 is no whole number'), ('every=x', 'every=x'), ('visible=-1', 'visible=-1 is no share'), ('shared=maybe', 'one of no, yes'), ('every=200', 'no sampled frame is for query; give a longer film')):
        with pytest.raises(DataError, match=message): open_dataset(f'{spec}?{option}', 'query')
    (tmp_path/'A-01-DPM'/'img1'/'000011.png').unlink()
    with pytest.raises(DataError, match='000011.png: no such picture'): open_dataset(spec)
    for text, message in (('', 'No section|Sequence'), ('[Sequence]\nframeRate=x', 'frameRate|invalid'), ('[Sequence]\nframeRate=10\nseqLength=80\nimWidth=0\nimHeight=60', 'above 0'), (None, 'no such file')):
        (tmp_path/'A-01-DPM'/'seqinfo.ini').write_text(text) if text is not None else (tmp_path/'A-01-DPM'/'seqinfo.ini').unlink()
        with pytest.raises(DataError, match=f'seqinfo.ini: .*({message})'): open_dataset(spec)


def write_duke(folder, lists=True):
    rows = np.array([(c, p, f, 10 + 30 * k, 5, 20, 40 + p, 0, 0, 0, 0) for c in (1, 2) for f in range(0, 1200, 60) for k, p in enumerate((1, 2) if f < 600 else (3, 4))], float)
    save(folder/'ground_truth/trainval.mat', trainData=rows)
    for c, f in {(int(c), int(f)) for c, _, f in rows[:, :3]}:
        (folder/f'frames/camera{c}').mkdir(parents=True, exist_ok=True)
        Image.new('L', (100, 60)).save(folder/f'frames/camera{c}/{f:05d}.jpg')
    for d, p, some in (('bounding_box_train', (1, 2), range(0, 600, 120)), ('bounding_box_test', (3, 4), range(720, 1200, 120)), ('query', (3, 4), [660])) if lists else ():
        (folder/'DukeMTMC-reID'/d).mkdir(parents=True)
        for f in some:
            for c in (1, 2):
                for q in p: (folder/'DukeMTMC-reID'/d/f'{q:04d}_c{c}_f{f:07d}.jpg').touch()
    return f'duke:{folder}'

def test_duke(tmp_path):
    spec = write_duke(tmp_path)
    train, gallery, query = (open_dataset(spec, s) for s in SPLITS)
    assert train.num_ids == 2 and len(train) == 10 and train.names[:2] == ['camera1/000000', 'camera1/000120'] and gallery.ids.tolist() == [3, 4] and len(gallery) == 8
    assert query.person_id.tolist() == [3, 3, 4, 4] and query.dataset.names == ['camera1/000660', 'camera2/000660'] and query.gallery_index.tolist() == [-1] * 4
    assert query.boxes.tolist() == [[10, 5, 30, 48]] * 2 + [[40, 5, 60, 49]] * 2
    p = open_protocol(spec, 'protocol=cross-camera')
    assert (p.searched() == 4).all() and (p.answers() == 4).all() and (open_protocol(spec, 'protocol=all').searched() == 8).all()
    (tmp_path/'DukeMTMC-reID'/'query'/'0003_c1_f0000540.jpg').touch()
    with pytest.raises(DataError, match='trainval.mat: has no row of camera 1, id 3, frame 540'): open_dataset(spec, 'query')
    (tmp_path/'DukeMTMC-reID'/'query'/'anna.jpg').touch()
    with pytest.raises(DataError, match='anna.jpg: is not named like'): open_dataset(spec, 'query')
    crops = tmp_path/'DukeMTMC-reID/bounding_box_train'
    (crops.rename(tmp_path/'1').parent/'DukeMTMC-reID/bounding_box_train').mkdir(); (tmp_path/'1').rename(crops/'1')
    with pytest.raises(DataError, match='bounding_box_train: holds folders and no pictures; move'): open_dataset(spec)

def test_folders_beside_the_crops_of_duke_are_counted(tmp_path):
    spec = write_duke(tmp_path)
    (tmp_path/'DukeMTMC-reID/bounding_box_test/more').mkdir()
    left = {split: open_dataset(spec, split, progress=False) for split in SPLITS}
    left = {split: (data.dataset if split == 'query' else data).left_out for split, data in left.items()}
    assert left['gallery'] == {'folders in bounding_box_test, not looked into': 1} and not left['train'] and not left['query']


def test_duke_without_lists(tmp_path):
    spec = write_duke(tmp_path, False)
    train, gallery, query = (open_dataset(spec, s) for s in SPLITS)
    assert (train.num_ids, gallery.num_ids, len(train), len(gallery)) == (2, 2, 10, 10) and len(query) == 4 and len(open_dataset(spec + '?every=60')) == 20
    (tmp_path/'frames/camera1/00000.jpg').unlink()
    with pytest.raises(DataError, match='camera1/0.jpg: no such picture'): open_dataset(spec)
    save(tmp_path/'ground_truth/trainval.mat', trainData=np.ones((3, 4)))
    with pytest.raises(DataError, match='trainval.mat: has rows of 4 numbers'): open_dataset(spec)


def test_cuhk03(tmp_path):
    for kind, height in (('labeled', 50), ('detected', 40)):
        (tmp_path/kind).mkdir()
        for pair, person in ((1, 1), (1, 2), (2, 1), (2, 2)):
            for view, n in ((1, 1), (1, 2), (2, 6)): Image.new('RGB', (20, height + person)).save(tmp_path/kind/f'{pair}_{person:03d}_{view}_{n:02d}.png')
    train, gallery, query = (open_dataset(f'cuhk03:{tmp_path}', s) for s in SPLITS)
    assert (train.num_ids, len(train), gallery.num_ids, len(gallery), len(query)) == (2, 6, 2, 6, 4) and train.scenes[0].boxes.tolist() == [[0, 0, 20, 51]]
    assert train.cameras.tolist() == [1, 1, 2] * 2 and gallery.cameras.tolist() == [3, 3, 4] * 2
    assert open_dataset(f'cuhk03:{tmp_path}?crops=detected').scenes[0].size == (41, 20)
    assert (open_protocol(f'cuhk03:{tmp_path}', 'protocol=cross-camera').answers() == [1, 2] * 2).all()
    (tmp_path/'labeled'/'x.png').write_bytes(b'')
    with pytest.raises(DataError, match='x.png: is not named like'): open_dataset(f'cuhk03:{tmp_path}')
    with pytest.raises(DataError, match='unpack it with h5py'):
        (tmp_path/'new').mkdir(); (tmp_path/'new'/'cuhk-03.mat').write_bytes(b'\x89HDF'); open_dataset(f'cuhk03:{tmp_path}/new')


# -- fuzz -------------------------------------------------------------------------------------------------------------

def mangle(data, rng):
    "Cut, flip, repeat, drop or overwrite some bytes."
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        i, n = int(rng.integers(0, max(1, len(data)))), int(rng.integers(1, 40))
        match rng.integers(0, 6):
            case 0: del data[i:]
            case 1: data[i:i + 1] = bytes([int(rng.integers(0, 256))])
            case 2: data[i:i] = data[i:i + n]
            case 3: del data[i:i + n]
            case 4: data[i:i + n] = rng.integers(0, 256, n, np.uint8).tobytes()
            case 5: data[i:i + 4] = [b'\xff' * 4, bytes(4), b'\xff\xff\xff\x7f', b'\x80\0\0\0', b'nan,', b'1e99', b'-9.5', b'\r\n\n '][rng.integers(0, 8)]
    return bytes(data)

@pytest.mark.parametrize('pack', [True, False])
def test_fuzz_mat(tmp_path, pack, monkeypatch):
    "A thousand damaged files: what is read is either whole or refused. Unpacked ones are not protected by a checksum."
    monkeypatch.setattr('person_search_nb.cuhk_files.cached', lambda build, file: build(file))
    rng, outcomes = np.random.default_rng(7), {'read': 0, 'refused': 0}
    write_cuhk(tmp_path/'a')
    save(tmp_path/'a/annotation/test/train_test/TestG3.mat', pack, TestG3=lists())
    for name, key, make in (('Images.mat', 'Img', 0), ('pool.mat', 'pool', 1), ('test/train_test/Train.mat', 'Train', 2), ('test/train_test/TestG3.mat', 'TestG3', 3)):
        file = tmp_path/'a/annotation'/name
        if not pack: scipy_io.savemat(file, {k: v for k, v in scipy_io.loadmat(file).items() if k[0] != '_'}, do_compression=False)
        whole = file.read_bytes()
        for _ in range(120):
            file.write_bytes(mangle(whole, rng))
            try:
                scenes, faults = cuhk_scenes(tmp_path/'a', read_lists(tmp_path/'a/annotation/test/train_test/TestG3.mat')) if name != 'test/train_test/Train.mat' else cuhk_scenes(tmp_path/'a')
                assert not faults and all(np.isfinite(s.boxes).all() for s in scenes)
                outcomes['read'] += 1
            except DataError as e:
                assert '.mat' in str(e) or 'train_test' in str(e)
                outcomes['refused'] += 1
        file.write_bytes(whole)
    assert outcomes['refused'] > 200, outcomes

def test_fuzz_prw_and_mot(tmp_path):
    spec, mot = write_prw(tmp_path/'prw'), write_mot(tmp_path/'mot', films=('A-01',))
    rng, refused = np.random.default_rng(8), 0
    for file, opened in ((tmp_path/'prw/query_info.txt', spec), (tmp_path/'prw/annotations/c2s1_000001.jpg.mat', spec), (tmp_path/'prw/frame_test.mat', spec), (tmp_path/'mot/A-01/gt/gt.txt', mot),
                         (tmp_path/'mot/A-01/seqinfo.ini', mot), (tmp_path/'prw/frames/c2s1_000001.jpg', spec)):
        whole = file.read_bytes()
        for _ in range(60):
            file.write_bytes(mangle(whole, rng))
            try: open_dataset(opened, 'query')
            except DataError: refused += 1
        file.write_bytes(whole)
    assert refused > 100

def test_fuzz_json(tmp_path):
    Image.new('L', (100, 60)).save(tmp_path/'a.png')
    file, rng, refused = tmp_path/'annotations.json', np.random.default_rng(9), 0
    whole = json.dumps(dict(images=[dict(id=1, file_name='a.png', width=100, height=60, camera=1), dict(id=2, file_name='a.png')],
                            annotations=[dict(id=k, image_id=1 + k % 2, bbox=[5 + 20 * k, 5, 10, 30], category_id=1, person_id=k // 2) for k in range(4)], categories=[dict(id=1, name='person')], queries=[0, 3])).encode()
    pieces = [b'null', b'[]', b'{}', b'"x"', b'-1', b'1e400', b'NaN', b'true', b'[[]]', b'{"id": {}}', b'1.5']
    for k in range(600):
        data = mangle(whole, rng)
        if k % 2:  # a value of another kind, in a file that stays JSON
            spans = [m.span(1) for m in re.finditer(rb'[:\[,] (\d+|"[a-z.]+"|\[\d[^\[\]]*\]|\{[^{}]*\})', whole)]
            a, b = spans[rng.integers(len(spans))]
            data = whole[:a] + pieces[rng.integers(len(pieces))] + whole[b:]
        file.write_bytes(data)
        try: open_dataset(f'coco:{tmp_path}', 'query')
        except DataError: refused += 1
    assert refused > 300


# -- genuine files ----------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def genuine(shared, tmp_path_factory):
    file = shared/'real'/'cuhk_sysu'/'TestG100.mat'
    if not file.is_file(): pytest.skip('no genuine protocol file here')
    folder = tmp_path_factory.mktemp('genuine')
    (folder/file.name).write_bytes(file.read_bytes())  # so that the cache is written here
    return folder/file.name

def test_genuine_lists(genuine):
    "Every query and gallery row of the genuine protocol."
    raw, again = read_lists(genuine), read_lists(genuine)
    for k, v in vars(raw).items(): np.testing.assert_array_equal(v, getattr(again, k))
    assert isinstance(raw, GalleryLists) and len(raw) == 2900 and raw.gallery.shape == (2900, 100) and len(raw.names) == 6978
    assert all(re.fullmatch(r's\d{1,5}\.jpg', n) for n in raw.names) and len(set(raw.query_id.tolist())) == 2900
    assert len(raw.faults) == 6 and sum('scene of the query itself' in f for f in raw.faults) == 2 and sum('listed before' in f for f in raw.faults) == 4
    assert not (raw.gallery == raw.query_scene[:, None]).any()
    for row in raw.gallery: assert len(set(row[row >= 0].tolist())) == (row >= 0).sum() >= 99
    assert ((raw.gallery < 0).sum(1) > 0).sum() == 6
    for box in (raw.query_box, raw.hit_box): assert (box[:, :2] >= 1).all() and (box[:, 2:] - box[:, :2] >= 12).all() and box.max() < 1100
    answers = np.bincount(raw.hit_query, minlength=2900)
    assert answers.min() == 1 and answers.sum() == len(raw.hit_query) == 8347 - 2900 - 6
    assert all(s in raw.gallery[q] for q, s in zip(raw.hit_query, raw.hit_scene))
    q = int(np.flatnonzero(raw.query_id == 10581)[0])
    assert raw.names[raw.query_scene[q]] == 's15538.jpg' and raw.query_box[q].tolist() == [488, 90, 576, 340]

@pytest.mark.slow
def test_genuine_lists_equal_scipys(genuine):
    raw = read_lists(genuine)
    for k, r in enumerate(scipy_io.loadmat(genuine)['TestG100'][0]):
        own, names = str(r['Query'][0, 0]['imname'][0]), [str(g['imname'][0]) for g in r['Gallery'][0]]
        assert raw.names[raw.gallery[k][raw.gallery[k] >= 0]].tolist() == [n for i, n in enumerate(names) if n not in names[:i] and n != own]


def save_int16(file, name, x):
    "As scipy would, a hundred times as fast."
    element = lambda kind, data: struct_.pack('<II', kind, len(data)) + data + bytes(-len(data) % 8)
    head = b'MATLAB 5.0 MAT-file'.ljust(124) + b'\0\1IM'
    file.write_bytes(head + element(14, element(6, struct_.pack('<II', 10, 0)) + element(5, struct_.pack('<ii', *x.shape)) + element(1, name.encode()) + element(3, x.T.tobytes())))


def test_genuine_prw(shared, tmp_path):
    "The genuine boxes and ids, written as PRW's .mat files with its own numbers, read back with the published counts; its thirteen known faults are reported."
    files = {s: shared/'real'/'prw16'/f'prw_{s}_pid.json' for s in ('train', 'test')}
    if not all(f.is_file() for f in files.values()): pytest.skip('no genuine boxes here')
    genuine_id = lambda p: p if p < 0 else 932 if p == 482 else p + 1 + (p >= 478)  # 1-478, 480-483, 932
    written = {}
    (tmp_path/'annotations').mkdir()
    for split, file in files.items():
        data = json.loads(file.read_text())
        rows = {im['id']: [] for im in data['images']}
        for a in data['annotations']: rows[a['image_id']].append([genuine_id(a['person_id']) if split == 'train' else a['person_id'], *a['bbox']])
        names = {im['id']: im['file_name'] for im in data['images']}
        for k, r in rows.items(): save_int16(tmp_path/'annotations'/f'{names[k]}.mat', 'box_new', np.array(r, np.int16).reshape(-1, 5))
        save(tmp_path/f'frame_{split}.mat', **{f'img_index_{split}': cell([n.removesuffix('.jpg') for n in names.values()])})
        written[split] = {names[k]: r for k, r in rows.items()}
    twice = 0
    for split, images, boxes in (('train', 5704, 18048), ('test', 6112, 25062)):
        scenes, faults = prw_scenes(tmp_path, split, progress=False)
        twice += len(faults)
        assert len(scenes) == images and sum(len(s.boxes) for s in scenes) == boxes and all('there twice' in f for f in faults)
        for s in scenes:
            r = np.array(written[split][s.name], float)
            np.testing.assert_array_equal(s.boxes, np.concatenate([r[:, 1:3], r[:, 1:3] + r[:, 3:]], 1))
            s.size = (1080, 1920) if s.camera != 6 else (576, 720)
            check_scene(s, 'genuine')
        if split == 'train':
            data = SceneDataset(scenes, None, contiguous=True)
            assert data.num_ids == 483 and data.ids.tolist() == [*range(1, 479), *range(480, 484), 932]
            assert sorted({p for s in scenes for p in s.person_id.tolist()}) == list(range(-1, 483))
    assert twice == 13
