"""Curves, intervals and losses agree with the lists they come from; re-rankers do what they say inside the evaluator."""
import json
from functools import partial
import numpy as np, pytest
from hypothesis import given, settings
from person_search_nb.matching import detection_metrics, match_detections
from person_search_nb.ranking import match_search, search_metrics
from person_search_nb.retrieval_metrics import per_query, SearchMatches, summarize
from person_search_nb.evaluation import embed_queries, run_detector, score_detections, search_truth
from person_search_nb.analysis import bootstrap, cmc, gallery_size_curve, height_groups
from person_search_nb.analysis import precision_recall, recall_sweep, sample_gallery, score_table
from person_search_nb.error_report import loss_by_cause, lost_points, report, report_text
from person_search_nb.error_report import save_report, show_errors, show_report
from person_search_nb.report_page import best_and_worst, ranked, save_report_page
from person_search_nb.reranking import cbgm, k_reciprocal
from test_evaluation import Rendered, painted_world, problems


@settings(max_examples=80)
@given(problems())
def test_cmc_holds_the_top_k(problem):
    p, candidates = problem
    m = match_search(**p, candidates=candidates)
    curve, scores = cmc(m, 12), summarize(m, topk=range(1, 13))
    assert curve.tolist() == pytest.approx([scores[f'top{k}'] for k in range(1, 13)])
    assert (np.diff(curve) >= 0).all()


@settings(max_examples=80)
@given(problems())
def test_losses_sum_up(problem):
    "Every query: AP and the losses of its positives make 1."
    p, candidates = problem
    m = match_search(**p, candidates=candidates)
    everyone = dict(gt_image=p['gt_image'], gt_boxes=p['gt_boxes'])
    rows = lost_points(m, p, p, everyone)
    ap = per_query(m)[0]
    for q in np.flatnonzero(m.positives): assert sum(r['loss'] for r in rows if r['query'] == q) == pytest.approx(1 - ap[q])
    scores = summarize(m)
    assert not scores['queries'] or scores['mAP'] + sum(loss_by_cause(rows, scores['queries']).values()) == pytest.approx(1)
    assert {(r['query'], r['scene']) for r in rows if r['rank'] == 0} == {tuple(x) for x in m.missed.tolist()}


def test_causes_by_hand():
    "Four scenes: found behind a wrong box; one box on two people; nothing there; a box under the threshold."
    person, other = [10, 10, 40, 90], [45, 10, 75, 90]
    found = dict(det_image=[0, 1, 1, 3], det_boxes=np.array([person, [10, 10, 75, 90], [200, 10, 230, 90], person], float), det_scores=np.array([.9, .9, .9, .3]),
                 det_feats=np.array([[.8], [.7], [.9], [1.]]))
    truth = dict(gt_query=[0, 0, 0, 0], gt_image=[0, 1, 2, 3], gt_boxes=np.array([person] * 4, float))
    everyone = dict(gt_image=np.array([0, 1, 1, 2, 3]), gt_boxes=np.array([person, person, other, person, person], float))
    m = match_search(**found, query_feats=np.ones((1, 1)), **truth)
    rows = lost_points(m, found, truth, everyone)
    assert {r['scene']: r['cause'] for r in rows} == {0: 'out-ranked', 1: 'merged', 2: 'missed', 3: 'missed'}
    assert loss_by_cause(rows, 1) == pytest.approx({'out-ranked': .125, 'merged': .25, 'missed': .5})


@settings(max_examples=60)
@given(problems())
def test_precision_recall_is_the_metric(problem):
    p, _ = problem
    args = [p[k] for k in ('det_image', 'det_boxes', 'det_scores', 'gt_image', 'gt_boxes')]
    d, whole = match_detections(*args), detection_metrics(*args)
    recall, precision = precision_recall(d)
    assert len(recall) == whole['detections'] and (np.diff(recall) >= 0).all()
    if len(recall): assert (recall[-1], precision[-1]) == pytest.approx((whole['recall'], whole['precision']))
    assert precision[d.correct].sum() / max(d.positives, 1) == pytest.approx(whole['ap'])


def crowd(seed=0, scenes=60, people=12):
    rng = np.random.default_rng(seed)
    who = [rng.choice(people, 3, replace=False) for _ in range(scenes)]
    image, ids = np.repeat(np.arange(scenes), 3), np.concatenate(who)
    box = np.tile([[0., 0, 30, 80], [50, 0, 80, 80], [100, 0, 130, 80]], (scenes, 1))
    faces = rng.standard_normal((people, 8))
    seen = rng.random(len(ids)) < .9
    found = dict(det_image=image[seen], det_boxes=box[seen], det_scores=rng.uniform(.1, 1, seen.sum()), det_feats=(faces[ids] + rng.standard_normal((len(ids), 8)))[seen])
    gt_query, row = np.nonzero(ids[None] == np.arange(people)[:, None])
    truth = dict(gt_query=gt_query, gt_image=image[row], gt_boxes=box[row], candidates=np.tile(np.arange(scenes), (people, 1)))
    return found, faces, truth, dict(gt_image=image, gt_boxes=box)


def test_recall_sweep_reaches_what_it_says():
    found, feats, truth, everyone = crowd()
    sweep = recall_sweep(found, feats, truth, everyone, recalls=(.2, .5, .8, .99))
    assert len(sweep) == 3, 'the detector never finds 99 %'
    for wanted, x in zip((.2, .5, .8), sweep):
        assert wanted <= x['recall'] < wanted + .02
        assert x['mAP'] == search_metrics(**found, query_feats=feats, **truth, score_threshold=x['score_threshold'])['mAP']


def test_bootstrap():
    found, feats, truth, _ = crowd()
    m = match_search(**found, query_feats=feats, **truth)
    a = bootstrap(m)
    assert a == bootstrap(m) and a != bootstrap(m, seed=1)
    assert all(low <= summarize(m)[k] <= high for k, (low, high) in a.items())
    narrow = bootstrap(m, level=.5)['mAP']
    assert a['mAP'][0] < narrow[0] < narrow[1] < a['mAP'][1]
    assert bootstrap(m, queries=[3])['mAP'] == pytest.approx([per_query(m)[0][3]] * 2)
    assert bootstrap(m, groups=np.zeros(12))['mAP'] == pytest.approx([summarize(m)['mAP']] * 2), 'one group: nothing to draw'
    assert bootstrap(m, queries=[])['mAP'] == (0, 0)


def test_tables():
    text = score_table({'a': dict(mAP=.5, queries=7, interval=dict(mAP=(.25, .75))), 'b': dict(top1=1.)}, ('mAP', 'top1', 'queries'), 'who')
    assert text.splitlines() == ['| who | mAP | top1 | queries |', '| --- | --- | --- | --- |', '| a | 50.0 (25.0–75.0) |  | 7 |', '| b |  | 100.0 |  |']
    _, queries = painted_world()
    assert sum(len(v) for v in height_groups(queries).values()) == len(queries)
    assert {k: v.tolist() for k, v in height_groups(queries, borders=[20, 60]).items()} == {'under 20 px': [], '20 to 60 px': [0, 1, 2, 3], '60 px and more': []}


def test_report(tmp_path):
    gallery, queries = painted_world()
    model = Rendered(gallery)
    found = run_detector(model, gallery, progress=False)
    feats = embed_queries(model, queries, gallery, progress=False)
    r = report(found, feats, gallery, queries)
    assert json.loads(json.dumps(r)).keys() == r.keys()
    assert r['search']['all']['mAP'] == 1 and r['errors'] == [] and r['detection'] == dict(ap=1., recall=1.) and r['search']['one']['queries'] == 1
    assert '| all | 100.0 (100.0–100.0)' in report_text(r)
    good, nothing = r, {k: v[:0] for k, v in found.items()}
    r = report(nothing, feats, gallery, queries)
    assert r['lost'] == {'out-ranked': 0, 'merged': 0, 'missed': 1} and len(r['errors']) == len(search_truth(queries, gallery)['gt_query']) and report_text(r)
    import matplotlib
    matplotlib.use('agg')
    truth = search_truth(queries, gallery)
    fig = show_errors(r['errors'][:2], match_search(**nothing, query_feats=feats, **truth), nothing, feats, queries, gallery, truth)
    assert len(fig.axes) == 6
    save_report(tmp_path/'nothing', r, nothing, feats, gallery, queries)
    assert {p.name for p in (tmp_path/'nothing').iterdir()} == {'report.json', 'tables.md', 'curves.png', 'errors.png'}
    assert json.loads((tmp_path/'nothing'/'report.json').read_text())['lost'] == r['lost'] and (tmp_path/'nothing'/'tables.md').read_text() == report_text(r) + '\n'
    save_report(tmp_path/'all', good, found, feats, gallery, queries)
    assert not (tmp_path/'all'/'errors.png').exists() and len(show_report(good).axes) == 4


@pytest.mark.parametrize('way', [cbgm, k_reciprocal, partial(cbgm, k1=3, k2=2), partial(k_reciprocal, k1=4, k2=2, weight=.5, most=6)])
def test_rerankers_in_the_evaluator(way):
    "Same detections in another order of rows: the same score."
    gallery, queries = painted_world()
    model = Rendered(gallery)
    found, feats = run_detector(model, gallery, progress=False), embed_queries(model, queries, gallery, progress=False)
    rng = np.random.default_rng(0)
    noisy = found['det_feats'] + .3 * rng.standard_normal(found['det_feats'].shape)
    found['det_feats'] = (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)
    found['det_scores'] = rng.uniform(.5, 1, len(found['det_image'])).astype(np.float32)  # no ties
    got = score_detections(found, feats, gallery, queries, rerank=way)
    order = rng.permutation(len(found['det_image']))
    assert score_detections({k: v[order] for k, v in found.items()}, feats, gallery, queries, rerank=way) == got
    assert got['queries'] == 3 and 0 < got['mAP'] <= 1


def test_k_reciprocal_leaves_the_rest_behind():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 4)); x /= np.linalg.norm(x, axis=1, keepdims=True)
    similarity = k_reciprocal(dict(det_feats=x[1:]), x[:1], most=10)(0, np.arange(49))
    cosine = x[1:] @ x[0]
    first, rest = np.argsort(-cosine)[:10], np.argsort(-cosine)[10:]
    assert similarity[first].min() > similarity[rest].max() and (np.diff(similarity[rest]) < 0).all()


def test_galleries_are_nested_and_keep_the_positives():
    rng = np.random.default_rng(0)
    candidates = np.stack([rng.permutation(50) for _ in range(7)])
    candidates[:, 40:] = -1
    gt_query, gt_image = np.repeat(np.arange(7), 3), candidates[:, [0, 20, 39]].ravel()
    last = [set()] * 7
    for size in (3, 10, 40, 100):
        small = sample_gallery(gt_query, gt_image, candidates, size)
        now = [set(r[r >= 0].tolist()) for r in small]
        for q in range(7):
            assert last[q] <= now[q] <= set(candidates[q].tolist()) and set(gt_image[gt_query == q].tolist()) <= now[q]
            assert len(now[q]) == min(size, 40)
        last = now


def test_gallery_curve_falls():
    rng = np.random.default_rng(0)
    n, q = 600, 20
    ids = rng.integers(0, 60, n)
    centre = rng.standard_normal((60, 8))
    feats = centre[ids] + rng.standard_normal((n, 8))
    box = np.tile([0., 0, 30, 80], (n, 1))
    found = dict(det_image=np.arange(n), det_boxes=box, det_scores=np.ones(n), det_feats=feats)
    gt_query, gt_image = np.nonzero(ids[None, :] == np.arange(q)[:, None])
    truth = dict(gt_query=gt_query, gt_image=gt_image, gt_boxes=box[gt_image], candidates=np.tile(np.arange(n), (q, 1)))
    curve = gallery_size_curve(found, centre[:q], truth, sizes=(30, 100, 300, 600))
    maps = [c['mAP'] for c, in curve.values()]
    assert all(a >= b for a, b in zip(maps, maps[1:])) and maps[0] > maps[-1]
    assert curve[600][0] == search_metrics(**found, query_feats=centre[:q], **truth)


@pytest.mark.parametrize('name,text', [('report.json', '{"mine": 1}'), ('report.json', 'mine'), ('tables.md', 'mine'), ('curves.png', 'mine'), ('errors.png', 'mine')])
def test_a_report_takes_the_place_of_nothing_else(tmp_path, name, text):
    "curves.png may be that of a training, report.json of anybody."
    gallery, queries = painted_world()
    found = run_detector(Rendered(gallery), gallery, progress=False)
    feats = embed_queries(Rendered(gallery), queries, gallery, progress=False)
    r = report(found, feats, gallery, queries)
    (tmp_path/name).write_text(text)
    with pytest.raises(ValueError, match=f'{name}: is no part of an earlier report, and would be lost'): save_report(tmp_path, r, found, feats, gallery, queries)
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path/name).read_text() == text


def test_a_report_takes_the_place_of_an_earlier_one(tmp_path):
    gallery, queries = painted_world()
    found = run_detector(Rendered(gallery), gallery, progress=False)
    feats, nothing = embed_queries(Rendered(gallery), queries, gallery, progress=False), {k: v[:0] for k, v in found.items()}
    save_report(tmp_path, report(nothing, feats, gallery, queries), nothing, feats, gallery, queries)
    save_report(tmp_path, report(found, feats, gallery, queries), found, feats, gallery, queries)
    assert json.loads((tmp_path/'report.json').read_text())['errors'] == [] and not (tmp_path/'errors.png').exists()


@pytest.mark.parametrize('way', [cbgm, k_reciprocal])
def test_rerankers_refuse_embeddings_of_another_length(way):
    gallery, queries = painted_world()
    model = Rendered(gallery)
    found, feats = run_detector(model, gallery, progress=False), embed_queries(model, queries, gallery, progress=False)
    with pytest.raises(ValueError, match='det_feats have shape .*embed both with one network'): way(found, feats[:, :-1], queries)


def test_context_is_that_of_the_queries():
    gallery, queries = painted_world()
    model = Rendered(gallery)
    found, feats = run_detector(model, gallery, progress=False), embed_queries(model, queries, gallery, progress=False)
    with pytest.raises(ValueError, match=f'{len(feats) + 1} query_feats for {len(feats)} queries: embed these'): cbgm(found, np.concatenate([feats, feats[:1]]), queries)


def test_a_report_says_what_is_not_re_ranked(tmp_path):
    import matplotlib
    matplotlib.use('agg')
    gallery, queries = painted_world()
    model = Rendered(gallery)
    found = run_detector(model, gallery, progress=False)
    feats = embed_queries(model, queries, gallery, progress=False)
    usual = report(found, feats, gallery, queries)
    assert not {'rerank', 'true_boxes'} & usual['protocol'].keys() and 'cosine' not in report_text(usual)
    for way in (k_reciprocal, partial(k_reciprocal, k1=4)):
        r = report(found, feats, gallery, queries, rerank=way, true_boxes=True)
        assert r['protocol'] == usual['protocol'] | dict(rerank='k_reciprocal', true_boxes=True)
        text = report_text(r)
        assert 'the boxes are the true ones' in text and 're-ranked (k_reciprocal).' in text and "detector's recall, by cosine" in text
        assert 'search with fewer detections, by cosine' in [ax.get_title() for ax in show_report(r).axes]
    save_report(tmp_path / 'r', r, found, feats, gallery, queries)
    assert json.loads((tmp_path / 'r/report.json').read_text())['protocol'] == r['protocol']


# -- the page of a report ---------------------------------------------------------------------------------------------------

def reported(rerank=None):
    gallery, queries = painted_world()
    found = run_detector(Rendered(gallery), gallery, progress=False)
    feats = embed_queries(Rendered(gallery), queries, gallery, progress=False)
    return report(found, feats, gallery, queries, rerank=rerank), found, feats, gallery, queries


@pytest.mark.parametrize('seed', range(3))
def test_ranked_lists_hold_the_places_that_are_scored(seed):
    _, found, _, gallery, queries = reported()
    rng = np.random.default_rng(seed)
    found = found | dict(det_feats=rng.normal(size=(len(found['det_feats']), 6)), det_scores=rng.uniform(0, 1, len(found['det_feats'])))
    feats, truth = rng.normal(size=(len(queries), 6)), search_truth(queries, gallery)
    m = match_search(**found, query_feats=feats, **truth, score_threshold=.3)
    for q in range(len(queries)):
        rows = ranked(q, found, feats, truth['candidates'], .3)
        assert (rows[m.rank[m.query == q] - 1] == m.detection[m.query == q]).all() and (found['det_scores'][rows] >= .3).all()
        assert (ranked(q, found, feats, truth['candidates'], .3, 2) == rows[:2]).all()


def test_best_and_worst_share_no_query():
    m = SearchMatches(np.array([0, 1, 2, 4]), np.arange(4), np.array([1, 2, 4, 3]), np.array([1, 1, 1, 0, 1]), np.zeros((0, 2), int))
    assert best_and_worst(m, 1) == ([0], [2]) and best_and_worst(m, 9) == ([0, 1], [2, 4])
    assert best_and_worst(SearchMatches(*[np.zeros(0, int)] * 3, np.array([0]), np.zeros((0, 2), int))) == ([], [])


def test_a_page_stands_alone(tmp_path):
    import matplotlib
    matplotlib.use('agg')
    r, found, feats, gallery, queries = reported()
    page = tmp_path/'r.html'
    save_report_page(page, r, found, feats, gallery, queries, 'a <b> & c')
    text = page.read_text()
    assert '<h1>a &lt;b&gt; &amp; c</h1>' in text and 'http' not in text and '<td>all</td><td>100.0 (100.0–100.0)</td>' in text
    assert text.count('data:image/png') == 3 and 'The worst queries' in text and 'greatest losses' not in text
    nothing = {k: v[:0] for k, v in found.items()}
    save_report_page(page, report(nothing, feats, gallery, queries), nothing, feats, gallery, queries)  # its own page is replaced
    assert 'The greatest losses' in page.read_text()
    again, *rest = reported(k_reciprocal)
    save_report_page(page, again, *rest)
    assert 'by similarity before re-ranking' in page.read_text()


@pytest.mark.parametrize('name,why', [('r.txt', 'ends in .html'), ('mine.html', 'would be lost')])
def test_a_page_takes_the_place_of_nothing_else(tmp_path, name, why):
    (tmp_path/'mine.html').write_text('<p>mine')
    with pytest.raises(ValueError, match=why): save_report_page(tmp_path/name, *reported())
    assert [p.name for p in tmp_path.iterdir()] == ['mine.html'] and (tmp_path/'mine.html').read_text() == '<p>mine'
