"""Predictions of other programs: what is refused, files that come back as they were, and the numbers of `evaluate`."""
import json, sys, warnings
import numpy as np, pytest, torch
from dataclasses import replace

from person_search_nb.datasets import open_dataset
from person_search_nb.evaluation import coco_ap, embed_queries, evaluate, evaluate_predictions, gallery_truth, run_detector
from person_search_nb.files import DataError
from person_search_nb.matching import paired_iou
from person_search_nb.models import build_model
from person_search_nb.predictions import Predictions, unit_length
from person_search_nb.ranking import search_metrics
from person_search_nb.retrieval_metrics import SearchMatches, inverse_penalty, summarize
from person_search_nb.scenes import QuerySet, Scene, SceneDataset
from person_search_nb import search_commands

SPEC = 'synth:tiny?train_scenes=8&test_scenes=10&train_ids=8&test_ids=6&queries=6&gallery=8&cameras=2'


@pytest.fixture(scope='module')
def world(): return tuple(open_dataset(SPEC, s, progress=False, cache=True) for s in ('gallery', 'query'))


@pytest.fixture(scope='module')
def true(world):
    "The true boxes with embeddings that tell identities, roughly."
    gallery, queries = world
    t, rng = gallery_truth(gallery), np.random.default_rng(0)
    at = rng.normal(size=(40, 16))
    feats = at[t['person_id'] % 40] + .5 * rng.normal(size=(len(t['person_id']), 16))
    asked = at[queries.person_id % 40] + .5 * rng.normal(size=(len(queries), 16))
    return Predictions(gallery.names, t['gt_image'], t['gt_boxes'], rng.uniform(.5, 1, len(feats)), unit_length(feats), unit_length(asked))


def as_dicts(p): return {n: dict(boxes=p.det_boxes[m], scores=p.det_scores[m], embeddings=p.det_feats[m]) for s, n in enumerate(p.names) for m in [p.det_image == s]}


def same(a, b): return a.names == b.names and all(np.array_equal(v, b.arrays()[k]) for k, v in a.arrays().items())


@pytest.mark.parametrize('kind', [np.asarray, torch.as_tensor, list, lambda x: torch.as_tensor(x).double()])
def test_from_dicts(world, true, kind):
    entries = {n: {k: kind(v) for k, v in e.items()} for n, e in reversed(as_dicts(true).items())}
    assert same(Predictions.from_dicts(entries, world[0]), true)


def test_box_orders(world, true):
    xywh = {n: e | dict(boxes=np.concatenate([e['boxes'][:, :2], e['boxes'][:, 2:] - e['boxes'][:, :2]], 1)) for n, e in as_dicts(true).items()}
    assert np.allclose(Predictions.from_dicts(xywh, world[0], boxes='xywh').det_boxes, true.det_boxes, atol=1e-4)
    with pytest.raises(DataError, match="scene .*, row .*ends before it begins.*boxes='xywh'"): Predictions.from_dicts(xywh, world[0])
    with pytest.raises(DataError, match='outside of its picture'): Predictions.from_dicts(as_dicts(true), world[0], boxes='xywh')


@pytest.mark.parametrize('change,says', [
    (dict(det_image=lambda x: x + 1), 'numbered from 0'), (dict(det_image=lambda x: x - 1), 'det_image goes from -1'), (dict(det_image=lambda x: x + .5), 'no whole number'),
    (dict(det_image=lambda x: x[:-1]), 'one for each detection'), (dict(det_boxes=lambda b: b[:, :3]), r'\(N, 4\)'), (dict(det_boxes=lambda b: b / 448), 'shares of the picture'),
    (dict(det_boxes=lambda b: b * np.nan), 'not finite'), (dict(det_scores=lambda s: s * 20), 'from 0 to 1'), (dict(det_scores=lambda s: s - 1), 'from 0 to 1'),
    (dict(det_scores=lambda s: s * np.inf), 'NaN or infinity'), (dict(det_feats=lambda f: f * np.nan), 'NaN or infinity'), (dict(det_feats=lambda f: f[0]), r'\(N, D\)'),
    (dict(det_feats=lambda f: f.astype(str)), 'not numbers'), (dict(query_feats=lambda f: f[:, 1:]), 'one model'), (dict(query_feats=lambda f: f * np.nan), 'row 0'),
    (dict(names=lambda n: [n[0]] * len(n)), 'goes by names|go by names'), (dict(names=lambda n: range(len(n))), 'is no text')])
def test_arrays_that_cannot_be(true, change, says):
    with pytest.raises(DataError, match=says): replace(true, **{k: f(getattr(true, k)) for k, f in change.items()})


def test_names(world, true):
    gallery, entries = world[0], as_dicts(true)
    first = gallery.names[0]
    with pytest.raises(DataError, match=f'is called x{first}.*nearest are {first}'): Predictions.from_dicts(entries | {f'x{first}': entries[first]}, gallery)
    some = {n: e for n, e in entries.items() if n != first}
    with pytest.raises(DataError, match=f'1 of the 10 scenes have no entry, such as {first}'): Predictions.from_dicts(some, gallery)
    for missing in ('empty', [first]): assert (Predictions.from_dicts(some, gallery, missing=missing).det_image > 0).all()
    with pytest.raises(DataError, match='missing is'): Predictions.from_dicts(some, gallery, missing='none')
    with pytest.raises(DataError): Predictions.from_dicts(some, gallery, missing=['nobody.jpg'])
    for wrong in ([], {**entries, first: 3}, {**entries, first: dict(boxes=[])}):
        with pytest.raises(DataError): Predictions.from_dicts(wrong, gallery)
    other = {n: e | dict(embeddings=e['embeddings'][:, 1:]) if n == first else e for n, e in entries.items()}
    with pytest.raises(DataError, match='one model'): Predictions.from_dicts(other, gallery)


def test_order_of_the_gallery(world, true):
    gallery, queries = world
    turned = SceneDataset(gallery.scenes[::-1], lambda i: None)
    back = true.of(turned)
    assert back.names == tuple(gallery.names[::-1]) and not np.array_equal(back.det_image, true.det_image)
    again = back.of(gallery)
    assert evaluate_predictions(back, gallery, queries) == evaluate_predictions(true, gallery, queries) and len(again) == len(true)
    with pytest.raises(DataError, match='outside of its picture'): replace(true, det_boxes=true.det_boxes * 3).of(gallery)


def test_queries(world, true):
    gallery, queries = world
    q = true.query_feats
    assert np.array_equal(true.with_queries({k: q[k] for k in reversed(range(len(q)))}, queries).query_feats, q)
    names = [queries.dataset.names[s] for s in queries.scene]
    single = {n: k for k, n in enumerate(names) if names.count(n) == 1}
    by_name = {n: q[k] for n, k in single.items()} | {k: q[k] for k in range(len(q)) if k not in single.values()}
    assert np.array_equal(true.with_queries(by_name, queries).query_feats, q)
    for wrong in (q[:-1], {0: q[0]}, {k: q[k] for k in range(len(q) + 0) if k}, {'x.jpg': q[0]}, {**dict(enumerate(q)), 99: q[0]}, {-1: q[0]}):
        with pytest.raises(DataError): true.with_queries(wrong, queries)
    with pytest.raises(DataError, match='no embeddings of the queries'): evaluate_predictions(replace(true, query_feats=None), gallery, queries)


def test_equal_to_evaluate(world):
    "A small network, its detections handed over scene by scene."
    gallery, queries = world
    torch.manual_seed(0)
    net = build_model('hdl-student-fast', num_ids=8, width=.25, search_threshold=0.).eval()
    found, feats = run_detector(net, gallery, progress=False), embed_queries(net, queries, gallery, progress=False)
    p = Predictions.from_dicts(as_dicts(Predictions(gallery.names, **found)), gallery).with_queries(feats, queries)
    expected = evaluate(net, gallery, queries, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        got = evaluate_predictions(p, gallery, queries, score_threshold=0.)
    assert got == expected and len(p) > 0


def test_ways_of_matching(world, true):
    "Against a search with products, cosines and distances that are written out."
    gallery, queries = world
    rng = np.random.default_rng(1)
    long = replace(true, det_feats=true.det_feats * rng.uniform(.2, 5, (len(true), 1)) + 3, query_feats=true.query_feats + 3)
    x, q = long.det_feats.astype(float), long.query_feats.astype(float)
    lines = dict(dot=q @ x.T, cosine=(q / np.linalg.norm(q, axis=1)[:, None]) @ (x / np.linalg.norm(x, axis=1)[:, None]).T,
                 euclidean=-np.linalg.norm(q[:, None] - x[None], axis=2))
    got = {}
    for how, line in lines.items():
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter('always')
            got[how] = evaluate_predictions(long, gallery, queries, matching=how)
        assert len(said) == (how == 'cosine')
        expected = evaluate_predictions(replace(true, det_feats=np.eye(len(true)), query_feats=line), gallery, queries, matching='dot')
        assert got[how]['mAP'] == pytest.approx(expected['mAP'], abs=1e-9)
    assert len({r['mAP'] for r in got.values()}) > 1
    with pytest.raises(DataError, match='length .*divide'): evaluate_predictions(long, gallery, queries, normalise='check')
    with pytest.raises(DataError, match='matching is'): evaluate_predictions(long, gallery, queries, matching='l1')
    with pytest.raises(ValueError, match='leave rerank out'): evaluate_predictions(long, gallery, queries, matching='dot', rerank=print)


def test_shifted_scenes(world, true):
    gallery, queries = world
    late = replace(true, det_image=(true.det_image + 1) % len(gallery))
    with pytest.raises(ValueError, match='shifted by one|outside'): evaluate_predictions(late, gallery, queries)


def test_file(tmp_path, world, true):
    file = tmp_path/'p.npz'
    for p in (true, replace(true, query_feats=None), Predictions.from_dicts({}, world[0], missing='empty')):
        p.save(file)
        again = Predictions.load(file, world[0])
        assert same(again, p) and (again.query_feats is None) == (p.query_feats is None)
    assert [f.name for f in tmp_path.iterdir()] == ['p.npz']
    with pytest.raises(DataError, match='p.npz.*is called'): Predictions.load(file, ['a.jpg'])


@pytest.mark.parametrize('make', [lambda b: b[:100], lambda b: b[:-30], lambda b: b'', lambda b: b'PK' + bytes(50), lambda b: b'{"a": 1}'])
def test_damaged_file(tmp_path, true, make):
    true.save(tmp_path/'p.npz')
    (tmp_path/'p.npz').write_bytes(make((tmp_path/'p.npz').read_bytes()))
    with pytest.raises(DataError, match='p.npz') as e: Predictions.load(tmp_path/'p.npz')
    assert '\n' not in str(e.value)


def test_foreign_files(tmp_path, true):
    file = tmp_path/'p.npz'
    def about(**kw): return np.frombuffer(json.dumps(dict(format='person-search predictions', version=1, names=true.names) | kw).encode(), np.uint8)
    for arrays in (dict(a=np.zeros(3)), dict(about=about(), **true.arrays() | dict(det_feats=np.array([object()]))), dict(about=about(version=2), **true.arrays()),
                   dict(about=about(format='x'), **true.arrays()), dict(about=about(names=3), **true.arrays()), dict(about=about(names=['a']), **true.arrays())):
        np.savez(file, **arrays)
        with pytest.raises(DataError, match='p.npz'): Predictions.load(file)
    for path in (tmp_path, tmp_path/'nowhere.npz'):
        with pytest.raises(DataError): Predictions.load(path)


def annotation(folder, gallery, shift=100):
    images = [dict(id=shift + k, file_name=n, height=256, width=448) for k, n in reversed(list(enumerate(gallery.names)))]
    file = folder/'annotations.json'
    file.write_text(json.dumps(dict(images=[*images, dict(id='x', file_name='other.jpg')], annotations=[], categories=[dict(id=4, name='dog'), dict(id=7, name='Person')])))
    return file


def test_coco_results(tmp_path, world, true):
    gallery, file, ids = world[0], tmp_path/'r.json', annotation(tmp_path, world[0])
    for of in (None, ids):
        true.to_coco(file, of)
        assert same(Predictions.from_coco(file, gallery, of), true)
    rows = json.loads(file.read_text())
    assert {r['category_id'] for r in rows} == {7} and rows[0]['image_id'] == 100 + true.det_image[0]
    more = [*rows, rows[0] | dict(category_id=4), rows[0] | dict(image_id='x')]  # a dog; a picture that is not searched
    file.write_text(json.dumps(more))
    assert same(Predictions.from_coco(file, gallery, ids), true)
    for n, change in enumerate((dict(image_id=5), dict(bbox=[1, 2, 3]), dict(bbox='x'), dict(bbox=[9, 9, -1, 4]), dict(score='x'), dict(score=None), dict(embedding=[1]), dict(embedding=None))):
        file.write_text(json.dumps([rows[0], rows[1] | change]))
        with pytest.raises(DataError, match='r.json: row 1|r.json: .*row 1'): Predictions.from_coco(file, gallery, ids)
    for text in ('{}', '[3]', '[{}]', '[', ''):
        file.write_text(text)
        with pytest.raises(DataError, match='r.json'): Predictions.from_coco(file, gallery, ids)
    true.to_coco(file, embeddings=False)
    assert coco_ap(Predictions.from_coco(file, gallery), gallery)['AP'] == pytest.approx(1)
    with pytest.raises(ValueError, match='no embeddings'): evaluate_predictions(Predictions.from_coco(file, gallery).with_queries(true.query_feats), *world)


def ap_by_loop(p, t, threshold):
    "COCO's AP at one overlap, written out: each detection takes its best free box; precision at 101 recalls."
    taken, right = set(), []
    for k in np.argsort(-p.det_scores, kind='stable'):
        best, at = threshold, None
        for j in np.flatnonzero(t['gt_image'] == p.det_image[k]):
            iou = paired_iou(p.det_boxes[k:k+1].astype(float), t['gt_boxes'][j:j+1].astype(float))[0]
            if j not in taken and iou >= best: best, at = iou, j
        right.append(at is not None)
        taken.add(at)
    hits = np.cumsum(right)
    recall, precision = hits / len(t['gt_image']), hits / np.arange(1, len(hits) + 1)
    return np.mean([max(precision[recall >= r - 1e-12], default=0) for r in np.linspace(0, 1, 101)])


def test_coco_ap(world, true):
    gallery, rng = world[0], np.random.default_rng(3)
    noisy = replace(true, det_boxes=true.det_boxes + rng.normal(0, 4, true.det_boxes.shape) * [1, 1, .2, .2])
    got, t = coco_ap(noisy, gallery), gallery_truth(gallery)
    assert 0 < got['AP'] < got['AP50']
    assert got['AP50'] == pytest.approx(ap_by_loop(noisy, t, .5), abs=1e-6) and got['AP75'] == pytest.approx(ap_by_loop(noisy, t, .75), abs=1e-6)
    assert got['AP'] == pytest.approx(np.mean([ap_by_loop(noisy, t, x) for x in np.linspace(.5, .95, 10)]), abs=1e-6)
    assert coco_ap(Predictions.from_dicts({}, gallery, missing='empty'), gallery)['AP'] == 0


def test_coco_ap_by_hand():
    "Two people, one found exactly, one wrong box before it: precision 1/2 up to a recall of 1/2."
    gallery = SceneDataset([Scene('a', (200, 200), np.float32([[0, 0, 20, 60], [90, 0, 190, 150]]), np.array([0, 1]))], lambda i: None)
    p = Predictions(['a'], [0, 0], [[50, 50, 70, 90], [0, 0, 20, 60]], [.9, .8], np.eye(2))
    got = coco_ap(p, gallery)
    assert got['AP'] == got['AP50'] == pytest.approx(.5 * 51 / 101) and got['recall'] == .5
    assert got['AP_medium'] == pytest.approx(1) and got['AP_large'] == 0 and np.isnan(got['AP_small'])


def test_coco_ap_asks_for_its_package(monkeypatch, world, true):
    monkeypatch.setitem(sys.modules, 'faster_coco_eval', None)
    with pytest.raises(ImportError, match=r"person_search_nb\[data\]"): coco_ap(true, world[0])


@pytest.mark.parametrize('seed', range(20))
def test_mean_inverse_negative_penalty(seed):
    "By a loop over sorted lists; the other numbers do not change with it."
    rng = np.random.default_rng(seed)
    scenes, boxes = 6, np.float32([[0, 0, 20, 60], [40, 0, 60, 60], [80, 0, 100, 60]])
    det_image, det_boxes = np.repeat(np.arange(scenes), 3), np.tile(boxes, (scenes, 1))
    feats, query = unit_length(rng.normal(size=(18, 3)).astype(np.float32)), unit_length(rng.normal(size=(4, 3)).astype(np.float32))
    gt_query, gt_image = np.nonzero(rng.random((4, scenes)) < .5)
    which = rng.integers(0, 4, len(gt_query))
    gt_boxes = np.concatenate([boxes, [[200, 0, 220, 60]]]).astype(np.float32)[which]  # the fourth is found by nobody
    expected = []
    for q in range(4):
        order = np.argsort(-(feats.astype(float) @ query[q].astype(float)), kind='stable').tolist()
        mine = [(s, w) for i, s, w in zip(gt_query, gt_image, which) if i == q]
        if not mine: continue
        ranks = [order.index(3 * s + w) + 1 for s, w in mine if w < 3]
        expected.append(1 - (max(ranks) - len(mine)) / max(ranks) if len(ranks) == len(mine) else 0)
    r = search_metrics(det_image, det_boxes, np.ones(18), feats, query, gt_query, gt_image, gt_boxes)
    assert r['mINP'] == pytest.approx(np.mean(expected) if expected else 0, abs=1e-12)
    assert list(r) == ['mAP', 'top1', 'top5', 'top10', 'mINP', 'queries', 'unscored']


def test_mean_inverse_negative_penalty_of_nothing():
    empty = SearchMatches(*[np.zeros(0, np.int64)] * 3, np.zeros(3, np.int64), np.zeros((0, 2), np.int64))
    assert not inverse_penalty(empty).any() and summarize(empty)['mINP'] == 0


def test_commands(tmp_path, monkeypatch):
    "A network's report, and the same from its predictions, as a file and as COCO results."
    monkeypatch.chdir(tmp_path)
    net = 'shipped:hdl-student-fast-taught'
    expected = search_commands.evaluate(net, data=SPEC, save_predictions='p.npz', device='cpu', out='a')
    assert search_commands.evaluate(predictions='p.npz', data=SPEC, out='b', report='page.html') == expected
    assert 'p.npz on synth:tiny' in open('page.html').read() and 'The worst queries' in open('page.html').read()
    assert search_commands.evaluate(net, data=SPEC, device='cpu', report='page.html') == expected and 'The best queries' in open('page.html').read()
    assert sorted(f.name for f in (tmp_path/'a').iterdir()) == sorted(f.name for f in (tmp_path/'b').iterdir())
    assert (tmp_path/'a/report.json').read_bytes() == (tmp_path/'b/report.json').read_bytes()
    p = Predictions.load('p.npz')
    p.to_coco('r.json'); np.save('q.npy', p.query_feats)
    assert search_commands.evaluate(predictions='r.json', query_embeddings='q.npy', data=SPEC) == expected
    assert search_commands.evaluate(predictions='p.npz', data=SPEC, rerank='k-reciprocal')['protocol']['rerank'] == 'k_reciprocal'
    (tmp_path/'mine.html').write_text('mine'); (tmp_path/'mine.npz').write_bytes(b'mine'); (tmp_path/'bad.npy').write_bytes(b'bad'); np.save('few.npy', p.query_feats[1:])
    for wrong, says in [(dict(), 'give a MODEL'), (dict(model=net, predictions='p.npz'), 'either'), (dict(predictions='p.npz', true_boxes=True), '--true-boxes'),
                        (dict(predictions='p.npz', save_predictions='x.npz'), '--save-predictions'), (dict(model=net, matching='dot'), '--matching'),
                        (dict(model=net, save_predictions='mine.npz'), 'would be lost'), (dict(model=net, save_predictions='x.json'), '.npz'),
                        (dict(predictions='r.json'), '--query-embeddings'), (dict(predictions='r.json', query_embeddings='bad.npy'), 'bad.npy'),
                        (dict(predictions='r.json', query_embeddings='few.npy'), 'queries'), (dict(predictions='nowhere.npz'), 'nowhere.npz'),
                        (dict(predictions='p.npz', matching='dot', rerank='cbgm'), '--rerank'), (dict(predictions='p.npz', matching='l2'), 'matching is'),
                        (dict(predictions='p.npz', report='r.txt'), 'ends in .html'), (dict(predictions='p.npz', report='mine.html'), 'would be lost')]:
        with pytest.raises(ValueError, match=says): search_commands.evaluate(data=SPEC, **wrong)
    assert (tmp_path/'mine.npz').read_bytes() == b'mine'


def test_command_line(tmp_path, true, shell):
    true.save(tmp_path/'p.npz')
    run = ['evaluate', '--data', SPEC, '--predictions']
    done = shell(*run, 'p.npz', '--out', 'report', cwd=tmp_path)
    assert not done.returncode and '| all |' in done.stdout and (tmp_path/'report/tables.md').is_file(), done.stderr
    done = shell(*run, 'nowhere.npz', cwd=tmp_path)
    assert done.returncode and 'nowhere.npz: no such file' in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.parametrize('matching', ['euclidean'])
def test_a_network_that_matches_by_distance(world, matching):
    "Its vectors are products already, and are scored as such."
    gallery, queries = world
    torch.manual_seed(0)
    net = build_model('hdl-student-fast', num_ids=8, width=.25, search_threshold=0., matching=matching).eval()
    p = Predictions(gallery.names, **run_detector(net, gallery, progress=False), query_feats=embed_queries(net, queries, gallery, progress=False))
    assert evaluate_predictions(p, gallery, queries, matching='dot', score_threshold=0.) == evaluate(net, gallery, queries, progress=False)


def test_query_set_elsewhere():
    "Queries cut from pictures that are not searched."
    scenes = [Scene(f's{k}', (100, 100), np.float32([[10, 10, 40, 90]]), np.array([k % 2])) for k in range(4)]
    gallery, outside = SceneDataset(scenes[:2], lambda i: None), SceneDataset(scenes[2:], lambda i: None)
    queries = QuerySet(outside, np.array([0, 1]), np.float32([[10, 10, 40, 90]] * 2), np.array([0, 1]), np.array([-1, -1]))
    p = Predictions.from_dicts({f's{k}': dict(boxes=[[10, 10, 40, 90]], scores=[1], embeddings=[np.eye(2)[k]]) for k in range(2)}, gallery)
    r = evaluate_predictions(p.with_queries({'s2': [1, 0], 's3': [0, 1]}, queries), gallery, queries)
    assert r['mAP'] == r['mINP'] == r['top1'] == 1


@pytest.mark.parametrize('change,says', [
    (dict(det_feats=lambda f: f * 0 + f[:1]), 'embeddings of detections are equal'), (dict(query_feats=lambda f: f * 0 + f[:1]), 'embeddings of queries are equal'),
    (dict(det_scores=lambda s: s * .1), r'no detection has a score of 0.5 or more, the highest is 0.\d+.*give score_threshold'), (dict(det_boxes=lambda b: b * .5), r'\d of \d+ people have a box')])
def test_what_finds_nothing_is_said(world, true, change, says):
    wrong = replace(true, **{k: f(getattr(true, k)) for k, f in change.items()})
    with pytest.warns(UserWarning, match=says): evaluate_predictions(wrong, *world)


def test_zero_embeddings_are_refused(world, true):
    for k, of in (('det_feats', 'detections'), ('query_feats', 'queries')):
        n = len(getattr(true, k))
        with pytest.raises(DataError, match=f'^{n} of {n} embeddings of {of} are zero'): evaluate_predictions(replace(true, **{k: 0 * getattr(true, k)}), *world)
    low = replace(true, det_scores=.1 * true.det_scores)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        evaluate_predictions(true, *world)
        evaluate_predictions(low, *world, score_threshold=.01)


def test_what_other_programs_write_otherwise(world, true, tmp_path):
    "Numbers in place of names, several categories, and embeddings in some rows only."
    gallery, file = world[0], tmp_path / 'r.json'
    with pytest.raises(DataError, match=f"go by names of scenes, and a key is 0; give .*{gallery.names[0]}"): Predictions.from_dicts(dict(enumerate(as_dicts(true).values())), gallery)
    true.to_coco(file)
    rows = json.loads(file.read_text())
    file.write_text(json.dumps([r | dict(category_id=k % 2) for k, r in enumerate(rows)]))
    with pytest.warns(UserWarning, match='rows are of 2 categories, 0, 1, and all count as people'): Predictions.from_coco(file, gallery)
    file.write_text(json.dumps([r | ({} if k else dict(embedding=None)) for k, r in enumerate(rows)]))
    with pytest.raises(DataError, match='row 1 has an embedding, earlier rows have none'): Predictions.from_coco(file, gallery)
    true.to_coco(file, embeddings=False)
    assert 'no embeddings' in repr(Predictions.from_coco(file, gallery))
