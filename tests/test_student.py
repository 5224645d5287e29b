"Levels of all networks line up: for any image size, teacher and student have maps of the same size, and attention keeps them."
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from person_search_nb.anchors import fit_heights
from person_search_nb.backbones import BACKBONES, build_backbone, level_sizes
from person_search_nb.attention import ARM, ATTENTION, NormARM
from person_search_nb.student import student_backbone
from person_search_nb.inspection import record_levels
from person_search_nb.trunk import true_cells
from person_search_nb.costs import count_macs
from person_search_nb.distillation import HDL
from person_search_nb.distillation_losses import attention_distillation, feature_distillation
from person_search_nb.models import build_model

NAMES = ('resnet18', 'resnet50', 'student-paper', 'student-fast')
META = {}  # on the meta device a tensor has a shape and no data: any size is free


def meta_net(name, width):
    if (name, width) not in META:
        with torch.device('meta'): META[name, width] = build_backbone(name, width=width).eval()
    return META[name, width]


sides = st.one_of(st.integers(1, 40), st.integers(41, 2000))


@settings(deadline=None, max_examples=25)
@given(h=sides, w=sides, width=st.sampled_from((1.0, 0.5, 0.3)))
def test_every_net_has_the_same_levels(h, w, width):
    want = level_sizes((h, w))
    for name in NAMES:
        net = meta_net(name, width)
        levels = net(torch.empty(1, 3, h, w, device='meta'))
        assert [tuple(x.shape) for x in levels] == [(1, c, *s) for c, s in zip(net.channels, want)], name


@settings(deadline=None, max_examples=25)
@given(h=st.integers(1, 90), w=st.integers(1, 90), kind=st.sampled_from(sorted(ATTENTION)))
def test_attention_keeps_the_size(h, w, kind):
    with torch.device('meta'): attend = ATTENTION[kind](64)
    x = torch.empty(2, 64, h, w, device='meta')
    y, a = attend(x)
    assert y.shape == x.shape and (a is None or a.shape == x.shape)


@settings(deadline=None, max_examples=12)
@given(h=st.integers(1, 24), w=st.integers(1, 24), kind=st.sampled_from(('arm', 'arm-bn', 'non-local')),
       seed=st.integers(0, 99))
def test_attention_is_finite_and_bounded_on_tiny_maps(h, w, kind, seed):
    torch.manual_seed(seed)
    attend, x = ATTENTION[kind](8), torch.randn(2, 8, h, w, requires_grad=True)
    y, a = attend(x)
    (y.square().sum() + a.sum()).backward()
    assert y.isfinite().all() and x.grad.isfinite().all() and (a >= 0).all() and (a <= 1).all()


@settings(deadline=None, max_examples=10)
@given(h=st.integers(1, 70), w=st.integers(1, 70), factored=st.booleans())
def test_trunks_run_with_attention_between_the_blocks(h, w, factored):
    "The real thing, with numbers: every level through its ARM, on odd and tiny images."
    sizes = {}
    for name in ('resnet18', 'student-paper', 'student-fast'):
        net = build_backbone(name, width=0.1).eval()
        with torch.no_grad():
            x, sizes[name] = net.stem(torch.rand(1, 3, h, w)), []
            for block, c in zip(net.blocks[:3], net.channels):
                x, a = ARM(c, factored=factored)(block(x))
                assert x.isfinite().all() and a.shape == x.shape
                sizes[name].append(tuple(x.shape[-2:]))
    assert all(s == level_sizes((h, w)) for s in sizes.values())


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('people', (0, 1, 5))
def test_heads_turn_7x7_into_4x4(name, people):
    net = build_backbone(name, width=0.25).eval()
    with torch.no_grad(): assert net.head(torch.rand(people, net.channels[2], 7, 7)).shape == (people, net.channels[3], 4, 4)


def test_unpadded_student_head_gives_the_papers_3x3():
    for variant in ('paper', 'fast'):
        net = student_backbone(variant, width=0.25, head_padding=0).eval()
        with torch.no_grad(): assert net.head(torch.rand(2, net.channels[2], 7, 7)).shape[-2:] == (3, 3)


def test_registry_names_build_what_they_say():
    assert set(NAMES) <= set(BACKBONES)
    for name in BACKBONES: assert meta_net(name, 0.25).name.startswith(name)  # mobilenet_v3_large


def best_ious(anchors, heights):
    "Best IoU of each person with anchors of the same shape and centre."
    a = np.asarray(anchors)[:, None]
    return (np.minimum(a, heights) / np.maximum(a, heights)).max(0) ** 2


def test_both_spacings_on_prw(shared):
    "The numbers in notebook 21: the heights of PRW's 18,048 training boxes, under both rules."
    path = shared/'real'/'prw16'/'prw_train_pid.json'
    if not path.is_file(): pytest.skip("PRW's boxes are not here")
    heights = np.array([a['bbox'][3] for a in json.loads(path.read_text())['annotations']], float)
    ours, theirs = (fit_heights(heights, spacing=s) for s in ('geometric', 'quantile'))
    assert len(heights) == 18_048 and (theirs[0], theirs[-1]) == (heights.min(), heights.max())
    for anchors, mean, good in ((ours, 0.900, 0.999), (theirs, 0.889, 0.916)):
        v = best_ious(anchors, heights)
        assert v.mean() == pytest.approx(mean, abs=5e-4) and (v >= 0.7).mean() == pytest.approx(good, abs=5e-4)


@settings(deadline=None, max_examples=20)
@given(heights=st.lists(st.floats(1, 2000), min_size=1, max_size=60), n=st.integers(1, 15),
       spacing=st.sampled_from(('geometric', 'quantile')))
def test_fitted_heights_rise_within_the_data(heights, n, spacing):
    fitted = fit_heights(heights, n, spacing=spacing)
    assert len(fitted) == n and all(b >= a * (1 - 1e-9) for a, b in zip(fitted, fitted[1:]))
    assert min(heights) * (1 - 1e-9) <= fitted[0] and fitted[-1] <= max(heights) * (1 + 1e-9)


def test_arm_with_norms_trains_in_the_network_and_is_not_factored():
    "`factored=True` is for the ARM without norms; one scene, and regions that come and go, train."
    torch.manual_seed(0)
    model = build_model('hdl-student-fast', 5, width=0.125, attention='arm-bn', heights=[30., 60.], factored=True).train()
    assert all(isinstance(a, NormARM) for a in model.attention)
    people = dict(boxes=torch.tensor([[5., 5, 30, 60]]), person_id=torch.tensor([2]))
    for sizes in ([(64, 96)], [(64, 96), (50, 70)]):
        losses = model([torch.rand(3, *s) for s in sizes], [people] * len(sizes))
        sum(losses.values()).backward()
        assert all(v.isfinite() for v in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.attention.parameters())
    with torch.no_grad(), record_levels(model.eval()) as levels: model([torch.rand(3, 64, 96)])
    assert all((a >= 0.5).all() and (a < 1).all() for a in levels['attention'])


def test_arm_with_norms_costs_what_the_arm_costs():
    arm, normed = (count_macs(build_model('hdl-teacher', 1, width=0.25, attention=a), (160, 224)) for a in ('arm', 'arm-bn'))
    assert arm == normed


def test_true_cells_end_where_the_picture_ends():
    x = torch.zeros(3, 3, 50, 70)
    x[0] = 1.
    x[1, :, :33, :17] = 1.
    x[1, :, 5:20, 2:9] = 0.      # grey, in the middle of a picture
    x[1, :, 16], x[1, 1:, :, 16] = 0., 0.
    x[2, 2, 0, 40] = -1.         # a single pixel
    for stride in (4, 8, 16):
        got = true_cells(x, stride)
        want = torch.zeros(3, 1, -(-50 // stride), -(-70 // stride), dtype=torch.bool)
        for m, (h, w) in zip(want, ((50, 70), (33, 17), (1, 41))): m[:, :-(-h // stride), :-(-w // stride)] = True
        assert torch.equal(got, want)
    assert not true_cells(torch.zeros(1, 3, 20, 20), 4).any()


def masks(sizes, h, w):
    m = torch.zeros(len(sizes), 1, h, w, dtype=torch.bool)
    for i, (r, c) in enumerate(sizes): m[i, :, :r, :c] = True
    return m


@settings(deadline=None, max_examples=20)
@given(sizes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 8)), min_size=2, max_size=3),
       form=st.sampled_from(('mse', 'norm')), loss=st.sampled_from((feature_distillation, attention_distillation)), seed=st.integers(0, 99))
def test_a_scenes_distillation_does_not_depend_on_its_batch(sizes, form, loss, seed):
    torch.manual_seed(seed)
    h, w = (max(s) + 1 for s in zip(*sizes))
    s, t = torch.randn(len(sizes), 3, h, w, requires_grad=True), torch.randn(len(sizes), 5, h, w)
    inside = masks(sizes, h, w)
    regions = torch.randn(4, 3, 4, 4), torch.randn(4, 6, 4, 4)
    total = loss([s, regions[0]], [t, regions[1]], form, [inside, None])
    alone = [loss([s[i:i + 1, :, :r, :c]], [t[i:i + 1, :, :r, :c]], form) for i, (r, c) in enumerate(sizes)]
    want = torch.stack(alone).mean() + loss(*([r] for r in regions), form)
    torch.testing.assert_close(total, want, rtol=1e-4, atol=1e-6)
    total.backward()
    assert s.grad.isfinite().all() and not s.grad[~inside.expand_as(s)].any()
    other = [m.where(inside, 100 * torch.randn_like(m)) for m in (s, t)]        # other things in the padding
    again = loss([other[0], regions[0]], [other[1], regions[1]], form, [inside, None])
    torch.testing.assert_close(again, total, rtol=1e-4, atol=1e-6)


def test_distillation_refuses_masks_of_another_shape():
    s, t = [torch.rand(2, 3, 4, 5)], [torch.rand(2, 6, 4, 5)]
    with pytest.raises(ValueError, match=r'features, level 0: inside is \(2, 4, 5\)'):
        feature_distillation(s, t, inside=[torch.ones(2, 4, 5, dtype=torch.bool)])
    with pytest.raises(ValueError, match='attention: 1 student levels but 2 masks'):
        attention_distillation(s, t, inside=[None, None])


@pytest.mark.parametrize('form', ('mse', 'norm'))
def test_hdl_leaves_padding_out(form):
    "Two scenes of different shapes: FD and AD are the means over each scene's own cells."
    torch.manual_seed(0)
    teacher = build_model('hdl-teacher', 5, width=0.125, heights=[30., 60.])
    student = build_model('hdl-student-fast', 5, width=0.25, heights=[30., 60.])
    sizes = [(64, 97), (41, 56)]
    scenes = [torch.rand(3, *s) for s in sizes]
    targets = [dict(boxes=torch.tensor([[5., 4, 25, 40]]), person_id=torch.tensor([i])) for i in range(2)]
    with record_levels(student) as s, record_levels(teacher) as t:
        losses = HDL(teacher, student, lambdas=(0.9, 1., 1.), form=form).train()(scenes, targets)
    for name, kind, loss in (('fd', 'features', feature_distillation), ('ad', 'attention', attention_distillation)):
        want = loss(s[kind][3:], t[kind][3:], form)
        for j in range(3):
            for i, (h, w) in enumerate(sizes):
                mine, its = (v[kind][j][i:i + 1, :, :-(-h // (4 << j)), :-(-w // (4 << j))] for v in (s, t))
                want = want + loss([mine], [its], form) / 2
        torch.testing.assert_close(losses[name], want, rtol=1e-4, atol=1e-6)
        assert abs(loss(s[kind], t[kind], form) - want) > 1e-4 * want  # counting the padding gives something else
