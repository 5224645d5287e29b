"""Both metrics: equal to the reference numbers, and to a loop that says plainly what they mean, for any input."""
import json, math, os, subprocess, sys
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from person_search_nb.scenes import QuerySet, Scene, SceneDataset, under_protocol
from person_search_nb.inspection import evaluating
from person_search_nb.matching import detection_metrics, paired_iou, same_image_pairs
from person_search_nb.ranking import match_search, search_metrics
from person_search_nb.exact_ranks import _ahead
from person_search_nb.retrieval_metrics import summarize
from person_search_nb.evaluation import embed_queries, evaluate, protocol_of, run_detector
from person_search_nb.evaluation import score_detections, search_truth
from person_search_nb.baselines import colour_histogram, histogram_baseline

FIELDS = 'det_image', 'det_boxes', 'det_scores', 'det_feats', 'query_feats', 'gt_query', 'gt_image', 'gt_boxes'


@pytest.fixture(scope='module')
def oracle(shared):
    folder = shared/'oracles'
    if not (folder/'eval_a.npz').is_file(): pytest.skip('no reference numbers here')
    with np.load(folder/'eval_a.npz') as z: return dict(z), json.loads((folder/'eval_a.json').read_text())


def padded(rows):
    out = np.full((len(rows), max(map(len, rows))), -1)
    for o, r in zip(out, rows): o[:len(r)] = r
    return out


@pytest.mark.parametrize('kind', [np.asarray, torch.as_tensor])
@pytest.mark.parametrize('group', ['cuhk_protocol', 'full_gallery', 'cross_camera'])
def test_search_reference(oracle, group, kind):
    z, expected = oracle
    camera, own = z['scene_camera'], z['query_image']
    candidates = dict(cuhk_protocol=lambda: z['candidates'],
                      full_gallery=lambda: padded([np.flatnonzero(np.arange(len(camera)) != s) for s in own]),
                      cross_camera=lambda: padded([np.flatnonzero(camera != camera[s]) for s in own]))[group]()
    got = search_metrics(**{k: kind(z[k]) for k in FIELDS}, candidates=kind(candidates))
    assert {k: got[k] for k in expected[group]} == pytest.approx(expected[group], abs=1e-6, rel=0)
    assert got['queries'] + got['unscored'] == len(own)


@pytest.mark.parametrize('group,protocol', [('cuhk_protocol', 'all'), ('full_gallery', 'all'), ('cross_camera', 'cross-camera')])
def test_search_truth_reference(oracle, group, protocol):
    "The same numbers from scenes and queries: positives and galleries are derived, not given."
    z, expected = oracle
    scenes = [Scene(str(i), (1080, 1920), z['scene_gt_boxes'][m], z['scene_gt_pids'][m].astype(np.int64), int(z['scene_camera'][i]))
              for i in range(len(z['scene_camera'])) for m in [z['scene_gt_image'] == i]]
    gallery = SceneDataset(scenes, lambda i: None)
    own = z['query_image'].astype(np.int64)
    queries = QuerySet(gallery, own, z['query_boxes'].astype(np.float32), z['query_pid'].astype(np.int64), own, z['candidates'] if group == 'cuhk_protocol' else None)
    under_protocol(queries, gallery.cameras, protocol)
    got = search_metrics(**{k: z[k] for k in FIELDS[:5]}, **search_truth(queries, gallery))
    assert {k: got[k] for k in expected[group]} == pytest.approx(expected[group], abs=1e-6, rel=0)


def test_detection_reference(oracle):
    z, expected = oracle
    got = detection_metrics(z['det_image'], z['det_boxes'], z['det_scores'], z['scene_gt_image'], z['scene_gt_boxes'])
    assert {k: got[k] for k in expected['detection']} == pytest.approx(expected['detection'], abs=1e-6, rel=0)


def iou(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union > 0 else 0.


def right(box, true, threshold=0.5):
    w, h = true[2] - true[0], true[3] - true[1]
    return iou(box, true) >= min(threshold, w * h / ((w + 10) * (h + 10)))


def height(box): return box[3] - box[1]


def slow_search(det_image, det_boxes, det_scores, det_feats, query_feats, gt_query, gt_image, gt_boxes, candidates, score_threshold=0.5,
                topk=(1, 5, 10), min_height=0.):
    aps, firsts, inps, unscored = [], [], [], 0
    for q, feat in enumerate(query_feats):
        searched = set(np.concatenate([det_image, gt_image]).tolist()) if candidates is None else {c for c in candidates[q].tolist() if c >= 0}
        truth, low = {}, {}
        for row in np.flatnonzero(gt_query == q):
            kind = low if height(gt_boxes[row]) < min_height else truth
            if int(gt_image[row]) in searched: kind.setdefault(int(gt_image[row]), []).append(gt_boxes[row])
        if not truth: unscored += 1; continue
        shows = lambda d, people: any(right(det_boxes[d], box) for box in people.get(int(det_image[d]), []))
        pool = [d for d in range(len(det_image)) if det_scores[d] >= score_threshold and det_image[d] in searched and height(det_boxes[d]) >= min_height]
        pool = [d for d in pool if shows(d, truth) or not shows(d, low)]
        pool.sort(key=lambda d: -float(feat @ det_feats[d]))  # Python's sort is stable
        done, hits, precisions, first, last = set(), 0, [], None, 0
        for place, d in enumerate(pool, 1):
            s = int(det_image[d])
            for box in truth.get(s, []) if s not in done else []:
                if right(det_boxes[d], box):
                    done.add(s); hits += 1; precisions.append(hits / place); first = first or place; last = place
                    break
        aps.append(sum(precisions) / len(truth)); firsts.append(first or 10**9)
        inps.append(1 - (last - len(truth)) / last if hits == len(truth) else 0.)  # AGW's mINP: the penalty of the last
    mean = lambda x: float(np.mean(x)) if len(x) else 0.
    return dict(mAP=mean(aps)) | {f'top{k}': mean([f <= k for f in firsts]) for k in topk} | dict(mINP=mean(inps), queries=len(aps), unscored=unscored)


def slow_detection(det_image, det_boxes, det_scores, gt_image, gt_boxes, iou_threshold=0.5, score_threshold=0.01, min_height=0.):
    pool = sorted((d for d in range(len(det_image)) if det_scores[d] >= score_threshold and height(det_boxes[d]) >= min_height), key=lambda d: -det_scores[d])
    people, low = ([t for t in range(len(gt_image)) if (height(gt_boxes[t]) < min_height) == small] for small in (False, True))
    hits, place, precisions = 0, 0, []
    for d in pool:
        truths = [t for t in people if gt_image[t] == det_image[d]]
        found = False
        if truths:
            t = max(truths, key=lambda t: iou(det_boxes[d], gt_boxes[t]))  # max keeps the first of equals
            best = max((o for o in pool if det_image[o] == gt_image[t]), key=lambda o: iou(det_boxes[o], gt_boxes[t]))
            found = best == d and iou(det_boxes[d], gt_boxes[t]) >= iou_threshold
        if not found and any(gt_image[t] == det_image[d] and iou(det_boxes[d], gt_boxes[t]) >= iou_threshold for t in low): continue
        place += 1
        if found: hits += 1; precisions.append(hits / place)
    return dict(ap=sum(precisions) / max(len(people), 1), recall=hits / max(len(people), 1))


@st.composite
def problems(draw):
    "Few scenes, few places, few feature values: ties, duplicates, and empty everything are common."
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scenes, m = draw(st.integers(1, 5)), draw(st.sampled_from([0, 1, 5, 30]))
    q, p = draw(st.sampled_from([1, 1, 4])), draw(st.sampled_from([0, 1, 8]))
    def boxes(n):
        xy, wh = rng.integers(0, 3, (n, 2)) * 12., rng.choice([6., 25., 40.], (n, 2))
        return np.concatenate([xy, xy + wh], 1)
    det_image = rng.integers(0, scenes, m)
    box = boxes(m)
    if m > 1: box[rng.integers(0, m, m // 2)] = box[0]
    truth_row = rng.integers(0, max(m, 1), p)
    gt_boxes = np.where(rng.random((p, 1)) < .6, box[truth_row] if m else boxes(p), boxes(p))
    gt_image = np.where(rng.random(p) < .8, det_image[truth_row] if m else 0, rng.integers(0, scenes, p))
    candidates = None
    if draw(st.booleans()): candidates = padded([np.r_[-1, rng.permutation(scenes)[:rng.integers(0, scenes + 1)]] for _ in range(q)])
    feats = rng.integers(-1, 2, (m, 3)).astype(draw(st.sampled_from([np.float32, np.float64])))
    return dict(det_image=det_image, det_boxes=box, det_scores=rng.choice([0., .005, .3, .5, .7, .9], m), det_feats=feats,
                query_feats=rng.integers(-1, 2, (q, 3)).astype(feats.dtype), gt_query=rng.integers(0, q, p), gt_image=gt_image, gt_boxes=gt_boxes), candidates


@settings(max_examples=150)
@given(problems())
def test_search_is_the_loop(problem):
    p, candidates = problem
    assert search_metrics(**p, candidates=candidates) == pytest.approx(slow_search(**p, candidates=candidates), abs=1e-12)


@settings(max_examples=150)
@given(problems(), st.sampled_from([10., 25., 30.]))
def test_search_with_a_least_height_is_the_loop(problem, low):
    p, candidates = problem
    want = pytest.approx(slow_search(**p, candidates=candidates, min_height=low), abs=1e-12)
    assert search_metrics(**p, candidates=candidates, min_height=low) == want
    cosine = lambda q, rows: p['det_feats'][rows].astype(float) @ p['query_feats'][q].astype(float)
    assert summarize(match_search(**p, candidates=candidates, min_height=low, rerank=cosine)) == want


def test_a_least_height_by_hand():
    "Three scenes show the person at 80, 48 and 80 px; at 50 px the middle one is ignored, whatever was found there."
    box = lambda h: [0., 0, h / 2, h]
    world = dict(det_image=[0, 1, 2, 3], det_boxes=[box(80), box(52), box(80), box(80)], det_scores=[1.] * 4,
                 det_feats=np.array([[.7], [.9], [.6], [.8]]), query_feats=np.array([[1.]]),
                 gt_query=[0, 0, 0], gt_image=[0, 1, 2], gt_boxes=[box(80), box(48), box(80)])
    assert match_search(**world).rank.tolist() == [1, 3, 4] and match_search(**world).positives.tolist() == [3]
    m = match_search(**world, min_height=50)
    assert (m.rank.tolist(), m.positives.tolist(), m.missed.tolist()) == ([2, 3], [2], [])  # behind the stranger of scene 3, not behind the small one
    m = match_search(**world | dict(det_boxes=[box(49), box(52), box(80), box(80)]), min_height=50)
    assert (m.rank.tolist(), m.missed.tolist()) == ([2], [[0, 0]]), 'a low detection is dropped, and the person missed'
    assert match_search(**world, min_height=100).positives.tolist() == [0]


@settings(max_examples=150)
@given(problems())
def test_short_lists_are_the_loop(problem):
    "Lists far shorter than the gallery are counted scene by scene: the same numbers."
    p, candidates = problem
    if candidates is None: candidates = np.tile(np.arange(5), (len(p['query_feats']), 1))
    far = lambda x: np.where(x < 0, x, x * 97)
    p |= dict(det_image=far(p['det_image']), gt_image=far(p['gt_image']))
    beyond = dict(det_image=np.append(p['det_image'], 500), det_boxes=np.r_[p['det_boxes'], [[0., 0, 9, 9]]], det_scores=np.append(p['det_scores'], 1.), det_feats=np.r_[p['det_feats'], p['det_feats'][:1] if len(p['det_feats']) else np.ones((1, 3), p['det_feats'].dtype)])
    p |= beyond  # a scene 500, so that the gallery is large
    assert search_metrics(**p, candidates=far(candidates)) == pytest.approx(slow_search(**p, candidates=far(candidates)), abs=1e-12)


@settings(max_examples=100)
@given(problems())
def test_rerank_by_cosine_is_no_rerank(problem):
    p, candidates = problem
    cosine = lambda q, rows: p['det_feats'][rows].astype(float) @ p['query_feats'][q].astype(float)
    a, b = match_search(**p, candidates=candidates), match_search(**p, candidates=candidates, rerank=cosine)
    for name in vars(a): np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@settings(max_examples=100)
@given(problems())
def test_every_positive_is_found_or_missed(problem):
    p, candidates = problem
    m = match_search(**p, candidates=candidates)
    found = list(zip(m.query.tolist(), p['det_image'][m.detection].tolist()))
    missed = [tuple(x) for x in m.missed.tolist()]
    assert len(set(found + missed)) == len(found) + len(missed) == m.positives.sum()
    assert np.bincount([q for q, _ in found + missed], minlength=len(m.positives)).tolist() == m.positives.tolist()


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 50, 3000]), st.sampled_from([1e-9, 1e-3, 1.]))
def test_counting_is_counting(seed, n, spread):
    "Whatever the list looks like: equal numbers, a few, wide, narrow."
    rng = np.random.default_rng(seed)
    line = (rng.normal() + spread * rng.choice([rng.normal(size=n), np.zeros(n), rng.integers(0, 3, n)][rng.integers(3)], n)).astype(np.float32)
    value = line[rng.integers(0, n, rng.integers(1, 5))].astype(np.float64)
    low, high = value - 1e-4 * spread, value + 1e-4 * spread
    count, k, entry = _ahead(line, low, high)
    assert sorted(zip(k.tolist(), entry.tolist())) == [(i, j) for i in range(len(value)) for j in np.flatnonzero((line >= low[i]) & (line <= high[i]))]
    assert count.tolist() == [(line > h).sum() for h in high]


@settings(max_examples=150)
@given(problems())
def test_detection_is_the_loop(problem):
    p, _ = problem
    args = {k: p[k] for k in ('det_image', 'det_boxes', 'det_scores', 'gt_image', 'gt_boxes')}
    for low in (0., 10., 30.):
        got = detection_metrics(**args, min_height=low)
        assert {k: got[k] for k in ('ap', 'recall')} == pytest.approx(slow_detection(**args, min_height=low), abs=1e-12)
    assert got['ap'] <= got['recall'] + 1e-12 <= 1 + 2e-12


@given(problems(), st.integers(0, 2**32 - 1))
def test_order_of_detections_only_breaks_ties(problem, seed):
    "Continuous features leave no ties between different detections: then the order of the rows means nothing."
    p, candidates = problem
    rng = np.random.default_rng(seed)
    m = len(p['det_image'])
    p |= dict(det_feats=rng.standard_normal((m, 8)), query_feats=rng.standard_normal((len(p['query_feats']), 8)))
    order = rng.permutation(m)
    shuffled = p | {k: p[k][order] for k in ('det_image', 'det_boxes', 'det_scores', 'det_feats')}
    assert search_metrics(**p, candidates=candidates) == pytest.approx(search_metrics(**shuffled, candidates=candidates), abs=1e-12)


@given(problems())
def test_widest_gallery_is_no_restriction(problem):
    p, _ = problem
    every = np.tile(np.arange(5), (len(p['query_feats']), 1))
    assert search_metrics(**p, candidates=every) == search_metrics(**p)


def test_equal_features_tie_exactly():
    "The earlier of two detections with the same embedding stands first, whatever a matrix product rounds."
    rng = np.random.default_rng(0)
    for m in (3, 17, 64, 129):
        feats = np.repeat(rng.standard_normal((1, 257)).astype(np.float32), m, 0)
        box = np.tile([0., 0, 30, 60], (m, 1))
        hit = m - 1  # the person is in the last scene only
        got = match_search(np.arange(m), box, np.ones(m), feats, feats[:1] + .1, [0], [hit], box[:1])
        assert got.rank.tolist() == [m] and got.detection.tolist() == [hit]


def test_blocks_do_not_matter():
    "More queries than one block holds give each query what it gets alone."
    rng = np.random.default_rng(1)
    m, q = 70_000, 300
    xy = rng.random((m, 2)) * 500
    base = dict(det_image=rng.integers(0, 500, m), det_boxes=np.c_[xy, xy + 50], det_scores=np.ones(m), det_feats=rng.standard_normal((m, 2)))
    query, gt = rng.standard_normal((q, 2)), rng.integers(0, m, q)
    truth = dict(gt_image=base['det_image'][gt], gt_boxes=base['det_boxes'][gt])
    together = match_search(**base, query_feats=query, gt_query=np.arange(q), **truth)
    for k in (0, 238, 240, 299):
        alone = match_search(**base, query_feats=query[k:k + 1], gt_query=[0], gt_image=truth['gt_image'][k:k + 1], gt_boxes=truth['gt_boxes'][k:k + 1])
        assert together.rank[together.query == k].tolist() == alone.rank.tolist()


def crowded(q=40, m=3000, dim=64):
    "Embeddings so alike that a float32 product cannot order them."
    rng = np.random.default_rng(0)
    unit = lambda x: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    feats = unit(rng.standard_normal((1, dim)) + 1e-6 * rng.standard_normal((m, dim)))
    box = np.tile([0., 0, 30, 60], (m, 1))
    hits = rng.integers(0, m, (q, 3))
    return dict(det_image=np.arange(m), det_boxes=box, det_scores=np.ones(m), det_feats=feats, query_feats=unit(rng.standard_normal((q, dim))),
                gt_query=np.repeat(np.arange(q), 3), gt_image=hits.ravel(), gt_boxes=box[hits.ravel()])


def test_ranks_are_those_of_exact_products():
    w = crowded()
    m = match_search(**w)
    for q in range(0, 40, 7):
        exact = [math.fsum((w['query_feats'][q].astype(float) * f).tolist()) for f in w['det_feats'].astype(float)]
        order = sorted(range(len(exact)), key=lambda d: -exact[d])
        assert [order.index(d) + 1 for d in m.detection[m.query == q]] == m.rank[m.query == q].tolist()
    by_product = np.argsort(-(w['query_feats'] @ w['det_feats'].T), axis=1, kind='stable')
    assert any(by_product[q, r - 1] != d for q, d, r in zip(m.query, m.detection, m.rank)), 'the task is too easy: a plain product would do'


def test_company_does_not_matter():
    "One query, some, all in another order; a full gallery or the same scenes as a list: the same ranks."
    w = crowded()
    whole = match_search(**w)
    scenes = np.arange(3000)
    for rows in ([5], [30, 5, 17], np.random.default_rng(1).permutation(40)):
        rows = np.asarray(rows)
        t = np.concatenate([np.flatnonzero(w['gt_query'] == q) for q in rows])
        part = w | dict(query_feats=w['query_feats'][rows], gt_query=np.repeat(np.arange(len(rows)), 3), gt_image=w['gt_image'][t], gt_boxes=w['gt_boxes'][t])
        for candidates in (None, np.tile(scenes, (len(rows), 1))):
            m = match_search(**part, candidates=candidates)
            for k, q in enumerate(rows): assert m.rank[m.query == k].tolist() == whole.rank[whole.query == q].tolist()


def test_threads_do_not_matter():
    code = "from test_evaluation import *; m = match_search(**crowded()); print(m.rank.tolist(), m.detection.tolist())"
    here = os.environ.get('OMP_NUM_THREADS')
    run = lambda n: subprocess.run([sys.executable, '-c', code], cwd=os.path.dirname(__file__), stdout=subprocess.PIPE, check=True, text=True,
                                   env=os.environ | dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'), str(n))).stdout
    m = match_search(**crowded())
    assert run(2 if here == '1' else 1) == f'{m.rank.tolist()} {m.detection.tolist()}\n'


def test_nothing_at_all():
    empty = dict(det_image=[], det_boxes=[], det_scores=[], det_feats=[])
    box = [[0, 0, 10, 30]]
    assert search_metrics(**empty, query_feats=np.ones((1, 4)), gt_query=[0], gt_image=[3], gt_boxes=box) == dict(mAP=0., top1=0., top5=0., top10=0., mINP=0., queries=1, unscored=0)
    assert search_metrics(**empty, query_feats=np.ones((2, 4)), gt_query=[], gt_image=[], gt_boxes=[])['unscored'] == 2
    assert detection_metrics([], [], [], [0], box) | {} == dict(ap=0., recall=0., precision=0., detections=0, positives=1)
    assert detection_metrics([], [], [], [], [])['ap'] == 0.


@pytest.mark.parametrize('change,message', [
    (dict(det_boxes=np.zeros((2, 3))), 'det_boxes must have shape'),
    (dict(det_scores=[.9, np.nan]), 'det_scores holds NaN.*row 1'),
    (dict(det_feats=np.array([[1., 0], [np.inf, 0]])), 'det_feats holds NaN'),
    (dict(query_feats=np.ones((1, 3))), 'one model'),
    (dict(gt_query=[1]), 'there are 1 queries'),
    (dict(candidates=[[-2]]), 'numbered from 0'),
    (dict(det_feats=np.eye(2) * 1e20, query_feats=np.ones((1, 2)) * 1e20), 'divide each by its length'),
    (dict(rerank=lambda q, rows: rows[:0]), 'what rerank returns must have shape'),
    (dict(rerank=lambda q, rows: rows * np.nan), 'what rerank returns holds NaN'),
    (dict(candidates=[[0], [1]]), 'candidates must have shape'),
])
def test_bad_input_is_named(change, message):
    good = dict(det_image=[0, 1], det_boxes=np.array([[0., 0, 9, 9]] * 2), det_scores=[.9, .9], det_feats=np.eye(2), query_feats=np.ones((1, 2)),
                gt_query=[0], gt_image=[0], gt_boxes=[[0., 0, 9, 9]])
    assert search_metrics(**good)['mAP'] == 1
    with pytest.raises(ValueError, match=message): match_search(**good | change)


@given(st.lists(st.integers(0, 4)), st.lists(st.integers(0, 4)))
def test_pairs(a, b):
    got = list(zip(*(x.tolist() for x in same_image_pairs(np.array(a, int), np.array(b, int)))))
    assert got == [(i, j) for i in range(len(a)) for j in range(len(b)) if a[i] == b[j]]


def test_paired_iou_by_hand():
    a, b = np.array([[0., 0, 10, 10], [0, 0, 4, 4], [5, 5, 5, 5]]), np.array([[0., 0, 10, 20], [4, 0, 8, 4], [5, 5, 5, 5]])
    assert paired_iou(a, b).tolist() == [.5, 0., 0.]


# -- detectors ------------------------------------------------------------------------------------------------------

class Rendered(torch.nn.Module):
    "Finds the boxes it was told of; an embedding is the mean colour of the box."
    def __init__(self, data):
        super().__init__()
        self.weight, self.inner, self.data, self.calls = torch.nn.Parameter(torch.zeros(1)), torch.nn.BatchNorm1d(2), data, []
    def embed(self, images, boxes):
        assert not self.training and torch.is_inference_mode_enabled()
        rows = [image[:, int(y1):int(y2), int(x1):int(x2)].mean((1, 2)) for image, bs in zip(images, boxes) for x1, y1, x2, y2 in bs.tolist()]
        return torch.nn.functional.normalize(torch.stack(rows) if rows else torch.zeros(0, 3), dim=1)
    def forward(self, images):
        start = sum(self.calls); self.calls.append(len(images))
        targets = [self.data.truth(i)['boxes'] for i in range(start, start + len(images))]
        return [dict(boxes=b, scores=torch.ones(len(b)), embeddings=self.embed([i], [b])) for i, b in zip(images, targets)]


def painted_world(size=None):
    colours = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250], [240, 240, 20]], np.uint8)
    scenes, pictures = [], []
    for s in range(5):
        picture = np.full((80, 120, 3), 60, np.uint8)
        ids = [[0, 1], [1, 2], [], [0, 2, 3], [-1, 0]][s]
        boxes = np.array([[10 + 30 * k, 8, 26 + 30 * k, 56] for k in range(len(ids))], np.float32).reshape(-1, 4)
        for (x1, y1, x2, y2), p in zip(boxes.astype(int), ids): picture[y1:y2, x1:x2] = colours[p] if p >= 0 else 128
        scenes.append(Scene(f'{s}', (80, 120), boxes, np.array(ids, np.int64), s % 2)); pictures.append(picture)
    data = SceneDataset(scenes, pictures.__getitem__, size=size)
    rows = [(0, 0), (0, 1), (1, 1), (3, 2)]  # identity 3 is nowhere else
    scene = np.array([s for s, _ in rows])
    return data, QuerySet(data, scene, np.array([scenes[s].boxes[k] for s, k in rows]), np.array([scenes[s].person_id[k] for s, k in rows]), scene, subsets=dict(one=np.array([0])))


@pytest.mark.parametrize('size', [None, (40, 60), (160, 240)])
def test_evaluate_end_to_end(size):
    gallery, queries = painted_world(size)
    model = Rendered(gallery).train()
    model.inner.eval()
    got = evaluate(model, gallery, queries, batch_size=2, progress=False)
    assert got == dict(mAP=1., top1=1., top5=1., top10=1., mINP=1., queries=3, unscored=1, det_ap=1., det_recall=1.,
                       subsets=dict(one=dict(mAP=1., top1=1., top5=1., top10=1., mINP=1., queries=1, unscored=0)))
    assert model.calls == [2, 2, 1]
    assert model.training and not model.inner.training, 'every part is back in the mode it was in'
    assert histogram_baseline(gallery, queries, progress=False) == got
    assert evaluate(Rendered(gallery), gallery, queries, true_boxes=True, progress=False) == got
    backwards = evaluate(Rendered(gallery), gallery, queries, rerank=lambda found, feats, queries: lambda q, rows: -(found['det_feats'][rows] @ feats[q]), progress=False)
    assert backwards['mAP'] < got['mAP'] and backwards['det_ap'] == 1
    assert evaluate(Rendered(gallery), gallery, under_protocol(queries, gallery.cameras, 'cross-camera'), progress=False)['queries'] == 2  # identity 2 is seen by one camera only


@pytest.mark.parametrize('size', [None, (40, 60), (160, 240)])
def test_a_model_is_judged_by_its_own_rules(size):
    "Threshold, overlap and least height are the model's, in px of the original picture, unless something else is given."
    gallery, queries = painted_world(size)
    class Own(Rendered):
        def forward(self, images): return [f | dict(scores=torch.full((len(f['boxes']),), .3)) for f in super().forward(images)]
    plain, own = Own(gallery), Own(gallery)
    own.search_threshold, own.min_height, own.iou = .2, 0., .9
    assert protocol_of(own, .4) == dict(score_threshold=.4, iou_threshold=.9, min_height=0.)
    assert evaluate(plain, gallery, queries, progress=False)['mAP'] == 0, 'the field drops scores under 0.5'
    assert evaluate(own, gallery, queries, progress=False)['mAP'] == 1
    plain.calls.clear()
    assert evaluate(plain, gallery, queries, progress=False, score_threshold=.2)['mAP'] == 1
    gallery.scenes[3].boxes[0, 3] = 40.  # a person of 32 px, where all others have 48
    own.calls.clear()
    everyone, own.min_height = evaluate(own, gallery, queries, progress=False), 40.
    own.calls.clear()
    assert len(run_detector(own, gallery, progress=False)['det_image']) == 8
    own.calls.clear()
    assert len(run_detector(own, gallery, progress=False, min_height=0)['det_image']) == 9
    for true_boxes in (False, True):
        own.calls.clear()
        got = evaluate(own, gallery, queries, progress=False, true_boxes=true_boxes)
        assert got['det_recall'] == got['det_ap'] == got['mAP'] == 1 and got['queries'] == 3
    def shift(boxes): return torch.stack([boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 1] + .8 * (boxes[:, 3] - boxes[:, 1])], 1)
    class Short(Own):
        def forward(self, images): return [f | dict(boxes=shift(f['boxes'])) for f in super().forward(images)]
    short = Short(gallery)
    short.search_threshold, short.iou = 0., .9
    assert everyone['det_ap'] == 1 and evaluate(short, gallery, queries, progress=False)['det_ap'] == 0, 'an overlap of 0.8 is not 0.9'
    short.calls.clear()
    assert evaluate(short, gallery, queries, progress=False, iou_threshold=.5)['det_ap'] == 1
    found = dict(det_image=np.zeros(1, int), det_boxes=gallery.scenes[0].boxes[:1], det_scores=np.array([.3]), det_feats=np.ones((1, 3)))
    assert score_detections(found, np.ones((4, 3)), gallery, queries)['top1'] == 0
    assert score_detections(found, np.ones((4, 3)), gallery, queries, **protocol_of(own))['det_recall'] == pytest.approx(1 / 8)


def test_boxes_come_back_in_original_pixels():
    gallery, queries = painted_world((40, 60))
    found = run_detector(Rendered(gallery), gallery, progress=False)
    np.testing.assert_allclose(found['det_boxes'], np.concatenate([s.boxes for s in gallery.scenes]))
    assert found['det_image'].tolist() == [0, 0, 1, 1, 3, 3, 3, 4, 4]
    assert found['det_feats'].shape == (9, 3) and found['det_scores'].dtype == np.float32


def test_embeddings_stand_in_query_order():
    gallery, queries = painted_world()
    order = np.array([3, 1, 0, 2])
    other = QuerySet(gallery, queries.scene[order], queries.boxes[order], queries.person_id[order], queries.gallery_index[order])
    a, b = (embed_queries(Rendered(gallery), x, batch_size=3, progress=False) for x in (queries, other))
    np.testing.assert_array_equal(a[order], b)


def test_mode_is_restored_after_an_error():
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1).eval())
    with pytest.raises(KeyError), evaluating(model): raise KeyError
    assert model.training and not model[1].training


def test_nothing_found_anywhere():
    gallery, queries = painted_world()
    class Blind(Rendered):
        def forward(self, images): return [dict(boxes=torch.zeros(0, 4), scores=torch.zeros(0), embeddings=torch.zeros(0, 3)) for _ in images]
    got = evaluate(Blind(gallery), gallery, queries, progress=False)
    assert got['mAP'] == got['det_ap'] == got['det_recall'] == 0 and got['queries'] == 3


def test_histogram_by_hand():
    picture = np.zeros((12, 4, 3), np.uint8)
    picture[6:] = 255
    box = [[0, 0, 4, 12]]
    feat = colour_histogram(picture, box)[0]
    assert np.flatnonzero(feat).tolist() == [0, 512, 1024, 3 * 512 + 511, 4 * 512 + 511, 5 * 512 + 511]
    np.testing.assert_allclose(feat[feat > 0], 6**-.5, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(colour_histogram(picture, [[0, 0, 1, 1], [3.9, 11.9, 4, 12], [-5, -5, 2, 40]]), axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize('rule, value', [('iou_threshold', 2.), ('iou_threshold', float('nan')), ('score_threshold', 50.), ('min_height', -1.)])
def test_rules_that_no_detection_can_meet_are_refused(rule, value):
    from person_search_nb.evaluation import protocol_of
    with pytest.raises(ValueError, match=f'{rule}={value}: give a'): protocol_of(None, **{rule: value})


def test_detections_from_elsewhere_are_checked():
    from person_search_nb.evaluation import check_detections
    unit = np.eye(4, dtype=np.float32)[:2]
    found = dict(det_image=np.array([0, 1]), det_boxes=np.float32([[3, 4, 30, 80]] * 2), det_scores=np.ones(2), det_feats=unit)
    gallery = SceneDataset([Scene(name, (100, 60), found['det_boxes'][:1], np.array([0])) for name in 'ab'], lambda i: None)
    check_detections(found, unit, gallery)
    check_detections(found | dict(det_feats=np.c_[3 * unit, -4.5 * np.ones(2)]), np.c_[unit, np.ones(2)], gallery)  # distances have another form
    for change, why in ((dict(det_image=np.array([0, 2])), 'numbered from 0'), (dict(det_feats=3 * unit), 'det_feats, row 0: has length 3'),
                        (dict(det_boxes=found['det_boxes'] / 100), 'between 0 and 1, as shares of the picture')):
        with pytest.raises(ValueError, match=why): check_detections(found | change, unit, gallery)
    with pytest.raises(ValueError, match='lack det_feats'): check_detections({k: v for k, v in found.items() if k != 'det_feats'}, unit, gallery)


@pytest.mark.parametrize('box,message', [([3, 4, 30, -np.inf], 'det_boxes holds NaN or infinity, first in row 1'), ([3, np.nan, 30, 80], 'det_boxes holds NaN'), ([3, 80, 30, 4], 'det_boxes, row 1: .* ends before it begins'),
                                         ([30, 4, 3, 80], 'det_boxes, row 1: .* ends before it begins')])
def test_boxes_that_cannot_be_are_not_dropped_in_silence(box, message):
    from person_search_nb.error_report import report
    gallery, queries = painted_world()
    found = run_detector(Rendered(gallery), gallery, progress=False)
    feats = embed_queries(Rendered(gallery), queries, gallery, progress=False)
    boxes = found['det_boxes'].copy()
    boxes[1] = box
    for score in (score_detections, report):
        for low in (0, 10):
            with pytest.raises(ValueError, match=message): score(found | dict(det_boxes=boxes), feats, gallery, queries, min_height=low)
        with pytest.raises(ValueError, match='the gallery has'): score(found | dict(det_image=found['det_image'] + 1), feats, gallery, queries)
        with pytest.raises(ValueError, match='has length 2'): score(found | dict(det_feats=2 * found['det_feats']), feats, gallery, queries)
    columns = found['det_image'], boxes, found['det_scores']
    with pytest.raises(ValueError, match=message): detection_metrics(*columns, found['det_image'], found['det_boxes'])


@pytest.mark.parametrize('name', ['det_image', 'gt_image', 'gt_query', 'candidates'])
@pytest.mark.parametrize('change', [lambda x: x + .7, lambda x: x > 0, lambda x: x * np.inf, lambda x: x.astype(str)])
def test_numbers_of_scenes_are_whole(name, change):
    one = np.array([[0., 0, 9, 9]])
    good = dict(det_image=[0], det_boxes=one, det_scores=[.9], det_feats=[[1., 0]], query_feats=[[1., 0]], gt_query=[0], gt_image=[0], gt_boxes=one, candidates=[[0]])
    assert search_metrics(**good | {name: np.asarray(good[name], np.float32)})['mAP'] == 1
    with pytest.raises(ValueError, match=f'{name} (is an array of .*, not of whole numbers|holds NaN or infinity)'), np.errstate(invalid='ignore'): search_metrics(**good | {name: change(np.array(good[name]))})


@pytest.mark.parametrize('weight, said', [(1e-20, 'A network gives such an embedding where its features are all zero, as before it is trained'), (0, '')])
def test_a_network_without_features_is_told_so(weight, said):
    "F.normalize leaves what is shorter than 1e-12 shorter than 1, and the message said to divide by the length."
    from person_search_nb.datasets import open_dataset
    from person_search_nb.evaluation import embed_truth
    from person_search_nb.models import build_model
    from person_search_nb.search import Gallery
    torch.manual_seed(0)
    net, spec = build_model('hdl-student-fast', 4, width=.125), 'synth:tiny?test_scenes=4&test_ids=3&queries=2&gallery=3&size=96x160'
    with torch.no_grad(): net.embedding_norm.weight.mul_(weight)
    gallery, queries = (open_dataset(spec, s, progress=False) for s in ('gallery', 'query'))
    found, feats = embed_truth(net, gallery), embed_queries(net, queries, gallery)
    score = lambda: score_detections(found, feats, gallery, queries)
    people = Gallery(**found, names=list(gallery.names))
    if not said: score(), people.check()  # 0 is like nobody: that can be compared
    for use in (score, people.check) if said else ():
        with pytest.raises(ValueError, match=f'has length .*e-.*; divide each embedding by its length. {said}'): use()
