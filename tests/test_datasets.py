"""Readers: what they give, and that every kind of broken input is refused with file, row and remedy."""
import json
import numpy as np, pytest, torch
from hypothesis import given, strategies as st
from PIL import Image
from person_search_nb.files import DataError
from person_search_nb.pictures import read_picture
from person_search_nb.scenes import check_scene, QuerySet, Scene, SceneDataset
from person_search_nb.specs import opener, SPLITS
from person_search_nb.datasets import open_dataset, parse_spec

SPEC = 'synth:tiny?train_scenes=12&test_scenes=14&train_ids=20&test_ids=12&queries=10&gallery=6&size=96x160&cameras=2'


def write(folder, change=None, names=('c1_0.jpg', 'c1_1.jpg', 'c2_2.jpg', 'c2_3.jpg'), ids=((4, 9), (), (9, -1, 4), (4,))):
    "Four frames of two cameras; the second is empty."
    (folder/'frames').mkdir(parents=True, exist_ok=True)
    data = dict(images=[], annotations=[], categories=[dict(id=1, name='person'), dict(id=2, name='dog')])
    for n, (name, people) in enumerate(zip(names, ids)):
        Image.fromarray(np.random.default_rng(n).integers(0, 255, (60, 100, 3), np.uint8)).save(folder/'frames'/name)
        data['images'].append(dict(id=7 * n, file_name=name, width=100, height=60))
        for k, p in enumerate(people):
            data['annotations'].append(dict(id=10 * n + k, image_id=7 * n, bbox=[5 + 30 * k, 10, 20, 40], category_id=1, person_id=p))
    if change: change(data)
    (folder/'annotations.json').write_text(json.dumps(data))
    return f'coco:{folder}'


def row(**new): return lambda data: data['annotations'][3].update(new)
def without(key, part='annotations', n=3): return lambda data: data[part][n].pop(key)


# -- COCO -----------------------------------------------------------------------------------------------------------

def test_coco_splits(tmp_path):
    spec = write(tmp_path)
    train, gallery, query = (open_dataset(spec, s) for s in SPLITS)
    assert (len(train), train.num_ids, train.names, train.cameras.tolist()) == (4, 2, ['c1_0.jpg', 'c1_1.jpg', 'c2_2.jpg', 'c2_3.jpg'], [1, 1, 2, 2])
    assert train.truth(2)['person_id'].tolist() == [1, -1, 0] and gallery.truth(2)['person_id'].tolist() == [9, -1, 4]
    image, target = train[2]
    assert image.shape == (3, 60, 100) and image.dtype == torch.float32 and 0 <= image.min() <= image.max() <= 1
    assert target['boxes'].tolist() == [[5, 10, 25, 50], [35, 10, 55, 50], [65, 10, 85, 50]] and target['boxes'].dtype == torch.float32
    assert target['person_id'].dtype == torch.int64 and (target['image_id'], target['camera']) == (2, 2)
    assert train[1][1]['boxes'].shape == (0, 4) and train.heights().tolist() == [40] * 6
    assert query.person_id.tolist() == [4, 9, 9, 4, 4] and query.gallery_index.tolist() == query.scene.tolist() == [0, 0, 2, 2, 3]
    assert query.candidates is None and len(query) == 5
    image, box, pid = query[3]
    assert box.tolist() == [[65, 10, 85, 50]] and pid == 4 and torch.equal(image, train.image(2))


def test_coco_patterns(tmp_path):
    spec = write(tmp_path) + '?train=c1*&gallery=c2*&query=c1*'
    assert open_dataset(spec, 'train').names == ['c1_0.jpg', 'c1_1.jpg'] and open_dataset(spec, 'gallery').names == ['c2_2.jpg', 'c2_3.jpg']
    query = open_dataset(spec, 'query')
    assert query.dataset.names == ['c1_0.jpg', 'c1_1.jpg'] and query.gallery_index.tolist() == [-1, -1] and query.person_id.tolist() == [4, 9]
    with pytest.raises(DataError, match=r'annotations.json: no image is named gallery=c9\*.*c1_0.jpg'): open_dataset(str(spec).replace('c2*', 'c9*'), 'query')
    with pytest.raises(DataError, match="no option 'test'"): open_dataset(write(tmp_path) + '?test=c1*')


def test_coco_query_list(tmp_path):
    query = open_dataset(write(tmp_path, lambda d: d.update(queries=[30, 1])), 'query')
    assert query.scene.tolist() == [3, 0] and query.person_id.tolist() == [4, 9]


def test_coco_other_places_and_kinds(tmp_path):
    "A file by its own name beside the pictures; dogs and crowds are not people; a camera field beats the file name; any negative id is -1."
    def change(d):
        d['annotations'] += [dict(id=90, image_id=0, bbox=[1, 1, 9, 9], category_id=2), dict(id=91, image_id=0, bbox=[1, 1, 9, 9], category_id=1, iscrowd=1)]
        d['images'][0]['camera'] = 5
        d['annotations'][1]['person_id'] = -2
        d['annotations'][2]['person_id'] = None
    write(tmp_path, change)
    (tmp_path/'annotations.json').rename(tmp_path/'mine.json')
    (tmp_path/'frames').rename(tmp_path/'images')
    data = open_dataset(f'coco:{tmp_path}/mine.json', 'gallery')
    assert data.truth(0)['person_id'].tolist() == [4, -1] and data.truth(2)['person_id'].tolist() == [-1, -1, 4]
    assert data.cameras.tolist() == [5, 1, 2, 2] and data.image(3).shape == (3, 60, 100)


@pytest.mark.parametrize('change,message', [
    (row(bbox=[float('nan'), 0, 5, 5]), r'annotations\[3\].*c2_2.jpg.*not finite'),
    (row(bbox=[10, 10, 0, 20]), r'annotations\[3\].*has no area.*delete'),
    (row(bbox=[10, 10, 20, -5]), r'annotations\[3\].*has no area'),
    (row(bbox=[500, 10, 20, 20]), r'annotations\[3\].*c2_2.jpg, 100 x 60 px.*outside the picture'),
    (row(bbox=[80, 10, 95, 50]), r'annotations\[3\].*outside the picture.*order'),
    (row(bbox=[1, 2, 3]), r'annotations\[3\] has bbox \[1, 2, 3\]; write \[x, y, width, height\]'),
    (row(bbox='10 10 5 5'), r'annotations\[3\] has bbox'),
    (row(person_id=9), r'annotations\[3\].*identity 9 is there twice \(before: annotations\[2\]\)'),
    (row(person_id='anna'), r"annotations\[3\] has person_id 'anna'; write a whole number"),
    (row(person_id=1.5), r'annotations\[3\] has person_id 1.5'),
    (row(person_id=float('nan')), r'annotations\[3\] has person_id nan'),
    (row(image_id=1234), r'annotations\[3\] belongs to image 1234.*add it, or delete'),
    (without('person_id'), r"annotations\[3\] has no 'person_id'; add"),
    (without('bbox'), r"annotations\[3\] has no 'bbox'"),
    (without('image_id'), r"annotations\[3\] has no 'image_id'"),
    (without('file_name', 'images', 1), r"images\[1\] has no 'file_name'"),
    (without('id', 'images', 1), r"images\[1\] \(c1_1.jpg\) has no 'id'"),
    (lambda d: d['images'][1].update(id=0), r'images\[1\] \(c1_1.jpg\) has the id 0 of c1_0.jpg'),
    (lambda d: d['images'][1].update(width=640), r'c1_1.jpg: is 100 x 60 px, its annotation says 640 x 60'),
    (lambda d: d['images'][1].update(file_name='gone.jpg'), r'gone.jpg: no such picture'),
    (lambda d: d.pop('images'), "the file has no 'images'"),
    (lambda d: d.update(annotations={}), "'annotations' is not a list"),
    (lambda d: d.update(queries=[555]), r'queries\[0\] is 555'),
    (lambda d: d['annotations'].append(dict(id=77, image_id=7, bbox=[1, 1, 9, 9], person_id=123)) or d.update(queries=[0, 77]),
     r'query 1 \(annotations\[6\], scene c1_1.jpg, identity 123\) is in no other gallery scene; take it off'),
    (lambda d: d['annotations'].clear(), 'seen at least twice'),
])
def test_coco_errors(tmp_path, change, message):
    spec = write(tmp_path, change)
    with pytest.raises(DataError, match=message) as e: open_dataset(spec, 'query')
    assert str(tmp_path) in str(e.value), 'the message names the file'


def test_wrong_layout(tmp_path):
    with pytest.raises(DataError, match='annotations.json: no such file.*frames/ or images/'): open_dataset(f'coco:{tmp_path}')
    (tmp_path/'annotations.json').write_text('{"images": [')
    with pytest.raises(DataError, match='annotations.json: is not JSON'): open_dataset(f'coco:{tmp_path}')
    (tmp_path/'annotations.json').write_text('[1, 2]')
    with pytest.raises(DataError, match="has no 'images'"): open_dataset(f'coco:{tmp_path}')


@pytest.mark.parametrize('keep', [0, 3, 200, .5, .9])
def test_broken_pictures(tmp_path, keep):
    "A picture cut short is refused when the data is opened, before hours are spent; one that breaks later, when it is read."
    spec, file = write(tmp_path), tmp_path/'frames'/'c2_2.jpg'
    whole = file.read_bytes()
    data = open_dataset(spec)
    file.write_bytes(whole[:int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(DataError, match='c2_2.jpg: cannot be decoded.*again'): open_dataset(spec)
    with pytest.raises(DataError, match='c2_2.jpg: cannot be decoded'): data[2]
    data[3]
    file.unlink()
    with pytest.raises(DataError, match='c2_2.jpg: no such picture'): data[2]
    with pytest.raises(DataError, match='c2_2.jpg: no such picture'): open_dataset(spec, cache=True, workers=0, progress=False)


def test_picture_kinds(tmp_path):
    for mode in ('L', 'P', 'RGBA', 'CMYK'):
        path = tmp_path/f'{mode}.{"png" if mode != "CMYK" else "jpg"}'
        Image.new(mode, (7, 5)).save(path)
        assert read_picture(path).shape == (5, 7, 3) and read_picture(path).dtype == np.uint8


@given(st.lists(st.tuples(*[st.floats(-300, 600, width=32)] * 4), max_size=6), st.data())
def test_checked_boxes_lie_in_the_picture(boxes, data):
    "Whatever goes in: either an error, or boxes with an area inside the picture, nobody twice."
    ids = data.draw(st.lists(st.integers(-1, 3), min_size=len(boxes), max_size=len(boxes)))
    try: scene = check_scene(Scene('x', (100, 200), np.array(boxes).reshape(-1, 4), np.array(ids, np.int64)), 'file')
    except DataError as e: assert 'file: row' in str(e); return
    b, known = scene.boxes, scene.person_id[scene.person_id >= 0]
    assert b.dtype == np.float32 and (b[:, 2:] >= b[:, :2]).all() and (b >= 0).all() and (b[:, [0, 2]] <= 200).all() and (b[:, [1, 3]] <= 100).all()
    assert len(set(known.tolist())) == len(known)


# -- synthetic ------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def synth(): return {s: open_dataset(SPEC, s) for s in SPLITS}


def test_synth(synth):
    train, gallery, query = synth.values()
    assert len(train) == 12 and len(gallery) == 14 and train[0][0].shape == (3, 96, 160)
    ids = np.concatenate([train.truth(i)['person_id'] for i in range(12)])
    assert sorted(set(ids[ids >= 0].tolist())) == list(range(train.num_ids))
    assert isinstance(query, QuerySet) and 0 < len(query) <= 10 and query.candidates.shape == (len(query), 6) and set(query.subsets) == {'occluded', 'low_resolution'}
    for q in range(len(query)):
        s, pid = int(query.scene[q]), int(query.person_id[q])
        at = gallery.scenes[s].person_id.tolist().index(pid)
        np.testing.assert_array_equal(query.boxes[q], gallery.scenes[s].boxes[at])
        searched = query.candidates[q]
        assert query.gallery_index[q] == s not in searched and any(pid in gallery.scenes[c].person_id for c in searched if c >= 0)


@pytest.mark.parametrize('workers', [0, 2])
def test_cache_holds_the_same_pictures(synth, workers):
    cached = open_dataset(SPEC, 'gallery', cache=True, workers=workers, progress=False)
    for i in range(len(cached)): np.testing.assert_array_equal(cached.picture(i), synth['gallery'].picture(i))


def test_caching_mixed_sizes(tmp_path):
    pictures = [np.full((5 + i, 9, 3), 40 * i, np.uint8) for i in range(4)]
    data = SceneDataset([Scene(str(i), p.shape[:2], np.zeros((0, 4), np.float32), np.zeros(0, np.int64)) for i, p in enumerate(pictures)],
                        pictures.__getitem__, cache=True, workers=0, progress=False)
    for i, p in enumerate(pictures): np.testing.assert_array_equal(data.picture(i), p)
    image = data.image(2)
    image.zero_()
    assert data.picture(2).max() == 80, 'an item may be changed without changing the store'


def test_size_scales_pictures_and_boxes(synth):
    half = open_dataset(SPEC, 'train', size=(48, 500))
    for i in range(3):
        image, target = half[i]
        assert image.shape == (3, 48, 80)
        torch.testing.assert_close(target['boxes'], synth['train'].truth(i)['boxes'] / 2)
    np.testing.assert_allclose(half.heights(), synth['train'].heights() / 2)
    query = open_dataset(SPEC, 'query', size=(48, 80))
    np.testing.assert_array_equal(query.boxes, synth['query'].boxes)  # original pixels
    np.testing.assert_allclose(query[0][1][0] * 2, query.boxes[0], rtol=1e-6)


@pytest.mark.parametrize('spec,message', [
    ('tiny', 'no data spec.*synth:tiny'), ('lmdb:/x', 'no data spec'), ('synth:huge', 'synth:tiny, synth:small, synth:full'), ('synth:tiny?ids=3', "no option 'ids'; there are size"),
    ('synth:tiny?seed', "'seed' has no value"), ('synth:tiny?seed=x', 'seed=x is not a int'), ('synth:tiny?size=300', 'size=300 is not a HEIGHTxWIDTH'), ('synth:tiny?train_scenes=0', 'at least 1'),
])
def test_bad_specs(spec, message):
    with pytest.raises(DataError, match=message): open_dataset(spec)


def test_bad_split(synth):
    with pytest.raises(DataError, match="no split 'test': choose one of train, gallery, query"): open_dataset(SPEC, 'test')


def test_registry(registries):
    got = []
    @opener('mine')
    def mine(path, options, split, **kw): got.append((path, options, split, kw))
    assert parse_spec('mine:a/b?x=c[12]*?&y=') == ('mine', 'a/b', dict(x='c[12]*?', y=''))
    with pytest.raises(DataError, match=r"reader 'mine' .*a QuerySet, not a NoneType"): open_dataset('mine:C:\\data', 'query', size=3)
    assert got == [('C:\\data', {}, 'query', dict(size=3))]


def test_mirrored_item(synth):
    data = synth['train']
    (image, target), (mirrored, turned) = data[1], data[1, True]
    assert torch.equal(image.flip(-1), mirrored) and torch.equal(target['person_id'], turned['person_id'])
    torch.testing.assert_close(turned['boxes'][:, [0, 2]], 160 - target['boxes'][:, [2, 0]])
    assert torch.equal(turned['boxes'][:, [1, 3]], target['boxes'][:, [1, 3]])


def test_indexing(synth):
    data = synth['train']
    assert data[-1][1]['image_id'] == 11
    for i in (12, -13):
        with pytest.raises(IndexError): data[i]
    data.truth(0)['boxes'].zero_(); data.truth(0)['person_id'].zero_()
    assert data.truth(0)['boxes'].max() > 0, 'a target may be changed without changing the truth'


# -- real frames ----------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def real(shared):
    folder = shared/'real'/'prw16'
    if not (folder/'annotations.json').is_file(): pytest.skip('no real frames here')
    return f'coco:{folder}'


def test_real_frames(real):
    train, gallery, query = (open_dataset(real, s) for s in SPLITS)
    assert (len(train), train.num_ids, len(gallery)) == (16, 18, 16)
    assert sorted(set(train.cameras.tolist())) == [1, 3] and train[0][0].shape == (3, 1080, 1920)
    seen = {}
    for s in gallery.scenes:
        for p in s.person_id[s.person_id >= 0].tolist(): seen.setdefault(p, set()).add(s.camera)
    assert len(seen) == 18 and sum(len(c) == 2 for c in seen.values()) == 5
    assert len(query) == 50 and (query.gallery_index == query.scene).all()


def test_real_cross_camera(real):
    spec = real + '?train=c1*&gallery=c3*&query=c1*'
    train, gallery, query = (open_dataset(spec, s) for s in SPLITS)
    assert (len(train), len(gallery)) == (13, 3) and set(query.gallery_index.tolist()) == {-1}
    assert set(gallery.cameras.tolist()) == {3} and set(query.dataset.cameras.tolist()) == {1}
    assert set(query.person_id.tolist()) <= set(gallery.ids.tolist())
    assert all(0 <= p < train.num_ids for i in range(13) for p in train.truth(i)['person_id'].tolist() if p != -1)


@pytest.mark.parametrize('spec', ['synth:tiny?train_scenes=4&test_scenes=30&train_ids=9&test_ids=20&queries=10&gallery=12&size=96x160&cameras=3', None])
def test_cross_camera(spec, tmp_path):
    "The other cameras' scenes of what is searched anyway; the other splits do not mind the option."
    if spec is None:
        write(tmp_path)
        spec = f'coco:{tmp_path}?query=*'
    plain, other, gallery = open_dataset(spec, 'query'), open_dataset(spec + '&protocol=cross-camera', 'query'), open_dataset(spec + '&protocol=cross-camera', 'gallery')
    for q in range(len(plain)):
        searched = range(len(gallery)) if plain.candidates is None else [c for c in plain.candidates[q].tolist() if c >= 0]
        assert [c for c in other.candidates[q].tolist() if c >= 0] == [c for c in searched if gallery.cameras[c] != plain.dataset.cameras[plain.scene[q]]]
    assert (other.candidates >= 0).any() and len(set(gallery.cameras.tolist())) > 1
    with pytest.raises(DataError, match='protocol=twice is not one of all, cross-camera'): open_dataset(spec + '&protocol=twice', 'query')


def test_a_protocol_keeps_what_belongs_to_the_data():
    "Only CUHK-SYSU's protocols set gallery= and subset=; elsewhere they say which scenes there are."
    from person_search_nb.datasets import open_protocol
    found = open_protocol('synth:tiny?test_scenes=20&test_ids=8&queries=5&gallery=7', 'protocol=cross-camera')
    assert found.queries.candidates is not None and {len(c) for c in found.queries.candidates} <= set(range(8))
