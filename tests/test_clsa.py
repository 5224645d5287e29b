"""CLSA and the two-stage seam: the printed loss, who gets which gradient, cut-outs, search, files, costs, settings."""
import copy
import math
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings as hypothesis_settings, strategies as st

from person_search_nb.datasets import open_dataset
from person_search_nb.backbones import from_torchvision, resnet_backbone
from person_search_nb.systems import imprint
from person_search_nb.model_files import load_trunk, save_model
from person_search_nb.evaluation import evaluate, run_detector
from person_search_nb.costs import count_macs, count_params, macs_by_part, meta_macs
from person_search_nb.settings import TrainConfig
from person_search_nb.training import train
from person_search_nb.crops import CropIdentity
from person_search_nb.warm_start import warm_start
from person_search_nb.cross_level_alignment import CLSALoss, ConsensusLoss
from person_search_nb.reid_pyramid import ReIDPyramid, ScaleBranches, shrunk
from person_search_nb.models import build_model, list_models, load_model, model_settings
from person_search_nb.recipe_settings import change, Recipe
from person_search_nb.presets import make_recipe

pytestmark = pytest.mark.usefixtures('no_curves')
SMALL = dict(width=0.125, rpn_channels=16, proposals=(20, 10), crop_size=(64, 32))


def net(num_ids=6, name='clsa', seed=0, **kw):
    torch.manual_seed(seed)
    return build_model(name, num_ids, **SMALL | kw)


def people(seed=0, ids=(2, -1, 5)):
    g = torch.Generator().manual_seed(seed)
    boxes = torch.tensor([[20., 30., 60., 130.], [90., 20., 150., 170.], [150., 60., 180., 150.]])[:len(ids)]
    return torch.rand(3, 180, 200, generator=g), dict(boxes=boxes, person_id=torch.tensor(ids, dtype=torch.int64))


@hypothesis_settings(max_examples=30)
@given(st.integers(1, 4), st.integers(0, 5), st.integers(2, 6), st.floats(0.5, 8), st.integers(0, 10**6))
def test_loss_is_the_printed_one(levels, rows, num_ids, t, seed):
    g = torch.Generator().manual_seed(seed)
    loss = CLSALoss(3 * levels, num_ids, levels, t).double()
    for p in loss.parameters(): p.data = torch.randn(p.shape, generator=g, dtype=torch.double)
    x, ids = torch.randn(rows, 3 * levels, generator=g, dtype=torch.double), torch.randint(-1, num_ids, (rows,), generator=g)
    got, p = loss(x, ids), [[row.tolist() for row in level] for level in loss.predictions(x)]
    soft = lambda v, t: [math.exp(a / t) / sum(math.exp(b / t) for b in v) for a in v]
    named = [r for r in range(rows) if ids[r] >= 0]
    ce = sum(-math.log(soft(p[-1][r], 1)[ids[r]]) for r in named) / max(len(named), 1)
    kl = sum(a * math.log(a / b) for r in named for low in p[:-1] for a, b in zip(soft(p[-1][r], t), soft(low[r], t))) / max(len(named), 1)
    assert got['id'].item() == pytest.approx(ce, abs=1e-9)
    assert set(got) == ({'id', 'align'} if levels > 1 else {'id'})
    if levels > 1: assert got['align'].item() == pytest.approx(t * t * kl, abs=1e-9)
    sum(got.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loss.parameters())


def test_alignment_does_not_teach_the_top():
    torch.manual_seed(0)
    net, loss = ReIDPyramid(resnet_backbone(50, 0.125), 8), CLSALoss(24, 6)
    loss(net(torch.randn(4, 3, 64, 32)), torch.tensor([0, 1, 2, -1]))['align'].backward()
    touched = lambda part: any(p.grad is not None and bool((p.grad != 0).any()) for p in part.parameters())
    assert [touched(b) for b in net.blocks] == [True, True, True, False]
    assert [touched(p) for p in net.project] == [touched(l) for l in loss.levels] == [True, True, False]


def test_the_gradient_may_go_through():
    torch.manual_seed(0)
    loss, x, ids = CLSALoss(12, 6, detach=False), torch.randn(4, 12, requires_grad=True), torch.tensor([0, 1, 2, 5])
    loss(x, ids)['align'].backward()
    assert (x.grad[:, 8:] != 0).any() and loss.levels[2].classifier.weight.grad.any()
    cut = CLSALoss(12, 6)
    cut.load_state_dict(loss.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(cut(x, ids).values(), loss(x, ids).values()))   # the same value
    assert not net(detach=False).id_loss.detach and net().id_loss.detach


def test_an_image_pyramid_searches_as_it_was_trained():
    torch.manual_seed(0)
    pyramid, x = ReIDPyramid(resnet_backbone(50, 0.125), 16, (3,), scales=(1, .5, .25)), torch.rand(24, 3, 64, 32)
    with torch.no_grad():
        for _ in range(60): trained = pyramid.train()(x)      # the running averages converge
        searched = pyramid.eval()(x)
        assert (trained - searched).norm() < .2 * trained.norm()
        apart = sum(pyramid.train().features(shrunk(x, s)) for s in pyramid.scales) / 3
        assert (apart - searched).norm() > .5 * trained.norm()       # a pass for each scale would differ
        each = [pyramid.eval().features(shrunk(x, s)) for s in pyramid.scales]
        assert torch.allclose(pyramid(x), sum(each) / 3, atol=1e-5)


def test_branches_have_a_network_for_each_scale():
    torch.manual_seed(0)
    nets = [ReIDPyramid(resnet_backbone(50, 0.125), 8, 3) for _ in range(2)]
    both, x = ScaleBranches(nets, (1, .5)).eval(), torch.randn(3, 3, 64, 32)
    with torch.no_grad(): assert torch.equal(both(x), torch.cat([nets[0](x), nets[1](shrunk(x, .5))], 1))
    assert both.dim == 16 and both(x[:0]).shape == (0, 16)
    flat = torch.ones(1, 3, 64, 32)
    assert torch.allclose(shrunk(flat, .5), flat) and shrunk(x, 1) is x
    assert shrunk(x, .25).shape == x.shape and shrunk(x, .25).std() < .5 * x.std()
    for scales in ((1,), (1, .5, .25), (1, 2), (1, 0)):
        with pytest.raises(ValueError, match='scales'): ScaleBranches(nets, scales)


@hypothesis_settings(max_examples=20)
@given(st.integers(1, 3), st.integers(0, 5), st.floats(0.5, 8), st.booleans(), st.integers(0, 10**6))
def test_the_consensus_teaches_the_branches(branches, rows, t, detach, seed):
    g = torch.Generator().manual_seed(seed)
    loss = ConsensusLoss(3 * branches, 5, branches, t, detach).double()
    for p in loss.parameters(): p.data = torch.randn(p.shape, generator=g, dtype=torch.double)
    x = torch.randn(rows, 3 * branches, generator=g, dtype=torch.double)
    ids = torch.randint(-1, 5, (rows,), generator=g)
    each = [x[:, 3 * k:3 * k + 3] @ l.classifier.weight.T + l.classifier.bias for k, l in enumerate(loss.levels)]
    all_ = x @ loss.consensus.classifier.weight.T + loss.consensus.classifier.bias
    named = [r for r in range(rows) if ids[r] >= 0]
    ce = lambda p: sum(-p[r].log_softmax(0)[ids[r]] for r in named) / max(len(named), 1)
    q = [(all_[r] / t).softmax(0) for r in range(rows)]
    kl = lambda p: sum((q[r] * (q[r].log() - (p[r] / t).log_softmax(0))).sum() for r in named) / max(len(named), 1)
    got, near = loss(x, ids), lambda v: pytest.approx(float(torch.as_tensor(v).detach()), abs=1e-9)
    assert set(got) == {'id', 'align', 'branches'}
    assert got['id'].item() == near(ce(all_)) and got['branches'].item() == near(sum(map(ce, each)))
    assert got['align'].item() == near(t * t * sum(map(kl, each)))
    assert torch.equal(loss.logits(x), loss.predictions(x)[-1]) and torch.allclose(loss.logits(x), all_)
    got['align'].backward()
    w = loss.consensus.classifier.weight.grad
    assert w is None or not w.any() if detach or not named else w.any()


def test_a_system_with_branches():
    model, (image, target) = net(branches=True), people()
    assert isinstance(model.reid, ScaleBranches) and model.reid.scales == (1, .5) and model.reid.dim == 2 * 128
    losses = model([image, image], [target, target])
    assert set(losses) == {'rpn_cls', 'rpn_box', 'head_cls', 'head_box', 'id', 'align', 'branches'}
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert len(net(branches=True, scales=(1, .5, .25), levels=(2, 3)).reid.nets) == 3
    assert set(net(branches=True, id_loss='softmax')([image], [target])) >= {'id'}
    half = meta_macs(net(levels=(3,)).reid, 1, 3, 64, 32)[0]
    assert meta_macs(model.reid, 1, 3, 64, 32)[0] == 2 * half == macs_by_part(model, (200, 200))['reid']
    with pytest.raises(ValueError, match='scales'): net(branches=True, scales=(1,))


def test_levels_are_split_as_they_were_joined():
    pyramid, loss = ReIDPyramid(resnet_backbone(50, 0.125), 8, (1, 3)).eval(), CLSALoss(16, 6, 2)
    x = torch.randn(3, 3, 64, 32)
    with torch.no_grad():
        each = [F.relu(n(p(m.mean((2, 3))))) for n, p, m in zip(pyramid.norms, pyramid.project, pyramid.maps(x))]
        assert torch.equal(pyramid(x), torch.cat(each, 1))
        for got, level, e in zip(loss.predictions(pyramid(x)), loss.levels, each): assert torch.equal(got, level.logits(e))
        assert torch.equal(loss.logits(pyramid(x)), loss.levels[1].logits(each[1]))


def test_levels_above_the_top_are_left_out():
    pyramid = ReIDPyramid(resnet_backbone(50, 0.125), 8, (0, 2))
    assert len(pyramid.blocks) == 3 and pyramid(torch.randn(2, 3, 64, 32)).shape == (2, 16)
    assert ReIDPyramid(resnet_backbone(50, 0.125), 8, 3).levels == (3,)


@pytest.mark.parametrize('rows', [0, 1, 2])
@pytest.mark.parametrize('kw', [{}, dict(top_down=8), dict(scales=(1, 0.5)), dict(norms=False), dict(levels=(3,))])
def test_few_rows(rows, kw):
    pyramid = ReIDPyramid(resnet_backbone(50, 0.125), 8, **kw).train()
    y = pyramid(torch.randn(rows, 3, 64, 32))
    assert y.shape == (rows, pyramid.dim) and y.isfinite().all() and y.requires_grad
    assert all(b.isfinite().all() for b in pyramid.buffers())


def test_a_cut_out_is_the_picture():
    model, (image, _) = net(crop_size=(100, 40)).eval(), people()
    seen = []
    model.reid.register_forward_hook(lambda m, i, o: seen.append(i[0]))
    with torch.no_grad(): model.embed([image], [torch.tensor([[20., 30., 60., 130.]])])      # as large as a cut-out: pixel by pixel
    assert torch.allclose(seen[0], model.batch([image])[0][..., 30:130, 20:60], atol=1e-5)
    with torch.no_grad(): model.embed([image[:, 30:130, 20:60]], [torch.tensor([[0., 0., 40., 100.]])])
    assert torch.allclose(seen[1], seen[0], atol=1e-5)
    # twice as large: every pixel of the cut-out is the mean of four
    large = torch.rand(3, 240, 160)
    with torch.no_grad(): model.embed([large], [torch.tensor([[16., 8., 96., 208.]])])
    assert torch.allclose(seen[2], F.avg_pool2d(model.batch([large])[0][..., 8:208, 16:96], 2), atol=1e-5)
    # smaller: bilinear interpolation, as for a cut-out of its own but for the rim
    with torch.no_grad(): model.embed([image], [torch.tensor([[20., 30., 40., 80.]])])
    alone = F.interpolate(model.batch([image])[0][..., 30:80, 20:40], (100, 40), mode='bilinear')
    assert torch.allclose(seen[3][..., 1:-1, 1:-1], alone[..., 1:-1, 1:-1], atol=1e-4)


@pytest.mark.parametrize('name', ['clsa', 'detector+idnet'])
def test_both_parts_learn(name):
    model = net(name=name)
    (a, ta), (b, tb) = people(0), people(1, (4,))
    losses, x, rois, out = model.forward_train([a, b], [ta, tb])
    assert set(losses) == {'rpn_cls', 'rpn_box', 'id'} | ({'head_cls', 'head_box', 'align'} if name == 'clsa' else set())
    chosen = model.identity_mask(rois)
    assert torch.equal(chosen, rois.positive & (rois.person_id >= 0)) and len(out.embedding) == chosen.sum() >= 3
    assert torch.equal(model.identity_targets(rois), rois.person_id[chosen])
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert any((p.grad != 0).any() for p in model.reid.parameters()) and any((p.grad != 0).any() for p in model.rpn.parameters())
    assert model.identity_logits(out.embedding).shape == (len(out.embedding), 6)


def test_the_parts_share_nothing():
    model, (image, target) = net(), people()
    losses = model([image], [target])
    (losses['id'] + losses['align']).backward()
    assert {k.split('.')[0] for k, p in model.named_parameters() if p.grad is not None} == {'reid', 'id_loss'}
    model.zero_grad()
    losses = model([image], [target])
    sum(v for k, v in losses.items() if k not in ('id', 'align')).backward()
    assert not {k.split('.')[0] for k, p in model.named_parameters() if p.grad is not None} & {'reid', 'id_loss'}


@pytest.mark.parametrize('target', [dict(boxes=torch.zeros(0, 4), person_id=torch.zeros(0, dtype=torch.int64)), people(ids=(-1, -1))[1]])
def test_nobody_has_a_name(target):
    model, image = net(), people()[0]
    losses = model([image, image], [target, target])
    assert losses['id'] == losses['align'] == 0 and all(v.isfinite() for v in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())   # also the second network's: several processes wait for them
    assert all(b.isfinite().all() for b in model.buffers())


def test_one_name_in_a_batch():
    losses = net()([people()[0]], [people(ids=(3,))[1]])
    assert all(v.isfinite() for v in losses.values()) and losses['id'] > 0


def test_detections_and_boxes_agree():
    model, a = net(score_threshold=0.).eval(), people()[0]
    b = torch.rand(3, 120, 220)
    model.chunk = 3                                                       # several parts
    with torch.no_grad():
        found = model([a, b])
        assert all(len(f['boxes']) for f in found)
        again = model.embed([a, b], [f['boxes'] for f in found], searched=True)
        alone = model.embed([b], [found[1]['boxes'][:1]])
        assert model.embed([a, b], [torch.zeros(0, 4)] * 2).shape == (0, model.reid.dim)
    e = torch.cat([f['embeddings'] for f in found])
    assert torch.allclose(e, again, atol=1e-5) and torch.allclose(e.norm(dim=1), torch.ones(len(e)), atol=1e-5)
    assert torch.allclose(alone, found[1]['embeddings'][:1], atol=1e-5)   # padding and company change nothing


def test_a_query_costs_no_detector(monkeypatch):
    model, (image, target) = net(), people()
    monkeypatch.setattr(model, 'trunk', lambda x: pytest.fail('the detector ran'))
    CropIdentity(model).train()([image[:, :64, :32]] * 2, [dict(boxes=torch.tensor([[0., 0., 32., 64.]]), person_id=torch.tensor([k])) for k in (0, 1)])
    with torch.no_grad(): model.eval().embed([image], [target['boxes']])


def test_cut_outs_train_the_second_network():
    model = net()
    crops = [torch.rand(3, 64, 32) for _ in range(3)]
    losses = CropIdentity(model).train()(crops, [dict(boxes=torch.tensor([[0., 0., 32., 64.]]), person_id=torch.tensor([k])) for k in (0, 4, -1)])
    assert set(losses) == {'id', 'align'}
    sum(losses.values()).backward()
    assert {k.split('.')[0] for k, p in model.named_parameters() if p.grad is not None} == {'reid', 'id_loss'}


def test_a_frozen_second_network_stays():
    data = open_dataset('synth:tiny?train_scenes=6&train_ids=8', 'train', progress=False, workers=0)
    torch.manual_seed(0)
    model = build_model('clsa', data.num_ids, **SMALL)
    model.reid.requires_grad_(False)
    model.reid.register_forward_hook(lambda *a: pytest.fail('someone was cut out'))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    how = TrainConfig(epochs=1, batch_size=2, lr=1e-2, weight_decay=1e-2, warmup=0, device='cpu', precision='fp32')
    history = train(model, data, how, progress=False)
    losses = set(history[0]) - {'step', 'lr', 'seconds', 'loss'}
    assert losses == {'rpn_cls', 'rpn_box', 'head_cls', 'head_box'}
    moved = {k.split('.')[0] for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert not moved & {'reid', 'id_loss'} and {'stem', 'blocks', 'rpn', 'deltas'} <= moved
    assert model.partial and not net().partial        # several processes do not wait for the classifier's gradient
    assert next(iter(model.reid.parameters())).requires_grad is False


def test_weak_boxes_change_no_search(monkeypatch):
    spec = 'synth:tiny?train_scenes=2&train_ids=4&test_scenes=24&test_ids=12&queries=8&gallery=24&size=128x224'
    gallery, queries = (open_dataset(spec, part, progress=False, workers=0) for part in ('gallery', 'query'))
    short, long = (net(anchors='pedestrian', proposals=(200, 60), **kw).eval() for kw in (dict(score_threshold=.5), {}))
    assert long.score_threshold == .05
    middle = np.median(run_detector(long, gallery, progress=False)['det_scores'])
    for m in (short, long): m.score.bias.data -= float(np.log(middle / (1 - middle)))     # half of the boxes below 0.5
    few, many = (run_detector(m, gallery, progress=False) for m in (short, long))
    strong = many['det_scores'] >= .5
    assert 0 < strong.sum() == len(few['det_scores']) < len(many['det_scores'])
    for k in few: assert abs(many[k][strong] - few[k]).max() < 1e-4
    monkeypatch.setattr('person_search_nb.evaluation.run_detector', lambda m, *a, **k: few if m is short else many)     # as it has just done
    a, b = (evaluate(m, gallery, queries, progress=False) for m in (short, long))
    assert a['mAP'] > 0 and all(a[k] == pytest.approx(b[k], abs=1e-9) for k in ('mAP', 'top1', 'top5', 'top10'))
    assert b['det_recall'] > a['det_recall'] and b['det_ap'] != a['det_ap']      # of the longer list


def test_other_losses():
    for loss in ('softmax', 'oim', 'centre', 'softmax+centre', 'rss', 'softmax+background'):
        model, (image, target) = net(id_loss=loss), people()
        losses, _, rois, out = model.forward_train([image], [target])
        assert 'align' not in losses and all(v.isfinite() for v in losses.values())
        rows = {'oim': rois.positive.sum(), 'rss': len(rois.positive), 'softmax+background': len(rois.positive)}.get(loss, (rois.person_id >= 0).sum())
        assert len(out.embedding) == rows, loss
    oim = net(id_loss='oim')
    imprint(oim, [people()], progress=False)
    assert torch.allclose(oim.id_loss.lut[[2, 5]].norm(dim=1), torch.ones(2), atol=1e-5)
    with pytest.raises(ValueError, match='CLSALoss has neither'): imprint(net(), [people()], progress=False)


@pytest.mark.parametrize('kw', [dict(), dict(levels=(2, 3)), dict(levels=(0, 1, 2, 3), align_temperature=5.), dict(levels=(3,), scales=(1, 0.5)), dict(top_down=8, id_loss='softmax'),
                                dict(name='detector+idnet'), dict(branches=True, detach=False),
                                dict(roi_op='align', min_size=16., matching='euclidean', dim=12)])
def test_files(tmp_path, kw):
    model, (image, target) = net(**kw).eval(), people()
    save_model(model, tmp_path / 'm.safetensors')
    again = load_model(tmp_path / 'm.safetensors').eval()
    with torch.no_grad(): assert torch.equal(model.embed([image], [target['boxes']]), again.embed([image], [target['boxes']]))
    assert again.rpn.min_size == model.rpn.min_size and getattr(again.id_loss, 'temperature', 0) == getattr(model.id_loss, 'temperature', 0)
    other = load_trunk(net(9, seed=1, **kw), tmp_path / 'm.safetensors')       # other people: all but the classifiers
    there = other.state_dict()
    assert all(torch.equal(v, there[k]) for k, v in model.state_dict().items() if k.startswith('reid.'))


def test_a_torchvision_file_starts_both_networks(tmp_path):
    model, source = net(), resnet_backbone(50, 0.125)
    back = {v: k for k, v in source.names.items()}
    published = {next(back[h] + k[len(h):] for h in back if k.startswith(h)): v for k, v in source.state_dict().items()}
    torch.save(published | {'fc.weight': torch.zeros(2, 2)}, tmp_path / 'resnet50.pth')
    found = warm_start(model, tmp_path / 'resnet50.pth')
    assert not found['unused'] and not found['other_shape']
    own = model.state_dict()
    for k, v in source.state_dict().items(): assert torch.equal(own[k], v) and torch.equal(own['reid.' + k], v)
    several = net(branches=True)
    assert several.trunks == ('', 'reid.nets.0.', 'reid.nets.1.') and model.trunks == ('', 'reid.')
    warm_start(several, tmp_path / 'resnet50.pth')
    for k, v in source.state_dict().items():
        for trunk in several.trunks: assert torch.equal(several.state_dict()[trunk + k], v)
    assert list(from_torchvision(published, source.names)) == list(source.state_dict())   # one name each: as before


def test_weights_start_both_networks(tmp_path):
    from safetensors.torch import save_file
    source = resnet_backbone(50, 0.125)
    save_file(source.state_dict(), tmp_path / 'trunk.safetensors')
    model = net(weights=tmp_path / 'trunk.safetensors')
    own = model.state_dict()
    for k, v in source.state_dict().items(): assert torch.equal(own[k], v) and torch.equal(own['reid.' + k], v)
    with pytest.raises(ValueError, match='width 1'): build_model('clsa', 5, width=0.5, weights='imagenet')


def test_costs():
    model = net()
    parts = macs_by_part(model, (200, 200))
    assert parts['reid'] == meta_macs(model.reid, 1, 3, 64, 32)[0] > 0
    assert count_macs(model, (200, 200))['person'] == parts['reid'] + parts['block 3'] + parts['score'] + parts['deltas']
    assert not any(k.startswith('reid.') and 'class' in k for k in model.state_dict())
    assert count_params(model, training=True) - count_params(model) == sum(p.numel() for p in model.id_loss.parameters())
    assert 'reid' not in macs_by_part(build_model('oim', 5, width=0.125), (200, 200))
    twice = ReIDPyramid(resnet_backbone(50, 0.125), 8, (3,), scales=(1, 0.5))
    once = ReIDPyramid(resnet_backbone(50, 0.125), 8, (3,))
    assert meta_macs(twice, 1, 3, 64, 32)[0] == 2 * meta_macs(once, 1, 3, 64, 32)[0]


def test_settings():
    recipe = change(Recipe('clsa'), levels=(2, 3), align_temperature=5., crop_size=(128, 64), freeze=1, temperature=2.)
    assert recipe.net == dict(levels=(2, 3), align_temperature=5., crop_size=(128, 64)) and recipe.train.freeze == 1 and recipe.temperature == 2.
    with pytest.raises(ValueError, match="no setting 'levels'"): change(Recipe('oim'), levels=(2, 3))
    with pytest.raises(ValueError, match='did you mean levels'): change(Recipe('clsa'), level=(2, 3))
    make_recipe('clsa', 'synth:tiny', 'tiny', levels=(3,), id_loss='softmax')
    assert {'clsa', 'detector+idnet'} <= set(list_models())
    assert 'levels' in model_settings('clsa') and 'crop_size' in model_settings('detector+idnet') and 'levels' not in model_settings('detector+idnet')


def test_arguments_of_the_detector_work():
    model = net(attention='arm', factored=True, separable_rpn=True, roi_size=5, rois_per_image=8, norms=False, rescore=False, detections=3, nms_threshold=0.3, score_threshold=0.)
    image, target = people()
    assert all(v.isfinite() for v in model([image], [target]).values())
    with torch.no_grad(): assert len(model.eval()([image])[0]['boxes']) <= 3
    plain = net()
    assert plain.detections == 10 and plain.score_threshold == 0.05 and plain.rpn.min_size == 1   # as many as there are


def test_errors():
    with pytest.raises(ValueError, match='choose clsa, softmax'): net(id_loss='none')
    with pytest.raises(ValueError, match='crop_size'): net(crop_size=(32, 32))
    with pytest.raises(ValueError, match='levels'): net(levels=(1, 4))
    with pytest.raises(ValueError, match='levels'): net(levels=())
    with pytest.raises(ValueError, match='scales'): net(scales=(0,))
    with pytest.raises(ValueError, match='temperature'): net(align_temperature=0)
    with pytest.raises(ValueError, match='matching'): net(matching='manhattan')
    with pytest.raises(ValueError, match='levles'): net(levles=(1, 2))
    with pytest.raises(ValueError, match='box'): net().embed([people()[0]], [torch.tensor([[50., 50., 40., 90.]])])
    with pytest.raises(ValueError, match='targets'): net()([people()[0]])


def test_low_precision():
    model, (image, target) = net(), people()
    with torch.autocast('cpu', torch.bfloat16): losses = model([image], [target])
    assert all(v.dtype == torch.float32 and v.isfinite() for v in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.cuda
def test_cuda():
    model, (image, target) = net().cuda(), people()
    target = {k: v.cuda() for k, v in target.items()}
    nobody = dict(boxes=target['boxes'][:0], person_id=target['person_id'][:0])
    for t in (target, nobody):
        losses = model([image.cuda()], [t])
        assert all(v.isfinite() for v in losses.values())
        sum(losses.values()).backward()
    twin = copy.deepcopy(model).cpu().eval()
    with torch.no_grad(): assert torch.allclose(model.eval().embed([image.cuda()], [target['boxes']]).cpu(), twin.embed([image], [target['boxes'].cpu()]), atol=1e-3)


def test_sharing_the_trunk_is_worth_what_is_said():
    "benchmarks/fidelity.md on E2E's \"40 times faster\": multiplications of a scene, at the papers' width."
    with torch.device('meta'):
        e2e, idnet = (build_model(n, 5532, **make_recipe(n, 'cuhk-sysu:PATH', 'paper').net | dict(weights=None)) for n in ('e2e-rss', 'detector+idnet'))
    shared, apart = (count_macs(n, (600, 1000)) for n in (e2e, idnet))
    ours = shared['scene'] + 400 * shared['person']
    factor = {boxes: (apart['scene'] + boxes * apart['person']) / ours for boxes in (100, 300, 600)}
    assert shared['scene'] == apart['scene'] == pytest.approx(190e9, rel=.01)
    assert factor == pytest.approx({100: 7.3, 300: 20.3, 600: 39.8}, abs=.1)
