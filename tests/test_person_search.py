"""Switches of `PersonSearchNet`: which regions train what, one BatchNorm, no head, where a ResNet is cut, what a file keeps."""
import pytest
import torch
import torch.nn.functional as F

from person_search_nb.boxes import box_iou
from person_search_nb.backbones import from_torchvision, resnet_backbone
from person_search_nb.model_files import save_model
from person_search_nb.evaluation import protocol_of
from person_search_nb.warm_start import read_state, warm_start
from person_search_nb.models import build_model, load_model

SMALL = dict(width=0.125, rpn_channels=16, proposals=(40, 20))
TRUE = torch.tensor([[100., 40, 140, 140]])
PROPOSALS = TRUE + torch.tensor([[0., 0, 0, 0], [0, 8, 0, 8], [0, 20, 0, 20], [0, 45, 0, 45], [0, 58, 0, 58], [200, 0, 200, 0]])  # IoU 1, .85, .67, .38, .27, 0


def net(name='hdl-teacher', seed=0, **kw):
    torch.manual_seed(seed)
    return build_model(name, 4, **SMALL | kw)


def sampled(**kw):
    "{overlap with the true box: (positive, refined)} of the proposals that are drawn when all may be."
    of = net(**dict(rois_per_image=100) | kw).sample_rois([PROPOSALS], [dict(boxes=TRUE, person_id=torch.tensor([2]))])
    rows = zip(box_iou(of.flat, TRUE)[1:, 0].tolist(), of.positive[1:].tolist(), of.refined[1:].tolist())  # the first is the true box itself
    return {round(iou, 2): (p, r) for iou, p, r in rows}


def test_overlaps_decide_what_a_region_teaches():
    yes, no = (True, True), (False, False)
    assert sampled() == {1.: yes, .85: yes, .67: yes, .27: no, 0.: no}  # .38 is left out
    assert sampled(background_iou=.5) == {1.: yes, .85: yes, .67: yes, .38: no, .27: no, 0.: no}
    assert sampled(positive_iou=.75, background_iou=.75) == {1.: yes, .85: yes, .67: no, .38: no, .27: no, 0.: no}
    assert sampled(positive_iou=.75, background_iou=.75, box_iou=.5)[.67] == (False, True)  # wrong as a detection, near enough to be moved
    with pytest.raises(ValueError, match='low=0.75, high=0.5'): sampled(background_iou=.75)


def test_share_of_positive_regions():
    of = net(rois_per_image=4, positive_fraction=.25).sample_rois([PROPOSALS], [dict(boxes=TRUE, person_id=torch.tensor([2]))])
    assert of.positive.tolist() == [True, True, False, False]  # the true box, one proposal of four, both strangers there are


def test_near_misses_move_without_being_people():
    "A region of box_iou <= IoU < positive_iou has a goal for its box, and is background for the score."
    n = net(positive_iou=.75, background_iou=.75, box_iou=.5, rois_per_image=100).train()
    rois = n.sample_rois([PROPOSALS], [dict(boxes=TRUE, person_id=torch.tensor([2]))])
    near = (rois.refined & ~rois.positive).nonzero().squeeze(1)
    assert len(near) == 1
    out = n.head(n.trunk(torch.randn(1, 3, 200, 400)), rois.boxes)
    goals = n.roi_head.box_targets(out, rois)
    row = int(rois.refined[:near + 1].sum()) - 1
    moved = goals[row] * torch.tensor(n.roi_head.delta_scale)
    torch.testing.assert_close(moved, torch.tensor([0., -.2, 0., 0.]), atol=1e-5, rtol=0)  # up by 20 of its 100 px


def test_one_norm_is_read_by_embedding_score_and_box():
    one, two = net(one_norm=True).train(), net().train()
    maps = torch.randn(6, one.pooled_norm.num_features, 7, 7)
    pooled = one.attention[3](one.blocks[3](one.pooled_norm(maps)))[0].mean((2, 3))
    known = F.batch_norm(pooled, None, None, training=True)
    out = one.roi_head.read(maps)
    torch.testing.assert_close(out.embedding, known)
    torch.testing.assert_close(out.score, F.linear(known, one.score.weight, one.score.bias).squeeze(1))
    torch.testing.assert_close(out.deltas, F.linear(known, one.deltas.weight, one.deltas.bias))
    people = torch.tensor([True, False, True, True, False, False])
    torch.testing.assert_close(one.roi_head.read(maps, people).embedding, known[people])                # statistics of all regions
    assert not torch.allclose(two.roi_head.read(maps, people).embedding, two.roi_head.read(maps).embedding[people], atol=1e-3)  # of people only
    for wrong in (dict(dim=16), dict(norms=False)):
        with pytest.raises(ValueError, match='one_norm'): net(one_norm=True, **wrong)


def test_without_a_head_the_proposals_are_the_detections():
    n = net('detector', refine=False, score_threshold=0., nms_threshold=1., detections=20).eval()
    image = torch.rand(3, 96, 160)
    with torch.no_grad():
        x, sizes = n.batch([image])
        boxes, scores, _ = n.rpn(n.trunk(x), sizes)
        found = n([image])[0]
    assert len(found['boxes']) > 3
    torch.testing.assert_close(found['boxes'], boxes[0]); torch.testing.assert_close(found['scores'], scores[0])
    losses = n.train()([image], [dict(boxes=torch.tensor([[20., 10, 50, 80]]), person_id=torch.tensor([1]))])
    assert sorted(losses) == ['rpn_box', 'rpn_cls'] and not any(k.startswith(('score', 'deltas', 'blocks.3')) for k in n.state_dict())
    with pytest.raises(ValueError, match="id_loss='none'"): net(refine=False)


@pytest.mark.parametrize('cut', (1, 3, 6))
def test_a_cut_within_conv4_moves_units_and_changes_nothing(cut):
    torch.manual_seed(0)
    whole, other = resnet_backbone(50, 0.125, zero_last=False).eval(), resnet_backbone(50, 0.125, cut=cut).eval()
    theirs = lambda key: next(their + key[len(ours):] for their, ours in whole.names.items() if key.startswith(ours))
    state = {theirs(k): v for k, v in whole.state_dict().items()}
    other.load_state_dict(from_torchvision(state, other.names))
    x = torch.randn(2, 3, 64, 96)
    def run(net):
        y = net.stem(x)
        for block in net.blocks: y = block(y)
        return y
    with torch.no_grad(): torch.testing.assert_close(run(other), run(whole))
    assert len(other.blocks[2]) == cut and len(other.blocks[3]) == 3 + 6 - cut


def test_a_file_keeps_the_rules_it_is_judged_by(tmp_path):
    n = net(iou=.75, search_threshold=.1, min_height=50.)
    save_model(n, tmp_path/'m.safetensors')
    want = dict(score_threshold=.1, iou_threshold=.75, min_height=50.)
    assert protocol_of(load_model(tmp_path/'m.safetensors')) == want
    assert protocol_of(n, iou_threshold=.5) == want | dict(iou_threshold=.5)
    assert protocol_of(None) == dict(score_threshold=.5, iou_threshold=.5, min_height=0.)


@pytest.mark.parametrize('prefix', ['', 'module.', 'model.', 'backbone.body.', 'module.backbone.body.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.'])
def test_weights_start_a_trunk_whatever_stands_before_their_names(tmp_path, prefix):
    from torchvision.models import resnet18
    state = resnet18(weights=None).state_dict()
    more = {prefix.replace('backbone.body.', 'rpn.head.conv.weight'): torch.zeros(1)} if 'backbone' in prefix else {}
    torch.save(dict(state_dict={prefix + k: v for k, v in state.items()} | more, epoch=3), tmp_path/'w.pth')
    model = build_model('oim', 2, trunk='resnet18')
    assert len(warm_start(model, tmp_path/'w.pth')['taken']) == 120
    torch.testing.assert_close(model.stem[0].weight, state['conv1.weight'])


def test_a_file_without_weights_by_name(tmp_path):
    for what in ([1, 2], {1: torch.zeros(2)}, dict(a='text'), torch.zeros(3)):
        torch.save(what, tmp_path/'w.pth')
        with pytest.raises(ValueError, match='w.pth: holds no weights by name'): read_state(tmp_path/'w.pth')
    torch.save(dict(student=dict(w=torch.zeros(2)), teacher=dict(w=torch.zeros(2)), epoch=3), tmp_path/'w.pth')
    with pytest.raises(ValueError, match=r'but tables of them \(student, teacher\): give one of these'): read_state(tmp_path/'w.pth')


class _Evil:
    def __reduce__(self): return eval, ("open('RAN', 'w')",)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('protocol', [2, 4])
def test_a_file_of_python_objects_is_not_run_and_says_what_to_save(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    for what in (torch.nn.Linear(2, 2), dict(state_dict=_Evil())):
        torch.save(what, 'w.pth', pickle_protocol=protocol)
        with pytest.raises(ValueError, match='w.pth: .*Python objects.*save model.state_dict\\(\\) alone'): read_state('w.pth')
    assert not (tmp_path/'RAN').exists()


def test_weights_of_other_names_are_shown(tmp_path):
    torch.save({'encoder.conv1.weight': torch.zeros(3, 3)}, tmp_path/'w.pth')
    with pytest.raises(ValueError, match='its first is encoder.conv1.weight: rename them'): warm_start(build_model('oim', 2, trunk='resnet18', width=.125), tmp_path/'w.pth')


@pytest.mark.parametrize('boxes, why', [([[10., 20, 10, 60]], 'image 0, row 0'), ([[float('nan')] * 4], 'not finite'), ([[0., 0, 0, 0]], 'no area')])
def test_degenerate_targets_are_refused(boxes, why):
    for name in ('hdl-student-fast', 'qeeps', 'clsa'):
        n, target = net(name).train(), dict(boxes=torch.tensor(boxes), person_id=torch.tensor([0]))
        with pytest.raises(ValueError, match=why): n([torch.rand(3, 64, 96)] * 2, [target] * 2)


def test_types_of_targets_and_pictures():
    image, boxes, ids = torch.rand(3, 64, 96), torch.tensor([[10., 10, 40, 60]]), torch.tensor([1])
    def losses(b, i):
        n = net('hdl-student-fast').train()
        torch.manual_seed(0)
        return {k: v.item() for k, v in n([image] * 2, [dict(boxes=b, person_id=i)] * 2).items()}
    want = losses(boxes, ids)
    assert losses(boxes.double(), ids) == losses(boxes.long(), ids) == losses(boxes, ids.int()) == want
    with pytest.raises(TypeError, match='float tensors from 0 to 1'): net().eval()([(image * 255).byte()])
    with pytest.raises(ValueError, match='one identity for each box'): losses(boxes, torch.tensor([1, 2]))
