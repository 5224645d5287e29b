"The synthetic scenes: same bytes everywhere, true truths, fair queries, and disk layouts that read back."
import hashlib, json, math, signal
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from person_search_nb.people import Body, draw_identity, identity, LOOKALIKE, lookalike, Pose
from person_search_nb.drawing import paint_person
from person_search_nb.streets import make_camera, SYNTH, SynthConfig
from person_search_nb.synthetic import _each, hidden_share, render_all, SynthWorld, write_dataset

MINI = replace(SYNTH['tiny'], size=(96, 160), train_scenes=14, test_scenes=30, train_ids=12, test_ids=20, cameras=3, queries=25, gallery=12)


def digest(world, order): return {i: hashlib.sha256(world.jpeg(i)).hexdigest() for i in order}


def write_digest(out): out.write_text(digest(SynthWorld(MINI), [9])[9])


def test_same_bytes_in_any_order_and_process(tmp_path, child):
    forward, backward = digest(SynthWorld(MINI), range(14)), digest(SynthWorld(MINI), reversed(range(14)))
    assert forward == backward and len(set(forward.values())) == 14
    one, two = render_all(SynthWorld(MINI), workers=1, progress=False), render_all(SynthWorld(MINI), workers=2, progress=False)
    assert (one == two).all() and (one[5] == SynthWorld(MINI).render(5)).all()
    other = child(write_digest, tmp_path/'9.txt')
    other.join()
    assert (tmp_path/'9.txt').read_text() == forward[9]


def test_truths_do_not_depend_on_order_and_are_copies():
    a, b = SynthWorld(MINI), SynthWorld(MINI)
    for i in reversed(range(14)): b.truth(i)
    for i in range(14):
        x, y = a.truth(i), b.truth(i)
        assert x['name'] == y['name'] and (x['boxes'] == y['boxes']).all() and (x['person_id'] == y['person_id']).all()
    a.truth(0)['boxes'][:] = -1
    assert (a.truth(0)['boxes'] >= 0).all()


@pytest.mark.parametrize('name', list(SYNTH))
def test_truths_keep_the_contract(name):
    world = SynthWorld(name, 'test')
    h, w = world.config.size
    for i in range(0, 40):
        t = world.truth(i)
        b = t['boxes']
        assert b.dtype == np.float32 and b.shape == (len(b), 4) and t['person_id'].dtype == np.int64 and t['size'] == (h, w)
        assert (b[:, :2] >= 0).all() and (b[:, 2] <= w).all() and (b[:, 3] <= h).all() and (b[:, 2:] > b[:, :2]).all()
        labelled = t['person_id'][t['person_id'] >= 0]
        assert len(set(labelled)) == len(labelled) and (labelled < world.num_ids).all()
        assert ((t['occluded'] >= 0) & (t['occluded'] <= .7)).all() and 0 <= t['camera'] < world.config.cameras
    with pytest.raises(IndexError): world.truth(len(world))


def test_tiny_has_the_promised_spread():
    world = SynthWorld('tiny')
    truths = world.truths()
    heights = np.concatenate([t['boxes'][:, 3] - t['boxes'][:, 1] for t in truths])
    ids = np.concatenate([t['person_id'] for t in truths])
    assert heights.max() / heights.min() >= 8
    assert .4 < np.median(heights) / 256 < .55
    assert 4 < len(ids) / len(truths) < 6 and .7 < (ids >= 0).mean() < .9
    assert set(ids[ids >= 0]) == set(range(600))
    cameras = [{t['camera'] for t in truths if k in t['person_id']} for k in range(0, 600, 20)]
    assert min(map(len, cameras)) >= 2 and np.mean([len(c) for c in cameras]) > 3
    assert len({t['name'] for t in truths}) == len(truths) and not {t['name'] for t in truths} & {t['name'] for t in SynthWorld('tiny', 'test').truths()}


def test_splits_and_seeds_draw_other_people_and_places():
    people = lambda seed, split: {identity(seed, split, k) for k in range(60)}
    assert len(people(0, 0)) == 60
    assert not people(0, 0) & people(0, 1) and not people(0, 0) & people(1, 0)
    other = replace(MINI, seed=1)
    assert make_camera(MINI, 0) != make_camera(other, 0)
    assert not (SynthWorld(MINI).render(0) == SynthWorld(other).render(0)).all()
    big = SynthWorld(replace(SYNTH['tiny'], seed=7, train_scenes=5000, train_ids=3000))
    assert {big.truth(i)['camera'] for i in range(0, 5000, 250)} <= set(range(6)) and big.plan[2].max() == 2999


def test_box_is_the_painted_silhouette():
    for k in range(40):
        rng = np.random.default_rng(k)
        body = Body(draw_identity(rng), Pose(rng.uniform(-math.pi, math.pi), rng.uniform(0, 6), rng.uniform(0, .5), rng.uniform(0, .5), rng.uniform(.04, .2)))
        image = Image.new('RGB', (700, 700), (1, 2, 3))
        paint_person(image, body, 350, 650, 560)
        rows, cols = np.nonzero((np.asarray(image) != (1, 2, 3)).any(-1))
        x1, y1, x2, y2 = body.extent()
        want = np.array([350 + 560 * x1, 650 - 560 * y2, 350 + 560 * x2, 650 - 560 * y1])
        got = np.array([cols.min(), rows.min(), cols.max() + 1, rows.max() + 1])
        assert np.abs(got - want).max() < .05 * 560, (k, body.who, got, want)


def test_lookalikes_differ_in_one_attribute():
    colours = {'upper': {'upper_colour', 'sleeve_colour'}, 'lower': {'lower_colour'}, 'pattern': {'pattern', 'open'}, 'bag': {'bag'}, 'hat': {'hat'},
               'sleeve': {'sleeve', 'hem', 'open'}, 'garment': {'lower'}, 'length': {'hem', 'sleeve'}}
    for k in range(60):
        base = draw_identity(np.random.default_rng(k))
        for a in LOOKALIKE:
            twin = lookalike(base, a, np.random.default_rng(k + 1))
            differ = {f for f in vars(base) if getattr(base, f) != getattr(twin, f)}
            assert differ and differ <= colours[a], (a, differ)
    with pytest.raises(ValueError, match='shoe'): lookalike(base, 'shoe', np.random.default_rng(0))


def test_hidden_share_counts_people_objects_and_borders():
    box = np.array([[10, 10, 50, 110]], np.float32)
    none = np.zeros((0, 5), np.float32)
    assert hidden_share(box, np.array([110.]), none, (200, 200)) == [0]
    assert hidden_share(np.repeat(box, 2, 0), np.array([110., 120.]), none, (200, 200))[0] > .9  # the farther of two at one place
    assert hidden_share(np.repeat(box, 2, 0), np.array([110., 120.]), none, (200, 200))[1] == 0  # the nearer stays visible
    half = hidden_share(box, np.array([110.]), np.array([[0, 60, 200, 150, 140.]], np.float32), (200, 200))
    assert .35 < half[0] < .65
    assert hidden_share(box, np.array([110.]), np.array([[0, 60, 200, 150, 100.]], np.float32), (200, 200)) == [0]  # behind them
    assert .35 < hidden_share(box, np.array([110.]), none, (60, 200))[0] < .65  # cut off below


def test_enough_queries_are_occluded():
    "The numbers that nbs/10 names; a mean over five people says little, hence the bound."
    for name, want in (('tiny', (15, 120)), ('small', (38, 400))):
        q = SynthWorld(name, 'test').queries()
        assert (len(q['subsets']['occluded']), len(q['scene'])) == want and want[0] >= 12


@pytest.mark.parametrize('config', [MINI, SYNTH['tiny']])
def test_queries_are_fair(config):
    world = SynthWorld(config, 'test')
    q = world.queries()
    assert len(q['scene']) > 0 and q['candidates'].shape == (len(q['scene']), config.gallery)
    for k in range(len(q['scene'])):
        t = world.truth(q['scene'][k])
        row = np.flatnonzero(t['person_id'] == q['person_id'][k])
        assert len(row) == 1 and (t['boxes'][row[0]] == q['box'][k]).all()
        cand = q['candidates'][k]
        assert len(set(cand)) == len(cand) and q['scene'][k] not in cand
        right = {i for i in range(len(world)) if i != q['scene'][k] and q['person_id'][k] in world.truth(i)['person_id']}
        assert right and (right <= set(cand) or len(right) > config.gallery)
    small = world.queries(config.gallery // 2)
    assert all(set(a) <= set(b) for a, b in zip(small['candidates'], q['candidates']))
    assert set(q['subsets']) == {'occluded', 'low_resolution'} and all(len(v) for v in q['subsets'].values())
    hidden = []
    for scene, person in zip(q['scene'], q['person_id']):
        t = world.truth(scene)
        hidden.append(t['occluded'][t['person_id'] == person][0])
    occluded = [k for k, h in enumerate(hidden) if h > .4]  # E2E paper, section 3.1: larger than 40 %
    assert q['subsets']['occluded'].tolist() == occluded and any(.25 <= h <= .4 for h in hidden)
    heights = q['box'][:, 3] - q['box'][:, 1]
    low = q['subsets']['low_resolution']
    assert heights[low].max() <= np.delete(heights, low).min()


def test_bad_configs_are_named():
    with pytest.raises(ValueError, match='tiny, small, full'): SynthWorld('huge')
    with pytest.raises(ValueError, match='split'): SynthWorld(MINI, 'val')
    with pytest.raises(ValueError, match='cameras'): SynthConfig(cameras=0)
    with pytest.raises(ValueError, match='size'): SynthConfig(size=(20, 20))


def test_an_empty_street_is_a_scene_too():
    world = SynthWorld(replace(MINI, people=1.01))
    counts = [len(world.truth(i)['boxes']) for i in range(14)]
    assert max(counts) <= 3 and world.render(int(np.argmin(counts))).shape == (96, 160, 3)


def test_cuhk_layout_reads_back(tmp_path):
    loadmat = pytest.importorskip('scipy.io').loadmat
    write_dataset(MINI, tmp_path, workers=2, galleries=(10, 12, 5000), progress=False)
    train, test = SynthWorld(MINI), SynthWorld(MINI, 'test')
    truths = {t['name']: t for w in (train, test) for t in w.truths()}
    images = loadmat(tmp_path / 'annotation/Images.mat')['Img'].squeeze()
    assert len(images) == 44
    for name, n, boxes in images:
        t = truths[str(name[0])]
        got = np.array([b[0].ravel() for b in boxes.ravel()]).reshape(-1, 4)
        got[:, 2:] += got[:, :2]
        assert n.item() == len(t['boxes']) and np.allclose(got, t['boxes'], atol=.06)
        assert (np.asarray(Image.open(tmp_path / 'Image/SSM' / t['name'])).shape) == (96, 160, 3)
    assert (np.asarray(Image.open(tmp_path / 'Image/SSM' / test.name(3))) == test.render(3)).all()
    assert [str(p[0]) for p in loadmat(tmp_path / 'annotation/pool.mat')['pool'].squeeze()] == [test.name(i) for i in range(30)]
    seen = 0
    for person in loadmat(tmp_path / 'annotation/test/train_test/Train.mat')['Train'].squeeze():
        idname, n, scenes = person[0, 0]
        pid = int(str(idname[0])[1:]) - 1
        for name, box, _ in scenes.ravel():
            t = truths[str(name[0])]
            want = t['boxes'][t['person_id'] == pid][0]
            assert np.allclose(box.ravel()[:2], want[:2], atol=.06)
            seen += 1
    assert seen == sum((train.truth(i)['person_id'] >= 0).sum() for i in range(14))
    assert not (tmp_path / 'annotation/test/train_test/TestG5000.mat').exists()
    protocol, q = loadmat(tmp_path / 'annotation/test/train_test/TestG10.mat')['TestG10'].squeeze(), test.queries(10)
    assert len(protocol) == len(q['scene'])
    for k, (query, gallery) in enumerate(zip(protocol['Query'], protocol['Gallery'])):
        assert str(query['imname'][0, 0][0]) == test.name(q['scene'][k])
        names = [str(g[0][0]) for g in gallery.ravel()]
        assert names == [test.name(c) for c in q['candidates'][k]]
        assert [g[1].size == 4 for g in gallery.ravel()] == [q['person_id'][k] in truths[n]['person_id'] for n in names]


def test_prw_layout_reads_back_and_goes_on(tmp_path):
    loadmat = pytest.importorskip('scipy.io').loadmat
    write_dataset(MINI, tmp_path, 'prw', workers=1, progress=False)
    worlds = dict(train=SynthWorld(MINI), test=SynthWorld(MINI, 'test'))
    first = dict(train=1, test=1 + MINI.train_ids)
    for split, world in worlds.items():
        stems = [str(n[0][0]) for n in loadmat(tmp_path / f'frame_{split}.mat')[f'img_index_{split}']]
        assert [s + '.jpg' for s in stems] == [world.name(i) for i in range(len(world))]
        for i, stem in enumerate(stems):
            rows, t = loadmat(tmp_path / 'annotations' / f'{stem}.jpg.mat')['box_new'].reshape(-1, 5), world.truth(i)
            assert rows[:, 0].tolist() == [p + first[split] if p >= 0 else -2 for p in t['person_id']]
            assert np.allclose(np.hstack([rows[:, 1:3], rows[:, 1:3] + rows[:, 3:]]), t['boxes'], atol=.06)
    q = worlds['test'].queries()
    lines = [line.split() for line in (tmp_path / 'query_info.txt').read_text().splitlines()]
    assert [int(x[0]) for x in lines] == (q['person_id'] + first['test']).tolist()
    assert [x[5] + '.jpg' for x in lines] == [worlds['test'].name(s) for s in q['scene']]
    # a broken run goes on: lost pictures come back, others are left alone
    lost, kept = tmp_path / 'frames' / worlds['train'].name(2), tmp_path / 'frames' / worlds['train'].name(3)
    data, stamp = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    write_dataset(MINI, tmp_path, 'prw', workers=1, progress=False)
    assert lost.read_bytes() == data and kept.stat().st_mtime_ns == stamp and not list(tmp_path.rglob('*.part'))
    with pytest.raises(ValueError, match='synth.json'): write_dataset(replace(MINI, seed=5), tmp_path, 'prw', progress=False)
    with pytest.raises(ValueError, match='layout'): write_dataset(MINI, tmp_path, 'voc')
    assert json.loads((tmp_path / 'synth.json').read_text())['layout'] == 'prw'


def _how_it_ends(_): return signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_workers_end_when_they_are_told_to():
    "They are forked, also from a process that handles SIGTERM itself, as a training or torchrun's agent does; the pool would wait for them for ever."
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try: assert all(_each(_how_it_ends, range(4), 2, '', False))
    finally: signal.signal(signal.SIGTERM, before)
