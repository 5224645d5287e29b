"""Figures: what they show equals what the networks, losses and analyses say, also for odd inputs; bad input is refused with the repair."""
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from person_search_nb import attention_maps as am, figures as fg, grad_cam as gc, visualize as vz
from person_search_nb.files import save_figure
from person_search_nb.inspection import record_levels
from person_search_nb.distillation_losses import attention_distillation, feature_distillation
from person_search_nb.models import build_model

SIZE = (96, 160)
BOXES = torch.tensor([[20., 16, 44, 88], [90, 10, 120, 90], [60, 30, 70, 60]])


@pytest.fixture(scope='module')
def image(): return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope='module')
def nets():
    torch.manual_seed(0)
    small = dict(width=0.125, rpn_channels=16, heights=[24., 40., 64., 90.], proposals=(30, 20))
    return {'teacher': build_model('hdl-teacher', 5, **small).eval(), 'student': build_model('hdl-student-fast', 5, **small).eval(),
            'plain': build_model('oim', 5, width=0.125, rpn_channels=16).eval()}


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close('all')


def recorded(net, image, boxes):
    with torch.no_grad(), record_levels(net) as levels: net.embed([image], [boxes])
    return levels


# -- colours --------------------------------------------------------------------------------------

SEEN = dict(protanope=[[.152, 1.053, -.205], [.115, .786, .099], [-.004, -.048, 1.052]], deuteranope=[[.367, .861, -.228], [.280, .673, .047], [-.012, .043, .969]],
            tritanope=[[1.256, -.077, -.179], [-.078, .931, .148], [.005, .691, .304]], usual=np.eye(3))


def lab(colours, matrix):
    c = np.array([matplotlib.colors.to_rgb(c) for c in colours])
    x = (np.where(c <= .04045, c / 12.92, ((c + .055) / 1.055) ** 2.4) @ np.array(matrix).T).clip(0, 1)
    x = x @ np.array([[.4124, .3576, .1805], [.2126, .7152, .0722], [.0193, .1192, .9505]]).T / [.9505, 1, 1.089]
    f = np.where(x > .00886, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


@pytest.mark.parametrize('eye', SEEN)
def test_the_style_can_be_told_apart(eye):
    with plt.style.context(vz.STYLE): cycle = plt.rcParams['axes.prop_cycle'].by_key()['color']
    assert len(cycle) == 7  # plot_losses and others count on seven

    def apart(colours):
        c = lab(colours, SEEN[eye])
        return min(np.linalg.norm(a - b) for i, a in enumerate(c) for b in c[:i])
    assert apart(cycle) > 10 and apart([vz.RIGHT, vz.WRONG]) > 30


# -- boxes and strips -----------------------------------------------------------------------------

def test_boxes_are_drawn_as_given(image):
    ax = vz.draw_boxes(image, [b for b in BOXES], scores=torch.tensor([.5, .6, .7]))
    assert [p.get_xy() for p in ax.patches] == [tuple(b[:2].tolist()) for b in BOXES]
    assert [t.get_text() for t in ax.texts] == ['0.50', '0.60', '0.70']
    assert not vz.draw_boxes(image, torch.zeros(0, 4)).patches


@pytest.mark.parametrize('kw,message', [(dict(ids=[1]), '3 boxes but 1 ids'), (dict(scores=[1, 2]), '2 scores'), (dict(labels='abcd'), '4 labels')])
def test_one_of_each_for_every_box(image, kw, message):
    with pytest.raises(ValueError, match=message): vz.draw_boxes(image, BOXES, **kw)


def test_bad_pictures_and_lists_are_refused(image):
    with pytest.raises(ValueError, match='x1, y1, x2, y2'): vz.draw_boxes(image, torch.zeros(2, 5))
    with pytest.raises(ValueError, match='nothing to draw on'): vz.draw_boxes(None, BOXES)
    with pytest.raises(ValueError, match='no scenes'): vz.show_scenes([])
    vz.show_scenes([image], titles=[r'$\bad{$.jpg']).canvas.draw()  # a file's name is no formula
    with pytest.raises(ValueError, match='1 scenes but 2 titles'): vz.show_scenes([image], titles=['a', 'b'])
    with pytest.raises(ValueError, match='x1, y1, x2, y2'): vz.crop(image, (1, 2, 3))
    with pytest.raises(ValueError, match='2 crops but 1 scores'): vz.ranking_strip(image, [image] * 2, [True] * 2, [.5])
    with pytest.raises(ValueError, match='1 or more'): vz.ranking_strip(image, [image], [True], number=0)


def test_right_and_wrong_differ_by_mark_and_colour(image):
    fig = vz.ranking_strip(image, [image, image], [True, False], number=3)
    assert [ax.get_xlabel() for ax in fig.axes] == ['query', '✓', '✗', '']
    assert fig.axes[1].xaxis.label.get_color() == vz.RIGHT != fig.axes[2].xaxis.label.get_color() == vz.WRONG


# -- attention ------------------------------------------------------------------------------------

@pytest.mark.parametrize('what', ['attention', 'energy', 'attention energy'])
@pytest.mark.parametrize('name', ['teacher', 'student'])
def test_maps_are_the_networks_own(nets, image, name, what):
    levels = recorded(nets[name], image, BOXES)
    maps = am.attention_maps(nets[name], image, BOXES, what, normalise=False)
    for j, m in enumerate(maps):
        x = levels['features' if what == 'energy' else 'attention'][j]
        want = (x.mean(1) if what == 'attention' else x.square().sum(1)).numpy()
        np.testing.assert_allclose(m, want if j == 3 else want[0], rtol=1e-4, atol=1e-6)
    assert len(am.attention_maps(nets[name], image, None, what)) == 3 and len(am.attention_maps(nets[name], image, BOXES[:0], what)) == 3


@pytest.mark.parametrize('factored', [True, False])
def test_the_parts_make_the_attention(image, factored):
    torch.manual_seed(1)
    net = build_model('hdl-student-fast', 3, width=0.125, rpn_channels=16, factored=factored).eval()
    for j, (p, a) in enumerate(zip(am.attention_parts(net, image, BOXES), recorded(net, image, BOXES)['attention'])):
        s, u = (p['where'], p['which']) if j == 3 else (p['where'][None], p['which'][None])
        made = 1 / (1 + np.exp(-(s[:, None] * u[:, :, None, None] + p['bias'][None, :, None, None])))
        np.testing.assert_allclose(made, a.numpy(), atol=1e-5)


@pytest.mark.parametrize('form', ['mse', 'norm'])
@pytest.mark.parametrize('what,loss,word', [('features', feature_distillation, 'FD'), ('attention', attention_distillation, 'AD')])
def test_differences_are_what_distillation_lowers(nets, image, what, loss, word, form):
    s, t = (recorded(nets[n], image, BOXES)[what] for n in ('student', 'teacher'))
    levels = am.energy_difference(nets['student'], nets['teacher'], image, BOXES, what, form)
    for j, level in enumerate(levels):
        assert level['distance'] == pytest.approx(loss([s[j]], [t[j]], form).item(), rel=1e-5)
        length = np.linalg.norm(level['student'].reshape(len(level['student']), -1), axis=1)
        assert (length < 1 + 1e-4).all() and (j == 3 or length[0] > .99)  # what an untrained head says of a region may be too little to have a direction
        np.testing.assert_array_equal(level['difference'], level['student'] - level['teacher'])
    assert sum(level['distance'] for level in levels) == pytest.approx(loss(s, t, form).item(), rel=1e-5)
    fig = am.show_difference(nets['student'], nets['teacher'], image, BOXES, what, form)
    titles = [ax.get_title() for ax in fig.axes if word in ax.get_title()]
    assert titles == [f"level {j}: {word} {level['distance']:.2e}" for j, level in enumerate(levels)]
    for ax in fig.axes[2 * len(levels):3 * len(levels)]:  # the last row: as much above zero as below
        low, high = ax.images[-1].get_clim()
        assert low == -high < 0


def test_nothing_differs_from_itself(nets, image):
    for what in ('features', 'attention'):
        for level in am.energy_difference(nets['teacher'], nets['teacher'], image, BOXES, what): assert not level['difference'].any() and level['distance'] == 0
    assert isinstance(am.show_difference(nets['teacher'], nets['teacher'], image), Figure)  # a range without width is drawn all the same


@pytest.mark.parametrize('boxes', [None, BOXES[:0], BOXES[:1], BOXES])
def test_comparing_figures_have_their_places(nets, image, boxes):
    two, columns = {n: nets[n] for n in ('teacher', 'student')}, 3 + (boxes is not None and len(boxes) > 0)
    assert len(am.compare_attention(two, image, boxes).axes) == 2 * (columns + 1)
    assert len(am.show_attention_parts(two, image, boxes).axes) == 4 * columns
    assert len(am.show_difference(nets['student'], nets['teacher'], image, boxes).axes) == 4 * columns  # three rows and colour bars


@pytest.mark.parametrize('box', [(20, 16, 44, 88), (0, 0, 3, 3), (150, 80, 160, 96), (0, 0, 160, 96)])
def test_a_person_of_any_size_and_place(nets, image, box):
    assert len(am.compare_person({n: nets[n] for n in ('teacher', 'student')}, image, box).axes) == 10


def test_networks_that_cannot_answer(nets, image):
    plain, teacher = nets['plain'], nets['teacher']
    with pytest.raises(ValueError, match="what='energy'"): am.attention_maps(plain, image, what='attention energy')
    with pytest.raises(ValueError, match='NoAttention'): am.attention_parts(plain, image)
    for pair in ((plain, teacher), (teacher, plain), (plain, plain)):
        with pytest.raises(ValueError, match="what='features'"): am.energy_difference(*pair, image, what='attention')
    with pytest.raises(ValueError, match='not .heat.'): am.attention_maps(teacher, image, what='heat')
    for f in (am.compare_attention, am.show_attention_parts):
        with pytest.raises(ValueError, match='no models'): f({}, image)
    with pytest.raises(ValueError, match=r'\(3, H, W\)'): am.attention_maps(teacher, image.permute(1, 2, 0))
    with pytest.raises(ValueError, match='row 0'): am.attention_maps(teacher, image, [[30, 50, 20, 90.]])
    with pytest.raises(ValueError, match='leaves the image'): am.compare_person({'a': teacher}, image, (100, 10, 300, 90))
    ax = plt.subplots()[1]
    with pytest.raises(ValueError, match='overlay_people'): am.overlay(ax, image, np.zeros((2, 3, 4)), 4)
    with pytest.raises(ValueError, match='3 boxes'): am.overlay_people(ax, image, np.zeros((2, 4, 4)), BOXES)


# -- Grad-CAM -------------------------------------------------------------------------------------

@pytest.mark.parametrize('level', [0, 1, 2])
@pytest.mark.parametrize('method', ['grad-cam', 'hires-cam'])
def test_grad_cam_of_a_logit_equals_the_formula(nets, image, level, method):
    pytest.importorskip('pytorch_grad_cam')
    net, box = nets['teacher'], BOXES[0]
    x = net.stem(net.batch([image])[0].requires_grad_())
    for j in range(3):
        x = net.blocks[j](x)
        if j == level: kept = x
        x, _ = net.attention[j](x)
    grad = torch.autograd.grad(net.identity_logits(net.head(x, [box[None]]).embedding)[0, 2], kept)[0]
    want = ((grad.mean((2, 3), keepdim=True) if method == 'grad-cam' else grad) * kept).sum(1).relu()[0].detach().numpy()
    got = gc.grad_cam(net, image, box, level=level, identity=2, method=method, normalise=False)
    np.testing.assert_allclose(got, want, atol=1e-3 * want.max() + 1e-12)


def test_grad_cam_differs_by_what_is_asked(nets, image):
    pytest.importorskip('pytorch_grad_cam')
    net, box = nets['teacher'], BOXES[0]
    with torch.no_grad(): me, other = net.embed([image], [BOXES[:2]])
    maps = [gc.grad_cam(net, image, box, level=1, **kw) for kw in ({}, dict(identity=0), dict(identity=1), dict(query=me), dict(query=other))]
    assert all(np.abs(a - b).max() > 1e-3 for i, a in enumerate(maps) for b in maps[:i])
    assert gc.grad_cam(net, image, box, me, level=1, normalise=False).max() > 0  # asked about itself: a cosine's gradient would be zero
    assert net.training is False and all(p.requires_grad for p in net.parameters())


def test_grad_cam_refuses(nets, image):
    pytest.importorskip('pytorch_grad_cam')
    net, box = nets['teacher'], BOXES[0]
    for kw, message in ((dict(identity=5), '0 to 4'), (dict(identity=-1), '0 to 4'), (dict(query=torch.ones(3)), '3 numbers'), (dict(query=torch.ones(3), identity=1), 'two questions'), (dict(level=3), '0, 1 or 2'), (dict(method='x'), 'hires-cam')):
        with pytest.raises(ValueError, match=message): gc.grad_cam(net, image, box, **kw)
    with pytest.raises(ValueError, match='ends before it begins'): gc.grad_cam(net, image, (30, 50, 20, 90))
    with pytest.raises(ValueError, match='box of the match'): gc.why_match(net, image, box, image, (30, 50, 20, 90))


@pytest.mark.parametrize('correct', [None, True, False])
def test_a_match_has_two_sides(nets, image, correct):
    pytest.importorskip('pytorch_grad_cam')
    net, wide = nets['teacher'], torch.rand(3, 80, 200)
    fig = gc.why_match(net, image, BOXES[0], wide, (10, 5, 40, 75), correct=correct)
    with torch.no_grad(): likeness = float(net.embed([image], [BOXES[:1]])[0] @ net.embed([wide], [torch.tensor([[10., 5, 40, 75]])])[0])
    assert len(fig.axes) == 4 and fig.get_suptitle() == {None: '', True: '✓ ', False: '✗ '}[correct] + f'likeness {likeness:.2f}'


# -- proposals ------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', ['teacher', 'student', 'plain'])
def test_stages_are_the_detectors_own(nets, image, name):
    net, steps = nets[name], fg.proposal_stages(nets[name], image)
    with torch.no_grad():
        x, sizes = net.batch([image])
        proposals, scores, _ = net.rpn(net.trunk(x), sizes)
        found = net([image])[0]
    assert torch.equal(steps['boxes'][steps['kept']], proposals[0]) and torch.equal(steps['scores'][steps['kept']], scores[0])
    assert torch.equal(steps['found'], found['boxes']) and torch.equal(steps['found_scores'], found['scores'])
    assert isinstance(fg.show_detector(net, image, BOXES), Figure) and isinstance(fg.show_detector(net, image, torch.zeros(0, 4)), Figure)


def test_detector_pictures_refuse(nets, image):
    net = nets['teacher']
    for f in (fg.show_proposals, fg.show_nms):
        with pytest.raises(ValueError, match='1 or more'): f(net, image, 0)
    with pytest.raises(ValueError, match='outside a picture'): fg.show_anchors(net, image, (-5, 3))
    with pytest.raises(ValueError, match='ends before it begins'): fg.show_positives(net, image, [[30, 50, 20, 90.]])
    with pytest.raises(ValueError, match=r'\(3, H, W\)'): fg.proposal_stages(net, np.zeros((4, 4, 3)))


# -- many numbers ---------------------------------------------------------------------------------

def test_a_plane_keeps_its_distances_whatever_its_place():
    rng = np.random.default_rng(0)
    for d in (2, 3, 50):
        x = rng.normal(size=(30, 2)) @ np.linalg.qr(rng.normal(size=(d, 2)))[0].T + rng.normal(size=d)
        xy, share = fg.planar(x)
        apart = lambda v: np.linalg.norm(v[:, None] - v[None], axis=2)
        np.testing.assert_allclose(apart(xy), apart(x), atol=1e-9)
        assert share == pytest.approx(1)
    y, share = fg.planar(x := rng.normal(size=(40, 9)))
    assert 0 < share < 1 and (apart(y) <= apart(x) + 1e-9).all()  # a projection only shortens
    np.testing.assert_array_equal(y, fg.planar(torch.tensor(x))[0])


def test_maps_and_curves_refuse():
    with pytest.raises(ValueError, match='two at least'): fg.planar(np.zeros((1, 4)))
    with pytest.raises(ValueError, match='row 1'): fg.planar([[0., 1], [np.inf, 0]])
    with pytest.raises(ValueError, match='a: 3 embeddings but 2 ids'): fg.show_embeddings({'a': np.eye(3)}, [0, 1])
    with pytest.raises(ValueError, match='no embeddings'): fg.show_embeddings({}, [])
    with pytest.raises(ValueError, match='1 or more'): fg.show_embeddings({'a': np.eye(3)}, [0, 1, 2], people=0)
    with pytest.raises(ValueError, match='no reports'): fg.compare_reports({})
    with pytest.raises(ValueError, match='no runs'): fg.plot_runs({})
    with pytest.raises(ValueError, match='a: there is no log.csv'): fg.plot_runs({'a': 'nowhere'})
    with pytest.raises(ValueError, match="a: its history has no 'fd'; it has loss, id"): fg.plot_runs({'a': [dict(step=0, lr=.1, seconds=1., loss=1., id=1.)]}, 'fd')
    with pytest.raises(ValueError, match='no steps at all'): fg.plot_runs({'a': []})


def test_everybody_is_on_the_map_with_colour_and_mark():
    rng = np.random.default_rng(0)
    ids = np.repeat([-1, *range(12)], 4)
    fig = fg.show_embeddings({'a': rng.normal(size=(52, 8)), 'b': rng.normal(size=(52, 5))}, ids, people=10)
    for ax in fig.axes:
        assert sum(len(l.get_xdata()) for l in ax.lines) == 52
        looks = [(l.get_color(), l.get_marker()) for l in ax.lines]
        assert len(set(looks)) == len(looks) == 11


def test_curves_show_the_reports():
    reports = {n: dict(cmc=[a, a + .1, a + .2], precision_recall=[(.1, 1.), (.5, a)]) for n, a in (('one', .5), ('two', .3))} | {'blind': dict(cmc=[0., 0, 0], precision_recall=[])}
    fig = fg.compare_reports(reports, {'one': {50: [dict(mAP=.5), dict(mAP=.7)], 10: [dict(mAP=.8)]}})
    np.testing.assert_array_equal(fig.axes[0].lines[1].get_ydata(), reports['two']['cmc'])
    np.testing.assert_array_equal(fig.axes[1].lines[0].get_xydata(), reports['one']['precision_recall'])
    np.testing.assert_allclose(fig.axes[2].lines[0].get_xydata(), [(10, .8), (50, .6)])
    assert {t.get_text() for t in fig.legends[0].get_texts()} == set(reports)
    assert len({l.get_marker() for l in fig.axes[0].lines}) == len({l.get_linestyle() for l in fig.axes[0].lines}) == 3


def test_runs_from_folders_and_histories(tmp_path):
    (tmp_path / 'log.csv').write_text('step,lr,seconds,loss\n0,0.1,1.0,4.0\n1,0.1,2.0,2.0\n2,0.1')
    (tmp_path / 'scores.json').write_text('[{"step": 1, "mAP": 0.25}]')
    fig = fg.plot_runs({'a folder': tmp_path, 'a history': [dict(step=0, loss=3.), dict(step=1, loss=1.)]})
    assert fig.axes[0].lines[0].get_ydata().tolist() == [4, 2] and fig.axes[0].lines[2].get_ydata().tolist() == [3, 1]
    assert fig.axes[1].lines[0].get_xydata().tolist() == [[1, .25]]
    save_figure(tmp_path / 'new' / 'runs.png', fig)
    assert (tmp_path / 'new' / 'runs.png').stat().st_size > 1000
