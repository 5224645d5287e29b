"E2E's rules from the network to the figure: threshold, 50 px, hand-made baselines, curves of several systems."
import json
import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from person_search_nb import figures
from person_search_nb.scenes import QuerySet, Scene, SceneDataset
from person_search_nb.matching import match_detections
from person_search_nb.ranking import search_metrics
from person_search_nb.evaluation import embed_queries, evaluate, gallery_truth, protocol_of
from person_search_nb.evaluation import run_detector
from person_search_nb.baselines import appearance_search, BagOfWords, COLOUR_NAMES, colour_names
from person_search_nb.baselines import histogram_baseline, k_means
from person_search_nb.analysis import gallery_size_curve, plot_gallery_sizes, plot_precision_recall
from person_search_nb.analysis import plot_recall_sweep, precision_recall, recall_sweep
from person_search_nb.error_report import report, report_text, save_report, show_report
from person_search_nb.models import build_model
from test_analysis import crowd
from test_evaluation import Rendered, painted_world

matplotlib.use('agg')


def street(rng, scenes=12, people=6):
    "People of one colour above and another below, on grey; the last third of the scenes asks."
    colours = np.array([typical[0] for typical in COLOUR_NAMES.values()], np.uint8)
    clothes = [rng.choice(11, 2, replace=False) for _ in range(people)]
    rows, pictures = [], []
    for s in range(scenes):
        who = rng.choice(people, 2, replace=False)
        picture = np.full((100, 140, 3), 90, np.uint8)
        boxes = np.array([[10, 10, 40, 90], [80, 12, 110, 88]], np.float32)
        for (x1, y1, x2, y2), p in zip(boxes.astype(int), who):
            picture[y1:(y1 + y2) // 2, x1:x2], picture[(y1 + y2) // 2:y2, x1:x2] = colours[clothes[p]]
        rows.append(Scene(str(s), (100, 140), boxes, who.astype(np.int64), 0)); pictures.append(picture)
    data = SceneDataset(rows, pictures.__getitem__)
    ask = np.arange(scenes - scenes // 3, scenes)
    return data, QuerySet(data, ask, np.stack([rows[s].boxes[0] for s in ask]), np.array([rows[s].person_id[0] for s in ask]), ask)


def test_a_colour_is_called_by_its_name():
    names = list(COLOUR_NAMES)
    called = {(250, 240, 245): 'white', (150, 20, 20): 'red', (20, 50, 140): 'blue', (70, 130, 180): 'blue', (34, 139, 34): 'green', (255, 235, 60): 'yellow',
              (139, 69, 19): 'brown', (255, 140, 0): 'orange', (255, 200, 210): 'pink', (128, 0, 128): 'purple', (150, 150, 150): 'grey', (20, 20, 22): 'black'}
    assert {c: names[colour_names([c])[0].argmax()] for c in called} == called
    np.testing.assert_allclose(colour_names(np.random.default_rng(0).integers(0, 256, (50, 3))).sum(1), 1)


def test_words_are_those_of_the_loop():
    "One box: every patch counts for its nearest words, in its strip, with weight, root and idf."
    data, _ = street(np.random.default_rng(0))
    t = gallery_truth(data)
    bag = BagOfWords(data, t['gt_image'], t['gt_boxes'], words=12, nearest=3, progress=False)
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (130, 80, 3), dtype=np.uint8)
    box = [3, 2, 70, 127]
    part = np.asarray(Image.fromarray(picture[2:127, 3:70]).resize((64, 128), Image.Resampling.BILINEAR)).astype(int)
    want = np.zeros((16, len(bag.words)))
    for i in range(32):
        for j in range(16):
            cells = part[4 * i:4 * i + 4, 4 * j:4 * j + 4].reshape(-1, 3) // 8 * 8 + 4
            patch = np.sqrt(colour_names(cells)).mean(0)
            near = np.argsort(((bag.words - patch)**2).sum(1))[:3]
            want[i // 2, near] += np.exp(-2 * (((i + .5) / 32 - .5)**2 + ((j + .5) / 16 - .5)**2))
    want = (np.sqrt(want) * bag.idf).ravel()
    np.testing.assert_allclose(bag(picture, [box])[0], want / np.linalg.norm(want), atol=1e-4)
    assert bag(picture, np.zeros((0, 4))).shape == (0, 16 * len(bag.words))
    assert np.isfinite(bag(picture, [[-5, -5, 1, 1], [79.5, 129.5, 80, 130], [0, 0, 500, 500]])).all()


def test_k_means_loses_no_cluster():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(c, .05, (30, 3)) for c in np.eye(3) * 5])
    for seed in range(5):
        centres = k_means(x, 9, seed=seed)
        near = ((x[:, None] - centres)**2).sum(2).argmin(1)
        assert len(set(near.tolist())) == 9, seed
    assert len(k_means(np.zeros((4, 2)), 9)) == 1


@pytest.mark.parametrize('metric', ['cosine', 'euclidean', 'kissme'])
def test_bag_of_words_searches(metric):
    "People of distinct clothes are found, and the rules of the protocol are passed on."
    data, queries = street(np.random.default_rng(3))
    got = appearance_search(data, queries, data, features='bow', metric=metric, dim=8, progress=False)
    assert got['mAP'] > .9 and got['det_ap'] == 1
    found = dict(det_image=np.array([0]), det_boxes=np.array([[10, 10, 40, 50]], np.float32), det_scores=np.array([.3], np.float32))
    assert appearance_search(data, queries, data, found, features='bow', metric=metric, dim=8, progress=False, min_height=90)['queries'] == 0


def test_unknown_baselines_are_refused_and_strips_are_the_old_ones():
    data, queries = painted_world()
    with pytest.raises(ValueError, match='features are strips or bow'): appearance_search(data, queries, data, features='sift')
    with pytest.raises(ValueError, match='metric is euclidean, kissme or cosine'): appearance_search(data, queries, data, metric='l1')
    assert appearance_search(data, queries, data, metric='cosine', progress=False) == histogram_baseline(data, queries, progress=False)
    with pytest.raises(ValueError, match='divisor of 32'): BagOfWords(data, np.zeros(1, int), np.zeros((1, 4)), strips=5)


# -- rules of a model, from the network to the report ---------------------------------------------------------------

class Unsure(Rendered):
    "Finds everyone, with a score that the usual threshold drops."
    def forward(self, images): return [f | dict(scores=torch.full((len(f['boxes']),), .2)) for f in super().forward(images)]


def test_a_report_tells_its_rules(tmp_path):
    gallery, queries = painted_world()
    model = Unsure(gallery)
    found, feats = run_detector(model, gallery, progress=False), embed_queries(model, queries, gallery, progress=False)
    usual, own = report(found, feats, gallery, queries), report(found, feats, gallery, queries, score_threshold=0., min_height=40, iou_threshold=.7)
    assert usual['protocol'] == protocol_of() and usual['search']['all']['mAP'] == 0
    assert own['protocol'] == dict(score_threshold=0., iou_threshold=.7, min_height=40.) and own['search']['all']['mAP'] == 1
    assert 'IoU ≥ 0.7' in report_text(own) and 'lower than 40 px do not count' in report_text(own) and 'do not count' not in report_text(usual)
    low = report(found, feats, gallery, queries, score_threshold=0., min_height=60)
    assert low['search']['all']['queries'] == 0 and low['detection'] == dict(ap=0., recall=0.) and low['errors'] == []
    save_report(tmp_path, usual, found, feats, gallery, queries)
    assert json.loads((tmp_path/'report.json').read_text())['protocol'] == usual['protocol'] and (tmp_path/'errors.png').exists()
    panel = show_report(own).axes[2]
    assert [t.get_text() for t in panel.get_legend().get_texts()] == ['mAP', 'top-1'], "E2E's Fig. 7a is top-1"


def test_a_sweep_and_a_curve_by_other_rules():
    found, feats, truth, everyone = crowd()
    found['det_boxes'][::2, 3] = 40                                  # half of the boxes are on the upper half of a person only
    loose, strict = (recall_sweep(found, feats, truth, everyone, (.4,), iou_threshold=t) for t in (.45, .75))
    assert len(loose) == len(strict) == 1 and loose[0]['score_threshold'] > strict[0]['score_threshold'], 'fewer count as found: more are needed'
    assert recall_sweep(found, feats, truth, everyone, (.4,), min_height=90) == []
    sizes = gallery_size_curve(found, feats, truth, (20, 60), iou_threshold=.75)
    assert sizes[60][0] == search_metrics(**found, query_feats=feats, **truth, iou_threshold=.75) and {'mAP', 'top1'} <= sizes[20][0].keys()
    assert gallery_size_curve(found, feats, truth, (20,), min_height=90)[20][0]['queries'] == 0


def test_the_network_keeps_a_model_like_any_other():
    "A network of ours is judged by what it carries; without anything by the field's rules."
    torch.manual_seed(0)
    net = build_model('e2e-rss', num_ids=3, width=.0625, rpn_channels=16).eval()
    gallery, queries = painted_world((80, 120))
    net.search_threshold, net.iou, net.min_height = 0., .5, 0.
    everything = evaluate(net, gallery, queries, progress=False)
    net.min_height = 50.
    assert evaluate(net, gallery, queries, progress=False)['queries'] == 0, 'everyone here is 48 px tall'
    assert (np.diff(run_detector(net, gallery, progress=False)['det_boxes'][:, 1::2]) >= 50).all()
    assert evaluate(net, gallery, queries, progress=False, min_height=0.) == everything


# -- figures of several systems -------------------------------------------------------------------------------------

def test_figures_show_the_numbers():
    found, feats, truth, everyone = crowd()
    d = match_detections(*(found[k] for k in ('det_image', 'det_boxes', 'det_scores')), everyone['gt_image'], everyone['gt_boxes'])
    recall, precision = precision_recall(d)
    fig = plot_precision_recall({'arrays': (recall, precision), 'pairs': [[.5, 1.], [.8, .75]], 'blind': []})
    lines = fig.axes[0].lines
    np.testing.assert_array_equal(lines[0].get_xydata(), np.stack([recall, precision], 1))
    np.testing.assert_array_equal(lines[1].get_xydata(), [[.5, 1.], [.8, .75]])
    assert [t.get_text() for t in fig.axes[0].get_legend().get_texts()] == ['arrays', 'pairs', 'blind'] and len({(l.get_marker(), l.get_linestyle()) for l in lines}) == 3
    sweep = recall_sweep(found, feats, truth, everyone, (.3, .6))
    for measure, label in (('top1', 'top-1'), ('mAP', 'mAP')):
        ax = plot_recall_sweep({'a': sweep}, measure).axes[0]
        np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[x['recall'], x[measure]] for x in sweep])
        assert ax.get_ylabel() == label
    assert plot_recall_sweep({'a': sweep}).axes[0].get_ylabel() == 'top-1', "as in E2E's Fig. 7a"
    curve = gallery_size_curve(found, feats, truth, (10, 30, 60), seeds=range(3))
    back = json.loads(json.dumps(curve))                             # sizes become strings
    for measure in ('mAP', 'top1'):
        for c in (curve, back, {n: v for n, v in curve.items()}):
            line = plot_gallery_sizes({'a': c}, measure).axes[0].lines[0]
            np.testing.assert_allclose(line.get_xydata(), [[n, np.mean([x[measure] for x in curve[n]])] for n in (10, 30, 60)])
    assert plot_gallery_sizes({'one draw': {50: dict(mAP=.5)}}).axes[0].lines[0].get_xydata().tolist() == [[50, .5]]
    for plot in (plot_precision_recall, plot_recall_sweep, plot_gallery_sizes):
        with pytest.raises(ValueError, match='no curves'): plot({})
    with pytest.raises(ValueError, match="a has no 'top3'; it has recall"): plot_recall_sweep({'a': sweep}, 'top3')
    with pytest.raises(ValueError, match="a has no 'top3'"): plot_gallery_sizes({'a': curve}, 'top3')


def test_compared_reports_can_show_top_1():
    reports = {'one': dict(cmc=[.5], precision_recall=[(.1, 1.)]), 'two': dict(cmc=[.4], precision_recall=[])}
    sizes = {'two': {50: [dict(mAP=.5, top1=.6)], 10: [dict(mAP=.8, top1=.9)]}}
    ax = figures.compare_reports(reports, sizes, measure='top1').axes[2]
    assert ax.lines[1].get_xydata().tolist() == [[10, .9], [50, .6]] and ax.get_ylabel() == 'top-1'


def test_figure_6_loss_and_map_over_iterations(tmp_path):
    "Several runs: training loss on the left, test mAP on the right, from the files that a run leaves."
    for k, name in enumerate(('softmax', 'cut-outs first', 'cut-outs first, RSS')):
        (tmp_path/name).mkdir()
        (tmp_path/name/'log.csv').write_text('step,lr,seconds,loss\n' + ''.join(f'{s},0.1,1.0,{5 - k - s / 10}\n' for s in range(1, 9)))
        (tmp_path/name/'scores.json').write_text(json.dumps([dict(step=s, mAP=.01 * (k + 1) * s, top1=.02 * s) for s in (4, 8)]))
    runs = {p.name: p for p in sorted(tmp_path.iterdir())}
    for score, label in (('mAP', 'mAP'), ('top1', 'top-1')):
        loss, scores = figures.plot_runs(runs, score=score).axes
        assert len(loss.lines) == 6 and len(scores.lines) == 3 and scores.get_ylabel() == label and scores.get_ylim()[0] == 0
        for line, (name, folder) in zip(scores.lines, runs.items()):
            assert line.get_xydata().tolist() == [[r['step'], r[score]] for r in json.loads((folder/'scores.json').read_text())], name
    assert figures.plot_runs(runs).axes[1].get_ylim()[1] < .3, 'a few per cent must be readable'
