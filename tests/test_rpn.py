"Region proposals: matching, sampling and losses against torchvision's parts and against the formulas, and the odd batches."
import pytest
import torch
from torch import nn
from torchvision.models.detection import _utils as tv_utils, rpn as tv_rpn
from torchvision.models.detection.image_list import ImageList

from person_search_nb.boxes import box_iou, nms
from person_search_nb.anchors import pedestrian_anchors
from person_search_nb.rpn import best_survivors, match_boxes, RPN, sample_balanced

HEIGHTS = [24., 40., 64., 100.]


def random_boxes(n, size=(128, 160), seed=0):
    generator = torch.Generator().manual_seed(seed)
    h, w = size
    xy = torch.rand(n, 2, generator=generator) * torch.tensor([w * .7, h * .5])
    return torch.cat([xy, xy + torch.rand(n, 2, generator=generator) * torch.tensor([w * .2, h * .4]) + 6], 1)


def make(seed=0, **kw):
    torch.manual_seed(seed)
    return RPN(8, pedestrian_anchors(HEIGHTS), channels=16, **kw)


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('high,low', [(.7, .3), (.5, .5), (.5, .1)])
@pytest.mark.parametrize('force', [False, True])
def test_matching_equals_torchvisions(seed, high, low, force):
    truths, candidates = random_boxes(5, seed=seed), torch.cat([random_boxes(400, seed=seed + 50), random_boxes(5, seed=seed)])
    theirs = tv_utils.Matcher(high, low, allow_low_quality_matches=force)(box_iou(truths, candidates))
    assert torch.equal(match_boxes(candidates, truths, high, low, force), theirs)


def test_anchors_across_the_border_learn_only_where_they_may():
    x, sizes, targets = torch.randn(2, 8, 8, 10), [(128, 160), (100, 90)], [dict(boxes=random_boxes(3)), dict(boxes=random_boxes(2, (100, 90)))]
    loose, strict = make(batch_size=10**6), make(batch_size=10**6, whole_anchors=True)
    anchors = loose.anchors((8, 10))
    for net in (loose, strict):
        learns, inside = net.learning(anchors, sizes), net.inside(anchors, sizes)
        for (h, w), row, centred in zip(sizes, learns, inside):
            whole = torch.tensor([x1 >= 0 and y1 >= 0 and x2 <= w and y2 <= h for x1, y1, x2, y2 in anchors.tolist()])
            assert torch.equal(row, whole if net is strict else centred) and 0 < whole.sum() < centred.sum()
        sampled = net.sample(anchors, learns, targets).rows
        assert set(sampled.tolist()) <= set(learns.flatten().nonzero()[:, 0].tolist())
    (a, _, few), (b, _, all_) = strict.eval()(x, sizes, targets), loose.eval()(x, sizes, targets)
    assert all(map(torch.equal, a, b)) and few['rpn_cls'] != all_['rpn_cls'], 'it changes what is learned, not what is proposed'
    nowhere = strict.train()(x, [(9, 9)] * 2, [dict(boxes=torch.tensor([[1., 1, 4, 8]]))] * 2)[2]  # no anchor fits into it
    assert all(v == 0 for v in nowhere.values())


def test_a_truth_out_of_reach_forces_nothing():
    far = torch.tensor([[1000., 1000, 1010, 1020]])
    assert (match_boxes(random_boxes(50), far, .7, .3, force_best=True) == -1).all()


def test_sample():
    matched = torch.tensor([-1] * 50 + [-2] * 30 + [0] * 4 + [2] * 16)
    for number, fraction, people in [(20, .5, 10), (20, .25, 5), (100, .5, 20), (4, 0., 0)]:
        pos, neg = sample_balanced(matched, number, fraction)
        assert len(pos) == people and len(neg) == min(number - people, 50)
        assert (matched[pos] >= 0).all() and (matched[neg] == -1).all()
        assert len(pos.unique()) == len(pos) and len(neg.unique()) == len(neg)
    often = torch.stack([torch.bincount(sample_balanced(matched, 20, .5)[0], minlength=100) for _ in range(300)]).float().mean(0)
    torch.testing.assert_close(often[80:], torch.full((20,), .5), atol=.15, rtol=0) # 10 of 20 people, each as often as any other


@pytest.mark.parametrize('number', [1, 7, 40, 10_000])
def test_best_survivors_are_the_first_of_all(number):
    boxes, scores = random_boxes(600), torch.rand(600, generator=torch.Generator().manual_seed(1)).sort(descending=True).values
    assert torch.equal(best_survivors(boxes, scores, .5, number), nms(boxes, scores, .5)[:number])
    assert len(best_survivors(boxes[:0], scores[:0], .5, number)) == 0


class Head(nn.Module):
    def __init__(self, rpn): super().__init__(); self.rpn = rpn
    def forward(self, maps):
        hidden = self.rpn.hidden(maps[0])
        return [self.rpn.objectness(hidden)], [self.rpn.deltas(hidden)]


class Anchors(nn.Module):
    def __init__(self, anchors): super().__init__(); self.anchors = anchors
    def forward(self, images, maps): return [self.anchors] * len(images.image_sizes)


@pytest.mark.parametrize('separable', [False, True])
@pytest.mark.parametrize('training', [False, True])
def test_equals_torchvisions_network(separable, training):
    rpn = make(separable=separable, batch_size=10_000, pre_nms=(200, 90), post_nms=(60, 30)).train(training)
    nn.init.normal_(rpn.objectness.weight); nn.init.normal_(rpn.deltas.weight, std=.3)
    theirs = tv_rpn.RegionProposalNetwork(Anchors(rpn.anchors((8, 10))), Head(rpn), .7, .3, 10_000, .5, dict(training=200, testing=90),
                                          dict(training=60, testing=30), nms_thresh=.7).train(training)
    theirs.min_size = rpn.min_size
    features, sizes = torch.randn(2, 8, 8, 10), [(128, 160)] * 2
    targets = [dict(boxes=random_boxes(4)), dict(boxes=random_boxes(1, seed=1))]
    proposals, scores, losses = rpn(features, sizes, targets if training else None)
    expected, expected_losses = theirs(ImageList(torch.zeros(2, 3, 128, 160), sizes), {'0': features}, targets)
    for p, e, s in zip(proposals, expected, scores):
        torch.testing.assert_close(p, e, atol=1e-3, rtol=0)
        assert not p.requires_grad and (s.diff() <= 0).all() and ((0 <= s) & (s <= 1)).all()
    assert losses.keys() == ({'rpn_cls', 'rpn_box'} if training else set())
    if training:
        torch.testing.assert_close(losses['rpn_cls'], expected_losses['loss_objectness'])
        torch.testing.assert_close(losses['rpn_box'], expected_losses['loss_rpn_box_reg'])
        parts = [torch.autograd.grad(sum(l.values()), rpn.parameters(), retain_graph=True) for l in (losses, expected_losses)]
        for a, b in zip(*parts): torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_nobody_in_the_batch():
    rpn = make()
    proposals, _, losses = rpn(torch.randn(2, 8, 6, 7), [(96, 112)] * 2, [dict(boxes=torch.zeros(0, 4))] * 2)
    sum(losses.values()).backward()
    assert losses['rpn_box'].item() == 0 and losses['rpn_cls'] > 0
    assert not rpn.deltas.weight.grad.any() and rpn.objectness.weight.grad.any()
    assert all(len(p) for p in proposals)


def test_padding_neither_learns_nor_proposes():
    rpn = make(batch_size=10_000)
    features = torch.randn(2, 8, 6, 7, requires_grad=True)
    sizes, targets = [(96, 112), (40, 50)], [dict(boxes=random_boxes(2, (96, 112))), dict(boxes=torch.tensor([[5., 4, 15, 30]]))]
    proposals, _, losses = rpn(features, sizes, targets)
    assert (proposals[1] >= 0).all() and (proposals[1] <= torch.tensor([50, 40, 50, 40])).all()
    sum(losses.values()).backward()
    assert features.grad[0].abs().sum(0).bool().all()
    learns = features.grad[1].abs().sum(0) > 0                 # 3x3 convs see one cell beyond the 3 x 4 inside
    assert learns[:4, :5].all() and not learns[4:].any() and not learns[:, 5:].any()


def test_truth_centred_in_the_padding_takes_no_anchor_there():
    rpn = make(batch_size=10_000)
    features, truth = torch.randn(1, 8, 6, 7), [dict(boxes=torch.tensor([[60., 10, 76, 50]]))]
    objectness, deltas = rpn.predict(features)
    anchors = rpn.anchors((6, 7))
    inside = rpn.inside(anchors, [(96, 40)])
    rpn.losses(objectness, deltas, anchors, inside, truth)['rpn_box'].backward()
    grad = rpn.deltas.bias.grad
    full = rpn.losses(*rpn.predict(features), anchors, rpn.inside(anchors, [(96, 112)]), truth)
    assert full['rpn_box'] > 0 and grad.isfinite().all()
    assert inside.view(6, 7, 4)[:, :3].all() and not inside.view(6, 7, 4)[:, 3:].any()


@pytest.mark.parametrize('separable', [False, True])
def test_under_autocast(separable):
    rpn = make(separable=separable)
    with torch.autocast('cpu', torch.bfloat16):
        proposals, scores, losses = rpn(torch.randn(1, 8, 6, 7), [(96, 112)], [dict(boxes=random_boxes(2, (96, 112)))])
    sum(losses.values()).backward()
    assert proposals[0].dtype == scores[0].dtype == losses['rpn_cls'].dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in rpn.parameters())


def test_channels_last_is_the_same():
    rpn = make().eval()
    features = torch.randn(2, 8, 6, 7)
    (a, *_), (b, *_) = rpn(features, [(96, 112)] * 2), rpn(features.to(memory_format=torch.channels_last), [(96, 112)] * 2)
    for p, q in zip(a, b): torch.testing.assert_close(p, q, atol=1e-3, rtol=0)


def test_one_target_too_few():
    with pytest.raises(ValueError, match='2 feature maps, 2 sizes, 1 targets'):
        make()(torch.randn(2, 8, 6, 7), [(96, 112)] * 2, [dict(boxes=random_boxes(2))])


def test_overfits_two_boxes():
    rpn = make(seed=1)
    truth = torch.tensor([[20., 10, 36, 50], [80, 30, 110, 95]])
    features = torch.randn(1, 8, 6, 8)
    optimizer = torch.optim.AdamW(rpn.parameters(), lr=1e-2)
    first = None
    for _ in range(150):
        *_, losses = rpn(features, [(96, 128)], [dict(boxes=truth)])
        optimizer.zero_grad(); sum(losses.values()).backward(); optimizer.step()
        first = first or {k: v.item() for k, v in losses.items()}
    proposals, *_ = rpn.eval()(features, [(96, 128)])
    assert losses['rpn_cls'] < first['rpn_cls'] / 5
    assert (box_iou(truth, proposals[0][:4]).amax(1) > .8).all()
