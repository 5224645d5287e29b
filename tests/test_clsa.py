"""CLSA and the two-stage seam: the printed loss, who gets which gradient, cut-outs, search, files, costs, settings."""
import copy
import math
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings as hypothesis_settings, strategies as st

from person_search_nb.backbones import from_torchvision, resnet_backbone
from person_search_nb.clsa import CLSALoss, ReIDPyramid, TwoStageNet
from person_search_nb.costs import count_macs, count_params, macs_by_part, meta_macs
from person_search_nb.crops import CropIdentity
from person_search_nb.models import build_model, imprint, list_models, load_model, load_trunk, model_settings, save_model
from person_search_nb.presets import Recipe, change, make_recipe, warm_start

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
    assert ReIDPyramid(resnet_backbone(50, 0.125), 8, 3).levels == (3,)   # as --set levels=3 gives it


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
    losses, x, rois, out = model.training_pass([a, b], [ta, tb])
    assert set(losses) == {'rpn_cls', 'rpn_box', 'head_box', 'id'} | ({'head_cls', 'align'} if name == 'clsa' else set())
    chosen = model.people(rois)
    assert torch.equal(chosen, rois.positive & (rois.person_id >= 0)) and len(out.embedding) == chosen.sum() >= 3
    assert torch.equal(model.identities(rois), rois.person_id[chosen])
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
    model, (a, t) = net(score_threshold=0.).eval(), people()
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


def test_other_losses():
    for loss in ('softmax', 'oim', 'centre', 'softmax+centre', 'rss', 'softmax+background'):
        model, (image, target) = net(id_loss=loss), people()
        losses, _, rois, out = model.training_pass([image], [target])
        assert 'align' not in losses and all(v.isfinite() for v in losses.values())
        rows = {'oim': rois.positive.sum(), 'rss': len(rois.positive), 'softmax+background': len(rois.positive)}.get(loss, (rois.person_id >= 0).sum())
        assert len(out.embedding) == rows, loss
    oim = net(id_loss='oim')
    imprint(oim, [people()], progress=False)
    assert torch.allclose(oim.id_loss.lut[[2, 5]].norm(dim=1), torch.ones(2), atol=1e-5)
    with pytest.raises(ValueError, match='CLSALoss has neither'): imprint(net(), [people()], progress=False)


@pytest.mark.parametrize('kw', [dict(), dict(levels=(2, 3)), dict(levels=(0, 1, 2, 3), align_temperature=5.), dict(levels=(3,), scales=(1, 0.5)), dict(top_down=8, id_loss='softmax'),
                                dict(name='detector+idnet'), dict(roi_op='align', min_size=16., matching='euclidean', dim=12)])
def test_files(tmp_path, kw):
    model, (image, target) = net(**kw).eval(), people()
    save_model(model, tmp_path / 'm.safetensors')
    again = load_model(tmp_path / 'm.safetensors').eval()
    with torch.no_grad(): assert torch.equal(model.embed([image], [target['boxes']]), again.embed([image], [target['boxes']]))
    assert again.rpn.min_size == model.rpn.min_size and getattr(again.id_loss, 'temperature', 0) == getattr(model.id_loss, 'temperature', 0)
    other = load_trunk(net(9, seed=1, **kw), tmp_path / 'm.safetensors')       # other people: all but the classifiers
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items() if k.startswith('reid.'))


def test_a_torchvision_file_starts_both_networks(tmp_path):
    model, source = net(), resnet_backbone(50, 0.125)
    back = {v: k for k, v in source.names.items()}
    published = {next(back[h] + k[len(h):] for h in back if k.startswith(h)): v for k, v in source.state_dict().items()}
    torch.save(published | {'fc.weight': torch.zeros(2, 2)}, tmp_path / 'resnet50.pth')
    found = warm_start(model, tmp_path / 'resnet50.pth')
    assert not found['unused'] and not found['other_shape']
    own = model.state_dict()
    for k, v in source.state_dict().items(): assert torch.equal(own[k], v) and torch.equal(own['reid.' + k], v)
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
    assert plain.detections == 10 and plain.score_threshold == 0.5 and plain.rpn.min_size == 1   # as many as there are


def test_errors():
    with pytest.raises(ValueError, match='choose clsa, softmax'): net(id_loss='none')
    with pytest.raises(ValueError, match='crop_size'): net(crop_size=(32, 32))
    with pytest.raises(ValueError, match='levels'): net(levels=(1, 4))
    with pytest.raises(ValueError, match='levels'): net(levels=())
    with pytest.raises(ValueError, match='scales'): net(scales=(0,))
    with pytest.raises(ValueError, match='temperature'): net(align_temperature=0)
    with pytest.raises(ValueError, match='matching'): net(matching='manhattan')
    with pytest.raises(TypeError, match='levles'): net(levles=(1, 2))
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
