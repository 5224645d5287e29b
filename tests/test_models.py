"Every system of `list_models()` trains, resumes, searches, is saved, started from and counted by the same few functions."
import json, os

import pytest
import torch

from person_search_nb.datasets import open_dataset
from person_search_nb.evaluation import gallery_truth, score_detections
from person_search_nb.costs import cost_table
from person_search_nb.checkpoints import load_tree
from person_search_nb.runs import CHECKPOINT
from person_search_nb.training import train
from person_search_nb.distillation import HDL
from person_search_nb.warm_start import read_state, warm_start
from person_search_nb.models import build_model, list_models, load_model, model_settings
from person_search_nb.oim import list_id_losses, register_id_loss, SoftmaxLoss
from person_search_nb.presets import make_recipe
from person_search_nb.recipes import run_recipe
from person_search_nb.grad_cam import grad_cam
from person_search_nb.model_commands import export

pytestmark = pytest.mark.usefixtures('undrawn', 'no_curves')
SPEC = 'synth:tiny?train_scenes=4&test_scenes=6&train_ids=6&test_ids=4&queries=4&gallery=4&size=96x160'
FAST = dict(stages=(), crops=(), width=0.125, rpn_channels=16, start='', imprint=False, batch_size=2, epochs=2, warmup=1, rois_per_image=8, proposals=(30, 20), precision='fp32', device='cpu')
EMPTY = dict(boxes=torch.zeros(0, 4), person_id=torch.zeros(0, dtype=torch.int64))


def equal(a, b): return all(torch.equal(v, b[k]) for k, v in a.items()) and a.keys() == b.keys()


@pytest.mark.parametrize('name', list_models())
def test_trains_resumes_and_searches(name, tmp_path):
    recipe = lambda **kw: make_recipe(name, SPEC, 'tiny', **FAST | kw)
    whole, history = run_recipe(recipe(), tmp_path / 'whole', progress=False)
    assert len(history) == 4 and all(torch.isfinite(torch.tensor(list(h.values()))).all() for h in history)
    scores = json.loads((tmp_path / 'whole/scores.json').read_text())[-1]
    assert 0 <= scores['mAP'] <= 1 and 0 <= scores['det_ap'] <= 1

    data = open_dataset(SPEC, 'train', progress=False)

    def build(seed):
        torch.manual_seed(seed)
        return build_model(name, data.num_ids, **recipe().net | dict(heights=whole.config['heights']))

    def stop(net): raise KeyError('stop here')
    with pytest.raises(KeyError): train(build(recipe().train.seed), data, recipe(checkpoint_every=1, evaluate_every=1.5).train, tmp_path / 'half', progress=False, evaluate=stop)
    second = build(99)                                                                  # what it begins with must not matter
    assert load_tree(tmp_path / 'half' / CHECKPOINT)['step'] == 2
    train(second, data, recipe().train, tmp_path / 'half', progress=False)
    assert equal(second.state_dict(), whole.state_dict()), 'a resumed run differs from an unbroken one'

    again = load_model(tmp_path / 'whole/model.safetensors').eval()
    assert equal(again.state_dict(), whole.state_dict()) and json.dumps(again.config) == json.dumps(whole.config)
    image = data[0][0]
    with torch.no_grad(): assert all(torch.equal(a, b) for a, b in zip(again([image])[0].values(), whole.eval()([image])[0].values()))

    other = build_model(name, 3, **recipe().net | dict(heights=whole.config['heights']))
    found = warm_start(other, tmp_path / 'whole/model.safetensors')
    assert len(found['taken']) > 20 and not found['missing'] and not found['unused']

    export(str(tmp_path / 'whole/model.safetensors'), str(tmp_path / 'trunk.safetensors'), half=True, trunk=True)
    trunk = load_model(tmp_path / 'trunk.safetensors')
    there = trunk.state_dict()
    assert trunk.num_ids == 1 and all(torch.allclose(v, there[k], atol=1e-2, rtol=1e-2) for k, v in again.state_dict().items() if k.startswith(('stem.', 'blocks.')))

    row = cost_table(dict(a=again), (96, 160), latency=False)[0]
    assert row['params'] > 1e4 and row['macs_scene'] > 1e6 and row['macs_person'] > 1e4


@pytest.mark.parametrize('id_loss', list_id_losses())
def test_every_identity_loss_tells_how_long_an_embedding_is(id_loss):
    net = build_model('oim', 3, [50., 80.], width=0.125, id_loss=id_loss, dim=24)
    assert net.id_loss.dim == 24 == net.eval()([torch.rand(3, 96, 160)])[0]['embeddings'].shape[1]


@pytest.mark.parametrize('name', list_models())
def test_scenes_without_people_or_identities(name):
    torch.manual_seed(0)
    net = build_model(name, 5, **{k: v for k, v in make_recipe(name, SPEC, 'tiny', **FAST).net.items() if k != 'heights'})
    image = torch.rand(3, 96, 160)
    nobody = dict(boxes=torch.tensor([[20., 20, 50, 90]]), person_id=torch.tensor([-1]))
    for targets in ([EMPTY, EMPTY], [nobody, EMPTY]):
        losses = net([image, image], targets)
        total = sum(losses.values())
        assert torch.isfinite(total)
        total.backward()
    net.eval()
    assert net.embed([image], [EMPTY['boxes']]).shape[0] == 0
    a, b = (net.embed([image], [nobody['boxes']], searched=s) for s in (False, True))
    assert a.shape == b.shape and torch.isfinite(a).all()


@pytest.mark.parametrize('name', list_models())
def test_takes_its_settings(name):
    assert {'width', 'rpn_channels', 'proposals', 'rois_per_image', 'score_threshold'} <= set(model_settings(name))
    with pytest.raises(ValueError, match='did you mean'): make_recipe(name, SPEC, 'tiny', rpn_chanels=3)


def test_a_stricter_overlap_finds_less():
    gallery, queries = (open_dataset(SPEC, s, progress=False) for s in ('gallery', 'query'))
    t = gallery_truth(gallery)
    off = t['gt_boxes'].copy()
    off[:, [0, 2]] -= (off[:, 2] - off[:, 0])[:, None] / 5                              # everyone is found, but for an IoU of 2/3
    feats = torch.eye(len(off)).numpy()
    found = dict(det_image=t['gt_image'], det_boxes=off, det_scores=torch.ones(len(off)).numpy(), det_feats=feats)
    loose, strict = (score_detections(found, feats[:len(queries)], gallery, queries, iou_threshold=i) for i in (0.5, 0.75))
    assert loose['det_ap'] > 0.9 and strict['det_ap'] < 0.1 and strict['mAP'] <= loose['mAP']


def test_what_a_system_cannot_do_is_said():
    small = dict(width=0.125, rpn_channels=16)
    student, clsa, e2e = (build_model(n, 5, **small) for n in ('hdl-student-fast', 'clsa', 'e2e-rss'))
    with pytest.raises(ValueError, match='nothing to compare'): HDL(clsa, student)
    with pytest.raises(ValueError, match='nothing to compare'): HDL(build_model('hdl-teacher', 5, **small, id_loss='none'), student)
    image, box = torch.rand(3, 96, 160), torch.tensor([20., 20, 50, 90])
    with pytest.raises(ValueError, match='give a query'): grad_cam(e2e, image, box)
    with pytest.raises(ValueError, match='leave the query out'): grad_cam(clsa, image, box, clsa.eval().embed([image], [box[None]])[0].detach())
    for net in (e2e, student):
        net.eval()
        with torch.no_grad(): query = net.embed([image], [box[None]])[0]
        heat = grad_cam(net, image, box, query)                                         # also where distances are compared
        assert heat.shape == (6, 10) and (heat >= 0).all()
    for name in ('oim', 'e2e-rss', 'attention-embedding', 'clsa', 'detector+idnet', 'qeeps'):
        with pytest.raises(ValueError, match="anchors='square': expected one of faster-rcnn, pedestrian"): build_model(name, 5, **small, anchors='square')
    with pytest.raises(ValueError, match='its table only'): make_recipe('oim', SPEC, 'tiny-crops', teacher='a.safetensors')


def pair(tmp_path, change):
    "A network, and a file with its weights, the first of which was changed."
    net = build_model('hdl-student-fast', 4, width=.125, rpn_channels=16)
    state = net.state_dict()
    first = next(k for k, v in state.items() if v.ndim > 1)
    torch.save(state | {first: change(state[first])}, tmp_path / 's.pth')
    return net, first


@pytest.mark.parametrize('change,message', [(lambda w: w.double() * 1e300, 'not finite'), (lambda w: w * torch.nan, 'not finite'), (lambda w: w.to(torch.complex64), 'complex'), (lambda w: w.to_sparse(), 'sparse'),
                                            (lambda w: w.to('meta'), 'empty'), (lambda w: torch.quantize_per_tensor(w, .1, 0, torch.qint8), 'quantised')])
def test_weights_are_plain_numbers(tmp_path, change, message):
    net, first = pair(tmp_path, change)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(ValueError, match=f's.pth: {first} is .*{message}|s.pth: not a file of weights'): warm_start(net, tmp_path / 's.pth')
    assert all((v == before[k]).all() for k, v in net.state_dict().items())


def test_other_types_are_taken(tmp_path):
    net, first = pair(tmp_path, lambda w: w.double())
    assert first in warm_start(net, tmp_path / 's.pth')['taken']


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no named pipes here')
@pytest.mark.parametrize('ending', ['pth', 'safetensors'])
def test_a_pipe_holds_no_weights(tmp_path, ending):
    "Reading it waited for ever."
    path = tmp_path / f'x.{ending}'
    os.mkfifo(path)
    with pytest.raises(ValueError, match='is a pipe, not a file'): read_state(path)
    with pytest.raises(ValueError, match='not a readable checkpoint'): load_tree(path)
    with pytest.raises(ValueError, match='no such file'): read_state(tmp_path / f'none.{ending}')


@pytest.mark.parametrize('own', ({}, dict(dim=1)))
def test_a_loss_of_a_user_need_not_tell_and_keeps_what_it_has(own, registries):
    class Mine(SoftmaxLoss):
        def __init__(self, dim, num_ids):
            super().__init__(dim, num_ids)
            del self.dim
            vars(self).update(own)
    register_id_loss('mine')(Mine)
    assert build_model('oim', 3, [50., 80.], width=0.125, id_loss='mine', dim=24).id_loss.dim == own.get('dim', 24)
